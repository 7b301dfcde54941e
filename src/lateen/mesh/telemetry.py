"""What a workload reports, according to the mesh configuration and to Telemetry at three levels: mesh, namespace,
workload. At each level the oldest object counts. Providers replace those of the level above, overrides add to them, and
a mode restricts either to one side. Source: https://istio.io/latest/docs/reference/config/telemetry/ and the comments
and behaviour of Istio's ``pilot/pkg/model/telemetry.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lateen.api import cel
from lateen.api import objects as o
from lateen.api import tags as names
from lateen.api import telemetry as t
from lateen.api.mesh.providers import ExtensionProvider, FileAccessLog, Zipkin
from lateen.api.mesh.proxy import Tracing as ProxyTracing
from lateen.kit.digits import digits
from lateen.mesh.observability import (
    AccessLog,
    LogTarget,
    MetricRule,
    Metrics,
    Observability,
    Reporting,
    Side,
    Trace,
    Tracer,
    TraceTag,
)
from lateen.wire import connections
from lateen.wire.node import PRESENT, Abilities

Mode = Literal["CLIENT", "SERVER"]
ClusterOf = Callable[[str, int], str | None]
"""(service as written in a provider, port) -> the proxy's cluster for it; None if the proxy has none."""

DEFAULT_SAMPLING = 1.0
"""Percentage, as istiod's PILOT_TRACE_SAMPLING."""
METRICS = (
    "REQUEST_COUNT",
    "REQUEST_DURATION",
    "REQUEST_SIZE",
    "RESPONSE_SIZE",
    "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS",
    "TCP_SENT_BYTES",
    "TCP_RECEIVED_BYTES",
    "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
)


@dataclass(frozen=True)
class Reporter:
    """The workload that reports."""

    service: str
    """The service name in its spans."""
    facts: tuple[tuple[str, str], ...]
    """Istio's own tags: ``istio.canonical_service`` and so on."""
    tracing: tuple[ProxyTracing, ...]
    """``defaultConfig.tracing``: its own, then the mesh's."""
    cluster: str
    """The name of its cluster."""
    seat: str = ""
    """Its name among the workloads of its proxy (see ``Seat``)."""
    agent: Abilities = PRESENT


def observability(
    reporting: Reporting, found: Sequence[o.Resource[t.Telemetry]], reporter: Reporter, cluster_of: ClusterOf
) -> Observability:
    """``found``: the Telemetry of the mesh, the namespace and the workload, as far as they exist."""
    levels = [telemetry.spec for telemetry in found]
    origins = tuple(str(telemetry.ref) for telemetry in found)

    def side(mode: Mode) -> Side:
        return Side(
            reporter.cluster,
            reporter.seat,
            origins,
            _logs(reporting, levels, mode, cluster_of),
            reporting.logs_refused,
            _metrics(reporting, levels, mode, reporter.agent),
            _trace(reporting, levels, mode, reporter, cluster_of),
        )

    return Observability(side("CLIENT"), side("SERVER"))


def _concerns(asked: str, mode: Mode) -> bool:
    return asked in ("CLIENT_AND_SERVER", mode)


def _names(providers: Iterable[t.ProviderRef]) -> tuple[str, ...]:
    return tuple(p.name for p in providers)


# --- access logs ------------------------------------------------------------------------------------------------------


def _logs(
    reporting: Reporting, levels: Sequence[t.Telemetry], mode: Mode, cluster_of: ClusterOf
) -> tuple[AccessLog, ...]:
    said = [level.access_logging for level in levels if level.access_logging]
    if not said and not reporting.default_logs:
        if not reporting.access_log_file or reporting.lean:
            return ()
        return (AccessLog(FileAccessLog(path=reporting.access_log_file, log_format=reporting.access_log_format)),)
    out = []
    for name, expression in _chosen_logs(reporting, said, mode).items():
        provider = reporting.provider(name)
        target = _log_target(provider) if provider else None
        if target is None or cel.problem(expression) is not None:
            continue
        cluster = "" if isinstance(target, FileAccessLog) else cluster_of(target.service, target.port)
        if cluster is not None:
            out.append(AccessLog(target, name, expression, cluster))
    return tuple(out)


