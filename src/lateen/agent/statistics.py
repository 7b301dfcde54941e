"""Envoy's statistics and runtime values, as configured by the proxy's configuration and the pod's annotations.

Source: ``getStatsOptions`` and ``extractRuntimeFlags`` in istio.io/istio pkg/bootstrap/config.go.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lateen.agent import stat_tags
from lateen.kit import duration
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

log = logging.getLogger("stats")
# Istio's default: keep few of Envoy's own series, because each costs memory per cluster
_PREFIXES = (
    "cluster_manager",
    "listener_manager",
    "server",
    "cluster.xds-grpc",
    "istio",
    "access_logger",
    "wasm",
)
_SUFFIXES = ("downstream_cx_active", "ssl.handshake")
_PARTS = ("rbac.", "http_local_rate_limit.")
"""Statistics of authorization policies (also in dry runs) and of rate limits."""
_ANNOTATION = "sidecar.istio.io/stats"
BUCKETS, FLUSH = f"{_ANNOTATION}HistogramBuckets", f"{_ANNOTATION}FlushInterval"
CONNECTIONS = "overload.global_downstream_max_connections"
"""The runtime value that is now a resource monitor in Envoy."""
MOST_CONNECTIONS = 50_000
LOOKUP_S, PAUSE_S = 5.0, 0.5
"""How long the statsd server's name is looked up at most, and the time between two attempts."""


@dataclass(frozen=True)
class Statistics:
    """The user's settings, in addition to Lateen's own."""

    kept: tuple[tuple[str, str], ...] = ()
    """(prefix, suffix or regex, pattern) of additional names to keep."""
    buckets: Mapping[str, list[float]] = field(default_factory=dict)
    """Prefix of histogram names -> their buckets."""
    flush_s: float = 0
    """The interval of Envoy's sinks and gauges; 0 for Envoy's own."""
    statsd: tuple[str, int] | None = None
    """Host and port of a statsd server that gets them over UDP; Envoy takes an address only (``located``)."""

    def config(self) -> Json:
        keep = [
            *({"prefix": s} for s in _PREFIXES),
            *({"suffix": s} for s in _SUFFIXES),
            *({"contains": s} for s in _PARTS),
            *({"safe_regex": {"regex": p}} if how == "regex" else {how: p} for how, p in self.kept),
        ]
        return {
            "use_all_default_tags": False,
            "stats_tags": stat_tags.config(),
            "stats_matcher": {"inclusion_list": {"patterns": keep}},
            "histogram_bucket_settings": [
                {"match": {"prefix": name}, "buckets": found} for name, found in sorted(self.buckets.items())
            ],
        }

    def sinks(self) -> list[Json]:
        if self.statsd is None:
            return []
        address, port = self.statsd
        place = {"protocol": "UDP", "address": address, "port_value": port}
        kind = "type.googleapis.com/envoy.config.metrics.v3.StatsdSink"
        return [
            {
                "name": "envoy.stat_sinks.statsd",
                "typed_config": {"@type": kind, "address": {"socket_address": place}},
            }
        ]


PLAIN = Statistics()


def statistics(config: Mapping[str, Any], annotations: Mapping[str, str], address: str) -> Statistics:
    """``config``: the ProxyConfig; an annotation replaces its list. ``address``: the pod's, for
    ``{pod_ip}``. Raises ValueError."""
    matcher = config.get("proxyStatsMatcher") or {}
    kept = []
    for how, name in (("prefix", "Prefixes"), ("suffix", "Suffixes"), ("regex", "Regexps")):
        text = annotations.get(f"{_ANNOTATION}Inclusion{name}", "")
        given = text.split(",") if text else matcher.get(f"inclusion{name}") or []
        kept += [(how, p.replace("{pod_ip}", address)) for p in given if p]
    found = json.loads(annotations.get(BUCKETS) or "{}")
    flush = annotations.get(FLUSH)
    return Statistics(tuple(kept), found, duration.seconds(flush) if flush else 0, _server(config))


def _server(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """Raises ValueError."""
    text = str(config.get("statsdUdpAddress") or "")
    host, _, port = text.rpartition(":")
    if text and not digits(port):
        raise ValueError(f'statsdUdpAddress: "{text}" is not a host and a port')
    return (host.strip("[]"), int(port)) if text else None


async def located(given: Statistics, *, ipv4: bool) -> Statistics:
    """With the address of the statsd server, and without the server if nobody knows it within ``LOOKUP_S``: a proxy
    does not wait for its statistics any longer, as Istio's. ``ipv4``: whether the pod has an IPv4 address; then
    those of the server are preferred.

    Source: the look-up in istio.io/istio cmd/pilot-agent/config and ``ResolveAddr``, which is made once.
    """
    if given.statsd is None:
        return given
    host, port = given.statsd
    loop = asyncio.get_running_loop()
    end = loop.time() + LOOKUP_S
    while True:
        try:
            async with asyncio.timeout_at(end):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            best = min(found, key=lambda f: (f[0] == socket.AF_INET) != ipv4)
            return replace(given, statsd=(str(best[4][0]), port))
        except (OSError, UnicodeError) as e:  # the latter for names that DNS cannot have
            if loop.time() + PAUSE_S >= end or isinstance(e, UnicodeError):
                log.warning("statsd gets no statistics until the proxy restarts: %s: %s", host, str(e) or "timeout")
                return replace(given, statsd=None)
        await asyncio.sleep(PAUSE_S)


def runtime(given: Mapping[str, str]) -> Json:
    """The static layer of Envoy's runtime; an empty value removes a default."""
    out: Json = {
        "re2.max_program_size.error_level": 32768,
        "envoy.reloadable_features.http_reject_path_with_fragment": False,
    }
    for name, value in given.items():
        if value == "":
            out.pop(name, None)
        elif name != CONNECTIONS:
            out[name] = {"true": True, "false": False}.get(value, value)
    return out


def most_connections(given: Mapping[str, str], limit: int = 0) -> int:
    """The limit of all downstream connections together: the runtime value, else ``connectionSettings``'. Raises
    ValueError."""
    return int(given.get(CONNECTIONS) or limit or MOST_CONNECTIONS)
