"""How many replicas a HorizontalPodAutoscaler wants. Pure; follows Kubernetes' replica calculator and behaviours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial

from lateen.cluster.controllers.ownership import is_ready
from lateen.cluster.rules import amounts
from lateen.kit import times
from lateen.kit.jsons import Json, dig

TOLERANCE = 0.1
FREE = 4
"""So many replicas are reached in one step, from whatever number, where nothing is said of the behaviour."""
UP: Json = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 4, "periodSeconds": 15},
    ],
}
DOWN: Json = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
Used = Mapping[tuple[str, str], Mapping[str, tuple[float, int]]]
"""(namespace, pod) -> container -> CPUs and bytes."""


class NoMetric(Exception):
    """A metric that cannot be computed; the message says why."""


@dataclass(frozen=True)
class Wish:
    """``replicas`` by one metric; ``current``: its MetricStatus; ``what``: how it is called in events."""

    replicas: int
    current: Json
    what: str


def wish(metric: Json, pods: list[Json], used: Used, replicas: int, now: datetime | None = None) -> Wish:
    """Raises NoMetric."""
    key = "containerResource" if metric["type"] == "ContainerResource" else "resource"
    source = metric[key]
    name, target, only = str(source["name"]), source["target"], source.get("container")
    found = {p["metadata"]["name"]: _used(p, used, name, only) for p in pods}
    groups = _grouped(pods, found, name, now or times.now())
    if not any(v is not None for v in found.values()):
        raise NoMetric(f"failed to get {name} utilization: no metrics returned from resource metrics API")
    counted = {n: v for n in groups.ready if (v := found[n]) is not None}
    if not counted:
        says = "did not receive metrics for targeted pods (pods might be unready)"
        raise NoMetric(f"failed to get {name} utilization: {says}")
    average = sum(counted.values()) / len(counted)
    current: Json = {"averageValue": amounts.text(Decimal(math.floor(average * 1000)) / 1000)}
    if target["type"] == "Utilization":
        asked, percent = {p["metadata"]["name"]: _asked(p, name, only) for p in pods}, int(target["averageUtilization"])
        share = partial(_share, asked, name)
        current["averageUtilization"] = math.floor(share(counted) * 100 + ROUNDING)
        wanted = _replicas(
            counted,
            groups,
            {n: asked[n] * max(100, percent) / 100 for n in groups.missing},
            lambda values: math.floor(share(values) * 100 + ROUNDING) / percent,
            replicas,
        )
        what = f"{name} resource utilization (percentage of request)"
    else:
        goal = float(amounts.parse(target["averageValue"]))
        fallback = dict.fromkeys(groups.missing, goal)
        wanted = _replicas(
            counted, groups, fallback, lambda values: sum(values.values()) / len(values) / goal, replicas
        )
        what = f"{name} resource"
    status = {"type": metric["type"], key: {k: v for k, v in source.items() if k != "target"} | {"current": current}}
    return Wish(wanted, status, what)


ROUNDING = 1e-9
"""What is added before a percentage is cut off: 0.1 of 0.1 is all of it."""
INITIAL_S, DELAY_S = 300.0, 30.0
"""Seconds after a pod's start in which its CPU counts only while it is ready; and after which one that was never ready
until then counts (kube-controller-manager's --horizontal-pod-autoscaler-cpu-initialization-period and
-initial-readiness-delay)."""


@dataclass
class Groups:
    """Names of pods: those that count, those that do not yet, and those of which nothing is known."""

    ready: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def _grouped(pods: list[Json], found: dict[str, float | None], name: str, now: datetime) -> Groups:
    out = Groups()
    for pod in pods:
        phase, called = dig(pod, "status", "phase"), pod["metadata"]["name"]
        if pod["metadata"].get("deletionTimestamp") or phase == "Failed":
            continue
        if phase == "Pending":
            out.unready.append(called)
        elif found[called] is None:
            out.missing.append(called)
        elif name == "cpu" and _begins(pod, now):
            out.unready.append(called)
        else:
            out.ready.append(called)
    return out


def _begins(pod: Json, now: datetime) -> bool:
    """Whether what it uses tells nothing yet: it is busy with its start, or has never been ready."""
    conditions, started = dig(pod, "status", "conditions", default=[]), dig(pod, "status", "startTime")
    ready: Json = next((c for c in conditions if c["type"] == "Ready"), {})
    if not ready or not started:
        return not is_ready(pod)
    since = times.parse(started)
    if (now - since).total_seconds() < INITIAL_S:
        return bool(ready["status"] == "False")
    changed = times.parse(ready.get("lastTransitionTime") or started)
    return bool(ready["status"] == "False" and (changed - since).total_seconds() < DELAY_S)


def _share(asked: dict[str, float], name: str, values: dict[str, float]) -> float:
    """Of what is requested. Raises NoMetric where nothing is, as Kubernetes' ``GetResourceUtilizationRatio`` does."""
    if not (total := sum(asked[n] for n in values)):
        raise NoMetric(f"failed to get {name} utilization: no metrics returned matched known pods")
    return sum(values.values()) / total


