"""Deployments: one ReplicaSet per template, scaled against each other within the limits of the rollout."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Events, Key, controller_of, set_status
from lateen.cluster.controllers.ownership import Plan, owned_by, owner, share, template_hash
from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

AVAILABLE, GOING_ON, LATE = "NewReplicaSetAvailable", "ReplicaSetUpdated", "ProgressDeadlineExceeded"
NO_DEADLINE = 2**31 - 1
REVISION = "deployment.kubernetes.io/revision"


class Deployments:
    name = "deployment"
    watches = (kinds.DEPLOYMENT, kinds.REPLICA_SET)

    def __init__(self, client: Client, events: Events) -> None:
        self._client, self._events = client, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        return controller_of(kinds.DEPLOYMENT, kind, old, new)

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        d = await self._client.get(kinds.DEPLOYMENT, namespace, name)
        if d is None:
            return None
        sets, _ = await self._client.list(kinds.REPLICA_SET, namespace)
        now = times.now()
        plan = deployment(d, sets, now)
        await self._carry_out(d, plan, sets)
        newest = max((_revision(s) for s in sets if owned_by(s, d["metadata"]["uid"])), default=0)
        if newest and dig(d, "metadata", "annotations", REVISION) != str(newest):
            await self._annotate(kinds.DEPLOYMENT, namespace, name, str(newest))
        counted = {k: v or None for k, v in plan.status.items()}  # Kubernetes leaves zeros out
        await set_status(self._client, kinds.DEPLOYMENT, d, counted)
        return deadline_s(d, plan.status, now)

    async def _carry_out(self, d: Json, plan: Plan, sets: list[Json]) -> None:
        namespace = d["metadata"]["namespace"]
        counts = {s["metadata"]["name"]: _count(s) for s in sets}
        for kind, obj in plan.create:
            await self._client.create(kind, obj)
            self._scaled(d, obj["metadata"]["name"], 0, obj["spec"]["replicas"])
        for name, replicas in plan.scale:
            await self._client.patch(kinds.REPLICA_SET, namespace, name, {"spec": {"replicas": replicas}})
            self._scaled(d, name, counts.get(name, 0), replicas)
        for name, spec in plan.change:
            await self._client.patch(kinds.REPLICA_SET, namespace, name, {"spec": spec})
        for kind, name in plan.delete:
            await self._client.delete(kind, namespace, name)
        for name, revision in plan.revisions:
            await self._annotate(kinds.REPLICA_SET, namespace, name, revision)

    def _scaled(self, d: Json, name: str, before: int, after: int) -> None:
        if before == after:
            return
        way = "up" if after > before else "down"
        says = f"Scaled {way} replica set {name} from {before} to {after}"
        self._events.event(d, "Normal", "ScalingReplicaSet", says)

    async def _annotate(self, kind: Kind, namespace: str, name: str, revision: str) -> None:
        await self._client.patch(kind, namespace, name, {"metadata": {"annotations": {REVISION: revision}}})


def deployment(d: Json, sets: list[Json], now: datetime | None = None) -> Plan:
    """One step of the rollout: new ReplicaSet, scales within maxSurge and maxUnavailable, old ones cleaned up."""
    plan = Plan()
    meta, spec = d["metadata"], d["spec"]
    mine = sorted((s for s in sets if owned_by(s, meta["uid"])), key=lambda s: _revision(s))
    want = 0 if meta.get("deletionTimestamp") else int(spec.get("replicas", 1))
    template_id = template_hash(spec["template"])
    new = next((s for s in mine if dig(s, "metadata", "labels", "pod-template-hash") == template_id), None)
    old = [s for s in mine if s is not new]
    top = max([_revision(s) for s in mine], default=0)
    if new is None and not meta.get("deletionTimestamp") and not spec.get("paused"):
        plan.create.append((kinds.REPLICA_SET, _new_set(d, template_id, top + 1, want if not old else 0)))
    elif new is not None and _revision(new) < top and old:
        plan.revisions.append((new["metadata"]["name"], str(top + 1)))
    ready_s = int(spec.get("minReadySeconds") or 0)
    plan.change = [
        (s["metadata"]["name"], {"minReadySeconds": ready_s})
        for s in mine
        if int(s["spec"].get("minReadySeconds") or 0) != ready_s
    ]
    _scale(plan, spec, want, new, old)
    dead = [
        s for s in old if dig(s, "spec", "replicas", default=0) == 0 and dig(s, "status", "replicas", default=0) == 0
    ]
    keep = int(spec.get("revisionHistoryLimit", 10))
    plan.delete = [(kinds.REPLICA_SET, s["metadata"]["name"]) for s in dead[: max(0, len(dead) - keep)]]
    plan.status = _deployment_status(d, want, new, mine, now or times.now())
    return plan


def _revision(s: Json) -> int:
    return int(dig(s, "metadata", "annotations", REVISION, default="0"))


def _new_set(d: Json, template_id: str, revision: int, replicas: int) -> Json:
    template = jsons.copy(d["spec"]["template"])
    labels = {**(dig(template, "metadata", "labels", default={})), "pod-template-hash": template_id}
    template.setdefault("metadata", {})["labels"] = labels
    selector = jsons.copy(d["spec"]["selector"])
    selector.setdefault("matchLabels", {})["pod-template-hash"] = template_id
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{d['metadata']['name']}-{template_id}",
            "namespace": d["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner(d)],
            "annotations": {
                REVISION: str(revision),
                "deployment.kubernetes.io/desired-replicas": str(d["spec"].get("replicas", 1)),
            },
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template}
        | ({"minReadySeconds": d["spec"]["minReadySeconds"]} if d["spec"].get("minReadySeconds") else {}),
    }


def _count(s: Json) -> int:
    return int(dig(s, "spec", "replicas", default=0))


def _available(s: Json) -> int:
    return int(dig(s, "status", "availableReplicas", default=0))


def _scale(plan: Plan, spec: Json, want: int, new: Json | None, old: list[Json]) -> None:
    if new is None:
        if want == 0:
            plan.scale += [(s["metadata"]["name"], 0) for s in old if s["spec"].get("replicas", 0)]
        return
    olds = sum(_count(s) for s in old)
    if dig(spec, "strategy", "type") == "Recreate":
        if olds:
            plan.scale += [(s["metadata"]["name"], 0) for s in old if _count(s)]
        elif not any(dig(s, "status", "replicas", default=0) for s in old) and _count(new) != want:
            plan.scale.append((new["metadata"]["name"], want))
        return
    rolling = dig(spec, "strategy", "rollingUpdate", default={})
    surge = share(rolling.get("maxSurge", "25%"), want, up=True)
    unavailable = share(rolling.get("maxUnavailable", "25%"), want, up=False)
    if not surge and not unavailable:
        unavailable = 1
    target = min(want, max(_count(new), want + surge - olds)) if olds else want
    if target != _count(new):
        plan.scale.append((new["metadata"]["name"], target))
    if olds and _count(new) <= want:
        available = _available(new) + sum(min(_available(s), _count(s)) for s in old)
        spare = available - (want - unavailable)
        for s in old:  # unready old pods go first: they serve no traffic
            dead = max(0, _count(s) - _available(s))
            cut = min(_count(s), dead + max(0, min(spare, _available(s))))
            if cut:
                spare -= max(0, cut - dead)
                plan.scale.append((s["metadata"]["name"], _count(s) - cut))


def _deployment_status(d: Json, want: int, new: Json | None, mine: list[Json], now: datetime) -> Json:
    total = sum(dig(s, "status", "replicas", default=0) for s in mine)
    ready = sum(dig(s, "status", "readyReplicas", default=0) for s in mine)
    available = sum(_available(s) for s in mine)
    updated = dig(new, "status", "replicas", default=0) if new else 0
    rolling = dig(d, "spec", "strategy", "rollingUpdate", default={})
    enough = available >= want - share(rolling.get("maxUnavailable", "25%"), want, up=False)
    complete = new is not None and updated == want == available == total
    name = new["metadata"]["name"] if new else ""
    conditions = [
        (
            "Available",
            enough,
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        ),
        ("Progressing", *_progress(d, f'ReplicaSet "{name}"', complete, (updated, total, ready, available), now)),
    ]
    before = {c["type"]: c for c in dig(d, "status", "conditions", default=[])}
    out = []
    for kind, ok, reason, message in conditions:
        text = "True" if ok else "False"
        was = before.get(kind)
        same = was is not None and was["status"] == text and was["reason"] == reason
        if kind == "Progressing" and _grows(d, updated, total, ready, available):
            same = False
        at = times.stamp(now)
        out.append(
            {
                "type": kind,
                "status": text,
                "reason": reason,
                "message": message,
                "lastUpdateTime": was["lastUpdateTime"] if same and was else at,
                "lastTransitionTime": was["lastTransitionTime"] if was and was["status"] == text else at,
            }
        )
    return {
        "observedGeneration": d["metadata"].get("generation", 1),
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": available,
        "unavailableReplicas": max(0, want - available),
        "conditions": out,
    }


def _grows(d: Json, updated: int, total: int, ready: int, available: int) -> bool:
    """Whether the rollout has progressed since the last status."""
    was = d.get("status") or {}
    before = {k: int(was.get(f"{k}Replicas") or 0) for k in ("updated", "ready", "available")}
    fewer_old = total - updated < int(was.get("replicas") or 0) - before["updated"]
    more = updated > before["updated"] or ready > before["ready"] or available > before["available"]
    return more or fewer_old


def _progress(
    d: Json, who: str, complete: bool, counts: tuple[int, int, int, int], now: datetime
) -> tuple[bool, str, str]:
    """Status, reason and message of the condition Progressing (as Kubernetes' ``syncRolloutStatus``)."""
    was = _condition(d)
    updated, total, *_ = counts
    if complete or (was.get("reason") == AVAILABLE and updated == total):
        return True, AVAILABLE, f"{who} has successfully progressed."
    late = was.get("reason") == LATE or (was.get("reason") == GOING_ON and _left_s(d, was, now) <= 0)
    if late and not _grows(d, *counts) and not _changed(d):
        return False, LATE, f"{who} has timed out progressing."
    return True, GOING_ON, f"{who} is progressing."


def _changed(d: Json) -> bool:
    return bool(d["metadata"].get("generation", 1) != dig(d, "status", "observedGeneration", default=0))


def _condition(d: Json) -> Json:
    found = dig(d, "status", "conditions", default=[])
    out: Json = next((c for c in found if c["type"] == "Progressing"), {})
    return out


def _left_s(d: Json, condition: Json, now: datetime) -> float:
    limit = float(dig(d, "spec", "progressDeadlineSeconds", default=NO_DEADLINE))
    return limit - (now - times.parse(condition["lastUpdateTime"])).total_seconds()


def deadline_s(d: Json, status: Json, now: datetime) -> float | None:
    """Seconds until a rollout that is going on counts as failed; None if there is nothing to wait for."""
    condition = _condition({"status": status})
    if condition.get("reason") != GOING_ON or d["spec"].get("paused"):
        return None
    left = _left_s(d, condition, now)
    return max(left, 0.0) + 0.05 if left < NO_DEADLINE / 2 else None