def _chosen_logs(reporting: Reporting, said: list[tuple[t.AccessLogging, ...]], mode: Mode) -> dict[str, str]:
    """Provider -> the filter of its entries. The lowest level that names providers decides which ones are used."""
    if not said:
        return dict.fromkeys(reporting.default_logs, "")
    scope = reporting.default_logs
    filters: dict[str, str] = {}
    for level in said:
        named = [n for entry in level for n in _names(entry.providers)]
        scope = tuple(dict.fromkeys(named)) or scope
        filters |= {
            n: entry.filter.expression if entry.filter else "" for entry in level for n in _names(entry.providers)
        }
    out: dict[str, str] = {}
    parent = reporting.default_logs
    for entry in (e for level in said for e in level):
        parent = _names(entry.providers) or parent
        for name in parent:
            if name not in scope or not _concerns(entry.match.mode if entry.match else "CLIENT_AND_SERVER", mode):
                continue
            if entry.disabled:
                out.pop(name, None)
            else:
                own = entry.filter.expression if entry.filter else ""
                out[name] = filters.get(name, own)
    return out


def _log_target(p: ExtensionProvider) -> LogTarget | None:
    given: tuple[LogTarget | None, ...] = (
        p.envoy_file_access_log,
        p.envoy_otel_als,
        p.envoy_http_als,
        p.envoy_tcp_als,
    )
    return next((t for t in given if t is not None), None)


# --- metrics ----------------------------------------------------------------------------------------------------------


def _metrics(reporting: Reporting, levels: Sequence[t.Telemetry], mode: Mode, agent: Abilities) -> Metrics | None:
    """The metrics of a side; None if no provider collects them, or if all are disabled."""
    entries = [m for level in levels for m in level.metrics]
    scope = reporting.default_metrics
    for m in entries:
        scope = _names(m.providers) or scope
    if not any((p := reporting.provider(n)) is not None and p.prometheus is not None for n in scope):
        return None
    disabled: dict[str, bool] = {}
    tags: dict[str, dict[str, str | None]] = {}
    none, every_s = False, connections.EVERY_S
    parent = reporting.default_metrics
    for m in entries:
        parent = _names(m.providers) or parent
        if not set(parent) & set(scope):
            continue
        if m.reporting_interval is not None:
            every_s = max(m.reporting_interval.seconds, connections.AT_LEAST_S)
        for change in m.overrides:
            match = change.match
            if not _concerns(match.mode if match else "CLIENT_AND_SERVER", mode):
                continue
            none = bool(match and match.metric == "ALL_METRICS" and match.custom_metric is None and change.disabled)
            if none:
                continue
            for metric in _matched(match):
                if change.disabled is not None:
                    disabled[metric] = change.disabled
                tags.setdefault(metric, {}).update(_overridden(change))
    if none:
        return None
    rules = [
        MetricRule(metric, disabled.get(metric, False), tuple(sorted(tags.get(metric, {}).items())))
        for metric in sorted(disabled.keys() | tags.keys())
    ]
    changed = tuple(r for r in rules if r.disabled or r.tags)
    reported = every_s if agent.counting else None
    return Metrics(changed, reporting.lean, reported, agent.joined, agent.requests, agent.messages)


def _matched(match: t.MetricSelector | None) -> tuple[str, ...]:
    if match is None:
        return METRICS
    if match.custom_metric is not None:
        return (match.custom_metric,)
    return METRICS if match.metric is None or match.metric == "ALL_METRICS" else (match.metric,)


def _overridden(change: t.MetricsOverride) -> dict[str, str | None]:
    """Tags with their expressions. Those that Envoy or Prometheus would reject are left out; ``apply`` and ``analyze``
    warn about them."""
    return {
        name: None if tag.operation == "REMOVE" else cel.text_of(tag.value)
        for name, tag in change.tag_overrides.items()
        if tag.operation == "REMOVE" or not (cel.problem(tag.value, formatted=True) or names.problem(name))
    }


# --- traces -----------------------------------------------------------------------------------------------------------


