"""One scraped process: its Prometheus text as samples of series, with the labels of its pod. Pure but for the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import InitVar, dataclass, field
from typing import NamedTuple

from lateen.agent.exposition import IDLE, IDLE_S
from lateen.console.series.codec import STALE_BITS, Labels, marker
from lateen.console.series.registry import NAME
from lateen.kit.jsons import Json

STALE = marker(STALE_BITS)
JOB = "kubernetes-pods"
"""As in the configuration of Istio's Prometheus add-on."""
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
COUNTER = re.compile(r"istio_(requests|(request|response)_messages|tcp_\w+)_total")
HISTOGRAM = re.compile(r"istio_\w+_(bucket|sum|count)")
MAX_RESTING = 3_000
"""Samples of histograms that are remembered of one target, which are those of about 50 callers."""
MAX_TOLD = 10_000
"""Counters of one target of which is remembered that they were idle before we came."""
_UNSUITED = re.compile(r"[^a-zA-Z0-9_]")
OWN = ("up", "scrape_duration_seconds", "scrape_samples_scraped")
MAX_LABELS, LONGEST_VALUE = 64, 1024

Pair = tuple[bytes, float]
Intern = Callable[[Labels], int | None]
"""The number of a series; None where there are too many already."""


class Age(NamedTuple):
    """Of a process with metrics, when it is read for the first time."""

    fresh: bool
    """Whether it started after us, so that everything that it has counted is new."""
    old: bool
    """Whether it may have had idle series before we came: then one that appears is not known to be new."""

    @classmethod
    def of(cls, start: float, since: float, now: float) -> Age:
        """``start``: when it began to run, in seconds since 1970, 0 where that is not known; ``since``: when we did."""
        return cls(fresh=start > since, old=start <= since and now - start > IDLE_S)


YOUNG = Age(fresh=False, old=False)


class Meta(NamedTuple):
    kind: str
    help: str


class LeftOut(NamedTuple):
    """The idle series of a proxy."""

    pairs: list[Pair]
    complete: bool
    """Whether these are all of them: otherwise one that appears is not known to be new."""


def samples(text: bytes, into: dict[str, Meta] | None = None) -> list[Pair]:
    """(name and labels as written, value) of each line; an incomplete last line was cut off and does not count.

    https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format"""
    out = []
    for line in text.split(b"\n")[:-1]:
        if line[:1] == b"#":
            if into is not None:
                _comment(line, into)
            continue
        key, _, raw = line.rpartition(b" ")
        try:
            out.append((key, float(raw)))
        except ValueError:
            continue
    return out


def left_out(text: bytes, complete: bool = True) -> tuple[bytes, LeftOut | None]:
    """(what a proxy shows, what it says that it leaves out otherwise; None if it does not say it). ``complete``: the
    text was not cut off."""
    shown, told, rest = text.partition(IDLE + b"\n")
    return shown, LeftOut(samples(rest), complete) if told else None


def _comment(line: bytes, into: dict[str, Meta]) -> None:
    parts = line.decode(errors="replace").split(" ", 3)
    if len(parts) == 4 and parts[1] in ("TYPE", "HELP"):
        known = into.get(parts[2], Meta("unknown", ""))
        into[parts[2]] = known._replace(**{"kind" if parts[1] == "TYPE" else "help": parts[3]})


def _name(key: bytes) -> str:
    return key.partition(b"{")[0].decode(errors="replace")


def labels_of(key: bytes, target: Labels) -> Labels | None:
    """The labels of a series; where it has one that the target has as well, its own is called ``exported_…``, as
    without Prometheus' ``honor_labels``. None where there are too many, or one is too long."""
    rest = key.partition(b"{")[2]
    out = {NAME: _name(key).strip()}
    for k, v in _LABEL.findall(rest):
        label, value = k.decode(), v.decode(errors="replace")
        if "\\" in value:
            value = _ESCAPED.sub(lambda m: "\n" if m[1] == "n" else m[1], value)
        if value:
            out[f"exported_{label}" if label in target else label] = value
    if len(out) > MAX_LABELS or any(len(v) > LONGEST_VALUE for v in out.values()):
        return None
    return out | target


def target_labels(pod: Json, port: int) -> Labels:
    """Those that Istio's Prometheus add-on gives to a pod: its own labels, where it is, and what it is called."""
    meta = pod["metadata"]
    own = {_UNSUITED.sub("_", k): str(v) for k, v in (meta.get("labels") or {}).items() if v}
    node = pod.get("spec", {}).get("nodeName")
    return {
        **own,
        "job": JOB,
        "instance": f"{pod['status']['podIP']}:{port}",
        "namespace": str(meta["namespace"]),
        "pod": str(meta["name"]),
        **({"node": str(node)} if node else {}),
    }


