"""How many replicas the use of pods asks for. Pure; follows Kubernetes' replica calculator, in its whole thousandths:
what is cut off there is cut off here.

Source: k8s.io/kubernetes, pkg/controller/podautoscaler (replica_calculator.go, metrics/utilization.go).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Protocol

from lateen.cluster.rules import amounts
from lateen.kit import times
from lateen.kit.jsons import Json, dig

TOLERANCE = 0.1
INITIAL_S, DELAY_S = 300.0, 30.0
"""Seconds after a pod's start in which its CPU counts only while it is ready; and after which one that was never ready
until then counts (kube-controller-manager's --horizontal-pod-autoscaler-cpu-initialization-period and
-initial-readiness-delay)."""
Values = dict[str, int]
"""Thousandths (of CPUs, of bytes) by the name of a pod."""


class Measured(Protocol):
    """What pods use: (namespace, pod) -> container -> CPUs and bytes; ``window``: seconds that CPUs are the average
    of."""

    @property
    def containers(self) -> Mapping[tuple[str, str], Mapping[str, tuple[float, int]]]: ...
    @property
    def window(self) -> float: ...


class NoMetric(Exception):
    """A metric that cannot be computed. ``reason`` is that of the event and the condition, the message says why; what
    is said of the metric among others begins with ``of``."""

    def __init__(self, message: str, reason: str, of: str) -> None:
        super().__init__(message)
        self.reason, self.of = reason, of


class _Unknown(Exception):
    """Why there is no number."""


@dataclass(frozen=True)
class Wish:
    """``replicas`` by one metric; ``current``: its MetricStatus; ``what``: how it is called in events."""

    replicas: int
    current: Json
    what: str


class _Share:
    """A target in percent of what is requested."""

    def __init__(self, pods: Iterable[Json], name: str, only: str | None, percent: int) -> None:
        """Raises _Unknown."""
        self._asked = {p["metadata"]["name"]: _asked(p, name, only) for p in pods}
        self._percent = percent

    def ratio(self, values: Values) -> tuple[float, int, Json]:
        """How many times the target is used, the average, and the status. Raises _Unknown."""
        known = [n for n in values if n in self._asked]
        used, asked = sum(values[n] for n in known), sum(self._asked[n] for n in known)
        if not asked:
            raise _Unknown("no metrics returned matched known pods")
        percent = used * 100 // asked
        return percent / self._percent, used // len(known), {"averageUtilization": percent}

    def missing(self, pod: str) -> int:
        """What a pod is taken to use that nothing is known of, before it would be scaled down."""
        return self._asked[pod] * max(100, self._percent) // 100


class _Average:
    """A target for each pod."""

    def __init__(self, goal: int) -> None:
        self._goal = goal

    def ratio(self, values: Values) -> tuple[float, int, Json]:
        average = sum(values.values()) // len(values)
        return average / self._goal, average, {}

    def missing(self, _: str) -> int:
        return self._goal


def wish(metric: Json, pods: list[Json], measured: Measured, replicas: int, now: datetime) -> Wish:
    """``pods``: those that the target's scale selects. Raises NoMetric."""
    kind = str(metric["type"])
    key = "containerResource" if kind == "ContainerResource" else "resource"
    source = metric[key]
    name, target, only = str(source["name"]), source["target"], source.get("container")
    shared = target["type"] == "Utilization"
    try:
        values = _values(pods, measured, name, only)
        groups = _grouped(pods, values, name, measured.window, now)
        counted = {n: values[n] for n in groups.ready}
        if not counted:
            raise _Unknown("did not receive metrics for targeted pods (pods might be unready)")
        goal = (
            _Share(pods, name, only, int(target["averageUtilization"]))
            if shared
            else _Average(_milli(amounts.parse(target["averageValue"])))
        )
        _, average, current = goal.ratio(counted)
        wanted = _replicas(counted, groups, goal, replicas)
    except _Unknown as e:
        says = f"failed to get {name} {'utilization' if shared else 'usage'}: {e}"
        of = f"failed to get {f'{only} container' if only else f'{name} resource'} metric value"
        raise NoMetric(says, f"FailedGet{kind}Metric", of) from None
    current = current | {"averageValue": amounts.text(Decimal(average) / 1000)}
    status = {"type": kind, key: {k: v for k, v in source.items() if k != "target"} | {"current": current}}
    what = f"{name} {'container ' if only else ''}resource utilization (percentage of request)"
    return Wish(wanted, status, what if shared else f"{name} resource")


