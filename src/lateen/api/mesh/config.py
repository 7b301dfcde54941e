"""Istio's MeshConfig, the key ``mesh`` of the ConfigMap ``istio`` and ``spec.meshConfig`` of an installation.

Source: istio.io/api ``mesh/v1alpha1/config.proto``. The section ``lateen`` is our own.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lateen.api.config import Config, Duration
from lateen.api.mesh.providers import ExtensionProvider
from lateen.api.mesh.proxy import ProxyConfig
from lateen.api.networking import (
    ClientTLS,
    ConnectionPool,
    HTTPRetry,
    LocalityLb,
    OutlierDetection,
    TcpKeepalive,
    ZoneAwareLb,
)

DYNAMIC = "ALLOW_ANY_DYNAMIC_DNS"


class OutboundTrafficPolicy(Config):
    """A policy without a mode is REGISTRY_ONLY, the enum's first value, as in Istio."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"] = "REGISTRY_ONLY"
    tls: ClientTLS | None = None


class InboundTrafficPolicy(Config):
    mode: Literal["PASSTHROUGH", "LOCALHOST"] | None = None


class CertificateData(Config):
    pem: str = ""
    spiffe_bundle_url: str = ""
    cert_signers: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()


class ConfigSource(Config):
    address: str = ""
    tls_settings: ClientTLS | None = None
    subscribed_resources: tuple[Literal["SERVICE_REGISTRY"], ...] = ()


class Certificate(Config):
    secret_name: str = ""
    dns_names: tuple[str, ...] = ()


class ServiceSetting(Config):
    cluster_local: bool = False


class ServiceSettings(Config):
    settings: ServiceSetting | None = None
    hosts: tuple[str, ...] = ()


class SelectorRequirement(Config):
    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(Config):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[SelectorRequirement, ...] = ()


class ServiceScope(Config):
    namespace_selector: LabelSelector | None = None
    services_selector: LabelSelector | None = None
    scope: Literal["LOCAL", "GLOBAL"] | None = None


class CertificateAuthority(Config):
    address: str = ""
    tls_settings: ClientTLS | None = None
    request_timeout: Duration | None = None
    istiod_side: bool = False


class DefaultProviders(Config):
    tracing: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    access_logging: tuple[str, ...] = ()


class PathNormalization(Config):
    normalization: Literal["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] | None = None


class TlsConfig(Config):
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_2", "TLSV1_3"] | None = None
    ecdh_curves: tuple[str, ...] = ()
    cipher_suites: tuple[str, ...] = ()


class DefaultTrafficPolicy(Config):
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None


Visibility = Literal["VISIBILITY_UNSPECIFIED", "NONE", "NAMESPACE", "PUBLIC"]


class VisibilityRule(Config):
    namespace_selector: LabelSelector | None = None


class VisibilityPolicy(Config):
    visibility: Visibility | None = None
    matching_rules: tuple[VisibilityRule, ...] = ()


class ServiceEntryVisibility(Config):
    default_visibility: Visibility | None = None
    apply_to_sidecars: bool = False
    policies: tuple[VisibilityPolicy, ...] = ()


class Lateen(Config):
    """Settings that Istio does not have."""

    telemetry: Literal["full", "lean"] = "full"
    """``lean``: fewer histograms, no access log."""
    http2: bool = True
    """HTTP/2 between sidecars."""
    redis_filter: bool = False
    """Envoy's Redis proxy on ports of protocol redis."""


class MeshConfig(Config):
    proxy_listen_port: int | None = None
    proxy_inbound_listen_port: int | None = None
    proxy_http_port: int | None = None
    connect_timeout: Duration | None = None
    hbone_idle_timeout: Duration | None = None
    protocol_detection_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    ingress_class: str = ""
    ingress_service: str = ""
    ingress_controller_mode: Literal["UNSPECIFIED", "OFF", "DEFAULT", "STRICT"] | None = None
    ingress_selector: str = ""
    enable_tracing: bool = False
    access_log_file: str = ""
    access_log_format: str = ""
    access_log_encoding: Literal["TEXT", "JSON"] | None = None
    enable_envoy_access_log_service: bool = False
    disable_envoy_listener_log: bool = False
    default_config: ProxyConfig | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    inbound_traffic_policy: InboundTrafficPolicy | None = None
    config_sources: tuple[ConfigSource, ...] = ()
    enable_auto_mtls: bool | None = None
    trust_domain: str = ""
    trust_domain_aliases: tuple[str, ...] = ()
    ca_certificates: tuple[CertificateData, ...] = ()
    default_service_export_to: tuple[str, ...] = ()
    default_virtual_service_export_to: tuple[str, ...] = ()
    default_destination_rule_export_to: tuple[str, ...] = ()
    root_namespace: str = ""
    locality_lb_setting: LocalityLb | None = None
    zone_aware_lb_setting: ZoneAwareLb | None = None
    dns_refresh_rate: Duration | None = None
    h2_upgrade_policy: Literal["DO_NOT_UPGRADE", "UPGRADE"] | None = None
    inbound_cluster_stat_name: str = ""
    outbound_cluster_stat_name: str = ""
    certificates: tuple[Certificate, ...] = ()
    service_settings: tuple[ServiceSettings, ...] = ()
    service_scope_configs: tuple[ServiceScope, ...] = ()
    enable_prometheus_merge: bool | None = None
    verify_certificate_at_client: bool | None = None
    ca: CertificateAuthority | None = None
    extension_providers: tuple[ExtensionProvider, ...] = ()
    default_providers: DefaultProviders | None = None
    discovery_selectors: tuple[LabelSelector, ...] = ()
    path_normalization: PathNormalization | None = None
    default_http_retry_policy: HTTPRetry | None = None
    mesh_mtls: TlsConfig | None = msgspec.field(default=None, name="meshMTLS")
    tls_defaults: TlsConfig | None = None
    default_traffic_policy: DefaultTrafficPolicy | None = None
    service_entry_visibility: ServiceEntryVisibility | None = None
    lateen: Lateen | None = None
