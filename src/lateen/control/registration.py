"""Machines outside of the cluster: a proxy that names its WorkloadGroup becomes a WorkloadEntry while it is connected.

Source: https://istio.io/latest/docs/reference/config/networking/workload-group/ (auto-registration, probe). An entry is
deleted some time after its proxy has disconnected, so that a short interruption changes nothing; one left behind by an
earlier istiod is deleted if its proxy does not reconnect.
"""

from __future__ import annotations

import asyncio
import logging

from lateen.ads.server import Connection
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.networking import WorkloadGroup
from lateen.control.measures import Measures
from lateen.control.world import World
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable
from lateen.mesh import registry
from lateen.wire.node import NodeId

log = logging.getLogger("lateen.control.registration")

GROUP = "AUTO_REGISTER_GROUP"
NOTE = "istio.io/autoRegistrationGroup"
GRACE_S = 10.0
STALE_S = 30.0


def entry_name(group: str, address: str) -> str:
    return f"{group}-{address.replace('.', '-').replace(':', '-')}"


def entry(group: o.Resource[WorkloadGroup], address: str) -> Json:
    """The WorkloadEntry for one machine of a group."""
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
            "annotations": {**(meta.annotations if meta else {}), NOTE: ref.name},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


class Registrar:
    def __init__(self, client: Client, world: World, measures: Measures | None = None) -> None:
        self._measures = measures or Measures()
        self._client, self._world = client, world
        self._here: dict[tuple[str, str], int] = {}
        """(namespace, entry) -> connections"""

    def group(self, namespace: str, metadata: dict[str, str]) -> o.Resource[WorkloadGroup] | None:
        return self._world.objects.workload_groups.get((namespace, metadata.get(GROUP, "")))

    def runs(self, namespace: str, account: str) -> bool:
        """Whether machines of some WorkloadGroup run under that account."""
        groups = self._world.objects.workload_groups.items()
        mine = [g for (space, _), g in groups if space == namespace]
        return any(((g.spec.template and g.spec.template.service_account) or "default") == account for g in mine)

    def refuses(self, node: NodeId, metadata: dict[str, str], account: str) -> str | None:
        """Why a machine that names a group may not join; None if it may."""
        name = metadata.get(GROUP)
        if not name:
            return None
        found = self.group(node.namespace, metadata)
        if found is None:
            return f"there is no WorkloadGroup {node.namespace}/{name}; create it first"
        wanted = found.spec.template.service_account if found.spec.template else ""
        if wanted and wanted != account:
            return f"machines of the WorkloadGroup {name} run as {wanted}, not {account}"
        return None

    def workload(self, connection: Connection) -> o.Pod | None:
        """A connected machine's place in the mesh; None for pods, and until its entry exists."""
        name = connection.metadata.get(GROUP)
        if not name:
            return None
        key = (connection.node.namespace, entry_name(name, connection.node.address))
        found = self._world.objects.workload_entries.get(key)
        return registry.of_workload_entry(found) if found else None

    def connected(self, connection: Connection) -> None:
        group = self.group(connection.node.namespace, dict(connection.metadata))
        if group is not None:
            made = entry(group, connection.node.address)
            key = (group.ref.namespace, made["metadata"]["name"])
            self._here[key] = self._here.get(key, 0) + 1
            tasks.spawn(self._register(made), "registration")

    def disconnected(self, connection: Connection) -> None:
        name = connection.metadata.get(GROUP)
        if name:
            key = (connection.node.namespace, entry_name(name, connection.node.address))
            self._here[key] = self._here.get(key, 1) - 1
            self._measures.left.add()
            tasks.spawn(self._leave(key, GRACE_S), "registration")

    async def sweep(self) -> None:
        """Delete entries that an earlier istiod has created and whose machines do not reconnect."""
        await asyncio.sleep(STALE_S)
        for key, found in list(self._world.objects.workload_entries.items()):
            if dict(found.notes).get(NOTE) and not self._here.get(key):
                await self._leave(key, 0)

    async def _register(self, made: Json) -> None:
        meta = made["metadata"]
        try:
            await self._client.create(kinds.WORKLOAD_ENTRY, made)
        except KubeError as e:
            if e.code == 409:
                await self._again(made)
            else:
                self._measures.registration_errors.add()
                log.error("%s/%s cannot be registered: %s", meta["namespace"], meta["name"], e)
        except Unreachable as e:
            self._measures.registration_errors.add()
            log.error("%s/%s cannot be registered: %s", meta["namespace"], meta["name"], e)
        else:
            self._measures.registered.add()
            log.info("registered %s/%s", meta["namespace"], meta["name"])

    async def _again(self, made: Json) -> None:
        meta = made["metadata"]
        try:
            change = {"spec": made["spec"], "metadata": {"annotations": meta["annotations"]}}
            await self._client.patch(kinds.WORKLOAD_ENTRY, meta["namespace"], meta["name"], change)
            self._measures.reregistered.add()
        except (KubeError, Unreachable) as e:
            self._measures.registration_errors.add()
            log.error("%s/%s keeps its old settings: %s", meta["namespace"], meta["name"], e)

    async def _leave(self, key: tuple[str, str], grace: float) -> None:
        await asyncio.sleep(grace)
        if self._here.get(key):
            return
        self._here.pop(key, None)
        try:
            await self._client.delete(kinds.WORKLOAD_ENTRY, *key)
            self._measures.unregistered.add()
            log.info("%s/%s has left", *key)
        except (KubeError, Unreachable) as e:
            self._measures.registration_errors.add()
            log.error("%s/%s cannot be removed: %s", *key, e)

    async def health(self, namespace: str, name: str, healthy: bool, says: str) -> None:
        """Record the result of a machine's probe; an unhealthy one gets no requests. Raises KubeError, Unreachable."""
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
