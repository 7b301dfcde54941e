"""Network filters that forward connections, and listener filters."""

from __future__ import annotations

from functools import cache
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from lateen.api.networking import traffic_policy as api
from lateen.mesh import policy
from lateen.mesh.observability import Side
from lateen.mesh.outbound_view import HostView
from lateen.wire import names
from lateen.xds import pb, telemetry
from lateen.xds.filters import order
from lateen.xds.filters.chain import OPEN, Connections, Option, Screen

ACCEPTED_AT_ONCE = 1
"""Connections that a worker thread accepts from a socket before it does its other work, as in Istio: a burst spreads
over all threads."""


def buffered(seen: Side) -> Any:
    """How much of a connection's data a listener of the proxy buffers; None: Envoy's default."""
    limit = seen.handling.connections.listener_per_connection_buffer_limit_bytes
    return None if limit is None else pb.u32(limit)


Options = dict[str, Option]
"""By cluster."""


def options(host: HostView, port: int) -> Options:
    """Options of every cluster that connections to a service may be routed to."""
    out: Options = {}
    for full, ports, rules in (*host.onward, (host.host, (), host.rules)):
        for number in {port, *ports}:
            for subset in ["", *(s.name for dr in rules for s in dr.spec.subsets)]:
                found = policy.merged(rules, subset, number)
                mine = option(found.connection_pool, found.tunnel)
                if mine is not None:
                    out[names.outbound(full, number, subset)] = mine
    return out


def option(pool: api.ConnectionPool | None, tunnel: api.Tunnel | None = None) -> Option | None:
    """None where no setting concerns connections."""
    tcp = pool.tcp if pool else None
    idle = tcp.idle_timeout.seconds if tcp and tcp.idle_timeout else None
    longest = tcp.max_connection_duration.seconds if tcp and tcp.max_connection_duration else None
    return Option(idle, longest, tunnel) if idle is not None or longest is not None or tunnel else None


def weighted(
    seen: Side,
    clusters: tuple[tuple[str, int], ...],
    server: telemetry.Server | None = None,
    option: Option | None = None,
    screen: Screen = OPEN,
    bytes_on_http: bool = False,
) -> list[Any]:
    """Network filters of connections to one cluster, or to several by their weights."""
    return order.network(
        Connections(seen, clusters, server=server, option=option, screen=screen, bytes_on_http=bytes_on_http)
    )


def proxy(seen: Side, cluster: str, server: telemetry.Server | None = None, screen: Screen = OPEN) -> list[Any]:
    """Network filters of connections to one cluster."""
    return weighted(seen, ((cluster, 100),), server, screen=screen)


def to(
    seen: Side,
    clusters: tuple[tuple[str, int], ...],
    protocol: str,
    found: Options,
    *,
    redis: bool = False,
    resolved: tuple[str, int] | None = None,
    bytes_on_http: bool = False,
) -> list[Any]:
    """Network filters of a client's connections; of several clusters the first one's settings hold. See
    ``filters.chain.Connections``."""
    option = next((found[name] for name, _ in clusters if name in found), None)
    return order.network(
        Connections(
            seen,
            clusters,
            protocol,
            option=option,
            redis=redis,
            resolved=resolved,
            bytes_on_http=bytes_on_http,
        )
    )


@cache
def original_dst() -> lc.ListenerFilter:
    return lc.ListenerFilter(
        name="envoy.filters.listener.original_dst", typed_config=pb.any_of(original_dst_pb2.OriginalDst())
    )


@cache
def original_src(mark: int) -> lc.ListenerFilter:
    """Connections to the application come from the client's address; their packets are marked, so that answers stay in
    the pod."""
    return lc.ListenerFilter(
        name="envoy.filters.listener.original_src", typed_config=pb.any_of(original_src_pb2.OriginalSrc(mark=mark))
    )


@cache
def proxy_protocol() -> lc.ListenerFilter:
    """Must be the first listener filter: its header precedes all other bytes."""
    return lc.ListenerFilter(
        name="envoy.filters.listener.proxy_protocol", typed_config=pb.any_of(proxy_protocol_pb2.ProxyProtocol())
    )


DETECTION_S = 5.0
"""The default timeout of protocol detection, in seconds, for server-first protocols (Istio: none)."""


def detection(chosen: float | None) -> Any:
    """How long a listener waits for the first bytes of clients (``protocolDetectionTimeout``); afterwards the
    connection is taken for one of plain TCP."""
    return pb.duration(DETECTION_S if chosen is None else chosen)


@cache
def tls_inspector() -> lc.ListenerFilter:
    return lc.ListenerFilter(
        name="envoy.filters.listener.tls_inspector", typed_config=pb.any_of(tls_inspector_pb2.TlsInspector())
    )


@cache
def http_inspector() -> lc.ListenerFilter:
    return lc.ListenerFilter(
        name="envoy.filters.listener.http_inspector", typed_config=pb.any_of(http_inspector_pb2.HttpInspector())
    )
