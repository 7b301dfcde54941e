"""Envoy's metrics in Prometheus' text format with Istio's names and labels.

A set of labels that has not changed for ``IDLE_S`` is left out, since Envoy itself never forgets one: a proxy that has
talked with many workloads would report all of them for ever. When it changes again, it begins at 0, like a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lateen.agent.labels import istio

PREFIX = b"envoy_istio_"
IDLE_S = 3600.0
_COMMENTS = tuple(b"# %s %s" % (kind, PREFIX) for kind in (b"TYPE", b"HELP"))

Samples = dict[tuple[bytes, bytes], float]
"""(name of the sample, its bucket's limit as a label or nothing) -> value"""


@dataclass
class _Family:
    kind: bytes = b"counter"
    series: dict[bytes, Samples] = field(default_factory=dict)
    """By labels; samples of equal labels are added up."""


@dataclass
class _Known:
    total: float
    changed: float
    left: Samples = field(default_factory=dict)
    """What was there when it was left out, which does not count anymore."""


class Exposition:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[bytes, bytes], _Known] = {}

    def restarted(self) -> None:
        """Envoy was restarted: its counters are 0."""
        self._known.clear()

    def text(self, *raw: bytes) -> bytes:
        """Several responses as one."""
        others: list[bytes] = []
        families: dict[bytes, _Family] = {}
        for response in raw:
            _read(response, others, families)
        lines = [*others, *(line for name, f in families.items() for line in self._lines(name, f))]
        return b"\n".join(lines) + b"\n" if lines else b""

    def _lines(self, name: bytes, family: _Family) -> Iterator[bytes]:
        yield b"# TYPE %s %s" % (name, family.kind)
        for labels, samples in family.series.items():
            if (left := self._left(name, labels, samples)) is None:
                continue
            for key, value in samples.items():
                sample, bucket = key
                all_labels = b"{%s%s}" % (labels, bucket) if labels or bucket else b""
                yield b"%s%s %s" % (sample, all_labels, _number(value - left.get(key, 0)))

    def _left(self, name: bytes, labels: bytes, samples: Samples) -> Samples | None:
        """What does not count of a series; None if it is idle."""
        total = samples.get((name + b"_count", b""), samples.get((name, b""), 0.0))
        now = self._clock()
        known = self._known.setdefault((name, labels), _Known(total, now))
        if total != known.total:
            if total < known.total:
                known.left = {}
            known.total, known.changed = total, now
        elif now - known.changed > IDLE_S:
            known.left = dict(samples)
            return None
        return known.left


def _read(response: bytes, others: list[bytes], families: dict[bytes, _Family]) -> None:
    name = b""
    for line in response.split(b"\n"):
        if line.startswith(PREFIX):
            series, _, value = line.rpartition(b" ")
            sample, _, labels = series[len(b"envoy_") :].rstrip(b"}").partition(b"{")
            bucket = b""
            if sample.endswith(b"_bucket"):
                labels, _, limit = labels.rpartition(b',le="')
                bucket = b',le="' + limit
            found = families.setdefault(name if name and sample.startswith(name) else sample, _Family())
            samples = found.series.setdefault(istio(labels), {})
            samples[sample, bucket] = samples.get((sample, bucket), 0.0) + float(value)
        elif line.startswith(_COMMENTS):
            _, what, full, kind = line.split(b" ", 3)
            name = full[len(b"envoy_") :]
            if what == b"TYPE":
                families.setdefault(name, _Family()).kind = kind
        elif line:
            others.append(line)


def _number(value: float) -> bytes:
    return b"%d" % value if value.is_integer() else b"%.17g" % value
