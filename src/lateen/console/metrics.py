"""Reads Istio's metrics from the Prometheus text of many proxies, as increments since the last reading. Pure.

A proxy's text is almost the same each time, so the meaning of a line's name and labels is computed once and kept for as
long as the series exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isnan
from typing import NamedTuple

from lateen.api.canonical import LATEST
from lateen.console.series.scrape import Age, LeftOut, Pair
from lateen.dump import failures
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
UNKNOWN = "unknown"
MUTUAL_TLS = "mutual_tls"
_NAMELESS = ("source_workload", "source_principal")


class Workload(NamedTuple):
    namespace: str
    name: str
    app: str
    version: str
    """``unknown`` where its pods have no label that tells it."""


class Flow(NamedTuple):
    """Requests or connections of one kind between two workloads, through one service."""

    reporter: str
    source: Workload
    service: str
    service_namespace: str
    destination: Workload
    protocol: str
    policy: str
    """``mutual_tls``, ``none``, or ``unknown``."""
    nameless: bool
    """Whether the report does not say who called: neither a workload nor an identity."""
    cluster: str = UNKNOWN
    """The source's: several may have a workload of one name."""


class Sample(NamedTuple):
    """What one line of text measures: ``metric`` is requests, bucket, sent, received or opened."""

    flow: Flow
    metric: str
    detail: str
    """The response code, or a bucket's upper bound; empty where the user's Telemetry removes it."""
    flags: str = ""
    grpc: str = ""
    """The gRPC status, where the call is one."""


METRICS = {
    "istio_requests_total": "requests",
    "istio_request_duration_milliseconds_bucket": "bucket",
    "istio_request_bytes_sum": "received",
    "istio_response_bytes_sum": "sent",
    "istio_tcp_sent_bytes_total": "sent",
    "istio_tcp_received_bytes_total": "received",
    "istio_tcp_connections_opened_total": "opened",
}
MAX_ABSENT = 10_000
"""How many series of a proxy that are gone are remembered: about 1 MB"""
_SLOW = (b"istio_request_bytes_sum", b"istio_response_bytes_sum")
"""They are only in the texts with all metrics."""
_NAMES = frozenset(name.encode() for name in METRICS)
_DETAIL = {"requests": "response_code", "bucket": "le"}


def meaning(line: bytes) -> Sample | None:
    """Parse a line without its value; None for series that the graph does not use."""
    name, brace, rest = line.partition(b"{")
    if name not in _NAMES or not brace:
        return None
    return sample(name.decode(), {k.decode(): v.decode(errors="replace") for k, v in _LABEL.findall(rest)})


def sample(name: str, labels: Mapping[str, str]) -> Sample | None:
    """What a series measures; None for series that the graph does not use."""
    metric = METRICS.get(name)
    if metric is None or (metric == "bucket" and not _is_bound(labels.get("le", ""))):
        return None

    def workload(side: str) -> Workload:
        """By its canonical name and revision, as lists call it; by the labels app and version where a user's Telemetry
        leaves those out."""

        def of(*names: str, none: str = UNKNOWN) -> str:
            found = (labels.get(f"{side}_{name}", "") for name in names)
            return next((text for text in found if text not in ("", UNKNOWN, none)), UNKNOWN)

        return Workload(
            of("workload_namespace"),
            of("workload"),
            of("canonical_service", "app"),
            of("canonical_revision", "version", none=LATEST),
        )

    flow = Flow(
        labels.get("reporter", ""),
        workload("source"),
        labels.get("destination_service_name", UNKNOWN),
        labels.get("destination_service_namespace", UNKNOWN),
        workload("destination"),
        labels.get("request_protocol", "tcp"),
        labels.get("connection_security_policy", UNKNOWN),
        all(labels.get(label, UNKNOWN) in (UNKNOWN, "") for label in _NAMELESS),
        labels.get("source_cluster") or UNKNOWN,
    )
    detail = labels.get(_DETAIL.get(metric, ""), "")
    return Sample(flow, metric, detail, labels.get("response_flags", ""), labels.get("grpc_response_status", ""))


def failed(sample: Sample) -> bool:
    """Whether requests count as errors."""
    code, grpc = (int(text) if digits(text) else None for text in (sample.detail, sample.grpc))
    return failures.failed(code, sample.flags, grpc)


