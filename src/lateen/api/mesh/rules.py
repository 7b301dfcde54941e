"""Validation rules of the mesh configuration beyond its types.

Source: istio.io/istio ``pkg/config/validation/agent``, functions ValidateMeshConfig and ValidateMeshConfigProxyConfig.
Parts that also occur in the mesh's kinds are validated by ``api.validate``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lateen.api import operators
from lateen.api.config import Config, Duration
from lateen.api.domain import CLUSTER_DOMAIN, TRUST_DOMAIN, service_host
from lateen.api.mesh import accesslog, handling
from lateen.api.mesh.config import MeshConfig
from lateen.api.mesh.networks import MeshNetworks
from lateen.api.mesh.providers import ExtensionProvider, LogFormat
from lateen.api.mesh.proxy import PrivateKeyProvider, ProxyConfig, Tracing
from lateen.api.networking import OutlierDetection
from lateen.api.validate import scalars
from lateen.api.validate.client_tls import client_tls
from lateen.api.validate.common import connection_pool
from lateen.api.validate.destination_rule import outlier_detection
from lateen.api.validate.findings import Finding
from lateen.api.validate.http_settings import retries
from lateen.api.validate.locality import locality_lb, zone_aware_lb
from lateen.kit import regex
from lateen.kit.digits import digits

Findings = Iterator[tuple[str, str]]
"""(path below the document, sentence)"""

_KINDS = tuple(f for f in ExtensionProvider.__struct_fields__ if f != "name")
_ASKED = ("envoy_ext_authz_grpc", "envoy_ext_authz_http")
_HEADER_PATTERNS = (
    "include_headers_in_check",
    "include_request_headers_in_check",
    "headers_to_upstream_on_allow",
    "headers_to_downstream_on_deny",
    "headers_to_downstream_on_allow",
)
_MAX_PORT = 65535
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOUR, _SECOND, _MILLISECOND = 3600 * 10**9, 10**9, 10**6
_UNKNOWN_TO_ENVOY = {101, 102, 103, 418, 425, 451}
STATUS_ON_ERROR = frozenset(scalars.STATUS_CODES) - _UNKNOWN_TO_ENVOY
"""The status codes in Envoy's enum."""
_EXAMPLE = service_host("ext-authz", "default", CLUSTER_DOMAIN)
HOST_IP = "$(HOST_IP)"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(r.capitalize() for r in rest)


def _refused(found: Iterable[Finding]) -> Findings:
    yield from ((f.path, f.says) for f in found if not f.warning)


def _mesh(config: MeshConfig) -> Findings:
    for name in ("proxy_listen_port", "proxy_inbound_listen_port", "proxy_http_port"):
        yield from _port(_camel(name), getattr(config, name), zero=name == "proxy_http_port")
    yield from _times(config)
    yield from _trust_domains(config)
    yield from _authorities(config)
    if config.access_log_format:
        for says in operators.problems(config.access_log_format):
            yield "accessLogFormat", says
        if config.access_log_encoding == "JSON" and not accesslog.json_labels(config.access_log_format):
            yield "accessLogFormat", 'must be a JSON object with accessLogEncoding JSON, as in {"path": "%PATH%"}'
    yield from _traffic(config)
    seen: set[str] = set()
    for i, provider in enumerate(config.extension_providers):
        yield from _provider(provider, f"extensionProviders[{i}]")
        if provider.name in seen:
            yield f"extensionProviders[{i}].name", f"duplicate extension provider name {provider.name}"
        seen.add(provider.name)
    if config.default_config is not None:
        for where, says in _proxy(config.default_config):
            yield f"defaultConfig.{where}", says


def _times(config: MeshConfig) -> Findings:
    yield from _refused(scalars.duration(config.connect_timeout, "connectTimeout"))
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
    yield from _refused(locality_lb(config.locality_lb_setting, "localityLbSetting", OutlierDetection()))
    yield from _refused(zone_aware_lb(config.zone_aware_lb_setting, "zoneAwareLbSetting", OutlierDetection()))
    yield from _refused(retries(config.default_http_retry_policy, "defaultHttpRetryPolicy"))
    if policy := config.default_traffic_policy:
        yield from _refused(connection_pool(policy.connection_pool, "defaultTrafficPolicy.connectionPool"))
        yield from _refused(outlier_detection(policy.outlier_detection, "defaultTrafficPolicy.outlierDetection"))
    if config.outbound_traffic_policy:
        yield from _refused(client_tls(config.outbound_traffic_policy.tls, "outboundTrafficPolicy.tls", ""))
    for i, settings in enumerate(config.service_settings):
        for j, host in enumerate(settings.hosts):
            yield from _refused(scalars.wildcard_domain(host, f"serviceSettings[{i}].hosts[{j}]"))
    for name in (
        "default_service_export_to",
        "default_virtual_service_export_to",
        "default_destination_rule_export_to",
    ):
        services = name == "default_service_export_to"
        yield from _refused(scalars.export_to("", getattr(config, name), services, _camel(name)))
    for i, selector in enumerate(config.discovery_selectors):
        for j, e in enumerate(selector.match_expressions):
            if e.operator not in _OPERATORS:
                at = f"discoverySelectors[{i}].matchExpressions[{j}].operator"
                yield at, f'"{e.operator}" is not {", ".join(_OPERATORS)}'
    if config.mesh_mtls and config.mesh_mtls.ecdh_curves:
        yield "meshMTLS.ecdhCurves", "mesh TLS does not support ECDH curves configuration; set tlsDefaults.ecdhCurves"


