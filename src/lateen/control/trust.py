"""Tells proxies which roots are trusted, by a ConfigMap in each namespace, and the API server, in the webhooks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Callable

from lateen.api import kinds
from lateen.ca import revocation
from lateen.ca.authority import ROOT_CONFIG_MAP, Told
from lateen.control.measures import Measures
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Key
from lateen.wire.revision import LABEL, Revision

log = logging.getLogger("lateen.control.trust")

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Seconds after which those are told again whom it was not possible to tell."""
AT_ONCE = 16
"""ConfigMaps that are written at the same time."""
LABELS = {"istio.io/config": "true"}


class Trust:
    """What is trusted is told by the leader, again and again until everybody knows it; namespaces that are new hear of
    it from every istiod."""

    def __init__(
        self,
        client: Client,
        revision: Revision,
        trusted: Callable[[], Told],
        spaces: Callable[[], list[Json] | None],
        told: Callable[[Told, str], None],
        measures: Measures | None = None,
    ) -> None:
        """``spaces``: the namespaces that this istiod has to tell; None if another one does. ``told``: called with
        what has been told, and with why somebody does not know it yet (else empty)."""
        self._measures = measures or Measures()
        self._client, self._revision, self._trusted = client, revision, trusted
        self._spaces, self._told = spaces, told
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Tell everybody what is trusted now."""
        self._woken.set()

    async def run(self) -> None:
        """Never returns."""
        wait = FIRST_WAIT_S
        while True:
            await self._woken.wait()
            self._woken.clear()
            trusted, spaces = self._trusted(), self._spaces()
            if spaces is None:
                continue
            problem = await self.everywhere(spaces)
            self._told(trusted, problem)
            if not problem:
                wait = FIRST_WAIT_S
                continue
            log.warning("%s (again in %.0f s)", problem, wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            self._woken.set()
            wait = min(wait * 2, LONGEST_WAIT_S)

    async def everywhere(self, namespaces: list[Json]) -> str:
        """Tell all proxies and the API server; the result says who could not be told, and why."""
        failures = [f for f in await asyncio.gather(*map(self.namespace, namespaces)) if f]
        try:
            await self.webhooks()
        except (KubeError, OSError) as e:
            failures.append(f"the API server (webhooks): {e}")
        more = f", and {len(failures) - 3} more" if len(failures) > 3 else ""
        return f"not everybody knows the root certificates: {'; '.join(failures[:3])}{more}" if failures else ""

    async def namespace(self, namespace: Json) -> str:
        """Write the roots to a namespace, for its proxies; the result says why that was not possible."""
        name = namespace["metadata"]["name"]
        if namespace["metadata"].get("deletionTimestamp"):
            return ""
        try:
            async with self._gate:
                for config_map, data in self._trusted().maps.items():
                    await self._write(name, config_map, data)
        except (KubeError, OSError) as e:
            if await self._ends(name):
                return ""
            self.wake()  # the leader's turn
            return f"namespace {name}: {e}"
        return ""

    async def _write(self, namespace: str, name: str, data: dict[str, str]) -> None:
        found = await self._client.get(kinds.CONFIG_MAP, namespace, name)
        before = (found or {}).get("data") or {}
        if found is None and data:
            meta = {"name": name, "namespace": namespace, "labels": LABELS}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "data": data, "metadata": meta}
            await self._client.create(kinds.CONFIG_MAP, body)
        elif before != data:
            change = {**dict.fromkeys(before), **data}
            await self._client.patch(kinds.CONFIG_MAP, namespace, name, {"data": change})

    async def _ends(self, name: str) -> bool:
        """Whether a namespace is being deleted, or gone."""
        try:
            found = await self._client.get(kinds.NAMESPACE, "", name)
        except (KubeError, OSError):
            return False
        return found is None or bool(found["metadata"].get("deletionTimestamp"))

    def altered(self, key: Key, new: Json | None) -> bool:
        """Whether somebody else has changed or deleted the roots of a namespace."""
        if key[1] not in (ROOT_CONFIG_MAP, revocation.CONFIG_MAP):
            return False
        return bool(dig(new or {}, "data", default={}) != self._trusted().maps[key[1]])

    async def webhooks(self) -> None:
        """Set the webhooks' CA bundle, so that the API server trusts them. Raises KubeError, OSError."""
        bundle = base64.b64encode(self._trusted().root.encode()).decode()
        for kind in (kinds.MUTATING_WEBHOOK, kinds.VALIDATING_WEBHOOK):
            found, _ = await self._client.list(
                kind, labels=f"{LABEL}={self._revision.name},app in (sidecar-injector,istiod)"
            )
            for config in found:
                hooks = [{**h, "clientConfig": {**h["clientConfig"], "caBundle": bundle}} for h in config["webhooks"]]
                if hooks != config["webhooks"]:
                    self._measures.patches.add(config["metadata"]["name"])
                    await self._client.patch(kind, "", config["metadata"]["name"], {"webhooks": hooks})