@dataclass
class _Groups:
    """Names of pods: those that count, those that do not yet, and those of which nothing is known."""

    ready: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def _values(pods: list[Json], measured: Measured, name: str, only: str | None) -> Values:
    """Raises _Unknown where nothing is measured of any of them."""
    found: Values = {}
    some = False
    for pod in pods:
        meta = pod["metadata"]
        used = measured.containers.get((meta["namespace"], meta["name"]))
        if not used:
            continue
        some = True
        if not only or only in used:
            chosen = [used[only]] if only else used.values()
            found[meta["name"]] = sum(_thousandths(name, *c) for c in chosen)
    if not some:
        says = "no metrics returned from resource metrics API"
        raise _Unknown(f"unable to get metrics for resource {name}: {says}")
    return found


def _thousandths(name: str, cpu: float, memory: int) -> int:
    """As metrics.k8s.io says it: CPUs in billionths, rounded up; memory in whole KiB."""
    return -(-round(cpu * 1e9) // 10**6) if name == "cpu" else memory // 1024 * 1024 * 1000


def _milli(amount: Decimal) -> int:
    return int((amount * 1000).to_integral_value(ROUND_CEILING))


def _grouped(pods: list[Json], values: Values, name: str, window: float, now: datetime) -> _Groups:
    out = _Groups()
    for pod in pods:
        phase, called = dig(pod, "status", "phase"), pod["metadata"]["name"]
        if pod["metadata"].get("deletionTimestamp") or phase == "Failed":
            continue
        if phase == "Pending":
            out.unready.append(called)
        elif called not in values:
            out.missing.append(called)
        elif name == "cpu" and _begins(pod, window, now):
            out.unready.append(called)
        else:
            out.ready.append(called)
    return out


def _begins(pod: Json, window: float, now: datetime) -> bool:
    """Whether what it uses tells nothing yet: it is busy with its start, was so in the window that has been measured,
    or has never been ready."""
    conditions, started = dig(pod, "status", "conditions", default=[]), dig(pod, "status", "startTime")
    ready: Json = next((c for c in conditions if c["type"] == "Ready"), {})
    if not ready or not started:
        return True
    since, idle = times.parse(started), ready["status"] == "False"
    changed = times.parse(ready.get("lastTransitionTime") or started)
    if (now - since).total_seconds() < INITIAL_S:
        return bool(idle or now < changed + timedelta(seconds=window))
    return bool(idle and (changed - since).total_seconds() < DELAY_S)


def _replicas(counted: Values, groups: _Groups, goal: _Share | _Average, replicas: int) -> int:
    """Pods that do not count yet are idle when it would be scaled up; of those that nothing is known of, too, but when
    it would be scaled down they use as much as ``goal`` says. Raises _Unknown."""
    ratio, *_ = goal.ratio(counted)
    rush = bool(groups.unready) and ratio > 1
    if not rush and not groups.missing:
        return replicas if _within(ratio) else math.ceil(ratio * len(groups.ready))
    values = dict(counted)
    if ratio != 1:
        values |= {n: goal.missing(n) if ratio < 1 else 0 for n in groups.missing}
    if rush:
        values |= dict.fromkeys(groups.unready, 0)
    again, *_ = goal.ratio(values)
    if _within(again) or (ratio < 1 < again) or (again < 1 < ratio):
        return replicas
    wanted = math.ceil(again * len(values))
    return max(wanted, replicas) if again > 1 else min(wanted, replicas)


def _within(ratio: float) -> bool:
    return 1 - TOLERANCE <= ratio <= 1 + TOLERANCE


def _asked(pod: Json, name: str, only: str | None) -> int:
    """What its containers request, those of sidecars included. Raises _Unknown."""
    total, spec = 0, pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    for container in [*spec["containers"], *sidecars]:
        if only and container["name"] != only:
            continue
        request = dig(container, "resources", "requests", name)
        if request is None:
            where = f"container {container['name']} of Pod {pod['metadata']['name']}"
            raise _Unknown(f"missing request for {name} in {where}")
        total += _milli(amounts.parse(request))
    return total