def _trace(
    reporting: Reporting, levels: Sequence[t.Telemetry], mode: Mode, reporter: Reporter, cluster_of: ClusterOf
) -> Trace | None:
    entries = [e for level in levels for e in level.tracing]
    configured = bool(entries or reporting.default_tracers)
    if not configured and not reporting.enable_tracing:
        return None
    tracer, sampling, max_path, tags = _proxy_defaults(reporter.tracing)
    if configured:
        tracer = _tracer(reporting, reporting.default_tracers)
    silent, propagated, by_request_id, istio_tags = False, True, True, _istio_tags(reporter.tracing)
    for e in entries:
        if not _concerns(e.match.mode if e.match else "CLIENT_AND_SERVER", mode):
            continue
        if e.providers:
            tracer = _tracer(reporting, _names(e.providers))
        silent = silent if e.disable_span_reporting is None else e.disable_span_reporting
        propagated = propagated if e.disable_context_propagation is None else not e.disable_context_propagation
        sampling = sampling if e.random_sampling_percentage is None else e.random_sampling_percentage
        tags = _tags(e.custom_tags) or tags
        istio_tags = istio_tags if e.enable_istio_tags is None else e.enable_istio_tags
        if e.use_request_id_for_trace_sampling is not None:
            by_request_id = e.use_request_id_for_trace_sampling
    if tracer is None or silent:
        return None
    cluster = cluster_of(tracer.service, tracer.port)
    if cluster is None:
        return None
    own = tuple(TraceTag(name, "literal", value) for name, value in reporter.facts) if istio_tags else ()
    return Trace(tracer, cluster, reporter.service, sampling, (*own, *tags), by_request_id, max_path, propagated)


def _tracer(reporting: Reporting, names: Sequence[str]) -> Tracer | None:
    """The tracer of the first provider: like Istio, only one is used."""
    found = reporting.provider(names[0]) if names else None
    if found is None:
        return None
    given: tuple[Tracer | None, ...] = (found.zipkin, found.opentelemetry, found.datadog, found.skywalking)
    return next((t for t in given if t is not None), None)


def _istio_tags(tracing: Sequence[ProxyTracing]) -> bool:
    return next((level.enable_istio_tags for level in tracing if level.enable_istio_tags is not None), True)


def _proxy_defaults(
    levels: Sequence[ProxyTracing],
) -> tuple[Tracer | None, float, int | None, tuple[TraceTag, ...]]:
    """(tracer, sampling, longest path, tags) of ``defaultConfig.tracing``, overridden by a pod's annotation."""
    address = next((level.zipkin.address for level in levels if level.zipkin and level.zipkin.address), "")
    host, _, port = address.rpartition(":")
    tracer = Zipkin(service=host, port=int(port)) if host and digits(port) else None
    sampling = next((level.sampling for level in levels if level.sampling), DEFAULT_SAMPLING)
    longest = next((level.max_path_tag_length for level in levels if level.max_path_tag_length), None)
    tags = next((level.custom_tags for level in levels if level.custom_tags), {})
    out = []
    for name, tag in sorted(tags.items()):
        if tag.literal:
            out.append(TraceTag(name, "literal", tag.literal.value))
        elif tag.environment:
            out.append(TraceTag(name, "environment", tag.environment.name, tag.environment.default_value))
        elif tag.header:
            out.append(TraceTag(name, "header", tag.header.name, tag.header.default_value))
    return tracer, sampling, longest, tuple(out)


def _tags(given: dict[str, t.CustomTag | None]) -> tuple[TraceTag, ...]:
    out = []
    for name, tag in sorted(given.items()):
        if tag is None:
            continue
        if tag.literal:
            out.append(TraceTag(name, "literal", tag.literal.value))
        elif tag.environment:
            out.append(TraceTag(name, "environment", tag.environment.name, tag.environment.default_value))
        elif tag.header:
            out.append(TraceTag(name, "header", tag.header.name, tag.header.default_value))
        elif tag.formatter:
            out.append(TraceTag(name, "formatter", tag.formatter.value))
    return tuple(out)
