"""Keeps the rules of NetworkPolicies in step with the API: policies, namespaces' labels, pods' addresses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.network import links, policies, services
from lateen.cluster.network.policies import Peer
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.kubelet.policies")

_RETRY_S = 1.0


class Policies:
    def __init__(self, client: Client, events: Recorder, neighbours: Sequence[str] = ()) -> None:
        """``neighbours``: addresses of other clusters."""
        self._events, self._neighbours = events, neighbours
        self._policies = Informer(client, kinds.NETWORK_POLICY, self._changed)
        self._namespaces = Informer(client, kinds.NAMESPACE, self._changed)
        self._pods = Informer(client, kinds.POD, self._pod_changed)
        self._connected: dict[str, Peer] = {}
        """By uid: pods that have an address, from before their first program until after their last one, whatever the
        API says of them. Their labels are the API's."""
        self._found: set[str] = set()
        """Of these, pods of an earlier node daemon that nobody has adopted yet."""
        self._dirty = asyncio.Event()
        self._rounds = asyncio.Condition()
        self._wanted, self._done = 0, 0
        self._installed: str | None = None
        self._sctp: bool | None = None
        self._told: set[tuple[str, str]] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for informer in (self._policies, self._namespaces, self._pods):
                group.create_task(informer.run(), name=f"policies informer {informer.kind.plural}")
            await asyncio.gather(*(i.synced.wait() for i in (self._policies, self._namespaces, self._pods)))
            await self._find()
            self._mark()
            while True:
                await self._dirty.wait()
                self._dirty.clear()
                await self._round(self._wanted)
                await asyncio.sleep(0.01)

    async def connected(self, pod: Json, address: str) -> None:
        """Returns when the rules that concern a pod's new address hold: its containers start afterwards."""
        await self._policies.synced.wait()
        self.adopted(pod, address)
        if not self._policies.objects:
            return
        number = self._mark()
        async with self._rounds:
            await self._rounds.wait_for(lambda: self._done >= number)

    def adopted(self, pod: Json, address: str) -> None:
        """A pod has kept its address over a restart of the node daemon."""
        uid = str(pod["metadata"]["uid"])
        self._found.discard(uid)
        self._connected[uid] = peer(pod, address)

    def disconnected(self, uid: str) -> None:
        self._found.discard(uid)
        if self._connected.pop(uid, None):
            self._mark()

    async def _find(self) -> None:
        """The rules that the former node daemon has left stay for the pods that it has left."""
        found = await links.in_use()
        for pod in list(self._pods.objects.values()):
            uid = str(pod["metadata"]["uid"])
            if uid not in self._connected and (at := found.get(uid)):
                self._connected.setdefault(uid, peer(pod, at))
                self._found.add(uid)

    # --- rounds ----------------------------------------------------------------------------------------------

    def _changed(self, _: Kind, __: Key, ___: Json | None, ____: Json | None) -> None:
        self._mark()

    def _pod_changed(self, _: Kind, __: Key, old: Json | None, new: Json | None) -> None:
        uid = str((old or new or {})["metadata"]["uid"])
        if new is None and uid in self._found:
            self.disconnected(uid)
        if uid in self._connected and (old is None or new is None or _labels(old) != _labels(new)):
            self._mark()

    def _mark(self) -> int:
        self._wanted += 1
        self._dirty.set()
        return self._wanted

    async def _round(self, number: int) -> None:
        found = list(self._policies.objects.values())
        try:
            await self._install(found)
        except (OSError, TimeoutError) as e:
            log.error("the rules of network policies could not be written: %s", e)
            for policy in found:
                self._tell(policy, "NotEnforced", f"the kernel has not taken the rules, nothing is blocked: {e}")
            asyncio.get_running_loop().call_later(_RETRY_S, self._dirty.set)
        async with self._rounds:
            self._done = number
            self._rounds.notify_all()

    async def _install(self, found: list[Json]) -> None:
        wants = [p for p in found if _speaks_sctp(p)]
        if wants and self._sctp is None:
            self._sctp = await services.takes("*mangle\n-A FORWARD -p sctp --dport 1 -j RETURN\nCOMMIT\n")
        for policy in wants if self._sctp is False else ():
            self._tell(policy, "SCTPUnavailable", "this kernel cannot tell ports of SCTP, so SCTP is blocked")
        labels = {name: _labels(ns) for (_, name), ns in self._namespaces.objects.items()}
        text = policies.rules(self._peers(), labels, found, self._sctp is not False, self._neighbours)
        if text != self._installed:
            self._installed = None
            await services.install(text)
            self._installed = text

    def _peers(self) -> list[Peer]:
        for pod in self._pods.objects.values():
            uid = str(pod["metadata"]["uid"])
            if (known := self._connected.get(uid)) is not None:
                self._connected[uid] = peer(pod, known.address)
        return sorted(self._connected.values(), key=lambda p: p.address)

    def _tell(self, policy: Json, reason: str, says: str) -> None:
        key = (str(policy["metadata"]["uid"]), reason)
        if key not in self._told:
            self._told.add(key)
            self._events.event(policy, "Warning", reason, says)


def peer(pod: Json, address: str) -> Peer:
    containers = [*dig(pod, "spec", "initContainers", default=[]), *dig(pod, "spec", "containers", default=[])]
    ports = [p for c in containers for p in c.get("ports") or []]
    named = ((str(p["name"]), str(p.get("protocol") or "TCP"), int(p["containerPort"])) for p in ports if p.get("name"))
    return Peer(str(pod["metadata"]["namespace"]), address, _labels(pod), tuple(named))


def _labels(obj: Json) -> dict[str, str]:
    return dict(dig(obj, "metadata", "labels", default={}))


def _speaks_sctp(policy: Json) -> bool:
    rules = [*dig(policy, "spec", "ingress", default=[]), *dig(policy, "spec", "egress", default=[])]
    return any(p.get("protocol") == "SCTP" for r in rules for p in r.get("ports") or [])
