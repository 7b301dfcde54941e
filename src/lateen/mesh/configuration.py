"""Converts Istio's user-facing MeshConfig to the mesh's settings."""

from __future__ import annotations

import msgspec

from lateen.api import mesh as api
from lateen.api.config import Duration
from lateen.api.domain import CLUSTER_NAME
from lateen.api.mesh import provider_rules
from lateen.api.mesh.accesslog import JSON, json_labels
from lateen.api.mesh.config import DYNAMIC, DefaultProviders, OutboundTrafficPolicy, PathNormalization, TlsConfig
from lateen.api.mesh.networks import MeshNetworks
from lateen.api.mesh.providers import LogFormat
from lateen.api.networking import ciphers
from lateen.api.networking.http import HTTPRetry
from lateen.api.networking.server_tls import ECDH_CURVES
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import (
    DEFAULTS,
    Anchor,
    Cluster,
    Exports,
    Handshakes,
    IngressSettings,
    MeshConfig,
    NetworkSettings,
    OutboundPolicy,
    StatNames,
    Transport,
    Trust,
)


def settings(
    config: api.MeshConfig,
    root_namespace: str,
    cluster: Cluster = DEFAULTS.cluster,
    networks: MeshNetworks | None = None,
) -> MeshConfig:
    """The settings; unset fields get Istio's defaults."""
    proxy = config.default_config or api.ProxyConfig()
    ours = config.lateen or api.Lateen()
    inbound = config.inbound_traffic_policy
    mode = config.ingress_controller_mode
    transport = Transport(
        trust_domain=config.trust_domain or Transport.trust_domain,
        aliases=config.trust_domain_aliases,
        http2=ours.http2,
        h2_upgrade=config.h2_upgrade_policy == "UPGRADE",
        connect_timeout_s=_seconds(config.connect_timeout, Transport.connect_timeout_s),
        dns_refresh_s=_seconds(config.dns_refresh_rate, Transport.dns_refresh_s),
        localhost=inbound is not None and inbound.mode == "LOCALHOST",
        keepalive=config.tcp_keepalive,
        retries=_retries(config.default_http_retry_policy),
        detection_s=None if config.protocol_detection_timeout is None else config.protocol_detection_timeout.seconds,
        mutual_tls=_handshakes(config.mesh_mtls),
        tls=_handshakes(config.tls_defaults),
        stat_names=StatNames(config.inbound_cluster_stat_name, config.outbound_cluster_stat_name),
        redis=ours.redis_filter,
        automatic=config.enable_auto_mtls is not False,
        verified=config.verify_certificate_at_client is not False,
        proxy_port=config.proxy_http_port or 0,
    )
    asked = provider_rules.can_be_asked(config.extension_providers)
    seen = config.service_entry_visibility
    ingress = IngressSettings(
        class_name=config.ingress_class or IngressSettings.class_name,
        mode=IngressSettings.mode if mode in (None, "UNSPECIFIED") else mode,
        selector=config.ingress_selector or IngressSettings.selector,
        service=config.ingress_service,
    )
    return MeshConfig(
        cluster=cluster,
        transport=transport,
        outbound=_outbound(config.outbound_traffic_policy, transport),
        reporting=_reporting(config),
        trust=Trust(
            config.trust_domain_aliases, _anchors(config, transport.trust_domain), _domains(config, transport), asked
        ),
        ingress=ingress,
        locality=config.locality_lb_setting,
        proxy=proxy,
        networks=_networks(config, networks or MeshNetworks(), cluster),
        exports=Exports(
            config.default_service_export_to,
            config.default_virtual_service_export_to,
            config.default_destination_rule_export_to,
            seen if seen and seen.apply_to_sidecars else None,
        ),
        discovery=config.discovery_selectors,
        root_namespace=root_namespace,
        paths=_paths(config.path_normalization),
    )


def _outbound(given: OutboundTrafficPolicy | None, transport: Transport) -> OutboundPolicy:
    """Certificates of requests to resolved hosts come from files: Secrets are for rules."""
    if given is None or given.mode != DYNAMIC:
        return OutboundPolicy(given.mode) if given else OutboundPolicy()
    tls = msgspec.structs.replace(given.tls, credential_name="") if given.tls else None
    return OutboundPolicy(given.mode, tls=tls, transport=transport)


def _retries(given: HTTPRetry | None) -> HTTPRetry | None:
    """The default retries. As in Istio, only VirtualServices set a per-try timeout."""
    return msgspec.structs.replace(given, per_try_timeout=None) if given else None


def _networks(config: api.MeshConfig, given: MeshNetworks, cluster: Cluster) -> NetworkSettings:
    """``Kubernetes`` stands for istiod's own cluster, as in Istio."""
    endpoints = [(name, e) for name, network in given.networks.items() for e in network.endpoints]
    names = {CLUSTER_NAME: cluster.name}
    return NetworkSettings(
        tuple((names.get(e.from_registry, e.from_registry), name) for name, e in endpoints if e.from_registry),
        tuple((e.from_cidr, name) for name, e in endpoints if e.from_cidr),
        tuple(
            (name, g.registry_service_name, g.address, g.port)
            for name, network in given.networks.items()
            for g in network.gateways
        ),
        tuple((s.hosts, bool(s.settings and s.settings.cluster_local)) for s in config.service_settings),
    )


def _anchors(config: api.MeshConfig, trust_domain: str) -> tuple[Anchor, ...]:
    """The additional roots for one trust domain; a root that names no domain is trusted for all."""
    return tuple(
        Anchor(c.pem.strip() + "\n", c.cert_signers)
        for c in config.ca_certificates
        if c.pem and (not c.trust_domains or trust_domain in c.trust_domains)
    )


def _domains(config: api.MeshConfig, transport: Transport) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = tuple((d, tuple(a.pem for a in _anchors(config, d))) for d in transport.trust_domains)
    return found if len({pems for _, pems in found}) > 1 else ()


def _handshakes(given: TlsConfig | None) -> Handshakes:
    """TLS parameters; names that Envoy does not know are left out, with a warning by ``api.mesh.effect``."""
    if given is None:
        return Handshakes()
    return Handshakes(
        "TLSv1_3" if given.min_protocol_version == "TLSV1_3" else Handshakes.minimum,
        ciphers.usable(given.cipher_suites),
        tuple(c for c in dict.fromkeys(given.ecdh_curves) if c in ECDH_CURVES),
    )


def _paths(chosen: PathNormalization | None) -> str:
    given = chosen.normalization if chosen else None
    return "" if given in (None, "DEFAULT") else given


def _reporting(config: api.MeshConfig) -> Reporting:
    chosen = config.default_providers or DefaultProviders(metrics=Reporting.default_metrics)
    asked = tuple(p for p in config.extension_providers if not (p.envoy_ext_authz_grpc or p.envoy_ext_authz_http))
    ours = config.lateen or api.Lateen()
    return Reporting(
        access_log_file=config.access_log_file,
        access_log_format=_log_format(config),
        lean=ours.telemetry == "lean",
        enable_tracing=config.enable_tracing,
        logs_refused=not config.disable_envoy_listener_log,
        default_logs=chosen.access_logging,
        default_metrics=chosen.metrics,
        default_tracers=chosen.tracing,
        providers=asked,
    )


def _log_format(config: api.MeshConfig) -> LogFormat | None:
    text = config.access_log_format
    if config.access_log_encoding == "JSON":
        return LogFormat(labels=json_labels(text) or JSON)
    return LogFormat(text=text) if text else None


def _seconds(given: Duration | None, default: float) -> float:
    return default if given is None else given.seconds
