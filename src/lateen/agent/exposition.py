"""Envoy's metrics in Prometheus' text format with Istio's names and labels.

Labels whose counters have not changed for ``IDLE_S`` are left out, since Envoy itself never forgets them: a proxy that
has talked with many workloads would report all of them for ever. When they change again, they continue where they were.

Prometheus counts what is added between two samples, so it would miss the first call of a series that appears. Its
scrapers are therefore told first what such a series was before (0, or the value with which it was left out), and its
present value the next time. Everybody else gets present values; the collector knows by itself what was before
(``console.series.scrape``), once it has been told what is left out when it comes for the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple

from lateen.agent.labels import istio

PREFIX = b"envoy_istio_"
IDLE_S = 3600.0
CACHED = 32_768
"""Sets of labels that are kept as they were translated, most are the same at each scrape; and series whose counts are
remembered, the ones that were looked at last."""
IDLE = b"# The following have not changed for an hour."
"""The line before what is left out, for those who ask for it"""
MOST_SCRAPERS = 8
"""Those of whom is remembered what they have seen, the latest ones."""
_COMMENTS = tuple(b"# %s %s" % (kind, PREFIX) for kind in (b"TYPE", b"HELP"))
_LIMIT = b'le="'
"""The label of a bucket's limit, which is the last one."""

Samples = dict[tuple[bytes, bytes], bytes]
"""(name of the sample, its bucket's limit or nothing) -> value, as Envoy writes it"""


class Series(NamedTuple):
    """A metric that is not Envoy's own."""

    name: bytes
    """As it will be called"""
    kind: bytes
    labels: bytes
    """As Envoy would write them, without braces"""
    samples: Samples


@dataclass
class _Family:
    kind: bytes = b"counter"
    series: dict[bytes, Samples] = field(default_factory=dict)
    """By labels; samples of equal labels are added up."""


@dataclass
class _Scraper:
    """One that computes rates."""

    seen: set[tuple[bytes, bytes]] = field(default_factory=set)
    """(family, labels) that it knows"""
    new: bool = True
    """Whether it has come for the first time: what there is already has not begun now"""


