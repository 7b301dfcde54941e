"""ReplicaSets and ReplicationControllers: keep the requested number of active pods."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import conditions
from lateen.cluster.controllers.claims import claim
from lateen.cluster.controllers.loop import Events, Key, controller_of, ending, set_status
from lateen.cluster.controllers.ownership import Plan, is_active, is_ready, owned_by, pod_of, surplus, waits_s
from lateen.kit import selectors, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

FAILURE = "ReplicaFailure"
BURST = 50
"""Pods created in one step; the next step follows the events that they cause."""


class ReplicaSets:
    """``kind``: ReplicaSet or ReplicationController, which differ in their selectors only."""

    def __init__(self, client: Client, events: Events, kind: Kind = kinds.REPLICA_SET) -> None:
        self._client, self._events, self._kind = client, events, kind
        self.name = kind.kind.lower()
        self.adopts, self.watches = kind, (kind, kinds.POD)

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        return controller_of(self._kind, kind, old, new)

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        rs = await self._client.get(self._kind, namespace, name)
        if rs is None:
            return None
        pods, _ = await self._client.list(kinds.POD, namespace)
        selector = dig(rs, "spec", "selector", default={})
        if self._kind is kinds.REPLICATION_CONTROLLER:
            selector = {"matchLabels": selector}
        pods = await claim(self._client, rs, kinds.POD, [p for p in pods if is_active(p)], selector)
        now = times.now()
        plan = replica_set(rs, pods, now)
        found = conditions.without(dig(rs, "status", "conditions", default=[]), FAILURE)
        try:
            await self._carry_out(rs, plan)
        except KubeError as e:
            if ending(e):
                return None
            self._events.event(rs, "Warning", "FailedCreate", f"Error creating: {e.message}")
            said = {"type": FAILURE, "status": "True", "reason": "FailedCreate", "message": e.message}
            before = dig(rs, "status", "conditions", default=[])
            found = conditions.put(before, said | {"lastTransitionTime": times.stamp(now)})
            raise
        finally:
            await set_status(self._client, self._kind, rs, {**plan.status, "conditions": found or None})
        waiting = (waits_s(p, _min_ready(rs), now) for p in pods)
        return min((w for w in waiting if w), default=None)

    async def _carry_out(self, rs: Json, plan: Plan) -> None:
        namespace = rs["metadata"]["namespace"]
        for kind, obj in plan.create:
            made = await self._client.create(kind, obj)
            self._events.event(rs, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        for kind, name in plan.delete:
            if await self._client.delete(kind, namespace, name):
                self._events.event(rs, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")


def _min_ready(rs: Json) -> int:
    return int(dig(rs, "spec", "minReadySeconds", default=0))


def replica_set(rs: Json, pods: list[Json], now: datetime | None = None) -> Plan:
    """Bring the number of active pods to spec.replicas, unless it is being deleted."""
    plan = Plan()
    mine = [p for p in pods if owned_by(p, rs["metadata"]["uid"])]
    active = [p for p in mine if is_active(p)]
    want = len(active) if rs["metadata"].get("deletionTimestamp") else int(dig(rs, "spec", "replicas", default=1))
    for _ in range(min(want - len(active), BURST)):
        name = {"generateName": f"{rs['metadata']['name']}-"}
        plan.create.append((kinds.POD, pod_of(rs, rs["spec"]["template"], name)))
    plan.delete = [(kinds.POD, p["metadata"]["name"]) for p in surplus(active, len(active) - want)]
    ready = [p for p in active if is_ready(p)]
    available = [p for p in ready if waits_s(p, _min_ready(rs), now or times.now()) == 0.0]
    labels = dig(rs, "spec", "template", "metadata", "labels", default={})
    labelled = [p for p in active if selectors.subset(labels, dig(p, "metadata", "labels", default={}))]
    plan.status = {
        "replicas": len(active),
        "fullyLabeledReplicas": len(labelled) or None,
        "readyReplicas": len(ready) or None,
        "availableReplicas": len(available) or None,
        "observedGeneration": rs["metadata"].get("generation", 1),
    }
    return plan
