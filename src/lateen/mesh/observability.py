"""What one proxy reports, on each side of a call: access logs, metrics and traces."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from lateen.api.domain import CLUSTER_NAME
from lateen.api.mesh.providers import (
    Datadog,
    Empty,
    ExtensionProvider,
    FileAccessLog,
    HttpAls,
    LogFormat,
    OpenTelemetry,
    OtelAls,
    SkyWalking,
    TcpAls,
    Zipkin,
)
from lateen.mesh.handling import PLAIN, Handling
from lateen.mesh.plugins import Hook
from lateen.wire import connections

PROMETHEUS = ExtensionProvider(name="prometheus", prometheus=Empty())
"""Istio's mesh configuration has this provider from the start."""

LogTarget = FileAccessLog | OtelAls | HttpAls | TcpAls
Tracer = Zipkin | OpenTelemetry | Datadog | SkyWalking
TagKind = Literal["literal", "environment", "header", "formatter"]


@dataclass(frozen=True)
class Reporting:
    """What the mesh configuration says of reports."""

    access_log_file: str = ""
    access_log_format: LogFormat | None = field(default=None, hash=False)
    """Istio's default text where None."""
    lean: bool = False
    """Fewer histograms and tags, and no access log where no Telemetry asks for one."""
    enable_tracing: bool = False
    """Trace as ``defaultConfig.tracing`` says, where no Telemetry and no default provider does."""
    default_logs: tuple[str, ...] = ()
    default_metrics: tuple[str, ...] = (PROMETHEUS.name,)
    default_tracers: tuple[str, ...] = ()
    providers: tuple[ExtensionProvider, ...] = field(default=(), hash=False)

    def provider(self, name: str) -> ExtensionProvider | None:
        """Names are compared without regard to case, as in Istio."""
        known = (*self.providers, PROMETHEUS)
        return next((p for p in known if p.name.lower() == name.lower()), None)


DEFAULT_REPORTING = Reporting()


@dataclass(frozen=True)
class AccessLog:
    """One access logger."""

    target: LogTarget = field(hash=False)
    name: str = ""
    """Of the provider; empty for the mesh's ``accessLogFile``."""
    filter: str = ""
    """A CEL expression that requests and connections must meet."""
    cluster: str = ""
    """Of the service that it sends to."""


@dataclass(frozen=True)
class MetricRule:
    """A change to one of Istio's metrics."""

    metric: str
    """As in the Telemetry API: REQUEST_COUNT."""
    disabled: bool = False
    tags: tuple[tuple[str, str | None], ...] = ()
    """(label, its CEL expression); None takes the label away."""


@dataclass(frozen=True)
class Metrics:
    """Istio's standard metrics."""

    rules: tuple[MetricRule, ...] = ()
    lean: bool = False
    every_s: float | None = connections.EVERY_S
    """Seconds between two reports of a connection that is open; None where the proxy's agent takes none."""

    def rule(self, metric: str) -> MetricRule:
        return next((r for r in self.rules if r.metric == metric), MetricRule(metric))


@dataclass(frozen=True)
class TraceTag:
    name: str
    kind: TagKind
    value: str
    """The literal, the name of the variable or header, or Envoy's format string."""
    default: str = ""


@dataclass(frozen=True)
class Trace:
    """Spans for one side of a proxy."""

    tracer: Tracer = field(hash=False)
    cluster: str
    """Of the service that takes the spans."""
    service: str
    """By which the proxy's spans are known: ``app.namespace``."""
    sampling: float
    """Percent of the requests that no caller has decided about."""
    tags: tuple[TraceTag, ...] = ()
    by_request_id: bool = True
    """Whether x-request-id carries the decision."""
    max_path_tag: int | None = None
    """Longest path in a span, in bytes; Envoy's default where None."""


@dataclass(frozen=True)
class Side:
    """What a proxy adds to the requests and connections that it sends (client) or takes for its application (server):
    reports, the user's own filters, and how it handles headers and connections."""

    cluster: str = CLUSTER_NAME
    """The name of the cluster that the proxy runs in."""
    workload: str = ""
    """Of which of its workloads the proxy reports; empty where it has only one."""
    origins: tuple[str, ...] = ()
    """The Telemetry objects that it comes from."""
    logs: tuple[AccessLog, ...] = ()
    metrics: Metrics | None = Metrics()
    trace: Trace | None = None
    hooks: tuple[Hook, ...] = ()
    """Of plugins, in the order in which they run in their phase."""
    handling: Handling = PLAIN
    """Of headers and connections."""

    def at(self, *numbers: int) -> Side:
        """At a port, as clients and as servers know it; at connections to unknown ports where no number is given."""
        if not any(h.ports for h in self.hooks):
            return self
        return replace(self, hooks=tuple(h for h in self.hooks if h.at(numbers)))


@dataclass(frozen=True)
class Observability:
    client: Side = Side()
    """Also for gateways, as in Istio."""
    server: Side = Side()


SILENT = Observability()
"""Metrics and nothing else."""
