"""Reads Istio's metrics from the Prometheus text of many proxies, as increments since the last reading. Pure.

A proxy's text is almost the same each time, so the meaning of a line's name and labels is computed once and kept for as
long as the series exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import NamedTuple

from lateen.console.series.scrape import Pair

_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
UNKNOWN = "unknown"


class Workload(NamedTuple):
    namespace: str
    name: str
    app: str
    version: str


class Flow(NamedTuple):
    """Requests or connections of one kind between two workloads, through one service."""

    reporter: str
    source: Workload
    service: str
    service_namespace: str
    destination: Workload
    protocol: str
    mtls: bool


class Sample(NamedTuple):
    """What one line of text measures: ``metric`` is requests, bucket, sent, received or opened."""

    flow: Flow
    metric: str
    detail: str
    """The response code, or a bucket's upper bound."""
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
        return Workload(
            labels.get(f"{side}_workload_namespace", UNKNOWN),
            labels.get(f"{side}_workload", UNKNOWN),
            labels.get(f"{side}_app", UNKNOWN),
            labels.get(f"{side}_version", UNKNOWN),
        )

    flow = Flow(
        labels.get("reporter", ""),
        workload("source"),
        labels.get("destination_service_name", UNKNOWN),
        labels.get("destination_service_namespace", UNKNOWN),
        workload("destination"),
        labels.get("request_protocol", "tcp"),
        labels.get("connection_security_policy") == "mutual_tls",
    )
    detail = labels.get(_DETAIL.get(metric, ""), "")
    return Sample(flow, metric, detail, labels.get("response_flags", ""), labels.get("grpc_response_status", ""))


def _is_bound(text: str) -> bool:
    try:
        return not isnan(float(text))
    except ValueError:
        return False


Added = dict[Sample, float]


@dataclass
class Target:
    """One proxy's counters at the last reading."""

    fresh: bool
    """Whether the proxy started after us, so that everything it has counted is new."""
    _last: dict[bytes, float] = field(default_factory=dict)
    _known: dict[bytes, Sample | None] = field(default_factory=dict)
    _seen: bool = False

    def read(self, pairs: Iterable[Pair], into: Added, complete: bool = True, whole: bool = True) -> None:
        """Add what was counted since the last text; a counter that fell was reset, a series that is gone is forgotten.

        Of a text that is not ``complete``, series that are missing may still exist; one that is not ``whole`` has only
        the metrics that are read most often.
        """
        counted = self._seen or self.fresh
        now: dict[bytes, float] = {}
        known: dict[bytes, Sample | None] = {}
        for key, value in pairs:
            if not key.startswith(b"istio_"):
                continue
            sample = known[key] = self._known[key] if key in self._known else meaning(key)
            if sample is None:
                continue
            before = self._last.get(key, 0.0)
            now[key] = value
            delta = value - before if value >= before else value
            if delta and counted:
                into[sample] = into.get(sample, 0.0) + delta
        if not whole:
            now |= {k: v for k, v in self._last.items() if k.startswith(_SLOW)}
            known |= {k: v for k, v in self._known.items() if k.startswith(_SLOW)}
        self._last, self._known = (now, known) if complete else (self._last | now, self._known | known)
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