def _replicas(
    counted: dict[str, float],
    groups: Groups,
    fallback: dict[str, float],
    ratio_of: Callable[[dict[str, float]], float],
    replicas: int,
) -> int:
    """Pods that do not count yet are idle when it would be scaled up; of those that nothing is known of, too, but when
    it would be scaled down they use as much as ``fallback`` says."""
    ratio = ratio_of(counted)
    rush = bool(groups.unready) and ratio > 1
    if not rush and not groups.missing:
        return replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * len(groups.ready) - ROUNDING)
    values = dict(counted)
    if ratio != 1:
        values |= fallback if ratio < 1 else dict.fromkeys(groups.missing, 0.0)
    if rush:
        values |= dict.fromkeys(groups.unready, 0.0)
    again = ratio_of(values)
    if abs(again - 1) <= TOLERANCE or (ratio < 1 < again) or (again < 1 < ratio):
        return replicas
    wanted = math.ceil(again * len(values) - ROUNDING)
    return max(wanted, replicas) if again > 1 else min(wanted, replicas)


def _used(pod: Json, used: Used, name: str, only: str | None) -> float | None:
    found = used.get((pod["metadata"]["namespace"], pod["metadata"]["name"]))
    if not found or (only and only not in found):
        return None
    return float(sum(value[0 if name == "cpu" else 1] for c, value in found.items() if not only or c == only))


def _asked(pod: Json, name: str, only: str | None) -> float:
    """What its containers request, those of sidecars included."""
    total, spec = 0.0, pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    for container in [*spec["containers"], *sidecars]:
        if only and container["name"] != only:
            continue
        request = dig(container, "resources", "requests", name)
        if request is None:
            where = f"container {container['name']} of Pod {pod['metadata']['name']}"
            raise NoMetric(f"failed to get {name} utilization: missing request for {name} in {where}")
        total += float(amounts.parse(request))
    return total


@dataclass
class Past:
    """What an autoscaler remembers: (time, wish) and (time, change of replicas)."""

    wishes: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)

    def forget(self, now: float) -> None:
        """Drop what is older than the longest possible window (an hour)."""
        self.wishes = [w for w in self.wishes if now - w[0] <= 3600]
        self.changes = [c for c in self.changes if now - c[0] <= 3600]


def bound(spec: Json, replicas: int) -> tuple[int, str]:
    """The number of replicas within the bounds, and what is said of a number that is not (empty if it is): it needs no
    metrics to be corrected."""
    least, most = int(spec.get("minReplicas") or 1), int(spec["maxReplicas"])
    if replicas > most:
        return most, "Current number of replicas above Spec.MaxReplicas"
    if replicas < least:
        return least, "Current number of replicas below Spec.MinReplicas"
    return replicas, ""


def settle(hpa: Json, wanted: int, replicas: int, past: Past, now: float) -> tuple[int, str]:
    """The wish within stabilization windows, policies and bounds, and what has limited it (empty if nothing)."""
    return limited(hpa, stabilized(hpa, wanted, replicas, past, now), replicas, past, now)


def _rules(hpa: Json) -> tuple[Json, Json] | None:
    """For up and down; None for an autoscaler that says nothing of its behaviour."""
    behavior = dig(hpa, "spec", "behavior")
    if behavior is None:
        return None
    return {**UP, **(behavior.get("scaleUp") or {})}, {**DOWN, **(behavior.get("scaleDown") or {})}


def stabilized(hpa: Json, wanted: int, replicas: int, past: Past, now: float) -> int:
    """The most careful wish within the windows; this one is remembered."""
    past.wishes.append((now, wanted))
    up, down = _rules(hpa) or (UP, DOWN)
    windows = (int(rules["stabilizationWindowSeconds"]) for rules in (up, down))
    rising, falling = ([wanted, *(w for at, w in past.wishes if now - at < window)] for window in windows)
    if _rules(hpa) is None:
        return max(falling)
    lowest, highest = min(rising), max(falling)
    return lowest if replicas < lowest else min(replicas, highest)


def limited(hpa: Json, steady: int, replicas: int, past: Past, now: float) -> tuple[int, str]:
    """What policies and bounds leave of a wish, and which of them has limited it (empty if none has)."""
    rules = _rules(hpa)
    least, most = int(hpa["spec"].get("minReplicas") or 1), int(hpa["spec"]["maxReplicas"])
    if steady > replicas:
        fast = max(replicas, _limit(rules[0], replicas, past, now, 1)) if rules else max(2 * replicas, FREE)
        if steady > min(fast, most):
            return min(fast, most), "ScaleUpLimit" if fast < most else "TooManyReplicas"
    elif steady < replicas and rules:
        fast = min(replicas, _limit(rules[1], replicas, past, now, -1))
        if steady < max(fast, least):
            return max(fast, least), "ScaleDownLimit" if fast > least else "TooFewReplicas"
    if steady < least:
        return least, "TooFewReplicas"
    return (most, "TooManyReplicas") if steady > most else (steady, "")


def _limit(rules: Json, replicas: int, past: Past, now: float, sign: int) -> int:
    """The limit that the policies set: ``sign`` is 1 for up, -1 for down."""
    if rules["selectPolicy"] == "Disabled":
        return replicas
    found = []
    for policy in rules["policies"]:
        start = replicas - sum(c for at, c in past.changes if now - at < int(policy["periodSeconds"]))
        value = int(policy["value"])
        if policy["type"] == "Pods":
            found.append(start + sign * value)
        else:
            part = start * (1 + sign * value / 100)
            found.append(math.ceil(part) if sign > 0 else math.floor(part))
    far = max if (rules["selectPolicy"] == "Max") == (sign > 0) else min
    return max(0, far(found))