def _port(path: str, value: int | None, zero: bool = False) -> Findings:
    if value is not None and not (0 if zero else 1) <= value <= _MAX_PORT:
        yield path, f"port number {value} must be in the range 1..{_MAX_PORT}"


# --- extension providers ---------------------------------------------------------------------------------------------


def can_be_asked(providers: Iterable[ExtensionProvider]) -> tuple[ExtensionProvider, ...]:
    """The valid providers of external authorization; as in Istio, requests that need any other provider are denied."""
    given = tuple(providers)
    times = Counter(p.name for p in given)
    asked = (p for p in given if any(getattr(p, kind) for kind in _ASKED))
    return tuple(p for p in asked if times[p.name] == 1 and not any(_provider(p, "")))


def _provider(provider: ExtensionProvider, path: str) -> Findings:
    if not provider.name:
        yield f"{path}.name", "empty extension provider name: policies refer to a provider by its name"
    given = [k for k in _KINDS if getattr(provider, k) is not None]
    if len(given) != 1:
        what = ", ".join(_camel(k) for k in given) or "none"
        yield path, f"exactly one provider must be set, as in envoyExtAuthzGrpc: {{…}}; set are: {what}"
    for kind in given:
        found: Any = getattr(provider, kind)
        at = f"{path}.{_camel(kind)}"
        if hasattr(found, "service"):
            yield from _service(found.service, f"{at}.service")
            yield from _port(f"{at}.port", found.port)
        yield from _status(getattr(found, "status_on_error", ""), f"{at}.statusOnError")
        if kind in _ASKED:
            yield from _asked(provider.name, path)
        yield from _patterns(found, at)
        prefix = getattr(found, "path_prefix", "")
        if prefix and not prefix.startswith("/"):
            yield f"{at}.pathPrefix", f'pathPrefix should begin with `/` but found "{prefix}"'
        if kind == "lightstep" and not found.access_token:
            yield f"{at}.accessToken", "access token is required"
        if kind == "opentelemetry" and found.grpc is not None and found.http is not None:
            yield at, "OpenTelemetryTracingProvider cannot specify both grpc and http"
        yield from _headers(found, at)
        shape = getattr(found, "log_format", None)
        if isinstance(shape, LogFormat):
            for text in (shape.text, *_strings(shape.labels)):
                for says in operators.problems(text):
                    yield f"{at}.logFormat", says


def _asked(name: str, path: str) -> Findings:
    """A provider's name becomes part of filter names, and of metadata that is matched by prefix."""
    if name and not (scalars.is_label(name) and name == name.lower()):
        yield f"{path}.name", f'invalid provider name "{name}"; write at most 63 lowercase letters, digits and hyphens'


def _patterns(found: Any, at: str) -> Findings:
    for field in _HEADER_PATTERNS:
        for i, text in enumerate(getattr(found, field, ())):
            if text == "*":
                says = 'a single wildcard ("*") is not supported, change it to either prefix or suffix match'
                yield f"{at}.{_camel(field)}[{i}]", says


def _headers(provider: Any, at: str) -> Findings:
    """The headers of a provider's HTTP service."""
    http, grpc = getattr(provider, "http", None), getattr(provider, "grpc", None)
    given = [("headers", getattr(provider, "headers", ()))]
    given += [
        ("http.headers", http.headers if http else ()),
        ("grpc.initialMetadata", grpc.initial_metadata if grpc else ()),
    ]
    for where, headers in given:
        for i, header in enumerate(headers):
            if not _HEADER.fullmatch(header.name):
                yield f"{at}.{where}[{i}].name", f'"{header.name}" is not the name of a header'
            if not header.value.isprintable():
                yield f"{at}.{where}[{i}].value", "has control characters"
            if header.env_name and not _VARIABLE.fullmatch(header.env_name):
                yield f"{at}.{where}[{i}].envName", f'"{header.env_name}" is not the name of a variable'


