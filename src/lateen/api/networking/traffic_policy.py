"""TrafficPolicy: load balancing, connection pools and TLS of clients of a host.

https://istio.io/latest/docs/reference/config/networking/destination-rule/#TrafficPolicy"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lateen.api.config import Config, Duration, Limits
from lateen.api.networking.common import PortSelector


class CookieAttribute(Config):
    name: str
    value: str = ""


class HTTPCookie(Config):
    name: str
    path: str = ""
    ttl: Duration | None = None
    attributes: tuple[CookieAttribute, ...] = ()


class RingHash(Config):
    minimum_ring_size: int | None = None


class MagLev(Config):
    table_size: int | None = None


class ConsistentHash(Config):
    http_header_name: str | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: int | None = None


class Distribute(Config):
    from_: str = msgspec.field(default="", name="from")
    to: dict[str, int] = {}


class Failover(Config):
    from_: str = msgspec.field(default="", name="from")
    to: str = ""


class LocalityLb(Config):
    distribute: tuple[Distribute, ...] = ()
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    enabled: bool | None = None


class ZoneAwareLb(Config):
    enabled: bool | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    min_cluster_size: Annotated[int, Limits(minimum=1)] | None = None


class Warmup(Config):
    duration: Duration
    minimum_percent: float | None = None
    aggression: float | None = None


class BackendUtilization(Config):
    error_utilization_penalty_percent: Annotated[int, Limits(minimum=0, maximum=2**32 - 1)] | None = None
    metric_names_for_computing_utilization: tuple[str, ...] = ()
    weight_expiration_period: Duration | None = None
    weight_stabilization_period: Duration | None = None
    weight_update_period: Duration | None = None


class LoadBalancer(Config):
    simple: Literal["UNSPECIFIED", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST", "LEAST_CONN"] | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLb | None = None
    zone_aware_lb_setting: ZoneAwareLb | None = None
    backend_utilization: BackendUtilization | None = None
    warmup_duration_secs: Duration | None = None
    warmup: Warmup | None = None


MOST_S, MOST_PROBES = 32767, 127
"""What Linux takes of a TcpKeepalive (tcp(7)); with more, Envoy could not open a connection."""


class TcpKeepalive(Config):
    probes: int | None = None
    time: Duration | None = None
    interval: Duration | None = None


class TcpPool(Config):
    max_connections: int | None = None
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: Duration | None = None


class Http2KeepAlive(Config):
    interval: Duration | None = None
    timeout: Duration | None = None


class HttpPool(Config):
    http1_max_pending_requests: int | None = None
    http2_max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    use_client_protocol: bool | None = None
    max_concurrent_streams: int | None = None
    http2_keep_alive: Http2KeepAlive | None = None


class ConnectionPool(Config):
    tcp: TcpPool | None = None
    http: HttpPool | None = None


class OutlierDetection(Config):
    consecutive_errors: int | None = None
    split_external_local_origin_errors: bool | None = None
    consecutive_local_origin_failures: int | None = None
    consecutive_gateway_errors: int | None = None
    consecutive_5xx_errors: int | None = msgspec.field(default=None, name="consecutive5xxErrors")
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None
    outlier_detection_http_error_codes: tuple[int, ...] = ()


CONFIG_MAP = "configmap://"
"""Before the name of a ConfigMap with CA certificates, in ``credentialName``"""


class ClientTLS(Config):
    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""
    insecure_skip_verify: bool | None = None


class PortTrafficPolicy(Config):
    port: PortSelector | None = None
    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLS | None = None


class Tunnel(Config):
    protocol: str = ""
    target_host: str = ""
    target_port: int = 0


class ProxyProtocol(Config):
    version: Literal["V1", "V2"] | None = None


class RetryBudget(Config):
    percent: float | None = None
    budget_interval: Duration | None = None
    min_retry_concurrency: int | None = None


class TrafficPolicy(Config):
    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLS | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
    tunnel: Tunnel | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
