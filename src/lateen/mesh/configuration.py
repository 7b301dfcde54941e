"""From Istio's MeshConfig, as users write it, to the settings that the mesh goes by."""

from __future__ import annotations

from lateen.api import mesh as api
from lateen.api.config import Duration
from lateen.mesh.objects import MeshConfig

_DEFAULT = MeshConfig()


def settings(config: api.MeshConfig, root_namespace: str) -> MeshConfig:
    """Fields without a value take Istio's defaults."""
    proxy = config.default_config or api.ProxyConfig()
    ours = config.lateen or api.Lateen()
    outbound = config.outbound_traffic_policy
    mode = config.ingress_controller_mode
    return MeshConfig(
        access_log_file=config.access_log_file,
        access_log_format=config.access_log_format,
        trust_domain=config.trust_domain or _DEFAULT.trust_domain,
        trust_domain_aliases=config.trust_domain_aliases,
        extension_providers=tuple(
            p for p in config.extension_providers if p.envoy_ext_authz_grpc or p.envoy_ext_authz_http
        ),
        root_namespace=root_namespace,
        outbound_policy="ALLOW_ANY" if outbound is None else outbound.mode,
        telemetry=ours.telemetry,
        http2=ours.http2,
        connect_timeout_s=_seconds(config.connect_timeout, _DEFAULT.connect_timeout_s),
        locality=config.locality_lb_setting,
        concurrency=_DEFAULT.concurrency if proxy.concurrency is None else proxy.concurrency,
        proxy=proxy,
        environment=tuple(sorted(proxy.proxy_metadata.items())),
        redis_filter=ours.redis_filter,
        h2_upgrade=config.h2_upgrade_policy == "UPGRADE",
        dns_refresh_s=_seconds(config.dns_refresh_rate, _DEFAULT.dns_refresh_s),
        ingress_class=config.ingress_class or _DEFAULT.ingress_class,
        ingress_mode=_DEFAULT.ingress_mode if mode in (None, "UNSPECIFIED") else mode,
        ingress_selector=config.ingress_selector or _DEFAULT.ingress_selector,
    )


def _seconds(given: Duration | None, default: float) -> float:
    return default if given is None else given.seconds
