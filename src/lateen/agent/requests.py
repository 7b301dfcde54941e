"""Istio's metrics of requests, from the lines that Envoy writes about them (``wire.requests``).

Lines that are equal are counted together, and their values put into buckets only when somebody asks. That costs about a
microsecond for a line, reading included. Unlike Envoy's own statistics, what is counted here outlives Envoy.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64encode
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lateen.agent.exposition import Samples, Series
from lateen.agent.pipes import Lines, Pipe
from lateen.kit.digits import digits
from lateen.wire import requests as wire

SERIES, LABELS = 5_000, 4 * 1024 * 1024
"""The maximum number of sets of labels, and of their bytes, since a peer has a say in how long they are; those without
news for the longest time are forgotten."""
GATHERED = 20_000
"""The maximum number of different values, of all labels together, that are kept until somebody asks for them."""
LIMITS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000,
          1_800_000, 3_600_000)  # fmt: skip
"""Envoy's default buckets, in milliseconds and bytes alike."""
_KINDS = re.compile(b"[0-3]{1,4}|[45]{1,2}")
"""Positions in ``wire.KINDS``: of metrics of requests, or of messages."""
_LABEL = re.compile(rb"([a-zA-Z0-9_]+)=(.*)", re.DOTALL)
Wanted = Callable[[str], bool]
"""Whether somebody asks for the metric of a name."""


def everything(_: str) -> bool:
    return True


def limits(name: str, buckets: Mapping[str, Sequence[float]]) -> tuple[float, ...]:
    """The limits of a histogram's buckets. ``buckets``: prefix of names -> limits, as in the annotation
    ``sidecar.istio.io/statsHistogramBuckets``; the first one counts, as in Envoy, where Istio's proxy has these metrics
    as ``istiocustom.…``, and ours as ``istio.…``."""
    names = (f"istio.{name}", f"istiocustom.istio_{name}")
    found = (own for prefix, own in sorted(buckets.items()) if any(n.startswith(prefix) for n in names))
    return tuple(sorted(next(found, LIMITS)))


@dataclass(eq=False)
class _Histogram:
    counts: list[int]
    """Of values between two limits; the last one is of those above all"""
    total: int = 0


@dataclass(eq=False)
class _Counted:
    """Requests of equal labels."""

    labels: bytes
    """In Prometheus' text format without braces"""
    metrics: frozenset[str]
    histograms: tuple[_Histogram, ...]
    """Empty for lines about messages"""
    messages: list[int] = field(default_factory=lambda: [0] * len(wire.MESSAGES))
    count: int = 0
    news: int = 0
    """The number of the piece of text with the last of them"""
    values: dict[bytes, int] = field(default_factory=dict)
    """The values of requests that are not in the histograms yet -> how many there were"""


