"""Deployments: one ReplicaSet per template, scaled against each other within the limits of the rollout.

Follows Kubernetes' deployment controller (``sync``, ``rolling``, ``recreate``); ``deployment_status`` says what is
reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.reading import is_finished
from lateen.cluster.controllers import deployment_status as status
from lateen.cluster.controllers.claims import claim
from lateen.cluster.controllers.deployment_status import available_of, room, spec_count
from lateen.cluster.controllers.loop import Events, Key, controller_of, set_status
from lateen.cluster.controllers.ownership import Plan, owned_by, owner, template_hash
from lateen.cluster.controllers.revisions import LAST_APPLIED
from lateen.kit import jsons, times
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

REVISION = "deployment.kubernetes.io/revision"
DESIRED, MOST = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
HASH = "pod-template-hash"
HISTORY = "deployment.kubernetes.io/revision-history"
"""The numbers that a ReplicaSet had before."""
_OWN = (REVISION, DESIRED, MOST, HISTORY, LAST_APPLIED)
"""Annotations that a Deployment does not pass on to its ReplicaSets."""


class Deployments:
    name = "deployment"
    adopts = kinds.DEPLOYMENT
    watches = (kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.POD)

    def __init__(self, client: Client, events: Events) -> None:
        self._client, self._events = client, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        """Of pods only their end, which a rollout that recreates them waits for."""
        if kind != kinds.POD:
            yield from controller_of(kinds.DEPLOYMENT, kind, old, new)
        elif new is None and old is not None and (key := dig(old, "metadata", "labels", HASH)):
            for namespace, name in controller_of(kinds.REPLICA_SET, kind, old, new):
                yield namespace, name.removesuffix(f"-{key}")

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        d = await self._client.get(kinds.DEPLOYMENT, namespace, name)
        if d is None:
            return None
        listed, _ = await self._client.list(kinds.REPLICA_SET, namespace)
        sets = await claim(self._client, d, kinds.REPLICA_SET, listed, dig(d, "spec", "selector"))
        now = times.now()
        plan = deployment(d, sets, now, await self._pods(d, sets))
        await self._carry_out(d, plan, sets)
        newest = max((_revision(s) for s in sets), default=0)
        if newest and dig(d, "metadata", "annotations", REVISION) != str(newest):
            await self._annotate(kinds.DEPLOYMENT, namespace, name, {REVISION: str(newest)})
        counted = {k: v or None for k, v in plan.status.items()}  # Kubernetes leaves zeros out
        await set_status(self._client, kinds.DEPLOYMENT, d, counted)
        return status.deadline_s(d, plan.status, now)

    async def _pods(self, d: Json, sets: list[Json]) -> list[Json]:
        """Those that have not ended, where they make a difference."""
        if dig(d, "spec", "strategy", "type") != "Recreate":
            return []
        found, _ = await self._client.list(kinds.POD, d["metadata"]["namespace"])
        uids = [s["metadata"]["uid"] for s in sets]
        return [p for p in found if not is_finished(p) and any(owned_by(p, uid) for uid in uids)]

    async def _carry_out(self, d: Json, plan: Plan, sets: list[Json]) -> None:
        namespace = d["metadata"]["namespace"]
        counts = {s["metadata"]["name"]: spec_count(s) for s in sets}
        for kind, obj in plan.create:
            await self._client.create(kind, obj)
            self._scaled(d, obj["metadata"]["name"], 0, obj["spec"]["replicas"])
        for name, replicas in plan.scale:
            await self._client.patch(kinds.REPLICA_SET, namespace, name, {"spec": {"replicas": replicas}})
            self._scaled(d, name, counts.get(name, 0), replicas)
            counts[name] = replicas
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


# --- one step --------------------------------------------------------------------------------------------------------


def deployment(d: Json, sets: list[Json], now: datetime | None = None, pods: list[Json] | None = None) -> Plan:
    """The next step. ``sets``: the Deployment's own; ``pods``: theirs that have not ended, if it recreates them."""
    plan = Plan()
    meta, spec = d["metadata"], d["spec"]
    mine = sorted(sets, key=lambda s: (str(s["metadata"].get("creationTimestamp")), s["metadata"]["name"]))
    want = int(spec.get("replicas", 1))
    template_id = template_hash(spec["template"])
    new = next((s for s in mine if dig(s, "metadata", "labels", HASH) == template_id), None)
    new = new or next((s for s in mine if _template(s) == spec["template"]), None)
    old = [s for s in mine if s is not new]
    at = now or times.now()
    if meta.get("deletionTimestamp"):
        plan.status = status.counted(d, want, new, mine, at)
        return plan
    scaled = any(_noted(s, DESIRED) not in (None, want) for s in _active(mine))
    if spec.get("paused") or scaled:
        _resize(plan, d, want, new, old)
        _annotations(plan, d, new, mine, scaled)
        if spec.get("paused"):
            _clean(plan, spec, old)
        plan.status = status.counted(d, want, new, mine, at)
        return plan
    going_on = _recreate if dig(spec, "strategy", "type") == "Recreate" else _roll
    going_on(plan, d, want, new, old, pods or [])
    _annotations(plan, d, new, mine)
    if new is not None and not plan.scale and status.complete(d, want):
        _clean(plan, spec, old)
    created = plan.create[0][1] if plan.create else None
    plan.status = status.rollout(d, want, new or created, mine, at, created is not None)
    return plan


