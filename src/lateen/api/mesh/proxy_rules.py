"""Validation rules of ProxyConfig, the mesh's ``defaultConfig``.

Source: istio.io/istio ``pkg/config/validation/agent``, function ValidateMeshConfigProxyConfig.
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api import proxy_ports
from lateen.api.config import Duration
from lateen.api.mesh import handling
from lateen.api.mesh import rule_parts as parts
from lateen.api.mesh.proxy import CustomTag, PrivateKeyProvider, ProxyConfig, Tracing
from lateen.api.mesh.rule_parts import Findings
from lateen.api.validate import scalars
from lateen.api.validate.client_tls import client_tls
from lateen.kit import regex
from lateen.kit.digits import digits

_SECOND, _MILLISECOND = 10**9, 10**6
HOST_IP = "$(HOST_IP)"
_TRACERS = ("zipkin", "lightstep", "datadog", "stackdriver", "open_census_agent")
"""Of which a message has one."""


def problems(config: ProxyConfig) -> Findings:
    """The errors in a ProxyConfig."""
    if config.concurrency is not None and config.concurrency < 0:
        yield "concurrency", f"must be 0 (all processors) or a number of threads, got {config.concurrency}"
    for name in ("status_port", "proxy_admin_port"):
        yield from parts.port(parts.camel(name), getattr(config, name), zero=True)
    if says := proxy_ports.unfit_text(config.proxy_metadata):
        yield f"proxyMetadata[{proxy_ports.VARIABLE}]", says
    yield from _drains(config)
    yield from _flushes(config)
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
    for _, says in parts.refused(scalars.duration(drain, "drainDuration")):
        yield "drainDuration", f"invalid drain duration: {says}"
    if drain is not None and drain.nanoseconds >= _MILLISECOND and drain.nanoseconds % _SECOND:
        yield "drainDuration", f'drain time only supports durations to seconds precision, is "{drain}"'
    last: Duration | None = config.termination_drain_duration
    if last is not None and last.seconds < 0:
        yield "terminationDrainDuration", f'must not be negative, got "{last}"'


def _flushes(config: ProxyConfig) -> Findings:
    """Envoy takes whole milliseconds and KiB as numbers of 32 bits; without a pause it would do nothing else."""
    interval, size = config.file_flush_interval, config.file_flush_min_size_kb
    if interval is not None and not _MILLISECOND <= interval.nanoseconds < _MILLISECOND << 32:
        yield "fileFlushInterval", f'must be at least 1ms and less than {(1 << 32) // 3_600_000}h, got "{interval}"'
    if size is not None and not 0 <= size < 1 << 22:
        yield "fileFlushMinSizeKb", f"must be in the range 0..{(1 << 22) - 1} (0: Envoy's own 64), got {size}"


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
        yield from parts.port(at, int(port))


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
    yield from parts.refused(client_tls(tracing.tls_settings, "tracing.tlsSettings", ""))
    given = [name for name in _TRACERS if getattr(tracing, name) is not None]
    if len(given) > 1:
        yield "tracing", f"has {' and '.join(map(parts.camel, given))}; give only one"
    for name, tag in tracing.custom_tags.items():
        yield from _tag(name, tag, f"tracing.customTags[{name}]")


def _tag(name: str, tag: CustomTag, at: str) -> Findings:
    if not name:
        yield at, "tag name may not be empty"
    given = [kind for kind in ("literal", "environment", "header") if getattr(tag, kind) is not None]
    if len(given) != 1:
        yield at, f"needs one of literal, environment and header; it has {' and '.join(given) or 'none'}"
    if tag.literal and not tag.literal.value:
        yield f"{at}.literal.value", "literal tag value may not be empty"
    for kind in ("environment", "header"):
        if (found := getattr(tag, kind)) is not None and not found.name:
            yield f"{at}.{kind}.name", f"{kind} tag name may not be empty"


def _private_keys(provider: PrivateKeyProvider) -> Findings:
    given = [(name, found) for name in ("cryptomb", "qat") if (found := getattr(provider, name))]
    if len(given) != 1:
        yield "privateKeyProvider", "private key provider configuration is required: one of cryptomb, qat"
    for name, found in given:
        if found.poll_delay is None or not found.poll_delay.nanoseconds:
            yield f"privateKeyProvider.{name}.pollDelay", "pollDelay is required, and must be non zero"
