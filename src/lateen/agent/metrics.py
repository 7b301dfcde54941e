"""Envoy's metrics under Istio's names, the agent's own and the application's, in one response for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import re

from lateen.agent.connections import Connections
from lateen.agent.options import Options
from lateen.agent.own_metrics import Own
from lateen.kit import http
from lateen.wire import ports
from lateen.wire.connections import PEER as PEER_KEYS
from lateen.wire.connections import SEPARATOR

METRIC = re.compile(rb"^(# (?:TYPE|HELP) )?envoy_istio_", re.MULTILINE)
ABSENT = re.compile(rb'(?<!response_flags)(?<!grpc_response_status)="-?"(?=[,}])')
"""Labels of requests that reached no endpoint: Istio writes "unknown", Envoy leaves them empty."""
CALLER = re.compile(rb'[{,]source_principal="spiffe://[^/"]*/ns/([^/"]+)/sa/')
GRPC = re.compile(rb'grpc_response_status="\d')
FLAGS = re.compile(rb'response_flags="([^"]*)"')
PEER = re.compile(rb'source_([a-z_]+)="([^";]*(?:;[^";]*)+)"')
"""The labels that contain the peer's description from its certificate (``wire.connections.PEER``)."""
PARTS = {
    b"workload": "workload",
    b"workload_namespace": "namespace",
    b"canonical_service": "service",
    b"canonical_revision": "revision",
    b"app": "app",
    b"version": "version",
}
_STANDARD = "/stats/prometheus?usedonly&filter=%5Eistio%5C.%7Crbac%5C.istio_%28audit%7Cdry_run%29_"
"""Also what policies have matched without a consequence."""
_GRAPH = "/stats/prometheus?usedonly&filter=%5Eistio%5C.%28requests_total%7Ctcp_%7Crequest_duration%29"


class Metrics:
    def __init__(self, options: Options, connections: Connections | None = None) -> None:
        self._options = options
        self._connections = connections or Connections()
        self.own = Own(options.kind)

    async def all(self) -> bytes:
        parts = []
        if not self._options.proxyless:
            parts.append(await self._envoy("/stats/prometheus"))
        parts.append(self.own.text())
        parts += await asyncio.gather(*(_get("127.0.0.1", port, path) for port, path in self._options.scrape_targets))
        return b"\n".join(p.rstrip(b"\n") for p in parts if p) + b"\n"

    async def standard(self) -> bytes:
        """Istio's own metrics, and the agent's, without most of Envoy's and the application's."""
        return await self._envoy(_STANDARD) + self.own.text()

    async def graph(self) -> bytes:
        """Only the metrics needed for edges of the graph: cheap enough to be read every second."""
        return await self._envoy(_GRAPH)

    async def _envoy(self, path: str) -> bytes:
        """Envoy's metrics, including the bytes of open connections."""
        self._connections.read_now()
        found = await _get("127.0.0.1", ports.ADMIN, path)
        return summed(istio_names(found), istio_names(self._connections.text())) if found else b""


async def _get(host: str, port: int, path: str) -> bytes:
    """The response; empty on failure, so that the other metrics are not lost."""
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        return (await http.fetch(host, port, path, timeout=5)).body
    return b""


def summed(found: bytes, more: bytes) -> bytes:
    """Metrics with further counters added; samples with the same metric and labels are summed. ``more`` contains only
    samples."""
    extra = [line.rsplit(b" ", 1) for line in more.split(b"\n") if line]
    if not extra:
        return found
    kept, groups = [], {series.partition(b"{")[0]: dict[bytes, int]() for series, _ in extra}
    for line in found.split(b"\n"):
        name = line.partition(b"{")[0]
        if (group := groups.get(name)) is None:
            if not (line.startswith(b"# TYPE ") and line.split(b" ")[2] in groups):
                kept.append(line)
        else:
            extra.append(line.rsplit(b" ", 1))
    for series, value in extra:
        group = groups[series.partition(b"{")[0]]
        group[series] = group.get(series, 0) + int(value)
    for name, group in groups.items():
        kept += [b"# TYPE %s counter" % name, *(b"%s %d" % sample for sample in group.items())]
    return b"\n".join(line for line in kept if line) + b"\n"


def istio_names(raw: bytes) -> bytes:
    """``envoy_istio_requests_total`` -> ``istio_requests_total``; labels without a value are ``unknown``, except for
    what the certificates of the connection tell."""
    named = ABSENT.sub(b'="unknown"', METRIC.sub(lambda m: (m[1] or b"") + b"istio_", raw))
    return b"\n".join(_told(line) if line.startswith(b"istio_") else line for line in named.split(b"\n"))


def _told(line: bytes) -> bytes:
    """Fill in labels that depend on others, which Envoy cannot express: on the client's side whether mutual TLS was
    used, on the server's side the namespace of a caller that is only known by its certificate (Istio prefers the
    certificate, too); and that a request with a gRPC status was gRPC."""
    if GRPC.search(line):
        line = line.replace(b'request_protocol="http"', b'request_protocol="grpc"')
    if b'reporter="source"' in line:
        policy = b"mutual_tls" if b'destination_principal="spiffe:' in line else _without_certificate(line)
        return line.replace(b'connection_security_policy="unknown"', b'connection_security_policy="%s"' % policy)
    if b";" in line:
        line = PEER.sub(_part, line)
    if b'source_workload_namespace="unknown"' in line and (found := CALLER.search(line)):
        return line.replace(b'source_workload_namespace="unknown"', b'source_workload_namespace="%s"' % found[1])
    return line


def _part(found: re.Match[bytes]) -> bytes:
    """The label's own part of the peer description in its value."""
    values = found[2].split(SEPARATOR.encode())
    if len(values) != len(PEER_KEYS) or found[1] not in PARTS:
        return found[0]
    return b'source_%s="%s"' % (found[1], values[PEER_KEYS.index(PARTS[found[1]])])


def _without_certificate(line: bytes) -> bytes:
    """Whether the connection was plain text, which is only known if a workload of the mesh answered."""
    flags = FLAGS.search(line)
    failed = flags is not None and b"UF" in flags[1].split(b",")
    return b"unknown" if failed or b'destination_workload="unknown"' in line else b"none"