@dataclass
class Scraped:
    """The series of one target; ``dropped`` counts the samples of the last text that had no room.

    Agents leave out counters that have not changed for an hour (``agent.exposition``), and continue them later. So
    counters of calls that are gone keep their value: otherwise ``increase()`` would miss the next call, and who takes
    series that begin for new ones would count all calls of the past. ``idle``: number of the series -> its value.
    Histograms, of which there is twenty times as much, are remembered, and begin again with what they were. So do
    counters that were idle before we came.

    What appears between two texts has begun between them, and was 0 before: otherwise ``increase()`` would miss the
    first calls. Not so where it may have been there without being read."""

    labels: Labels
    intern: Intern
    idle: dict[int, float] = field(default_factory=dict)
    dropped: int = 0
    age: InitVar[Age] = YOUNG
    begun: list[int] = field(default_factory=list)
    """The series of the last text that have begun since the one before"""
    _known: dict[bytes, int | None] = field(default_factory=dict)
    _whole: dict[bytes, float] = field(default_factory=dict)
    """Those of the last whole text, and what others have said since."""
    _resting: dict[bytes, float] = field(default_factory=dict)
    """Samples of histograms that are gone -> their value; the latest are the last ones"""
    _told: dict[bytes, float] = field(default_factory=dict)
    """Counters that were idle before we came -> their value"""
    unsure: bool = False
    """Whether it may have idle series of which it has not told us"""
    _lost: set[bytes] = field(default_factory=set)
    """Those that were there before the target did not answer"""
    _follows: bool = False
    """Whether there was a whole text before this one, or nothing"""
    _old: bool = False
    """Whether a series may come back that is not remembered"""
    _old_histograms: bool = False

    def __post_init__(self, age: Age) -> None:
        self._follows, self._old, self.unsure = age.fresh, age.old, age.old

    @property
    def size(self) -> int:
        return len(self._known) + len(self.idle) + len(OWN)

    def numbers(self) -> list[int]:
        """Of the series that have not ended."""
        return [*(number for number in self._known.values() if number is not None), *self.idle]

    def told(self, idle: LeftOut) -> None:
        """What the target leaves out: of everything else that appears from now on, nothing was there before."""
        self.unsure, self._lost = False, set()
        self._old = self._old_histograms = not idle.complete
        for key, value in idle.pairs:
            if HISTOGRAM.fullmatch(_name(key)):
                self._rest(key, value)
            elif COUNTER.fullmatch(_name(key)):
                self._told[key] = value
        if len(self._told) > MAX_TOLD:
            self._told, self._old = {}, True

    def read(self, pairs: Iterable[Pair], whole: bool, into: dict[int, float]) -> None:
        """Add samples. After a ``whole`` text, series that were in the one before and are gone are idle where they
        count calls; others get a STALE marker."""
        known, self.dropped, self.begun = self._known, 0, []
        now: dict[bytes, float] = {}
        for key, value in pairs:
            number = known.get(key)
            if number is None:
                number = self._number(key)
                if number is None:
                    self.dropped += 1
                    continue
                if self._begins(key, number):
                    self.begun.append(number)
            into[number] = self._resting.pop(key, self._told.pop(key, value))
            now[key] = value
        if self.idle:
            self.idle = {number: value for number, value in self.idle.items() if number not in into}
        self._old |= self.dropped > 0
        if not whole:
            self._whole |= now
            return
        for key in self._whole.keys() - now.keys():
            number = known.get(key)
            if number is not None and COUNTER.fullmatch(_name(key)):
                del known[key]
                self.idle[number] = self._whole[key]
            else:
                self._end(key, into)
                self._remember(key)
        self._whole = now
        self._old |= not self._lost <= now.keys()
        self._lost, self._follows = set(), True
        into |= self.idle

    def _begins(self, key: bytes, number: int) -> bool:
        """Whether a series that was not in the text before was 0 then."""
        if self._old or not self._follows or key in self._resting or key in self._told or number in self.idle:
            return False
        return bool(COUNTER.fullmatch(_name(key)) or (HISTOGRAM.fullmatch(_name(key)) and not self._old_histograms))

    def _number(self, key: bytes) -> int | None:
        labels = labels_of(key, self.labels)
        number = self.intern(labels) if labels is not None else None
        if number is not None:
            self._known[key] = number
        return number

    def _remember(self, key: bytes) -> None:
        if HISTOGRAM.fullmatch(_name(key)):
            self._rest(key, self._whole[key])

    def _rest(self, key: bytes, value: float) -> None:
        self._resting[key] = value
        if len(self._resting) > MAX_RESTING:
            del self._resting[next(iter(self._resting))]
            self._old_histograms = True

    def _end(self, key: bytes, into: dict[int, float]) -> None:
        number = self._known.pop(key, None)
        if number is not None:
            into[number] = STALE

    def end(self, into: dict[int, float]) -> None:
        """The target did not answer, or is gone: all of its series end."""
        for key in list(self._known):
            self._end(key, into)
        if self._whole:
            into |= dict.fromkeys(self.idle, STALE)
            self._lost = {k for k in self._whole if COUNTER.fullmatch(_name(k)) or HISTOGRAM.fullmatch(_name(k))}
            self._follows, self.unsure = False, True
        self._whole = {}

    def end_idle(self, into: dict[int, float]) -> None:
        """Make room."""
        self._old |= bool(self.idle)
        into |= dict.fromkeys(self.idle, STALE)
        self.idle = {}

    def report(self, up: bool, seconds: float, count: int, into: dict[int, float]) -> None:
        """What Prometheus says of each scrape itself."""
        self._own((float(up), seconds, float(count)), into)

    def forget(self, into: dict[int, float]) -> None:
        """The target is gone for good."""
        self.end(into)
        self._own((STALE, STALE, STALE), into)

    def _own(self, values: tuple[float, ...], into: dict[int, float]) -> None:
        for name, value in zip(OWN, values, strict=True):
            number = self.intern({NAME: name, **self.labels})
            if number is not None:
                into[number] = value