class Exposition:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._labels: dict[bytes, bytes] = {}
        self._totals: dict[tuple[bytes, bytes], bytes] = {}
        """(family, labels) -> its count when it was last looked at; the latest are the last ones"""
        self._changed: dict[bytes, float] = {}
        """labels -> when a count of theirs was last seen to differ: what belongs together goes together"""
        self._resting: dict[tuple[bytes, bytes], tuple[float, bytes]] = {}
        """(family, labels) that were left out -> when they had changed, and the values of their samples"""
        self._scrapers: dict[str, _Scraper] = {}
        """The one that came last is the last one"""

    def restarted(self) -> None:
        """Envoy was restarted: its counters are 0."""
        self._totals.clear()
        self._changed.clear()
        self._resting.clear()

    def text(
        self, *raw: bytes, series: Iterable[Series] = (), whole: bool = True, scraper: str = "", idle: bool = False
    ) -> bytes:
        """Several responses, and series of other sources, as one. Where a source is missing (not ``whole``), counters
        that would fall are left out: the rest of them is the missing one's. ``scraper``: the name of one that computes
        rates. ``idle``: with the series that are left out otherwise, after the line ``IDLE``."""
        others: list[bytes] = []
        families: dict[bytes, _Family] = {}
        if len(self._labels) > CACHED:
            self._labels.clear()
        for response in raw:
            self._read(response, others, families)
        for more in series:
            family = families.setdefault(more.name, _Family(more.kind))
            samples = family.series.setdefault(self._translated(more.labels), {})
            for key, value in more.samples.items():
                _add(samples, key, value)
        for name, family in families.items():
            self._look(name, family, whole)
        self._forget(sum(len(family.series) for family in families.values()))
        asking = self._scraper(scraper) if scraper else None
        lines = [*others, *(line for name, f in families.items() for line in self._lines(name, f, asking))]
        if asking:
            asking.new = False
        if idle and whole:
            lines += [IDLE, *(line for family in families.values() for line in self._left_out(family))]
        return b"\n".join(lines) + b"\n" if lines else b""

    def _read(self, response: bytes, others: list[bytes], families: dict[bytes, _Family]) -> None:
        name = b""
        for line in response.split(b"\n"):
            if line.startswith(PREFIX):
                series, _, value = line.rpartition(b" ")
                sample, _, labels = series[len(b"envoy_") :].removesuffix(b"}").partition(b"{")
                bucket = b""
                if sample.endswith(b"_bucket"):
                    labels, _, bucket = labels.rpartition(_LIMIT)
                    labels, bucket = labels.removesuffix(b","), bucket.removesuffix(b'"')
                found = families.setdefault(name if name and sample.startswith(name) else sample, _Family())
                _add(found.series.setdefault(self._translated(labels), {}), (sample, bucket), value)
            elif line.startswith(_COMMENTS):
                _, what, full, kind = line.split(b" ", 3)
                name = full[len(b"envoy_") :]
                if what == b"TYPE":
                    families.setdefault(name, _Family()).kind = kind
            elif line:
                others.append(line)

    def _translated(self, labels: bytes) -> bytes:
        if (found := self._labels.get(labels)) is None:
            found = self._labels[labels] = istio(labels)
        return found

    def _look(self, name: bytes, family: _Family, whole: bool) -> None:
        if family.kind == b"gauge":
            return
        now = self._clock()
        for labels, samples in list(family.series.items()):
            total = samples.get((name + b"_count", b"")) or samples.get((name, b""), b"")
            before = self._totals.pop((name, labels), None)
            if not whole and before and float(total or 0) < float(before):
                self._totals[name, labels] = before
                del family.series[labels]
                continue
            self._totals[name, labels] = total
            if total != before:
                self._changed[labels] = now

    def _scraper(self, name: str) -> _Scraper:
        found = self._scrapers.pop(name) if name in self._scrapers else _Scraper()
        self._scrapers[name] = found
        if len(self._scrapers) > MOST_SCRAPERS:
            del self._scrapers[next(iter(self._scrapers))]
        return found

    def _forget(self, shown: int) -> None:
        """Make room where there are too many series, but not of those that are ``shown`` now."""
        if len(self._totals) > CACHED:
            for key in list(self._totals)[: len(self._totals) - max(shown, CACHED * 3 // 4)]:
                del self._totals[key]
            kept = {labels for _, labels in self._totals}
            self._changed = {labels: at for labels, at in self._changed.items() if labels in kept}
            self._resting = {key: found for key, found in self._resting.items() if key in self._totals}
            for scraper in self._scrapers.values():
                scraper.seen &= self._totals.keys()

    def _rest(self, key: tuple[bytes, bytes], samples: Samples) -> None:
        """A series is left out."""
        changed = self._changed[key[1]]
        if self._resting.get(key, (None, b""))[0] != changed:
            self._resting[key] = changed, b" ".join(samples.values())
            for scraper in self._scrapers.values():
                scraper.seen.discard(key)

    def _before(self, key: tuple[bytes, bytes], samples: Samples) -> Samples:
        """What a series was when it was left out, or before its first change."""
        former = self._resting.get(key, (0.0, b""))[1].split()
        return dict(zip(samples, former if len(former) == len(samples) else repeat(b"0"), strict=False))

    def _lines(self, name: bytes, family: _Family, asking: _Scraper | None) -> Iterator[bytes]:
        yield b"# TYPE %s %s" % (name, family.kind)
        now, gauge = self._clock(), family.kind == b"gauge"
        for labels, samples in family.series.items():
            key = name, labels
            if not gauge and now - self._changed[labels] > IDLE_S:
                self._rest(key, samples)
                continue
            if asking and not gauge and key not in asking.seen:
                asking.seen.add(key)
                samples = samples if asking.new else self._before(key, samples)
            yield from _written(labels, samples)

    def _left_out(self, family: _Family) -> Iterator[bytes]:
        for labels, samples in family.series.items():
            if family.kind != b"gauge" and self._clock() - self._changed[labels] > IDLE_S:
                yield from _written(labels, samples)


def _written(labels: bytes, samples: Samples) -> Iterator[bytes]:
    start = labels + b"," if labels else b""
    for (sample, bucket), value in samples.items():
        if bucket:
            yield b'%s{%s%s%s"} %s' % (sample, start, _LIMIT, bucket, value)
        else:
            yield b"%s{%s} %s" % (sample, labels, value) if labels else b"%s %s" % (sample, value)


def _add(samples: Samples, key: tuple[bytes, bytes], value: bytes) -> None:
    before = samples.get(key)
    samples[key] = value if before is None else _sum(before, value)


def _sum(a: bytes, b: bytes) -> bytes:
    value = float(a) + float(b)
    return b"%d" % value if value.is_integer() else b"%.17g" % value
