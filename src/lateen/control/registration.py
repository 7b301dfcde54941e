"""Auto-registration of machines: a proxy that names its WorkloadGroup gets a WorkloadEntry while it is connected.

Source: https://istio.io/latest/docs/reference/config/networking/workload-group/ (auto-registration, probe). An entry is
deleted some time after its proxy has disconnected, so that short interruptions have no effect; an entry left behind by
an istiod that is gone is deleted unless its proxy reconnects. An entry that somebody deletes while its proxy is
connected is created again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from lateen.ads.peers import Connection
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.networking import WorkloadGroup
from lateen.control.measures import Measures
from lateen.control.world import World
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable
from lateen.mesh import registry
from lateen.wire.node import ROUTER, NodeId

log = logging.getLogger("lateen.control.registration")

GROUP = "AUTO_REGISTER_GROUP"
NOTE = "istio.io/autoRegistrationGroup"
HOLDER = "istio.io/workloadController"
"""The istiod that the machine is connected to (the name of its pod), as in Istio."""
GRACE_S = 10.0
STALE_S = 30.0


def _account(group: o.Resource[WorkloadGroup]) -> str:
    """The service account of a group's machines: that of their tokens (``x workload entry configure``), and what their
    callers expect."""
    return (group.spec.template and group.spec.template.service_account) or "default"


def entry_name(group: str, address: str) -> str:
    return f"{group}-{address.replace('.', '-').replace(':', '-')}"


def entry(group: o.Resource[WorkloadGroup], address: str, istiod: str) -> Json:
    """The WorkloadEntry for one machine of a group, which is connected to ``istiod``."""
    template, meta = group.spec.template, group.spec.metadata
    spec: Json = {"address": address, "labels": dict(template.labels if template else {})}
    spec["labels"] |= meta.labels if meta else {}
    if template is not None:
        values = {
            "ports": dict(template.ports),
            "network": template.network,
            "locality": template.locality,
            "weight": template.weight,
            "serviceAccount": template.service_account,
        }
        spec |= {k: v for k, v in values.items() if v}
    ref = group.ref
    owner = {"apiVersion": kinds.WORKLOAD_GROUP.api_version, "kind": ref.kind, "name": ref.name, "uid": group.uid}
    return {
        "apiVersion": kinds.WORKLOAD_ENTRY.api_version,
        "kind": "WorkloadEntry",
        "metadata": {
            "name": entry_name(ref.name, address),
            "namespace": ref.namespace,
            "labels": meta.labels if meta else {},
            "annotations": {**(meta.annotations if meta else {}), NOTE: ref.name, HOLDER: istiod},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


Key = tuple[str, str]
"""(namespace, name)"""


def holder(entry: Json) -> str:
    """The istiod that the machine of an entry is connected to."""
    return str(dig(entry, "metadata", "annotations", default={}).get(HOLDER, ""))


def _key(connection: Connection) -> Key | None:
    """The key of a connection's entry; None for pods."""
    name = connection.metadata.get(GROUP)
    return (connection.node.namespace, entry_name(name, connection.node.address)) if name else None


