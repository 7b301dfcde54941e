"""ReplicaSets: keep the requested number of active pods."""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Events, Key, controller_of, set_status
from lateen.cluster.controllers.ownership import Plan, is_active, is_ready, owned_by, owner
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

BURST = 50
"""Pods created in one step; the next step follows the events that they cause."""


class ReplicaSets:
    name = "replicaset"
    watches = (kinds.REPLICA_SET, kinds.POD)

    def __init__(self, client: Client, events: Events) -> None:
        self._client, self._events = client, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        return controller_of(kinds.REPLICA_SET, kind, old, new)

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        rs = await self._client.get(kinds.REPLICA_SET, namespace, name)
        if rs is None:
            return
        pods, _ = await self._client.list(kinds.POD, namespace)
        plan = replica_set(rs, pods)
        conditions = []
        try:
            await self._carry_out(rs, plan)
        except KubeError as e:
            self._events.event(rs, "Warning", "FailedCreate", f"Error creating: {e.message}")
            conditions = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": e.message}]
            raise
        finally:
            await set_status(self._client, kinds.REPLICA_SET, rs, {**plan.status, "conditions": conditions})

    async def _carry_out(self, rs: Json, plan: Plan) -> None:
        namespace = rs["metadata"]["namespace"]
        for kind, obj in plan.create:
            made = await self._client.create(kind, obj)
            self._events.event(rs, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        for kind, name in plan.delete:
            if await self._client.delete(kind, namespace, name):
                self._events.event(rs, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")


def replica_set(rs: Json, pods: list[Json]) -> Plan:
    """Bring the number of active pods to spec.replicas."""
    plan = Plan()
    mine = [p for p in pods if owned_by(p, rs["metadata"]["uid"])]
    active = [p for p in mine if is_active(p)]
    want = 0 if rs["metadata"].get("deletionTimestamp") else int(dig(rs, "spec", "replicas", default=1))
    for _ in range(min(want - len(active), BURST)):
        template = jsons.copy(rs["spec"]["template"])
        meta = template.get("metadata") or {}
        plan.create.append(
            (
                kinds.POD,
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "spec": template["spec"],
                    "metadata": {
                        "generateName": f"{rs['metadata']['name']}-",
                        "namespace": rs["metadata"]["namespace"],
                        "labels": meta.get("labels") or {},
                        "annotations": meta.get("annotations") or {},
                        "ownerReferences": [owner(rs)],
                    },
                },
            )
        )
    newest_first = sorted(active, key=lambda p: str(p["metadata"]["creationTimestamp"]), reverse=True)
    surplus = sorted(newest_first, key=lambda p: (is_ready(p), dig(p, "spec", "nodeName", default="") != ""))
    plan.delete = [(kinds.POD, p["metadata"]["name"]) for p in surplus[: max(0, len(active) - want)]]
    ready = [p for p in active if is_ready(p)]
    plan.status = {
        "replicas": len(active),
        "fullyLabeledReplicas": len(active),
        "readyReplicas": len(ready),
        "availableReplicas": len(ready),
        "observedGeneration": rs["metadata"].get("generation", 1),
    }
    return plan
