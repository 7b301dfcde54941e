"""Validation rules of the mesh configuration beyond its types.

Source: istio.io/istio ``pkg/config/validation/agent``, function ValidateMeshConfig. Extension providers and ProxyConfig
have modules of their own (``provider_rules``, ``proxy_rules``). Parts that also occur in the mesh's kinds are validated
by ``api.validate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lateen.api import operators, proxy_ports
from lateen.api.config import Config
from lateen.api.domain import TRUST_DOMAIN
from lateen.api.mesh import accesslog, provider_rules, proxy_rules
from lateen.api.mesh import rule_parts as parts
from lateen.api.mesh.config import LabelSelector, MeshConfig
from lateen.api.mesh.networks import MeshNetworks
from lateen.api.mesh.proxy import ProxyConfig
from lateen.api.mesh.rule_parts import Findings
from lateen.api.networking import OutlierDetection
from lateen.api.validate import scalars
from lateen.api.validate.client_tls import client_tls
from lateen.api.validate.common import connection_pool, keepalive
from lateen.api.validate.destination_rule import outlier_detection
from lateen.api.validate.http_settings import retries
from lateen.api.validate.locality import locality_lb, zone_aware_lb

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_HOUR, _MILLISECOND = 3600 * 10**9, 10**6


def _mesh(config: MeshConfig) -> Findings:
    for name in ("proxy_listen_port", "proxy_inbound_listen_port"):
        yield from parts.port(parts.camel(name), getattr(config, name))
    if says := proxy_ports.unfit(config.proxy_http_port or 0):
        yield "proxyHttpPort", says
    yield from _times(config)
    yield from _trust_domains(config)
    yield from _authorities(config)
    if config.access_log_format:
        for says in operators.problems(config.access_log_format):
            yield "accessLogFormat", says
        if config.access_log_encoding == "JSON" and not accesslog.json_labels(config.access_log_format):
            yield "accessLogFormat", 'must be a JSON object with accessLogEncoding JSON, as in {"path": "%PATH%"}'
    yield from provider_rules.log_file(config.access_log_file, "accessLogFile")
    yield from _traffic(config)
    seen: set[str] = set()
    for i, provider in enumerate(config.extension_providers):
        yield from provider_rules.problems(provider, f"extensionProviders[{i}]")
        if provider.name in seen:
            yield f"extensionProviders[{i}].name", f"duplicate extension provider name {provider.name}"
        seen.add(provider.name)
    if config.default_config is not None:
        for where, says in proxy_rules.problems(config.default_config):
            yield f"defaultConfig.{where}", says


def _times(config: MeshConfig) -> Findings:
    yield from parts.refused(scalars.duration(config.connect_timeout, "connectTimeout"))
    if config.connect_timeout and config.connect_timeout.nanoseconds > _HOUR:
        yield "connectTimeout", f"time {config.connect_timeout} must be >1ms and <1h0m0s"
    detection = config.protocol_detection_timeout
    if detection and detection.nanoseconds < 0:
        yield "protocolDetectionTimeout", f'must not be negative, got "{detection}"; 0s waits without a limit'
    if detection and detection.nanoseconds % _MILLISECOND:
        yield "protocolDetectionTimeout", "only durations to ms precision are supported"
    if config.dns_refresh_rate is not None and config.dns_refresh_rate.seconds <= 0:
        yield "dnsRefreshRate", f'must be longer than zero, got "{config.dns_refresh_rate}"'


def _trust_domains(config: MeshConfig) -> Findings:
    given = [("trustDomain", config.trust_domain)] if config.trust_domain else []
    given += [(f"trustDomainAliases[{i}]", alias) for i, alias in enumerate(config.trust_domain_aliases)]
    for at, domain in given:
        if not domain:
            yield at, "empty domain name not allowed"
        elif not all(map(scalars.is_label, domain.removesuffix(".").split("."))):
            yield at, f'trust domain name "{domain}" invalid; write it like a DNS name, "{TRUST_DOMAIN}"'


def _authorities(config: MeshConfig) -> Findings:
    for i, given in enumerate(config.ca_certificates):
        at = f"caCertificates[{i}]"
        if bool(given.pem) == bool(given.spiffe_bundle_url):
            yield at, "exactly one of pem and spiffeBundleUrl must be set"
        elif given.pem:
            from lateen.kit import certs  # costs every command its start otherwise

            try:
                certs.check_authorities(given.pem)
            except ValueError as e:
                yield f"{at}.pem", str(e)
        mine = (config.trust_domain or TRUST_DOMAIN, *config.trust_domain_aliases)
        if given.trust_domains and not set(mine) & set(given.trust_domains):
            says = f"must contain one of {', '.join(mine)}: proxies accept identities of no other trust domain"
            yield f"{at}.trustDomains", f"{says} (trustDomainAliases are the additional ones that they accept)"


def _traffic(config: MeshConfig) -> Findings:
    yield from parts.refused(locality_lb(config.locality_lb_setting, "localityLbSetting", OutlierDetection()))
    yield from parts.refused(zone_aware_lb(config.zone_aware_lb_setting, "zoneAwareLbSetting", OutlierDetection()))
    yield from parts.refused(retries(config.default_http_retry_policy, "defaultHttpRetryPolicy"))
    if policy := config.default_traffic_policy:
        yield from parts.refused(connection_pool(policy.connection_pool, "defaultTrafficPolicy.connectionPool"))
        yield from parts.refused(outlier_detection(policy.outlier_detection, "defaultTrafficPolicy.outlierDetection"))
    for at, says in keepalive(config.tcp_keepalive, "tcpKeepalive"):
        yield at, says
    if config.outbound_traffic_policy:
        yield from parts.refused(client_tls(config.outbound_traffic_policy.tls, "outboundTrafficPolicy.tls", ""))
    for i, settings in enumerate(config.service_settings):
        for j, host in enumerate(settings.hosts):
            yield from parts.refused(scalars.wildcard_domain(host, f"serviceSettings[{i}].hosts[{j}]"))
    for name in (
        "default_service_export_to",
        "default_virtual_service_export_to",
        "default_destination_rule_export_to",
    ):
        services = name == "default_service_export_to"
        yield from parts.refused(scalars.export_to("", getattr(config, name), services, parts.camel(name)))
    for i, selector in enumerate(config.discovery_selectors):
        yield from _operators(selector, f"discoverySelectors[{i}]")
        yield from _selector(selector, f"discoverySelectors[{i}]")
    for i, level in enumerate(config.service_entry_visibility.policies if config.service_entry_visibility else ()):
        for j, rule in enumerate(level.matching_rules):
            at = f"serviceEntryVisibility.policies[{i}].matchingRules[{j}].namespaceSelector"
            if rule.namespace_selector is None:
                yield at, "a rule needs a selector; without one it matches no namespace"
            else:
                yield from _operators(rule.namespace_selector, at)
                yield from _selector(rule.namespace_selector, at)
    if config.mesh_mtls and config.mesh_mtls.ecdh_curves:
        yield "meshMTLS.ecdhCurves", "mesh TLS does not support ECDH curves configuration; set tlsDefaults.ecdhCurves"


def _operators(given: LabelSelector, at: str) -> Findings:
    for i, e in enumerate(given.match_expressions):
        if e.operator not in _OPERATORS:
            yield f"{at}.matchExpressions[{i}].operator", f'"{e.operator}" is not {", ".join(_OPERATORS)}'


def _selector(given: LabelSelector, at: str) -> Findings:
    """Kubernetes' rules. Istio would only log a selector that breaks them, and select as before."""
    yield from parts.refused(scalars.labels(given.match_labels, f"{at}.matchLabels"))
    for i, e in enumerate(given.match_expressions):
        where = f"{at}.matchExpressions[{i}]"
        yield from parts.refused(scalars.labels({e.key: ""}, f"{where}.key"))
        for value in e.values:
            yield from parts.refused(scalars.labels({"key": value}, f"{where}.values"))
        if e.operator in ("In", "NotIn") and not e.values:
            yield f"{where}.values", f"operator {e.operator} needs values"
        if e.operator in ("Exists", "DoesNotExist") and e.values:
            yield f"{where}.values", f"operator {e.operator} takes no values"


def _networks(config: MeshNetworks) -> Findings:
    for name, network in config.networks.items():
        for i, e in enumerate(network.endpoints):
            at = f"networks[{name}].endpoints[{i}]"
            if bool(e.from_cidr) == bool(e.from_registry):
                yield at, "needs either fromRegistry (the name of a cluster) or fromCidr"
            elif e.from_cidr:
                yield from parts.refused(scalars.cidr(e.from_cidr, f"{at}.fromCidr"))
        for i, g in enumerate(network.gateways):
            at = f"networks[{name}].gateways[{i}]"
            yield from parts.port(f"{at}.port", g.port)
            if bool(g.address) == bool(g.registry_service_name):
                yield at, "needs either registryServiceName (the host of a Service) or address"
            elif g.address and not scalars.is_ip(g.address):
                yield f"{at}.address", f'"{g.address}" is not an IP address; host names of gateways are not resolved'
            if g.locality:
                yield (
                    f"{at}.locality",
                    "is not implemented: instances behind a gateway have localities of their own; remove it",
                )


RULES: dict[type[Config], Callable[[Any], Iterable[tuple[str, str]]]] = {
    MeshConfig: _mesh,
    MeshNetworks: _networks,
    ProxyConfig: proxy_rules.problems,
}