class Registrar:
    """An entry names the istiod that its machine is connected to. Only that one removes it, or the leader if that
    istiod is gone."""

    def __init__(
        self,
        client: Client,
        world: World,
        measures: Measures | None = None,
        me: str = "istiod",
        grace_s: float = GRACE_S,
    ) -> None:
        """``me``: the name of this istiod's pod."""
        self._measures = measures or Measures()
        self._client, self._world, self._me, self._grace_s = client, world, me, grace_s
        self._here: dict[Key, list[Connection]] = {}
        """The connections of each entry's machine; briefly more than one while it reconnects."""
        self._writing, self._again = set[Key](), set[Key]()
        self._stale: dict[Key, str] = {}
        """The entries that the last sweep found stale, and their holders."""
        self.leads: Callable[[], bool] = lambda: True
        """Whether this istiod removes the entries of istiods that are gone."""
        self.lives: Callable[[str], bool] = lambda _: False
        """Whether another istiod with that name exists."""

    # --- who may join --------------------------------------------------------------------------------------------

    def group(self, namespace: str, metadata: Mapping[str, str]) -> o.Resource[WorkloadGroup] | None:
        return self._world.objects.workload_groups.get((namespace, metadata.get(GROUP, "")))

    def admits(self, namespace: str, name: str, account: str) -> bool:
        """Whether a WorkloadGroup with that name and service account exists."""
        found = self.group(namespace, {GROUP: name})
        return found is not None and _account(found) == account

    def refuses(self, node: NodeId, metadata: Mapping[str, str], account: str) -> str | None:
        """Why a machine that names a group may not join; None if it may."""
        name = metadata.get(GROUP)
        if not name:
            return None
        found = self.group(node.namespace, metadata)
        if found is None:
            return f"there is no WorkloadGroup {node.namespace}/{name}; create it first"
        if _account(found) != account:
            return f"machines of the WorkloadGroup {name} run as {_account(found)}, not {account}"
        if node.kind == ROUTER:  # nobody says of a machine that it is a gateway, which gets Secrets of its namespace
            return f"machines of the WorkloadGroup {name} are no gateways: their proxies run as sidecar"
        return None

    def workload(self, connection: Connection) -> o.Pod | None:
        """A connected machine's workload; None for pods, and until its entry exists."""
        key = _key(connection)
        found = self._world.objects.workload_entries.get(key) if key else None
        return registry.of_workload_entry(found) if found else None

    # --- events ----------------------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        key = _key(connection)
        if key and self.group(connection.node.namespace, connection.metadata) is not None:
            self._here.setdefault(key, []).append(connection)
            self._register(key)

    def disconnected(self, connection: Connection) -> None:
        key = _key(connection)
        if key is None or connection not in (here := self._here.get(key, [])):
            return
        here.remove(connection)
        self._measures.left.add()
        if not here:
            del self._here[key]
            tasks.spawn(self._leave(key), "registration")

    def changed(self, kind: kinds.Kind, key: Key, new: Json | None) -> None:
        """Handle an event: an entry was deleted although its machine is connected, or a group was created (again)."""
        if kind is kinds.WORKLOAD_ENTRY and new is None and key in self._here:
            self._register(key)
        elif kind is kinds.WORKLOAD_GROUP and new is not None:
            for here, connections in self._here.items():
                mine = (here[0], connections[-1].metadata.get(GROUP)) == key
                if mine and here not in self._world.objects.workload_entries:
                    self._register(here)

    async def sweep(self, pause_s: float = STALE_S) -> None:
        """Delete entries whose machines have not reconnected: those that this istiod held before its restart, and, on
        the leader, those of istiods that are gone. Never returns."""
        while True:
            await asyncio.sleep(pause_s)
            before, self._stale = self._stale, self._unheld()
            for key, whose in self._stale.items():
                if before.get(key) == whose:
                    await self._remove(key, whose)

    def _unheld(self) -> dict[Key, str]:
        out: dict[Key, str] = {}
        for key, found in self._world.objects.workload_entries.items():
            notes = dict(found.notes)
            whose = notes.get(HOLDER, "")
            gone = whose == self._me or (self.leads() and not self.lives(whose))
            if notes.get(NOTE) and gone and key not in self._here:
                out[key] = whose
        return out

    # --- entries ---------------------------------------------------------------------------------------------------

    def _register(self, key: Key) -> None:
        """Write the entry, retrying as long as the machine is connected."""
        if key in self._writing:
            self._again.add(key)
        else:
            self._writing.add(key)
            tasks.spawn(self._registered(key), "registration")

    async def _registered(self, key: Key) -> None:
        wait = 1.0
        try:
            while connections := self._here.get(key):
                self._again.discard(key)
                group = self.group(key[0], connections[-1].metadata)
                if group is None:
                    return
                try:
                    await self._write(entry(group, connections[-1].node.address, self._me))
                except (KubeError, Unreachable) as e:
                    self._measures.registration_errors.add()
                    log.error("%s/%s cannot be registered: %s (again in %.0f s)", *key, e, wait)
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, 30.0)
                else:
                    if key not in self._again:
                        return
        finally:
            self._writing.discard(key)

    async def _write(self, made: Json) -> None:
        """Raises KubeError, Unreachable."""
        meta = made["metadata"]
        place = (meta["namespace"], meta["name"])
        try:
            await self._client.create(kinds.WORKLOAD_ENTRY, made)
            self._measures.registered.add()
            log.info("registered %s/%s", *place)
            return
        except KubeError as e:
            if e.code != 409:
                raise
        found = await self._client.get(kinds.WORKLOAD_ENTRY, *place) or {}
        if found and NOTE not in dig(found, "metadata", "annotations", default={}):
            log.error("%s/%s is not registered: a WorkloadEntry of that name exists that istiod did not create", *place)
            return
        change = {"spec": made["spec"], "metadata": {"annotations": meta["annotations"]}}
        await self._client.patch(kinds.WORKLOAD_ENTRY, *place, change)
        self._measures.reregistered.add()

    async def _leave(self, key: Key) -> None:
        await asyncio.sleep(self._grace_s)
        await self._remove(key, self._me)

    async def _remove(self, key: Key, whose: str) -> None:
        """Delete an entry, unless its machine is connected here, or to another istiod than ``whose``."""
        try:
            while key not in self._here:
                found = await self._client.get(kinds.WORKLOAD_ENTRY, *key)
                if found is None or holder(found) != whose:
                    return
                version = str(found["metadata"]["resourceVersion"])
                try:
                    await self._client.delete(kinds.WORKLOAD_ENTRY, *key, version=version)
                except KubeError as e:
                    if e.code != 409:  # changed in the meantime
                        raise
                else:
                    self._measures.unregistered.add()
                    log.info("%s/%s has left", *key)
                    return
        except (KubeError, Unreachable) as e:
            self._measures.registration_errors.add()
            log.error("%s/%s cannot be removed yet: %s", *key, e)

    async def health(self, namespace: str, name: str, healthy: bool, says: str) -> None:
        """Record the result of a machine's probe; unhealthy machines get no requests. Raises KubeError, Unreachable."""
        found = await self._client.get(kinds.WORKLOAD_ENTRY, namespace, name)
        if found is None:
            return
        status = "True" if healthy else "False"
        old: list[Json] = dig(found, "status", "conditions", default=[])
        was = next((c for c in old if c.get("type") == "Healthy"), {})
        if was.get("status") == status:
            return
        condition = {
            "type": "Healthy",
            "status": status,
            "reason": "Probe",
            "message": says[:500],
            "lastTransitionTime": times.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        rest = [c for c in old if c.get("type") != "Healthy"]
        change = {"status": {"conditions": [*rest, condition]}}
        await self._client.patch(kinds.WORKLOAD_ENTRY, namespace, name, change, "status")
