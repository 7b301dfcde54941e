"""Envoy's bootstrap: its identity, the address of its control plane, health and metrics listeners, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lateen.agent import statistics
from lateen.agent.statistics import PLAIN, Statistics
from lateen.kit.jsons import Json
from lateen.wire import ports
from lateen.wire.labels import ENVOY_METRICS_PATH, PEER_HEADER
from lateen.wire.node import NodeId

DIRECTORY = "/etc/istio/proxy"
ISTIOD, CLIENT = "ISTIOD", "ISTIOD-CLIENT"
"""The SDS secret with the roots that verify istiod, which may differ from those of workloads."""


@dataclass(frozen=True)
class Proxy:
    """The agent's knowledge of its pod."""

    node: NodeId
    metadata: Json
    service_cluster: str
    control_plane: str
    control_plane_port: int = ports.XDS
    concurrency: int = 2
    mark: int | None = None
    outlier_log: str = ""
    agent_port: int = ports.MERGED_METRICS
    statistics: Statistics = PLAIN
    runtime: Mapping[str, str] = field(default_factory=dict)
    """``runtimeValues`` of the proxy's configuration"""
    ipv6: bool = False
    """Whether others reach it by IPv6"""
    ipv4: bool = True
    most_connections: int = 0
    """``connectionSettings.globalDownstreamConnectionLimit``; 0 for the default"""
    known: str = DIRECTORY
    """The directory of the certificate for istiod"""


def _cluster(name: str, host: str, port: int, **more: object) -> Json:
    return {
        "name": name,
        "type": "STATIC" if host.startswith("127.") else "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}]}
            ],
        },
        **more,
    }


def _file_secret(name: str, directory: str) -> Json:
    return {
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "path_config_source": {
                "path": f"{directory}/sds-{name.lower()}.json",
                "watched_directory": {"path": directory},
            },
        },
    }


def _tls(host: str, directory: str) -> Json:
    """The cluster for istiod, which knows the proxy by the certificate that it has issued, and is verified by name."""
    own = "default" if directory == DIRECTORY else CLIENT
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": host,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                # Envoy's default maximum for clients is TLS 1.2
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificate_sds_secret_configs": [_file_secret(own, directory)],
                "combined_validation_context": {
                    "default_validation_context": {
                        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}]
                    },
                    "validation_context_sds_secret_config": _file_secret(ISTIOD, directory),
                },
            },
        },
    }


def _listener(name: str, port: int, ipv6: bool, path: str, at_agent: str = "") -> Json:
    """A listener that passes requests for one path on to the agent. ``at_agent``: the path there, if it differs, where
    the agent also learns who asks."""
    more = {"address": {"socket_address": {"address": "::", "port_value": port}}}
    route = {"cluster": "agent", "timeout": "10s", **({"prefix_rewrite": at_agent} if at_agent else {})}
    asking = {"header": {"key": PEER_HEADER, "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}}
    told = {"request_headers_to_add": [{**asking, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]} if at_agent else {}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "agent",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{"match": {"path": path}, "route": route, **told}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        **({"additional_addresses": [more]} if ipv6 else {}),
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _control_plane(p: Proxy) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    keepalive = {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
    return _cluster(
        "xds-grpc",
        p.control_plane,
        p.control_plane_port,
        connect_timeout="2s",
        respect_dns_ttl=True,
        dns_lookup_family="V4_ONLY" if not p.ipv6 else "ALL" if p.ipv4 else "V6_ONLY",
        transport_socket=_tls(p.control_plane, p.known),
        upstream_connection_options={"tcp_keepalive": {"keepalive_time": 30}},
        typed_extension_protocol_options={
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": keepalive},
            }
        },
    )


def _connections(p: Proxy) -> Json:
    """The limit of the proxy's connections from clients."""
    config = {
        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3."
        "DownstreamConnectionsConfig",
        "max_active_downstream_connections": statistics.most_connections(p.runtime, p.most_connections),
    }
    return {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": config}


def bootstrap(p: Proxy) -> Json:
    """Envoy's configuration file: ``envoy.config.bootstrap.v3.Bootstrap`` as JSON."""
    ads = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
    }
    from_ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    out: Json = {
        "node": {"id": str(p.node), "cluster": p.service_cluster, "metadata": p.metadata, "locality": {}},
        "admin": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports.ADMIN}},
            "profile_path": f"{DIRECTORY}/envoy.prof",
        },
        "dynamic_resources": {"ads_config": ads, "cds_config": from_ads, "lds_config": from_ads},
        "static_resources": {
            "clusters": [_control_plane(p), _cluster("agent", "127.0.0.1", p.agent_port)],
            "listeners": [
                _listener("agent", ports.HEALTH, p.ipv6, "/healthz/ready"),
                _listener("metrics", ports.ENVOY_METRICS, p.ipv6, "/stats/prometheus", ENVOY_METRICS_PATH),
            ],
        },
        # reduces the memory of unused clusters from 37 to 26 kB with two workers; Istio's agent does the same
        # (ENABLE_DEFERRED_CLUSTER_CREATION, ENABLE_DEFERRED_STATS_CREATION).
        "cluster_manager": {"enable_deferred_cluster_creation": True},
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "stats_config": p.statistics.config(),
        "layered_runtime": {
            "layers": [
                {"name": "limits", "static_layer": statistics.runtime(p.runtime)},
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "overload_manager": {"resource_monitors": [_connections(p)]},
    }
    if p.mark is not None:
        out["cluster_manager"]["upstream_bind_config"] = {
            "socket_options": [
                {
                    "description": "the proxy's own",
                    "level": 1,
                    "name": 36,
                    "int_value": p.mark,
                    "state": "STATE_PREBIND",
                }
            ]
        }
    if sinks := p.statistics.sinks():
        out["stats_sinks"] = sinks
    if p.statistics.flush_s:
        out["stats_flush_interval"] = f"{p.statistics.flush_s:g}s"
    if p.outlier_log:
        out["cluster_manager"]["outlier_detection"] = {"event_log_path": p.outlier_log}
    return out
