"""Metrics of our own processes, in Prometheus' text format. Not the client library, because that appends ``_total`` to
the name of every counter, and Istio's names must be kept."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

log = logging.getLogger("lateen.metrics")

MAX_SERIES = 1000
"""The limit for one metric, of which the last series is for whatever has no room of its own any more."""
OTHER = "other"
"""The value of all labels of that series."""
Values = tuple[str, ...]


@dataclass(eq=False)
class Metric:
    """``labels``: the names of the labels of its series."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind = "untyped"
    _full = False

    def samples(self) -> Iterator[tuple[str, str, float]]:
        """(suffix of the name, labels as written, value)."""
        raise NotImplementedError

    def _place(self, values: Values, there: Mapping[Values, object]) -> Values:
        """The series that counts for these labels: their own, while there is room for it."""
        if values in there or len(there) < MAX_SERIES - 1:
            return values
        self._overflow()
        return (OTHER,) * len(self.labels)

    def _overflow(self) -> None:
        if not self._full:
            self._full = True
            log.warning("%s has more than %d series: further ones are counted together", self.name, MAX_SERIES - 1)

    def _written(self, values: Values, *more: str) -> str:
        pairs = [f'{k}="{escaped(v)}"' for k, v in zip(self.labels, values, strict=True)]
        inside = ",".join((*pairs, *more))
        return f"{{{inside}}}" if inside else ""


@dataclass(eq=False)
class Counter(Metric):
    counts: dict[Values, float] = field(default_factory=dict)
    kind = "counter"

    def add(self, *values: str, by: float = 1.0) -> None:
        values = self._place(values, self.counts)
        self.counts[values] = self.counts.get(values, 0.0) + by

    def samples(self) -> Iterator[tuple[str, str, float]]:
        for values, count in sorted(self.counts.items() or ([((), 0.0)] if not self.labels else [])):
            yield "", self._written(values), count


@dataclass(eq=False)
class Gauge(Metric):
    """A gauge whose ``read`` is called at each scrape."""

    read: Callable[[], Mapping[Values, float]] = dict
    kind = "gauge"

    def samples(self) -> Iterator[tuple[str, str, float]]:
        placed: dict[Values, float] = {}
        for values, value in sorted(self.read().items()):
            at = self._place(values, placed)
            placed[at] = placed.get(at, 0.0) + value
        for values, value in sorted(placed.items()):
            yield "", self._written(values), value


@dataclass(eq=False)
class Total(Gauge):
    """A counter whose value is kept elsewhere."""

    kind = "counter"


@dataclass(eq=False)
class Histogram(Metric):
    """``bounds`` ascend; values above the last one are counted under +Inf."""

    bounds: tuple[float, ...] = ()
    seen: dict[Values, list[float]] = field(default_factory=dict)
    """The counts per bucket (not cumulative), and the sum."""
    kind = "histogram"

    def observe(self, value: float, *values: str) -> None:
        values = self._place(values, self.seen)
        found = self.seen.get(values)
        if found is None:
            found = self.seen[values] = [0.0] * (len(self.bounds) + 2)
        found[bisect_left(self.bounds, value)] += 1
        found[-1] += value

    def samples(self) -> Iterator[tuple[str, str, float]]:
        for values, found in sorted(self.seen.items()):
            count = 0.0
            for bound, inside in zip((*map(str, self.bounds), "+Inf"), found, strict=False):
                count += inside
                yield "_bucket", self._written(values, f'le="{bound}"'), count
            yield "_sum", self._written(values), found[-1]
            yield "_count", self._written(values), count


class Registry:
    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}

    def _add(self, metric: Metric) -> None:
        assert metric.name not in self.metrics, metric.name
        self.metrics[metric.name] = metric

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        out = Counter(name, text, labels)
        self._add(out)
        return out

    def total(self, name: str, text: str, *labels: str) -> Total:
        out = Total(name, text, labels)
        self._add(out)
        return out

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        out = Gauge(name, text, labels)
        self._add(out)
        return out

    def histogram(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
        out = Histogram(name, text, labels, bounds)
        self._add(out)
        return out

    def text(self) -> str:
        """https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format"""
        lines = []
        for metric in self.metrics.values():
            found = [f"{metric.name}{tail}{labels} {_number(value)}" for tail, labels, value in metric.samples()]
            if found:
                help_ = metric.help.replace("\\", "\\\\").replace("\n", " ")
                lines += [f"# HELP {metric.name} {help_}", f"# TYPE {metric.name} {metric.kind}", *found]
        return "\n".join(lines) + "\n"


def escaped(value: str) -> str:
    """A label's value as the text format has it between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