@dataclass
class Security:
    """How many requests and connections used mutual TLS, by who says so."""

    _secured: dict[str, float] = field(default_factory=dict)
    _known: dict[str, float] = field(default_factory=dict)
    """By reporter; neither has those of which it does not know, such as connections that failed."""

    def add(self, flow: Flow, value: float) -> None:
        if flow.policy == UNKNOWN:
            return
        self._known[flow.reporter] = self._known.get(flow.reporter, 0.0) + value
        if flow.policy == MUTUAL_TLS:
            self._secured[flow.reporter] = self._secured.get(flow.reporter, 0.0) + value

    def share(self) -> float | None:
        """What the server says, which knows for certain; else what the client says; None if neither knows."""
        for reporter in ("destination", "source"):
            if known := self._known.get(reporter):
                return self._secured.get(reporter, 0.0) / known
        return None


def _is_bound(text: str) -> bool:
    try:
        return not isnan(float(text))
    except ValueError:
        return False


Added = dict[Sample, float]


def began(pod: Json) -> float:
    """When a pod began to run, in seconds since 1970; 0 where its status does not say it."""
    try:
        return datetime.fromisoformat(str(dig(pod, "status", "startTime"))).timestamp()
    except ValueError:
        return 0.0


@dataclass
class Target:
    """One proxy's counters at the last reading. Agents leave out series that are idle, and continue them later."""

    fresh: bool
    """Whether the proxy started after us, so that everything it has counted is new."""
    old: bool = False
    """Whether the proxy may have had idle series before we came: then one that appears is not known to be new, and
    counts from its first value on."""
    _last: dict[bytes, float] = field(default_factory=dict)
    _known: dict[bytes, Sample | None] = field(default_factory=dict)
    _absent: dict[int, float] = field(default_factory=dict)
    """The last values of series that are gone, by the hash of their text, which is much smaller."""
    _seen: bool = False

    @classmethod
    def of(cls, pod: Json, since: float, now: float) -> Target:
        """``since``: when we began to count."""
        age = Age.of(began(pod), since, now)
        return cls(age.fresh, age.old)

    def told(self, idle: LeftOut) -> None:
        """What the proxy leaves out: everything else that appears from now on is new."""
        found = {hash(key): value for key, value in idle.pairs if meaning(key) is not None}
        self.old = not idle.complete or len(found) > MAX_ABSENT
        if not self.old:
            self._absent |= found

    def read(self, pairs: Iterable[Pair], into: Added, complete: bool = True, whole: bool = True) -> None:
        """Add what was counted since the last text. A series that is gone may come back with its total; where a counter
        fell, the proxy was restarted, and series that are gone have ended, too.

        Of a text that is not ``complete``, series that are missing may still exist; one that is not ``whole`` has only
        the metrics that are read most often.
        """
        counted = self._seen or self.fresh
        now: dict[bytes, float] = {}
        known: dict[bytes, Sample | None] = {}
        appeared: list[tuple[bytes, Sample]] = []
        restarted = False
        for key, value in pairs:
            if not key.startswith(b"istio_"):
                continue
            sample = known[key] = self._known[key] if key in self._known else meaning(key)
            if sample is None:
                continue
            now[key] = value
            before = self._last.get(key)
            if before is None:
                appeared.append((key, sample))
                continue
            restarted |= value < before
            delta = value - before if value >= before else value
            if delta and counted:
                into[sample] = into.get(sample, 0.0) + delta
        if restarted or any(now[key] < self._absent.get(hash(key), 0.0) for key, _ in appeared):
            self._absent, self.old = {}, False
        for key, sample in appeared:
            delta = now[key] - self._absent.pop(hash(key), now[key] if self.old else 0.0)
            if delta and counted:
                into[sample] = into.get(sample, 0.0) + delta
        if complete:
            gone = {k for k in self._last.keys() - now.keys() if whole or not k.startswith(_SLOW)}
            self._absent |= {hash(k): self._last[k] for k in gone}
            for oldest in list(self._absent)[: max(0, len(self._absent) - MAX_ABSENT)]:
                del self._absent[oldest]
                self.old = True  # a series that is forgotten is not known to be new when it comes back
            for k in gone:
                del self._last[k]
            self._known = {k: self._known[k] for k in self._last.keys() - now.keys()}
        self._last |= now
        self._known |= known
        self._seen = True


def quantile(q: float, buckets: dict[float, float]) -> float | None:
    """Like Prometheus' histogram_quantile: linear within a bucket. ``buckets`` are cumulative counts by upper bound."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return None
    rank, below, lower = q * total, 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank:
            if bound == float("inf"):
                return lower
            inside = count - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        below, lower = count, bound
    return lower
