"""Forwards connections to one cluster, or to several by weight."""

from __future__ import annotations

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from lateen.xds import pb, telemetry
from lateen.xds.filters import redis
from lateen.xds.filters.chain import Connections, Option

NAME = "envoy.filters.network.tcp_proxy"
EARLY = 64 * 1024
"""Bytes of a client that are held until the application is connected; Envoy reads no more of them before."""


def network(chain: Connections) -> list[lc.Filter]:
    if redis.wanted(chain):
        return []
    out = tcp_proxy_pb2.TcpProxy(
        stat_prefix=chain.clusters[0][0], access_log=telemetry.loggers(chain.seen, False, chain.server)
    )
    out.access_log_options.flush_access_log_on_connected = chain.seen.metrics is not None
    if (every_s := telemetry.every(chain.seen.metrics)) is not None:
        out.access_log_options.access_log_flush_interval.CopyFrom(pb.duration(every_s))
    if chain.server is not None and chain.server.security == "mutual_tls":
        # The application hears of a client once it is known who it is; and it is then counted with its name.
        out.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
        out.max_early_data_bytes.value = EARLY
    if len(chain.clusters) == 1:
        out.cluster = chain.clusters[0][0]
    else:
        for name, weight in chain.clusters:
            out.weighted_clusters.clusters.add(name=name, weight=weight)
    if chain.option is not None:
        _settings(out, chain.option)
    return [lc.Filter(name=NAME, typed_config=pb.any_of(out))]


def _settings(out: tcp_proxy_pb2.TcpProxy, option: Option) -> None:
    if option.idle_s is not None:
        out.idle_timeout.CopyFrom(pb.duration(option.idle_s))
    if option.longest_s is not None:
        out.max_downstream_connection_duration.CopyFrom(pb.duration(option.longest_s))
    if option.tunnel is not None:
        tunnel = option.tunnel
        out.tunneling_config.hostname = f"{tunnel.target_host}:{tunnel.target_port}"
        out.tunneling_config.use_post = tunnel.protocol.upper() == "POST"
