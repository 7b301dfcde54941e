"""How fast a HorizontalPodAutoscaler follows what its metrics ask for: bounds, windows and policies. Pure; follows
k8s.io/kubernetes, pkg/controller/podautoscaler/horizontal.go."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lateen.kit.jsons import Json, dig

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
            found.append(math.ceil(part) if sign > 0 else int(part))
    far = max if (rules["selectPolicy"] == "Max") == (sign > 0) else min
    return max(0, far(found))
