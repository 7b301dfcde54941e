"""Deployments: one ReplicaSet per template, scaled against each other within the limits of the rollout."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Events, Key, controller_of, set_status
from lateen.cluster.controllers.ownership import Plan, owned_by, owner, share, template_hash
from lateen.cluster.controllers.revisions import LAST_APPLIED
from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

AVAILABLE, GOING_ON, LATE = "NewReplicaSetAvailable", "ReplicaSetUpdated", "ProgressDeadlineExceeded"
NO_DEADLINE = 2**31 - 1
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"
REVISION = "deployment.kubernetes.io/revision"
DESIRED, MOST = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
_OWN = (REVISION, DESIRED, MOST, "deployment.kubernetes.io/revision-history", LAST_APPLIED)
"""Annotations that a Deployment does not pass on to its ReplicaSets."""


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
            await self._annotate(kinds.DEPLOYMENT, namespace, name, {REVISION: str(newest)})
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
        for name, notes in plan.annotate:
            await self._annotate(kinds.REPLICA_SET, namespace, name, notes)

    def _scaled(self, d: Json, name: str, before: int, after: int) -> None:
        if before == after:
            return
        way = "up" if after > before else "down"
        says = f"Scaled {way} replica set {name} from {before} to {after}"
        self._events.event(d, "Normal", "ScalingReplicaSet", says)

    async def _annotate(self, kind: Kind, namespace: str, name: str, annotations: dict[str, str]) -> None:
        await self._client.patch(kind, namespace, name, {"metadata": {"annotations": annotations}})


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
    for s in mine:
        notes = _notes(d, s is new, top + 1 if s is new and _revision(s) < top and old else 0)
        changed = {k: v for k, v in notes.items() if dig(s, "metadata", "annotations", k) != v}
        if changed and (s is new or _count(s)):
            plan.annotate.append((s["metadata"]["name"], changed))
    ready_s = int(spec.get("minReadySeconds") or 0)
    plan.change = [
        (s["metadata"]["name"], {"minReadySeconds": ready_s})
        for s in mine
        if int(s["spec"].get("minReadySeconds") or 0) != ready_s
    ]
    active = [s for s in mine if _count(s)]
    if not spec.get("paused"):
        _scale(plan, spec, want, new, old)
    elif len(active) <= 1:  # a rollout that is paused goes no further, but the Deployment can be scaled
        plan.scale += [(s["metadata"]["name"], want) for s in active or mine[-1:] if _count(s) != want]
    else:
        _proportionally(plan, d, active, want)
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
            "annotations": _notes(d, True, revision),
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template}
        | ({"minReadySeconds": d["spec"]["minReadySeconds"]} if d["spec"].get("minReadySeconds") else {}),
    }


def _notes(d: Json, newest: bool, revision: int = 0) -> dict[str, str]:
    """The annotations of a ReplicaSet; the newest one has those of the Deployment, for example its change-cause."""
    want = int(d["spec"].get("replicas", 1))
    own = {DESIRED: str(want), MOST: str(want + _surge(d["spec"], want))}
    passed = {k: v for k, v in (d["metadata"].get("annotations") or {}).items() if newest and k not in _OWN}
    return passed | own | ({REVISION: str(revision)} if revision else {})


def _surge(spec: Json, want: int) -> int:
    if dig(spec, "strategy", "type") == "Recreate":
        return 0
    return share(dig(spec, "strategy", "rollingUpdate", "maxSurge", default="25%"), want, up=True)


def _proportionally(plan: Plan, d: Json, active: list[Json], want: int) -> None:
    """Scale ReplicaSets in the middle of a rollout by their shares, as long as the Deployment's number has changed."""
    before = int(dig(active[-1], "metadata", "annotations", DESIRED, default=want))
    if before == want or not before:
        return
    room = want + _surge(d["spec"], want) if want else 0
    counts = {s["metadata"]["name"]: _count(s) for s in active}
    most = int(dig(active[-1], "metadata", "annotations", MOST, default=sum(counts.values())))
    scaled = {name: round(n * room / most) for name, n in counts.items()}
    largest = max(counts, key=lambda name: counts[name])
    scaled[largest] = max(0, scaled[largest] + room - sum(scaled.values())) if want > before else scaled[largest]
    plan.scale += [(name, n) for name, n in scaled.items() if n != counts[name]]


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
    surge = _surge(spec, want)
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
            "True" if enough else "False",
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        ),
        ("Progressing", *_progress(d, f'ReplicaSet "{name}"', complete, (updated, total, ready, available), now)),
    ]
    before = {c["type"]: c for c in dig(d, "status", "conditions", default=[])}
    out = []
    for kind, text, reason, message in conditions:
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
) -> tuple[str, str, str]:
    """Status, reason and message of the condition Progressing (as Kubernetes' ``syncRolloutStatus``)."""
    was = _condition(d)
    if d["spec"].get("paused") and was.get("reason") != LATE:
        return "Unknown", PAUSED, "Deployment is paused"
    if was.get("reason") == PAUSED:
        return "Unknown", RESUMED, "Deployment is resumed"
    updated, total, *_ = counts
    if complete or (was.get("reason") == AVAILABLE and updated == total):
        return "True", AVAILABLE, f"{who} has successfully progressed."
    late = was.get("reason") == LATE or (was.get("reason") in (GOING_ON, RESUMED) and _left_s(d, was, now) <= 0)
    if late and not _grows(d, *counts) and not _changed(d):
        return "False", LATE, f"{who} has timed out progressing."
    return "True", GOING_ON, f"{who} is progressing."


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
    if condition.get("reason") == RESUMED:
        return 0.05  # the next look says how it goes on
    if condition.get("reason") != GOING_ON or d["spec"].get("paused"):
        return None
    left = _left_s(d, condition, now)
    return max(left, 0.0) + 0.05 if left < NO_DEADLINE / 2 else None