def _strings(node: Any) -> Iterator[str]:
    """All strings in the labels, at any depth."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _strings(value)


def _service(text: str, at: str) -> Findings:
    """``host`` or ``namespace/host``."""
    namespace, slash, host = text.rpartition("/")
    if not text:
        yield at, f"service must not be empty; write a host, as in {_EXAMPLE}"
    elif slash and not scalars.is_label(namespace):
        yield at, f'invalid namespace value "{namespace}"; write namespace/host'
    elif not scalars.is_ip(host) and list(scalars.fqdn(host, at)):
        yield at, f"invalid service fmt {text}: it is not a host, as in {_EXAMPLE}"


def _status(text: str, at: str) -> Findings:
    if text and not (digits(text) and int(text) in STATUS_ON_ERROR):
        yield at, f"unsupported statusOnError value {text}; write a status code of HTTP, as in 403"


# --- proxies ---------------------------------------------------------------------------------------------------------


def _proxy(config: ProxyConfig) -> Findings:
    if config.concurrency is not None and config.concurrency < 0:
        yield "concurrency", f"must be 0 (all processors) or a number of threads, got {config.concurrency}"
    for name in ("status_port", "proxy_admin_port"):
        yield from _port(_camel(name), getattr(config, name), zero=True)
    yield from _drains(config)
    for at, address in _addresses(config):
        yield from _address(address, at)
    if config.tracing:
        yield from _tracing(config.tracing)
    yield from _runtime(config)
    if config.private_key_provider:
        yield from _private_keys(config.private_key_provider)
    if config.gateway_topology is not None and config.gateway_topology.num_trusted_proxies < 0:
        yield "gatewayTopology.numTrustedProxies", "must not be negative"
    yield from handling.problems(config)


def _runtime(config: ProxyConfig) -> Findings:
    """Runtime values with which Envoy would not start."""
    for i, pattern in enumerate(config.proxy_stats_matcher.inclusion_regexps if config.proxy_stats_matcher else ()):
        try:
            regex.compiled(pattern)
        except ValueError as e:
            yield f"proxyStatsMatcher.inclusionRegexps[{i}]", str(e)
    limit = config.runtime_values.get("overload.global_downstream_max_connections", "")
    if limit and not digits(limit):
        yield (
            "runtimeValues[overload.global_downstream_max_connections]",
            f'"{limit}" is not a number of connections',
        )


def _drains(config: ProxyConfig) -> Findings:
    drain = config.drain_duration
    for _, says in _refused(scalars.duration(drain, "drainDuration")):
        yield "drainDuration", f"invalid drain duration: {says}"
    if drain is not None and drain.nanoseconds >= _MILLISECOND and drain.nanoseconds % _SECOND:
        yield "drainDuration", f'drain time only supports durations to seconds precision, is "{drain}"'
    last: Duration | None = config.termination_drain_duration
    if last is not None and last.seconds < 0:
        yield "terminationDrainDuration", f'must not be negative, got "{last}"'


def _addresses(config: ProxyConfig) -> Iterator[tuple[str, str]]:
    yield "discoveryAddress", config.discovery_address
    yield "statsdUdpAddress", config.statsd_udp_address
    yield "envoyMetricsServiceAddress", config.envoy_metrics_service_address
    for name, service in (
        ("envoyMetricsService", config.envoy_metrics_service),
        ("envoyAccessLogService", config.envoy_access_log_service),
    ):
        if service:
            yield f"{name}.address", service.address


def _address(text: str, at: str) -> Findings:
    """``host:port``; empty if it is not set."""
    if not text:
        return
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    known = scalars.is_ip(bare) if bare != host or ":" in host else not list(scalars.fqdn(host, at))
    if not colon or (":" in host and bare == host) or not (known or scalars.is_ip(host)):
        yield at, f'"{text}" is not a host and a port, as in collector.default:9411'
    elif not digits(port):
        yield at, f"port ({port}) is not a number"
    else:
        yield from _port(at, int(port))


def _tracing(tracing: Tracing) -> Findings:
    for name, found in (("zipkin", tracing.zipkin), ("datadog", tracing.datadog), ("lightstep", tracing.lightstep)):
        if found is None:
            continue
        if not found.address:
            yield f"tracing.{name}.address", "address is required"
        yield from _address(found.address.replace(HOST_IP, "127.0.0.1", 1), f"tracing.{name}.address")
    if tracing.lightstep and not tracing.lightstep.access_token:
        yield "tracing.lightstep.accessToken", "access token is required"
    if tracing.sampling is not None and not 0 <= tracing.sampling <= 100:
        yield "tracing.sampling", f"percentage {tracing.sampling:g} is not in range 0..100"
    yield from _refused(client_tls(tracing.tls_settings, "tracing.tlsSettings", ""))


def _private_keys(provider: PrivateKeyProvider) -> Findings:
    given = [(name, found) for name in ("cryptomb", "qat") if (found := getattr(provider, name))]
    if len(given) != 1:
        yield "privateKeyProvider", "private key provider configuration is required: one of cryptomb, qat"
    for name, found in given:
        if found.poll_delay is None or not found.poll_delay.nanoseconds:
            yield f"privateKeyProvider.{name}.pollDelay", "pollDelay is required, and must be non zero"


def _networks(config: MeshNetworks) -> Findings:
    for name, network in config.networks.items():
        for i, e in enumerate(network.endpoints):
            at = f"networks[{name}].endpoints[{i}]"
            if bool(e.from_cidr) == bool(e.from_registry):
                yield at, "needs either fromRegistry (the name of a cluster) or fromCidr"
            elif e.from_cidr:
                yield from _refused(scalars.cidr(e.from_cidr, f"{at}.fromCidr"))
        for i, g in enumerate(network.gateways):
            at = f"networks[{name}].gateways[{i}]"
            yield from _port(f"{at}.port", g.port)
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
    ProxyConfig: _proxy,
}
