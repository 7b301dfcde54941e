"""Plain TCP forwarding and the listener filters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from lateen.mesh.model import MeshConfig
from lateen.xds import pb, telemetry


def proxy(config: MeshConfig, cluster: str, server: telemetry.Server | None = None) -> Any:
    return weighted(config, ((cluster, 100),), server)


def weighted(config: MeshConfig, clusters: tuple[tuple[str, int], ...], server: telemetry.Server | None = None) -> Any:
    """Connections to one cluster, or to several by their weights."""
    out = tcp_proxy_pb2.TcpProxy(stat_prefix=clusters[0][0], access_log=telemetry.loggers(config, False, server))
    if len(clusters) == 1:
        out.cluster = clusters[0][0]
    else:
        for name, weight in clusters:
            out.weighted_clusters.clusters.add(name=name, weight=weight)
    return lc.Filter(name="envoy.filters.network.tcp_proxy", typed_config=pb.any_of(out))


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
