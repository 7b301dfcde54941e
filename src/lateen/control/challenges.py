"""Publishes ACME challenges: stores them in a Secret, which every istiod reads, and waits for the proxies."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from lateen.api import kinds
from lateen.ca import serving
from lateen.control.acme import TLS, Challenge, Refused
from lateen.kit import times
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError, Unreachable
from lateen.mesh import challenges
from lateen.mesh.challenges import SECRET, Answer, Shown

log = logging.getLogger("lateen.control.challenges")

REACHED_S = 20.0
"""The longest wait for gateways, in seconds; an unresponsive one must not block all certificates."""
LOOK_S = 0.2
OTHERS_S = 1.0
"""Additional seconds for gateways that are connected to other replicas, which this istiod does not see."""
Entries = dict[str, str]


class Challenges:
    def __init__(self, client: Client, namespace: str, reached: Callable[[Entries], bool]) -> None:
        """``reached``: whether all gateways connected to this istiod answer exactly these entries."""
        self._client, self._namespace, self._reached = client, namespace, reached
        self._entries: Entries = {}
        self._writing = asyncio.Lock()
        self._hosts: dict[str, tuple[asyncio.Lock, int]] = {}
        """Hosts of current orders, with the number of orders that hold or await them"""

    @asynccontextmanager
    async def alone(self, hosts: Iterable[str]) -> AsyncIterator[None]:
        """Orders that share a host take turns: a gateway answers one challenge per host at a time."""
        async with AsyncExitStack() as stack:
            for host in sorted(set(hosts)):  # sorted, to avoid deadlocks
                lock, others = self._hosts.get(host, (asyncio.Lock(), 0))
                self._hosts[host] = lock, others + 1
                stack.callback(self._leave, host)
                await stack.enter_async_context(lock)
            yield

    def _leave(self, host: str) -> None:
        lock, others = self._hosts.pop(host)
        if others > 1:
            self._hosts[host] = lock, others - 1

    def add(self, found: Sequence[Challenge]) -> None:
        """Add challenges; the caller must hold their hosts (``alone``). Raises Refused if a server reuses a token."""
        added = [_entry(one) for one in found]
        if len({name for name, _ in added} - self._entries.keys()) < len(added):
            raise Refused("the server issued a token that is in use for another host")
        self._entries |= dict(added)

    async def show(self) -> None:
        """Returns once gateways answer. Raises KubeError, Unreachable."""
        await self._write()
        try:
            async with asyncio.timeout(REACHED_S):
                while not self._reached(self._entries):
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            log.warning("not all gateways have the responses to the ACME challenges")
        await asyncio.sleep(OTHERS_S)

    async def hide(self, found: Iterable[Challenge]) -> None:
        """Remove challenges; if that fails, they are removed with the next change."""
        for one in found:
            self._entries.pop(_name(one), None)
        try:
            await self._write()
        except (KubeError, Unreachable) as e:
            log.warning("obsolete challenge responses are still in Secret %s/%s: %s", self._namespace, SECRET, e)

    async def clear(self) -> None:
        """Remove leftovers of a former leader. Raises KubeError, Unreachable."""
        self._entries = {}
        if await self._client.get(kinds.SECRET, self._namespace, SECRET):
            await self._write()

    async def _write(self) -> None:
        async with self._writing:
            data = {k: base64.b64encode(v.encode()).decode() for k, v in self._entries.items()}
            meta: Json = {"name": SECRET, "namespace": self._namespace}
            body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": meta, "data": data}
            before = await self._client.get(kinds.SECRET, self._namespace, SECRET)
            if before is None:
                await self._client.create(kinds.SECRET, body)
            elif (before.get("data") or {}) != data:
                await self._client.update(kinds.SECRET, {**before, "data": data})


def _name(one: Challenge) -> str:
    return f"{challenges.TLS}{one.host}" if one.kind == TLS else f"{challenges.HTTP}{one.token}"


def _entry(one: Challenge) -> tuple[str, str]:
    if one.kind == TLS:
        made = serving.proof(one.host, one.proof, times.now())
        return challenges.entry(Shown(one.host, made.certificate, made.key))
    return challenges.entry(Answer(one.host, one.token, one.proof))