class Requests:
    def __init__(self, buckets: Mapping[str, Sequence[float]] | None = None) -> None:
        """``buckets``: see ``limits``."""
        self.mark = urlsafe_b64encode(os.urandom(6)).decode()
        self.unread = self.forgotten = 0
        """Lines that could not be read, and sets of labels that were too many"""
        self._limits = [limits(name, buckets or {}) for name in wire.HISTOGRAMS]
        self._mark = self.mark.encode()
        self._known: dict[bytes, _Counted] = {}
        """By what comes after the values of a line"""
        self._size = self._gathered = 0
        """The bytes of what is known, and the number of different values in it"""
        self._lines, self._pipe, self._pieces = Lines(), Pipe(self.take), 0

    def open(self, path: Path = Path(wire.PIPE)) -> None:
        """Create the pipe and start reading from it. Raises OSError."""
        self._pipe.open(path)

    def read_now(self) -> None:
        """Process what is already in the pipe."""
        self._pipe.read_now()

    def restarted(self) -> None:
        """Envoy has ended; its last line may be half a one."""
        self._pipe.read_now()
        self._lines.restart()

    def take(self, text: bytes) -> None:
        """Process a piece of Envoy's output."""
        self._pieces += 1
        for line, times in Counter(self._lines.of(text)).items():
            start, _, rest = line.partition(self._mark)
            values, _, rest = rest.partition(self._mark)
            # part of a line does not end with a mark: Envoy has died, or a value has a line break
            if start or (found := self._known.get(rest) or self._read(rest)) is None:
                self.unread += times
                continue
            found.news = self._pieces
            self._gathered += values not in found.values
            found.values[values] = found.values.get(values, 0) + times
            if self._gathered > GATHERED:
                for each in self._known.values():
                    self._sort(each)
        if len(self._known) > SERIES or self._size > LABELS:
            self._forget()

    def _read(self, rest: bytes) -> _Counted | None:
        """The metrics and labels of a line, which are remembered; None if it is not a whole one."""
        kinds, *fields = rest.split(self._mark)
        if not fields or fields.pop() or not _KINDS.fullmatch(kinds):
            return None
        named = [(label[1], _escaped(label[2])) for f in fields if (label := _LABEL.fullmatch(f))]
        if len(named) < len(fields):
            return None
        labels = b",".join(b'%s="%s"' % pair for pair in named)
        metrics = frozenset(wire.KINDS[int(kind)] for kind in kinds.decode())
        limits = self._limits if metrics.isdisjoint(wire.MESSAGES) else ()
        empty = tuple(_Histogram([0] * (len(found) + 1)) for found in limits)
        self._known[rest] = _Counted(labels, metrics, empty)
        self._size += len(rest)
        return self._known[rest]

    def _sort(self, counted: _Counted) -> None:
        """Put what was gathered into buckets."""
        for text, times in counted.values.items():
            counted.count += times
            for value, found, at in zip(text.split(b" "), counted.histograms, self._limits, strict=False):
                if digits(value):
                    found.total += int(value) * times
                    found.counts[bisect_left(at, int(value))] += times
            if not counted.histograms:
                for i, value in enumerate(text.split(b",")[: len(wire.MESSAGES)]):
                    counted.messages[i] += int(value) * times if digits(value) else 0
        self._gathered -= len(counted.values)
        counted.values.clear()

    def _forget(self) -> None:
        for key in sorted(self._known, key=lambda key: self._known[key].news):
            if len(self._known) <= SERIES * 9 // 10 and self._size <= LABELS * 9 // 10:
                break
            self._gathered -= len(self._known.pop(key).values)
            self._size -= len(key)
            self.forgotten += 1

    def series(self, wanted: Wanted = everything) -> Iterator[Series]:
        """All metrics that are asked for, for the agent's own exposition."""
        for counted in self._known.values():
            self._sort(counted)
            for name in wire.KINDS:
                if name in counted.metrics and wanted(name):
                    yield self._series(name, counted)

    def _series(self, name: str, counted: _Counted) -> Series:
        full = f"istio_{name}".encode()
        if name in wire.MESSAGES:
            count = counted.messages[wire.MESSAGES.index(name)]
            return Series(full, b"counter", counted.labels, {(full, b""): b"%d" % count})
        if name not in wire.HISTOGRAMS:
            return Series(full, b"counter", counted.labels, {(full, b""): b"%d" % counted.count})
        i = wire.HISTOGRAMS.index(name)
        found, so_far = counted.histograms[i], 0
        samples: Samples = {}
        for limit, count in zip((*self._limits[i], float("inf")), found.counts, strict=True):
            so_far += count
            samples[full + b"_bucket", _limit(limit)] = b"%d" % so_far
        samples[full + b"_sum", b""] = b"%d" % found.total
        samples[full + b"_count", b""] = b"%d" % so_far
        return Series(full, b"histogram", counted.labels, samples)


def _limit(value: float) -> bytes:
    """As Envoy writes it."""
    return b"+Inf" if value == float("inf") else f"{value:.15g}".encode()


def _escaped(value: bytes) -> bytes:
    """In Prometheus' escaping, and as UTF-8, which a certificate need not contain."""
    text = value.decode(errors="replace").encode()
    return text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
