"""HorizontalPodAutoscalers: scale workloads by their CPU and memory usage.

Follows k8s.io/kubernetes, pkg/controller/podautoscaler/horizontal.go, to the words of conditions and events.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import conditions, scale_targets, scaling
from lateen.cluster.controllers.demand import Measured, NoMetric, Wish, wish
from lateen.cluster.controllers.loop import Events, Key, set_status
from lateen.cluster.controllers.scale_targets import KubeError, NoScale
from lateen.kit import selectors, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

SYNC_S = 15.0
"""Seconds between two evaluations (kube-controller-manager's --horizontal-pod-autoscaler-sync-period)."""
ABLE, ACTIVE, BOUNDED = "AbleToScale", "ScalingActive", "ScalingLimited"
GOT = (ABLE, True, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
READY = ("ReadyForNewScale", "recommended size matches current size")
_RECENT = "recent recommendations were {0} than current one, applying the {1} recent recommendation"
STABILIZED = {
    True: ("ScaleUpStabilized", _RECENT.format("lower", "lowest")),
    False: ("ScaleDownStabilized", _RECENT.format("higher", "highest")),
}
"""Whether it would grow -> why it does not follow the latest measurement yet."""
LIMITED = {
    "": ("DesiredWithinRange", "the desired count is within the acceptable range"),
    "ScaleUpLimit": ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"),
    "ScaleDownLimit": ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"),
    "TooManyReplicas": ("TooManyReplicas", "the desired replica count is more than the maximum replica count"),
    "TooFewReplicas": ("TooFewReplicas", "the desired replica count is less than the minimum replica count"),
}
Usage = Callable[[], Awaitable[Measured]]
Said = tuple[str, bool, str, str]
"""Type, status, reason and message of a condition."""


class Autoscalers:
    name = "autoscaler"
    watches = (kinds.AUTOSCALER,)

    def __init__(self, client: Client, events: Events, usage: Usage) -> None:
        self._client, self._events, self._usage = client, events, usage
        self._past: dict[Key, scaling.Past] = {}
        self._selects: dict[Key, str] = {}
        """Autoscaler -> the selector of its target, so that two do not pull at the same pods."""

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:  # noqa: ARG002
        """A change of the status is the controller's own."""
        obj = new or old
        if obj is not None and (old or {}).get("spec") != (new or {}).get("spec"):
            yield obj["metadata"]["namespace"], obj["metadata"]["name"]

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        hpa = await self._client.get(kinds.AUTOSCALER, namespace, name)
        if hpa is None:
            self._past.pop(key, None)
            self._selects.pop(key, None)
            return None
        try:
            kind, scale = await scale_targets.find(self._client, namespace, hpa["spec"]["scaleTargetRef"])
        except (NoScale, KubeError) as e:
            says = f"the HPA controller was unable to get the target's current scale: {e}"
            await self._report(hpa, [(ABLE, False, "FailedGetScale", says)])
            self._warn(hpa, "FailedGetScale", str(e))
            return SYNC_S
        await self._follow(key, hpa, kind, scale)
        return SYNC_S

    async def _follow(self, key: Key, hpa: Json, kind: Kind, scale: Json) -> None:
        replicas = int(dig(scale, "spec", "replicas", default=0))
        # What there is counts as wished for: nothing is scaled down because the autoscaler is new.
        past = self._past.setdefault(key, scaling.Past([(time.monotonic(), replicas)]))
        said: list[Said] = [GOT]
        if replicas == 0:
            why = "scaling is disabled since the replica count of the target is zero"
            said.append((ACTIVE, False, "ScalingDisabled", why))
            await self._report(hpa, said, _status(replicas, replicas, None))
            return
        wanted, why = scaling.bound(hpa["spec"], replicas)
        current: list[Json] | None = None
        if not why:
            wishes, current = await self._wishes(key, hpa, scale, replicas, said)
            if not wishes:
                await self._report(hpa, said, _status(replicas, None, current))
                return
            best = max(wishes, key=lambda w: w.replicas)
            why = f"{best.what} above target" if best.replicas > replicas else "All metrics below target"
            wanted = _steadied(hpa, best.replicas, replicas, past, said)
        if wanted != replicas and not await self._rescale(hpa, kind, scale, wanted, why, said):
            await self._report(hpa, said, _status(replicas, None, current))
            return
        status = _status(replicas, wanted, current)
        if wanted != replicas:
            if dig(hpa, "spec", "behavior") is not None:
                past.changes.append((time.monotonic(), wanted - replicas))
            status["lastScaleTime"] = times.stamp()
        await self._report(hpa, said, status)

    async def _wishes(
        self, key: Key, hpa: Json, scale: Json, replicas: int, said: list[Said]
    ) -> tuple[list[Wish], list[Json] | None]:
        """What the metrics ask for, and the status of each, which is empty for one that cannot be computed. No wishes:
        nothing is to be done."""
        pods = await self._pods(key, hpa, str(dig(scale, "status", "selector", default="")), said)
        if pods is None:
            return [], None
        measured, now = await self._usage(), times.now()
        wishes, failures, current = list[Wish](), list[NoMetric](), list[Json]()
        for metric in hpa["spec"]["metrics"]:
            try:
                wishes.append(wish(metric, pods, measured, replicas, now))
                current.append(wishes[-1].current)
            except NoMetric as e:
                self._warn(hpa, e.reason, str(e))
                failures.append(e)
                current.append({"type": ""})
        if failures and (not wishes or max(w.replicas for w in wishes) < replicas):
            first = failures[0]
            said.append((ACTIVE, False, first.reason, f"the HPA was unable to compute the replica count: {first}"))
            count = f"invalid metrics ({len(failures)} invalid out of {len(current)})"
            self._warn(hpa, "FailedComputeMetricsReplicas", f"{count}, first error is: {first.of}: {first}")
            return [], current
        best = max(wishes, key=lambda w: w.replicas)
        says = f"the HPA was able to successfully calculate a replica count from {best.what}"
        said.append((ACTIVE, True, "ValidMetricFound", says))
        return wishes, current

    async def _pods(self, key: Key, hpa: Json, selector: str, said: list[Said]) -> list[Json] | None:
        """None where the scale selects nothing that is this autoscaler's alone."""
        if not selector:
            self._warn(hpa, "SelectorRequired", "selector is required")
            missing = "the HPA target's scale is missing a selector"
            said.append((ACTIVE, False, "InvalidSelector", missing))
            self._warn(hpa, "FailedComputeMetricsReplicas", "selector is required")
            return None
        namespace, _ = key
        self._selects[key] = selector
        pods, _ = await self._client.list(kinds.POD, namespace, selector)
        rivals = {k for k in self._selects if k[0] == namespace and k != key and self._shares(k, pods)}
        if rivals:
            shown = " ".join("/".join(k) for k in sorted({*rivals, key}))
            says = f"pods by selector {selector} are controlled by multiple HPAs: [{shown}]"
            said.append((ACTIVE, False, "AmbiguousSelector", says))
            self._warn(hpa, "AmbiguousSelector", says)
            self._warn(hpa, "FailedComputeMetricsReplicas", says)
            return None
        return pods

    def _shares(self, other: Key, pods: list[Json]) -> bool:
        selects = selectors.parse(self._selects[other])
        return any(selects(dig(p, "metadata", "labels", default={})) for p in pods)

    async def _rescale(self, hpa: Json, kind: Kind, scale: Json, wanted: int, why: str, said: list[Said]) -> bool:
        """Whether the API has taken it."""
        try:
            await scale_targets.resize(self._client, kind, scale, wanted)
        except KubeError as e:
            said.append(
                (ABLE, False, "FailedUpdateScale", f"the HPA controller was unable to update the target scale: {e}")
            )
            self._warn(hpa, "FailedRescale", f"New size: {wanted}; reason: {why}; error: {e}")
            return False
        says = f"the HPA controller was able to update the target scale to {wanted}"
        said.append((ABLE, True, "SucceededRescale", says))
        self._events.event(hpa, "Normal", "SuccessfulRescale", f"New size: {wanted}; reason: {why}")
        return True

    def _warn(self, hpa: Json, reason: str, message: str) -> None:
        self._events.event(hpa, "Warning", reason, message)

    async def _report(self, hpa: Json, said: list[Said], status: Json | None = None) -> None:
        """``said``: the conditions that are known anew; the last word on each counts. ``status``: the counts, None if
        they stay as they are."""
        found = dig(hpa, "status", "conditions", default=[])
        for kind, ok, reason, message in said:
            shown = {"type": kind, "status": str(ok), "reason": reason, "message": message}
            found = conditions.replace(found, shown | {"lastTransitionTime": times.stamp()})
        kept = {"desiredReplicas": dig(hpa, "status", "desiredReplicas", default=0)}
        await set_status(self._client, kinds.AUTOSCALER, hpa, kept | (status or {}) | {"conditions": found})


def _status(replicas: int, wanted: int | None, current: list[Json] | None) -> Json:
    """``wanted``: None where the number that was wanted before stays."""
    counts = {"currentReplicas": replicas, "currentMetrics": current}
    return counts if wanted is None else counts | {"desiredReplicas": wanted}


def _steadied(hpa: Json, wish: int, replicas: int, past: scaling.Past, said: list[Said]) -> int:
    """What windows, policies and bounds leave of a wish."""
    now = time.monotonic()
    past.forget(now)
    steady = scaling.stabilized(hpa, wish, replicas, past, now)
    wanted, limit = scaling.limited(hpa, steady, replicas, past, now)
    said.append((ABLE, True, *(READY if steady == wish else held(hpa, wish, replicas))))
    said.append((BOUNDED, bool(limit), *LIMITED[limit]))
    return wanted


def held(hpa: Json, wanted: int, replicas: int) -> tuple[str, str]:
    """Reason and message while the latest measurement is not followed yet. An autoscaler that says nothing of its
    behaviour follows the highest of all recent ones, whichever way it goes."""
    return STABILIZED[wanted >= replicas and dig(hpa, "spec", "behavior") is not None]