def _template(s: Json) -> Json:
    """A ReplicaSet's template as its Deployment has it."""
    found: Json = jsons.copy(s["spec"]["template"])
    (dig(found, "metadata", "labels", default={})).pop(HASH, None)
    return found


def _active(sets: list[Json]) -> list[Json]:
    return [s for s in sets if spec_count(s)]


def _noted(s: Json, key: str) -> int | None:
    """The number in an annotation, which users may write, too; None if there is none."""
    text = str(dig(s, "metadata", "annotations", key, default=""))
    return int(text) if digits(text) else None


def _revision(s: Json) -> int:
    return _noted(s, REVISION) or 0


def _annotations(plan: Plan, d: Json, new: Json | None, mine: list[Json], scaled: bool = False) -> None:
    """The newest ReplicaSet follows the Deployment's annotations; those that are scaled know the wanted number."""
    top = max((_revision(s) for s in mine), default=0)
    changing = {name for name, _ in plan.scale}
    for s in mine:
        notes: dict[str, str] = {}
        if s is new:
            notes |= _passed(d)
            if _revision(s) < top:
                past = (dig(s, "metadata", "annotations", HISTORY), dig(s, "metadata", "annotations", REVISION))
                notes |= {REVISION: str(top + 1), HISTORY: ",".join(filter(None, past))}
        if s["metadata"]["name"] in changing or (scaled and spec_count(s)):
            notes |= _sizes(d)
        changed = {k: v for k, v in notes.items() if dig(s, "metadata", "annotations", k) != v}
        if changed:
            plan.annotate.append((s["metadata"]["name"], changed))
    ready_s = int(d["spec"].get("minReadySeconds") or 0)
    plan.change = [
        (s["metadata"]["name"], {"minReadySeconds": ready_s})
        for s in mine
        if int(s["spec"].get("minReadySeconds") or 0) != ready_s
    ]


def _new_set(d: Json, mine: list[Json], replicas: int) -> Json:
    template_id, top = template_hash(d["spec"]["template"]), max((_revision(s) for s in mine), default=0)
    template = jsons.copy(d["spec"]["template"])
    labels = {**(dig(template, "metadata", "labels", default={})), HASH: template_id}
    template.setdefault("metadata", {})["labels"] = labels
    selector = jsons.copy(d["spec"]["selector"])
    selector.setdefault("matchLabels", {})[HASH] = template_id
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{d['metadata']['name']}-{template_id}",
            "namespace": d["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner(d)],
            "annotations": _passed(d) | _sizes(d) | {REVISION: str(top + 1)},
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template}
        | ({"minReadySeconds": d["spec"]["minReadySeconds"]} if d["spec"].get("minReadySeconds") else {}),
    }


def _passed(d: Json) -> dict[str, str]:
    """The Deployment's annotations that its newest ReplicaSet has, too, for example its change-cause."""
    return {k: v for k, v in (d["metadata"].get("annotations") or {}).items() if k not in _OWN}


