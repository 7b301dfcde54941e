"""What the collector has scraped becomes frames of the store."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lateen.console.series import codec
from lateen.console.series.codec import Labels
from lateen.console.series.disk import Disk
from lateen.console.series.registry import Selector
from lateen.console.series.scrape import COUNTER, JOB, Age, LeftOut, Meta, Pair, Scraped
from lateen.console.series.selection import TooMany
from lateen.console.series.store import Store
from lateen.kit.jsons import Json

log = logging.getLogger("lateen.console.series")

MAX_ACTIVE = 20_000
"""Series that are scraped at the same time; further ones are dropped, and counted."""
ROOM = 0.75
"""The share of these beyond which idle ones end."""
MAX_META = 5_000
LAST_MS, MAX_FORMER = 60_000, 10_000_000
"""How much of the end of a former process is looked at, and the samples of it."""
Key = tuple[str, str, str]


class Look(NamedTuple):
    """What one target answered: ``problem`` says why not; ``whole``: all of its metrics were asked for;
    ``complete``: the text was not cut off; ``began``: when its pod began to run, in seconds since 1970, or 0; ``idle``:
    what it leaves out otherwise, None where it does not say."""

    labels: Labels
    url: str
    pairs: list[Pair]
    whole: bool
    seconds: float
    problem: str = ""
    complete: bool = True
    began: float = 0.0
    idle: LeftOut | None = None


def _disk(folder: Path) -> Disk | None:
    try:
        return Disk(folder)
    except OSError as e:
        log.warning("metrics stay in memory, since %s cannot be used: %s", folder, e.strerror or e)
        return None


class Intake:
    def __init__(self, folder: Path | None, max_active: int = MAX_ACTIVE) -> None:
        self.store = Store(_disk(folder) if folder is not None else None)
        self.meta: dict[str, Meta] = {}
        self._max = max_active
        self._active = 0
        self._held = np.empty(0, np.int64)
        self._scraped: dict[Key, Scraped] = {}
        self._former = self._counters()
        self._since = 0.0
        """When the first frame was made"""
        self._looks: dict[Key, tuple[float, Look]] = {}
        self.dropped: set[str] = set()
        """The targets that have series without room, or have said more than is read."""

    def _intern(self, labels: Labels) -> int | None:
        found = self.store.registry.find(labels)
        if found is None and self._active >= self._max:
            return None
        self._active += 1
        return found if found is not None else self.store.registry.intern(labels)

    def _counters(self) -> dict[str, list[tuple[Labels, float]]]:
        """What counted calls when a former process ended: instance -> series with the last value."""
        end = max(tier.newest for tier in self.store.tiers)
        names = [name for name in self.store.registry.names() if COUNTER.fullmatch(name)]
        out: dict[str, list[tuple[Labels, float]]] = {}
        for name in names:
            try:
                found = self.store.select(Selector(name, ((),)), end - LAST_MS, end, LAST_MS, MAX_FORMER)
            except TooMany:
                continue
            there = ~codec.absent(found.values)
            for row, labels in enumerate(found.names):
                values = found.values[row, there[row]][-1:]
                if len(values) and not codec.stale(values)[0]:
                    out.setdefault(labels.get("instance", ""), []).append((labels, float(values[0])))
        return out

    def _found(self, labels: Labels, age: Age) -> Scraped:
        """A target, with the counters that it had for a former process: some may be idle now."""
        idle: dict[int, float] = {}
        for known, value in self._former.pop(labels["instance"], ()):
            number = self._intern(known) if labels.items() <= known.items() else None
            if number is not None:
                idle[number] = value
        return Scraped(labels, self._intern, idle, age=age)

    def frame(self, at: float, looks: Mapping[Key, Look], there: Collection[Key]) -> None:
        """One round: ``at`` in seconds since 1970. Targets that are no longer ``there`` have ended."""
        into: dict[int, float] = {}
        begun: list[int] = []
        self._since = self._since or at
        self._active = sum(s.size for s in self._scraped.values())
        for gone in [key for key in self._scraped if key not in there]:
            self._scraped.pop(gone).forget(into)
            self._looks.pop(gone, None)
        if self._active > self._max * ROOM:
            for each in self._scraped.values():
                each.end_idle(into)
            self._active = sum(s.size for s in self._scraped.values())
        self.dropped = set()
        for key, look in looks.items():
            scraped = self._scraped.get(key)
            if scraped is None:
                scraped = self._scraped[key] = self._found(look.labels, Age.of(look.began, self._since, at))
            elif scraped.labels != look.labels:  # what it counted before is not new
                scraped.forget(into)
                scraped = self._scraped[key] = self._found(look.labels, Age(fresh=False, old=True))
            if look.idle is not None:
                scraped.told(look.idle)
            if look.problem:
                scraped.end(into)
            else:
                scraped.read(look.pairs, look.whole and look.complete, into)
                begun += scraped.begun
            if scraped.dropped or not look.complete:
                self.dropped.add(f"{key[0]}/{key[1]}")
            if look.whole or look.problem:
                scraped.report(not look.problem, look.seconds, len(look.pairs), into)
                self._looks[key] = at, look._replace(pairs=[], idle=None)  # what they say is in the store
        self._put(round(at * 1000), into, begun)

    def _put(self, at_ms: int, into: Mapping[int, float], begun: list[int]) -> None:
        """What is scraped now stays known, whatever the store drops."""
        active = [number for scraped in self._scraped.values() for number in scraped.numbers()]
        now = np.unique(np.array(active, np.int64))
        self.store.registry.hold(np.setdiff1d(now, self._held, assume_unique=True))
        ids = np.fromiter(into.keys(), np.int64, len(into))
        values = np.fromiter(into.values(), np.float64, len(into))
        self.store.put(at_ms, ids, values, np.unique(np.array(begun, np.int64)))
        self.store.release(np.setdiff1d(self._held, now, assume_unique=True))
        self._held = now

    def unsure(self, key: Key) -> bool:
        """Whether a target has to be asked for what it leaves out."""
        return key not in self._scraped or self._scraped[key].unsure

    def described(self, found: dict[str, Meta]) -> None:
        """What metrics are; of one that is known already, what was said first holds."""
        for name, meta in found.items():
            if name not in self.meta and len(self.meta) < MAX_META:
                self.meta[name] = meta

    def targets(self) -> list[Json]:
        """As Prometheus' API has them."""
        return [
            {
                "discoveredLabels": {"__address__": look.labels["instance"], "job": JOB},
                "labels": look.labels,
                "scrapePool": JOB,
                "scrapeUrl": look.url,
                "globalUrl": look.url,
                "lastError": look.problem,
                "lastScrape": datetime.fromtimestamp(at, UTC).isoformat(),
                "lastScrapeDuration": look.seconds,
                "health": "down" if look.problem else "up",
                "scrapeInterval": "5s",
                "scrapeTimeout": "3s",
            }
            for _, (at, look) in sorted(self._looks.items())
        ]
