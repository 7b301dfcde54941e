"""How many replicas a HorizontalPodAutoscaler wants. Pure; follows Kubernetes' replica calculator and behaviours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from lateen.cluster.controllers.ownership import is_ready
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json, dig

TOLERANCE = 0.1
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


def wish(metric: Json, pods: list[Json], used: Used, replicas: int) -> Wish:
    """Raises NoMetric."""
    key = "containerResource" if metric["type"] == "ContainerResource" else "resource"
    source = metric[key]
    name, target, only = str(source["name"]), source["target"], source.get("container")
    alive = [p for p in pods if not p["metadata"].get("deletionTimestamp") and dig(p, "status", "phase") == "Running"]
    found = {p["metadata"]["name"]: _used(p, used, name, only) for p in alive}
    measured = {n: v for n, v in found.items() if v is not None}
    ready = {p["metadata"]["name"] for p in alive if is_ready(p)}
    counted = {n: v for n, v in measured.items() if n in ready}
    if not counted:
        raise NoMetric(f"no metrics returned from resource metrics API: no ready pod of the target uses {name} yet")
    rests = [p["metadata"]["name"] for p in alive if p["metadata"]["name"] not in counted]
    average = sum(counted.values()) / len(counted)
    current: Json = {"averageValue": amounts.text(Decimal(math.ceil(average * 1000)) / 1000)}
    if target["type"] == "Utilization":
        asked = {p["metadata"]["name"]: _asked(p, name, only) for p in alive}
        share = sum(counted.values()) / sum(asked[n] for n in counted)
        current["averageUtilization"] = round(share * 100)
        wanted = float(target["averageUtilization"]) / 100
        weights = {n: asked[n] * wanted for n in asked}
        what = f"{name} resource utilization (percentage of request)"
    else:
        weights = {p["metadata"]["name"]: float(amounts.parse(target["averageValue"])) for p in alive}
        what = f"{name} resource"
    ratio = sum(counted.values()) / sum(weights[n] for n in counted)
    status = {"type": metric["type"], key: {k: v for k, v in source.items() if k != "target"} | {"current": current}}
    return Wish(_replicas(ratio, counted, rests, weights, replicas), status, what)


def _replicas(
    ratio: float, counted: dict[str, float], rests: list[str], weights: dict[str, float], replicas: int
) -> int:
    """Pods without a measurement count as idle when it would be scaled up, as on target when down."""
    if abs(ratio - 1) <= TOLERANCE:
        return replicas
    if not rests:
        return math.ceil(ratio * len(counted))
    total = sum(counted.values()) + (0.0 if ratio > 1 else sum(weights[n] for n in rests))
    adjusted = total / sum(weights[n] for n in [*counted, *rests])
    if abs(adjusted - 1) <= TOLERANCE or (adjusted > 1) != (ratio > 1):
        return replicas
    wanted = math.ceil(adjusted * (len(counted) + len(rests)))
    return max(wanted, replicas) if ratio > 1 else min(wanted, replicas)


def _used(pod: Json, used: Used, name: str, only: str | None) -> float | None:
    found = used.get((pod["metadata"]["namespace"], pod["metadata"]["name"]))
    if not found or (only and only not in found):
        return None
    return float(sum(value[0 if name == "cpu" else 1] for c, value in found.items() if not only or c == only))


def _asked(pod: Json, name: str, only: str | None) -> float:
    total = 0.0
    for container in pod["spec"]["containers"]:
        if only and container["name"] != only:
            continue
        resources = container.get("resources") or {}
        request = dig(resources, "requests", name) or dig(resources, "limits", name)
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
    spec, behavior = hpa["spec"], dig(hpa, "spec", "behavior", default={})
    up, down = {**UP, **(behavior.get("scaleUp") or {})}, {**DOWN, **(behavior.get("scaleDown") or {})}
    past.wishes.append((now, wanted))
    windows = (int(rules["stabilizationWindowSeconds"]) for rules in (up, down))
    rising, falling = ([wanted, *(w for at, w in past.wishes if now - at < window)] for window in windows)
    lowest, highest = min(rising), max(falling)
    steady = lowest if replicas < lowest else min(replicas, highest)
    limit = ""
    if steady > replicas:
        most = _limit(up, replicas, past, now, 1)
        steady, limit = min(steady, most), "ScaleUpLimit" if most < steady else ""
    elif steady < replicas:
        least = _limit(down, replicas, past, now, -1)
        steady, limit = max(steady, least), "ScaleDownLimit" if least > steady else ""
    bounded = min(max(steady, int(spec.get("minReplicas") or 1)), int(spec["maxReplicas"]))
    if bounded != steady:
        limit = "TooManyReplicas" if bounded < steady else "TooFewReplicas"
    return bounded, limit


def _limit(rules: Json, replicas: int, past: Past, now: float, sign: int) -> int:
    """The limit that the policies set: ``sign`` is 1 for up, -1 for down."""
    if rules["selectPolicy"] == "Disabled":
        return replicas
    found = []
    for policy in rules["policies"]:
        done = sum(c for at, c in past.changes if now - at <= int(policy["periodSeconds"]) and c * sign > 0)
        start, value = replicas - done, int(policy["value"])
        if policy["type"] == "Pods":
            found.append(start + sign * value)
        else:
            part = start * (1 + sign * value / 100)
            found.append(math.ceil(part) if sign > 0 else math.floor(part))
    far = max if (rules["selectPolicy"] == "Max") == (sign > 0) else min
    return max(0, far(found))