def _sizes(d: Json) -> dict[str, str]:
    want = int(d["spec"].get("replicas", 1))
    return {DESIRED: str(want), MOST: str(want + room(d["spec"], want)[0])}


def _to(plan: Plan, s: Json, replicas: int) -> None:
    if spec_count(s) != replicas:
        plan.scale.append((s["metadata"]["name"], replicas))


def _clean(plan: Plan, spec: Json, old: list[Json]) -> None:
    """Delete what has no pods, beyond the history's limit."""
    left = sorted((s for s in old if not s["metadata"].get("deletionTimestamp")), key=_revision)
    surplus = left[: max(0, len(left) - int(spec.get("revisionHistoryLimit", 10)))]
    idle = [s for s in surplus if not spec_count(s) and not dig(s, "status", "replicas", default=0)]
    plan.delete = [(kinds.REPLICA_SET, s["metadata"]["name"]) for s in idle]


def _resize(plan: Plan, d: Json, want: int, new: Json | None, old: list[Json]) -> None:
    """The Deployment's number has changed: the ReplicaSets follow it, each by its share in the middle of a rollout."""
    mine = [*old, *([new] if new else [])]
    active = _active(mine)
    if len(active) <= 1:
        for s in active or ([new] if new else old[-1:]):
            _to(plan, s, want)
        return
    if new is not None and spec_count(new) == want == available_of(new):
        for s in _active(old):
            _to(plan, s, 0)
        return
    surge, _ = room(d["spec"], want)
    allowed = want + surge if want else 0
    missing = allowed - sum(spec_count(s) for s in active)
    active.sort(key=lambda s: str(s["metadata"].get("creationTimestamp")), reverse=missing > 0)
    active.sort(key=spec_count, reverse=True)
    shares, added = {}, 0
    for s in active:
        part = _share(d, s, allowed) if want else -spec_count(s)
        left = missing - added
        shares[s["metadata"]["name"]] = min(part, left) if missing > 0 else max(part, left)
        added += shares[s["metadata"]["name"]]
    for i, s in enumerate(active):
        extra = missing - added if i == 0 else 0
        _to(plan, s, max(0, spec_count(s) + shares[s["metadata"]["name"]] + extra))


def _share(d: Json, s: Json, allowed: int) -> int:
    most = _noted(s, MOST) or int(dig(d, "status", "replicas", default=0))
    return int(spec_count(s) * allowed / most + 0.5) - spec_count(s) if most else 0


def _recreate(plan: Plan, d: Json, want: int, new: Json | None, old: list[Json], pods: list[Json]) -> None:
    """The old pods go, and new ones come when none is left, not even one that is about to end."""
    if going := _active(old):
        for s in going:
            _to(plan, s, 0)
        return
    if any(dig(s, "status", "replicas", default=0) for s in old):
        return
    if any(not (new and owned_by(p, new["metadata"]["uid"])) for p in pods):
        return
    if new is None:
        plan.create.append((kinds.REPLICA_SET, _new_set(d, old, want)))
    else:
        _to(plan, new, want)


def _roll(plan: Plan, d: Json, want: int, new: Json | None, old: list[Json], _: list[Json]) -> None:
    surge, missing = room(d["spec"], want)
    total = sum(spec_count(s) for s in old) + (spec_count(new) if new else 0)
    count = spec_count(new) if new else 0
    target = want if count > want else count + max(0, min(want + surge - total, want - count))
    if new is None:
        plan.create.append((kinds.REPLICA_SET, _new_set(d, old, target)))
        return
    if target != count:
        _to(plan, new, target)
        return
    least = want - missing
    spare = total - least - (count - available_of(new))
    if spare <= 0:
        return
    counts = {s["metadata"]["name"]: spec_count(s) for s in old}
    for s in old:  # pods that do not serve go first
        cut = min(spare, max(0, spec_count(s) - available_of(s)))
        counts[s["metadata"]["name"]] -= cut
        spare -= cut
    spare = sum(available_of(s) for s in (new, *old)) - least
    for s in old:
        cut = max(0, min(spare, counts[s["metadata"]["name"]]))
        counts[s["metadata"]["name"]] -= cut
        spare -= cut
    for s in old:
        _to(plan, s, counts[s["metadata"]["name"]])
