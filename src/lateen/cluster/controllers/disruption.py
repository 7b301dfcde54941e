"""Disruption budgets: how many pods may be evicted now (follows Kubernetes' disruption controller)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import conditions, scale_targets
from lateen.cluster.controllers.loop import Events, Key, Loop, set_status
from lateen.cluster.controllers.ownership import is_ready, share
from lateen.cluster.controllers.scale_targets import NoScale
from lateen.kit import selectors, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

WORKLOADS = (kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.STATEFUL_SET, kinds.REPLICATION_CONTROLLER)
ALLOWED = "DisruptionAllowed"
PENDING_S = 120.0
"""Seconds for which an eviction that has been granted counts although its pod is still there."""


class DisruptionBudgets:
    name = "disruption"
    watches = (kinds.POD_DISRUPTION_BUDGET, kinds.POD, *WORKLOADS)

    def __init__(self, client: Client, loop: Loop, events: Events) -> None:
        self._client, self._loop, self._events = client, loop, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        for obj in filter(None, (old, new)):
            meta = obj["metadata"]
            if kind == kinds.POD_DISRUPTION_BUDGET:
                yield meta["namespace"], meta["name"]
                continue
            for budget in self._loop.objects(kinds.POD_DISRUPTION_BUDGET, meta["namespace"]):
                labels = meta.get("labels") or {}
                if kind != kinds.POD or selectors.matches(dig(budget, "spec", "selector"), labels):
                    yield meta["namespace"], budget["metadata"]["name"]

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        budget = await self._client.get(kinds.POD_DISRUPTION_BUDGET, namespace, name)
        if budget is None or budget["metadata"].get("deletionTimestamp"):
            return None
        listed, _ = await self._client.list(kinds.POD, namespace)
        selector = dig(budget, "spec", "selector")
        pods = [p for p in listed if selectors.matches(selector, dig(p, "metadata", "labels", default={}))]
        now = times.now()
        try:
            scale, unmanaged = await self._scale(namespace, pods)
        except LookupError as e:
            if _needs_scale(budget):
                await self._failed(budget, str(e), now)
                return None
            scale, unmanaged = 0, []
        status = status_of(budget, pods, scale, now)
        if not pods:
            self._events.event(budget, "Normal", "NoPods", "No matching pods found")
        if unmanaged and _needs_scale(budget):
            says = f"Pods selected by this PodDisruptionBudget were found to be unmanaged: {', '.join(unmanaged)}"
            self._events.event(budget, "Warning", "UnmanagedPods", says)
        await set_status(self._client, kinds.POD_DISRUPTION_BUDGET, budget, status)
        return PENDING_S if any(v is not None for v in status["disruptedPods"].values()) else None

    async def _failed(self, budget: Json, why: str, now: datetime) -> None:
        says = f"Failed to calculate the number of expected pods: {why}"
        self._events.event(budget, "Warning", "CalculateExpectedPodCountFailed", says)
        mark = {"type": ALLOWED, "status": "False", "reason": "SyncFailed", "message": why}
        before = dig(budget, "status", "conditions", default=[])
        found = conditions.replace(before, mark | {"lastTransitionTime": times.stamp(now)})
        status = {"disruptionsAllowed": 0, "conditions": found}
        counts = dict.fromkeys(("currentHealthy", "desiredHealthy", "expectedPods"), 0)
        await set_status(
            self._client, kinds.POD_DISRUPTION_BUDGET, budget, counts | (budget.get("status") or {}) | status
        )

    async def _scale(self, namespace: str, pods: list[Json]) -> tuple[int, list[str]]:
        """How many pods the controllers of these pods want together, and the pods without one. Raises LookupError where
        a controller has no such number."""
        found: dict[str, int] = {}
        unmanaged = []
        for pod in pods:
            top = await self._controller(namespace, pod)
            if top is None:
                unmanaged.append(str(pod["metadata"]["name"]))
            else:
                found[top["metadata"]["uid"]] = int(dig(top, "spec", "replicas", default=1))
        return sum(found.values()), unmanaged

    async def _controller(self, namespace: str, pod: Json) -> Json | None:
        """The Deployment of its ReplicaSet, or whatever else keeps a number of such pods."""
        obj, found = pod, None
        for _ in range(2):
            ref = next((r for r in dig(obj, "metadata", "ownerReferences", default=[]) if r.get("controller")), None)
            kind = next((k for k in WORKLOADS if ref and k.kind == ref.get("kind")), None)
            if ref and kind is None and found is None:
                return await self._scaled(namespace, ref)
            if ref is None or kind is None:
                break
            above = await self._client.get(kind, namespace, str(ref["name"]))
            if above is None or above["metadata"]["uid"] != ref.get("uid"):
                break
            obj = found = above
        return found

    async def _scaled(self, namespace: str, ref: Json) -> Json | None:
        """Something else that a pod belongs to, which has a scale. Raises LookupError where its kind has none."""
        try:
            _, scale = await scale_targets.find(self._client, namespace, ref)
        except NoScale as e:
            if e.absent:
                return None
            says = f"{e.unscaled} does not implement the scale subresource" if e.unscaled else str(e)
            raise LookupError(says) from None
        return scale if scale["metadata"].get("uid") == ref.get("uid") else None


def _needs_scale(budget: Json) -> bool:
    spec = budget["spec"]
    return spec.get("maxUnavailable") is not None or str(spec.get("minAvailable", "")).endswith("%")


def status_of(budget: Json, pods: list[Json], scale: int, now: datetime) -> Json:
    """``scale``: how many pods the controllers of the selected ones want."""
    spec = budget["spec"]
    expected = scale if _needs_scale(budget) else len(pods)
    if spec.get("maxUnavailable") is not None:
        desired = max(0, expected - share(spec["maxUnavailable"], expected, up=True))
    else:
        desired = share(spec.get("minAvailable", 1), expected, up=True)
    alive = {p["metadata"]["name"]: p for p in pods if not p["metadata"].get("deletionTimestamp")}
    known = dig(budget, "status", "disruptedPods", default={})
    waiting = {
        name: at
        for name, at in known.items()
        if name in alive and (now - times.parse(str(at))).total_seconds() < PENDING_S
    }
    healthy = sum(is_ready(p) for name, p in alive.items() if name not in waiting)
    allowed = max(0, healthy - desired) if expected else 0
    return {
        "observedGeneration": budget["metadata"].get("generation", 1),
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "disruptedPods": {name: waiting.get(name) for name in known},
        "conditions": [_condition(budget, allowed, now)],
    }


def _condition(budget: Json, allowed: int, now: datetime) -> Json:
    state, reason = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    before = dig(budget, "status", "conditions", default=[])
    was: Json = next((c for c in before if c["type"] == ALLOWED), {})
    at = was["lastTransitionTime"] if was.get("status") == state else times.stamp(now)
    generation = budget["metadata"].get("generation", 1)
    return {
        "type": ALLOWED,
        "status": state,
        "reason": reason,
        "message": "",
        "observedGeneration": generation,
        "lastTransitionTime": at,
    }
