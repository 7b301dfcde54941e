"""Plain TCP forwarding and the listener filters."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.mongo_proxy.v3 import mongo_proxy_pb2
from envoy.extensions.filters.network.redis_proxy.v3 import redis_proxy_pb2
from envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3 import sni_dynamic_forward_proxy_pb2 as sni_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from lateen.api import networking as api
from lateen.mesh import policy
from lateen.mesh.objects import MeshConfig
from lateen.mesh.view import HostView
from lateen.wire import names
from lateen.xds import discovery, pb, telemetry

ACCEPTED_AT_ONCE = 1
"""Connections that a thread takes from a socket before it looks after its other work, as in Istio: a burst spreads over
all threads."""


@dataclass(frozen=True)
class Option:
    """What a DestinationRule says of connections to one cluster."""

    idle_s: float | None = None
    longest_s: float | None = None
    tunnel: api.Tunnel | None = field(default=None, hash=False)


Options = dict[str, Option]
"""By cluster."""


def options(host: HostView, port: int) -> Options:
    """Of every cluster that connections to a service may be led to."""
    out: Options = {}
    for full, rules in (*host.onward, (host.host, host.rules)):
        numbers = {port} | {n for _, h, found in host.destinations if h == full for n in found}
        for number in numbers:
            for subset in ["", *(s.name for dr in rules for s in dr.spec.subsets)]:
                found = policy.merged(rules, subset, number)
                mine = option(found.connection_pool, found.tunnel)
                if mine is not None:
                    out[names.outbound(full, number, subset)] = mine
    return out


def option(pool: api.ConnectionPool | None, tunnel: api.Tunnel | None = None) -> Option | None:
    """None where nothing is said."""
    tcp = pool.tcp if pool else None
    idle = tcp.idle_timeout.seconds if tcp and tcp.idle_timeout else None
    longest = tcp.max_connection_duration.seconds if tcp and tcp.max_connection_duration else None
    return Option(idle, longest, tunnel) if idle is not None or longest is not None or tunnel else None


def proxy(
    config: MeshConfig, cluster: str, server: telemetry.Server | None = None, option: Option | None = None
) -> Any:
    return weighted(config, ((cluster, 100),), server, option)


def weighted(
    config: MeshConfig,
    clusters: tuple[tuple[str, int], ...],
    server: telemetry.Server | None = None,
    option: Option | None = None,
) -> Any:
    """Connections to one cluster, or to several by their weights."""
    out = tcp_proxy_pb2.TcpProxy(stat_prefix=clusters[0][0], access_log=telemetry.loggers(config, False, server))
    if len(clusters) == 1:
        out.cluster = clusters[0][0]
    else:
        for name, weight in clusters:
            out.weighted_clusters.clusters.add(name=name, weight=weight)
    if option is not None:
        if option.idle_s is not None:
            out.idle_timeout.CopyFrom(pb.duration(option.idle_s))
        if option.longest_s is not None:
            out.max_downstream_connection_duration.CopyFrom(pb.duration(option.longest_s))
        if option.tunnel is not None:
            tunnel = option.tunnel
            out.tunneling_config.hostname = f"{tunnel.target_host}:{tunnel.target_port}"
            out.tunneling_config.use_post = tunnel.protocol.upper() == "POST"
    return lc.Filter(name="envoy.filters.network.tcp_proxy", typed_config=pb.any_of(out))


def to(config: MeshConfig, clusters: tuple[tuple[str, int], ...], protocol: str, found: Options) -> list[Any]:
    """The network filters of connections of a protocol; of several clusters the first one's settings hold."""
    option = next((found[name] for name, _ in clusters if name in found), None)
    return [*_before(protocol, clusters[0][0]), *_last(config, clusters, protocol, option)]


def _before(protocol: str, cluster: str) -> list[Any]:
    """Filters that only watch: MongoDB's commands are counted."""
    if protocol != "mongo":
        return []
    found = mongo_proxy_pb2.MongoProxy(stat_prefix=cluster)
    return [lc.Filter(name="envoy.filters.network.mongo_proxy", typed_config=pb.any_of(found))]


def _last(config: MeshConfig, clusters: tuple[tuple[str, int], ...], protocol: str, option: Option | None) -> list[Any]:
    if protocol != "redis" or not config.redis_filter:
        return [weighted(config, clusters, None, option)]
    # Redis' own proxy balances commands, not connections; it has one cluster.
    found = redis_proxy_pb2.RedisProxy(stat_prefix=clusters[0][0])
    found.settings.op_timeout.CopyFrom(pb.duration(5))
    found.prefix_routes.catch_all_route.cluster = clusters[0][0]
    return [lc.Filter(name="envoy.filters.network.redis_proxy", typed_config=pb.any_of(found))]


def sni_forward(port: int) -> Any:
    """Looks up the name that TLS asks for."""
    found = sni_pb2.FilterConfig(dns_cache_config=discovery.dns_cache(), port_value=port)
    return lc.Filter(name="envoy.filters.network.sni_dynamic_forward_proxy", typed_config=pb.any_of(found))


@lru_cache(maxsize=1)
def original_dst() -> Any:
    return lc.ListenerFilter(
        name="envoy.filters.listener.original_dst", typed_config=pb.any_of(original_dst_pb2.OriginalDst())
    )


@lru_cache(maxsize=1)
def tls_inspector() -> Any:
    return lc.ListenerFilter(
        name="envoy.filters.listener.tls_inspector", typed_config=pb.any_of(tls_inspector_pb2.TlsInspector())
    )


@lru_cache(maxsize=1)
def http_inspector() -> Any:
    return lc.ListenerFilter(
        name="envoy.filters.listener.http_inspector", typed_config=pb.any_of(http_inspector_pb2.HttpInspector())
    )
