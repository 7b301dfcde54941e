"""Istio's ProxyConfig: ``meshConfig.defaultConfig`` and the annotation ``proxy.istio.io/config``.

Source: istio.io/api ``mesh/v1alpha1/proxy.proto``. Not the custom resource ProxyConfig
(``api/networking/proxy_config.py``), which has four fields.
"""

from __future__ import annotations

from typing import Literal

from lateen.api.config import Config, Duration
from lateen.api.mesh.providers import Empty
from lateen.api.networking import ClientTLS, ProxyImage, ReadinessProbe, TcpKeepalive


class Address(Config):
    address: str = ""


class LightstepAddress(Config):
    address: str = ""
    access_token: str = ""


class StackdriverTracing(Config):
    debug: bool = False
    max_number_of_attributes: int | None = None
    max_number_of_annotations: int | None = None
    max_number_of_message_events: int | None = None


class OpenCensusAgent(Config):
    address: str = ""
    context: tuple[Literal["UNSPECIFIED", "W3C_TRACE_CONTEXT", "GRPC_BIN", "CLOUD_TRACE_CONTEXT", "B3"], ...] = ()


class LiteralTag(Config):
    value: str = ""


class NamedTag(Config):
    name: str = ""
    default_value: str = ""


class CustomTag(Config):
    literal: LiteralTag | None = None
    environment: NamedTag | None = None
    header: NamedTag | None = None


class Tracing(Config):
    zipkin: Address | None = None
    lightstep: LightstepAddress | None = None
    datadog: Address | None = None
    stackdriver: StackdriverTracing | None = None
    open_census_agent: OpenCensusAgent | None = None
    custom_tags: dict[str, CustomTag] = {}
    max_path_tag_length: int | None = None
    sampling: float | None = None
    tls_settings: ClientTLS | None = None
    enable_istio_tags: bool | None = None


ForwardClientCert = Literal[
    "UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"
]


class Topology(Config):
    num_trusted_proxies: int = 0
    forward_client_cert_details: ForwardClientCert | None = None
    proxy_protocol: Empty | None = None


class Sds(Config):
    enabled: bool = False
    k8s_sa_jwt_path: str = ""


class RemoteService(Config):
    address: str = ""
    tls_settings: ClientTLS | None = None
    tcp_keepalive: TcpKeepalive | None = None


class StatsMatcher(Config):
    inclusion_prefixes: tuple[str, ...] = ()
    inclusion_suffixes: tuple[str, ...] = ()
    inclusion_regexps: tuple[str, ...] = ()


class KeyAccelerator(Config):
    poll_delay: Duration | None = None
    fallback: bool | None = None


class PrivateKeyProvider(Config):
    cryptomb: KeyAccelerator | None = None
    qat: KeyAccelerator | None = None


class ServerHeader(Config):
    disabled: bool | None = None
    value: str = ""


class Disabled(Config):
    disabled: bool | None = None


class Enabled(Config):
    enabled: bool | None = None


class MetadataExchangeHeaders(Config):
    mode: Literal["UNDEFINED", "IN_MESH"] | None = None


class CurrentClientCertDetails(Config):
    subject: bool | None = None
    cert: bool | None = None
    chain: bool | None = None
    dns: bool | None = None
    uri: bool | None = None


class ProxyHeaders(Config):
    forwarded_client_cert: ForwardClientCert | None = None
    set_current_client_cert_details: CurrentClientCertDetails | None = None
    request_id: Disabled | None = None
    server: ServerHeader | None = None
    attempt_count: Disabled | None = None
    envoy_debug_headers: Disabled | None = None
    metadata_exchange_headers: MetadataExchangeHeaders | None = None
    preserve_http1_header_case: bool | None = None
    x_forwarded_host: Enabled | None = None
    x_forwarded_port: Enabled | None = None


class ConnectionSettings(Config):
    profile: Literal["SIDECAR", "EDGE"] | None = None
    listener_per_connection_buffer_limit_bytes: int | None = None
    cluster_per_connection_buffer_limit_bytes: int | None = None
    http_idle_timeout: Duration | None = None
    http_max_connection_duration: Duration | None = None
    http_drain_timeout: Duration | None = None
    http_request_timeout: Duration | None = None
    http_request_headers_timeout: Duration | None = None
    http_stream_idle_timeout: Duration | None = None
    http_max_stream_duration: Duration | None = None
    http_max_concurrent_streams: int | None = None
    http2_initial_stream_window_size: int | None = None
    http2_initial_connection_window_size: int | None = None
    http_headers_with_underscores_action: (
        Literal[
            "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
            "HEADERS_WITH_UNDERSCORES_ALLOW",
            "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
            "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
        ]
        | None
    ) = None
    http_merge_slashes: bool | None = None
    http_path_with_escaped_slashes_action: (
        Literal[
            "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
            "KEEP_UNCHANGED",
            "REJECT_REQUEST",
            "UNESCAPE_AND_REDIRECT",
            "UNESCAPE_AND_FORWARD",
        ]
        | None
    ) = None
    listener_connection_limit: int | None = None
    global_downstream_connection_limit: int | None = None


class ProxyConfig(Config):
    config_path: str = ""
    binary_path: str = ""
    service_cluster: str = ""
    tracing_service_name: (
        Literal["APP_LABEL_AND_NAMESPACE", "CANONICAL_NAME_ONLY", "CANONICAL_NAME_AND_NAMESPACE"] | None
    ) = None
    drain_duration: Duration | None = None
    discovery_address: str = ""
    discovery_refresh_delay: Duration | None = None
    zipkin_address: str = ""
    statsd_udp_address: str = ""
    envoy_metrics_service_address: str = ""
    proxy_admin_port: int | None = None
    availability_zone: str = ""
    control_plane_auth_policy: Literal["NONE", "MUTUAL_TLS", "INHERIT"] | None = None
    custom_config_file: str = ""
    stat_name_length: int | None = None
    concurrency: int | None = None
    proxy_bootstrap_template_path: str = ""
    interception_mode: Literal["REDIRECT", "TPROXY", "NONE"] | None = None
    tracing: Tracing | None = None
    sds: Sds | None = None
    envoy_access_log_service: RemoteService | None = None
    envoy_metrics_service: RemoteService | None = None
    proxy_metadata: dict[str, str] = {}
    runtime_values: dict[str, str] = {}
    status_port: int | None = None
    extra_stat_tags: tuple[str, ...] = ()
    gateway_topology: Topology | None = None
    termination_drain_duration: Duration | None = None
    mesh_id: str = ""
    readiness_probe: ReadinessProbe | None = None
    proxy_stats_matcher: StatsMatcher | None = None
    hold_application_until_proxy_starts: bool | None = None
    ca_certificates_pem: tuple[str, ...] = ()
    image: ProxyImage | None = None
    private_key_provider: PrivateKeyProvider | None = None
    proxy_headers: ProxyHeaders | None = None
    file_flush_interval: Duration | None = None
    file_flush_min_size_kb: int | None = None
    stats_compression: bool | None = None
    connection_settings: ConnectionSettings | None = None
