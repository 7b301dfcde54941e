"""HorizontalPodAutoscalers: scale workloads by their CPU and memory usage."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import scaling
from lateen.cluster.controllers.loop import Events, Key, set_status
from lateen.kit import selectors, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

SYNC_S = 15.0
"""Seconds between two evaluations (kube-controller-manager's --horizontal-pod-autoscaler-sync-period)."""
TARGETS = (kinds.DEPLOYMENT, kinds.STATEFUL_SET, kinds.REPLICA_SET, kinds.REPLICATION_CONTROLLER)
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
NOT_SERVED = "the server could not find the requested resource"
"""What is said of a kind that has no scale."""
Usage = Callable[[], Awaitable[scaling.Used]]


class Autoscalers:
    name = "autoscaler"
    watches = (kinds.AUTOSCALER,)

    def __init__(self, client: Client, events: Events, usage: Usage) -> None:
        self._client, self._events, self._usage = client, events, usage
        self._past: dict[Key, scaling.Past] = {}

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
            return None
        ref = hpa["spec"]["scaleTargetRef"]
        kind = next((k for k in TARGETS if (k.kind, k.api_version) == (ref["kind"], ref.get("apiVersion", ""))), None)
        target = await self._client.get(kind, namespace, ref["name"]) if kind else None
        if kind is None or target is None:
            group = ref.get("apiVersion", "").partition("/")[0]
            why = f'{kind.plural}.{group} "{ref["name"]}" not found' if kind else NOT_SERVED
            says = f"the HPA controller was unable to get the target's current scale: {why}"
            await self._report(hpa, [("AbleToScale", False, "FailedGetScale", says)], None)
            self._events.event(hpa, "Warning", "FailedGetScale", why)
            return SYNC_S
        await self._scale(key, hpa, kind, target)
        return SYNC_S

    async def _scale(self, key: Key, hpa: Json, kind: Kind, target: Json) -> None:
        replicas = int(dig(target, "spec", "replicas", default=1))
        able = (
            "AbleToScale",
            True,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        )
        if replicas == 0:
            why = "scaling is disabled since the replica count of the target is zero"
            await self._report(hpa, [able, ("ScalingActive", False, "ScalingDisabled", why)], {"currentReplicas": 0})
            return
        within, why = scaling.bound(hpa["spec"], replicas)
        if why:
            await self._rescale(hpa, kind, target, within, why)
            changed = {"currentReplicas": replicas, "desiredReplicas": within, "lastScaleTime": times.stamp()}
            await self._report(hpa, [_scaled_to(within)], changed)
            return
        wishes, failures = await self._wishes(hpa, kind, target, replicas)
        count = len(hpa["spec"]["metrics"])
        says = (
            f"invalid metrics ({len(failures)} invalid out of {count}), first error is: {failures[0]}"
            if failures
            else ""
        )
        if failures and (not wishes or max(w.replicas for w in wishes) < replicas):
            self._events.event(hpa, "Warning", "FailedComputeMetricsReplicas", says)
            message = f"the HPA was unable to compute the replica count: {failures[0]}"
            failed = ("ScalingActive", False, "FailedGetResourceMetric", message)
            await self._report(hpa, [able, failed], {"currentReplicas": replicas, "desiredReplicas": replicas})
            return
        await self._follow(key, hpa, kind, target, wishes)

    async def _wishes(
        self, hpa: Json, kind: Kind, target: Json, replicas: int
    ) -> tuple[list[scaling.Wish], list[scaling.NoMetric]]:
        """What each metric asks for, and why others cannot be computed."""
        pods, used = await self._pods(kind, target), await self._usage()
        wishes, failures = list[scaling.Wish](), list[scaling.NoMetric]()
        for metric in hpa["spec"]["metrics"]:
            try:
                wishes.append(scaling.wish(metric, pods, used, replicas))
            except scaling.NoMetric as e:
                self._events.event(hpa, "Warning", "FailedGetResourceMetric", str(e))
                failures.append(e)
        return wishes, failures

    async def _follow(self, key: Key, hpa: Json, kind: Kind, target: Json, wishes: list[scaling.Wish]) -> None:
        replicas = int(dig(target, "spec", "replicas", default=1))
        best = max(wishes, key=lambda w: w.replicas)
        now = time.monotonic()
        # What there is counts as wished for: nothing is scaled down because the autoscaler is new.
        past = self._past.setdefault(key, scaling.Past([(now, replicas)]))
        past.forget(now)
        steady = scaling.stabilized(hpa, best.replicas, replicas, past, now)
        wanted, limit = scaling.limited(hpa, steady, replicas, past, now)
        able = ("AbleToScale", True, *(READY if steady == best.replicas else held(hpa, best.replicas, replicas)))
        status: Json = {"currentReplicas": replicas, "desiredReplicas": wanted}
        status["currentMetrics"] = [w.current for w in wishes]
        if wanted != replicas:
            past.changes.append((now, wanted - replicas))
            why = f"{best.what} above target" if best.replicas > replicas else "All metrics below target"
            await self._rescale(hpa, kind, target, wanted, why)
            status["lastScaleTime"] = times.stamp()
            able = _scaled_to(wanted)
        says = f"the HPA was able to successfully calculate a replica count from {best.what}"
        active = ("ScalingActive", True, "ValidMetricFound", says)
        await self._report(hpa, [able, active, ("ScalingLimited", bool(limit), *LIMITED[limit])], status)

    async def _rescale(self, hpa: Json, kind: Kind, target: Json, wanted: int, why: str) -> None:
        meta = target["metadata"]
        await self._client.patch(kind, meta["namespace"], meta["name"], {"spec": {"replicas": wanted}})
        self._events.event(hpa, "Normal", "SuccessfulRescale", f"New size: {wanted}; reason: {why}")

    async def _pods(self, kind: Kind, target: Json) -> list[Json]:
        found, _ = await self._client.list(kinds.POD, target["metadata"]["namespace"])
        selector = dig(target, "spec", "selector", default={})
        if kind is kinds.REPLICATION_CONTROLLER:
            selector = {"matchLabels": selector}
        return [p for p in found if selectors.matches(selector, dig(p, "metadata", "labels", default={}))]

    async def _report(self, hpa: Json, conditions: list[tuple[str, bool, str, str]], status: Json | None) -> None:
        """``conditions``: those that are known anew. ``status``: the counts, None if they stay as they are."""
        before = {c["type"]: c for c in dig(hpa, "status", "conditions", default=[])}
        made = dict(before)
        for kind, ok, reason, message in conditions:
            state, was = str(ok), before.get(kind)
            at = was["lastTransitionTime"] if was and was["status"] == state else times.stamp()
            shown = {"type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": at}
            made[kind] = shown
        counts = {"desiredReplicas": dig(hpa, "status", "desiredReplicas", default=0)} | (status or {})
        status = counts | {"conditions": list(made.values())}
        await set_status(self._client, kinds.AUTOSCALER, hpa, status)


def held(hpa: Json, wanted: int, replicas: int) -> tuple[str, str]:
    """Reason and message while the latest measurement is not followed yet. An autoscaler that says nothing of its
    behaviour follows the highest of all recent ones, whichever way it goes."""
    return STABILIZED[wanted >= replicas and dig(hpa, "spec", "behavior") is not None]


def _scaled_to(replicas: int) -> tuple[str, bool, str, str]:
    says = f"the HPA controller was able to update the target scale to {replicas}"
    return "AbleToScale", True, "SucceededRescale", says
