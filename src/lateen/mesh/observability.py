"""What a proxy reports on each side of a call: access logs, metrics and traces."""

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
ENVOY = ExtensionProvider(name="envoy", envoy_file_access_log=FileAccessLog(path="/dev/stdout"))
"""The providers that Istio's mesh configuration has by default, whatever it lists (``mesh.DefaultMeshConfig``)."""

LogTarget = FileAccessLog | OtelAls | HttpAls | TcpAls
Tracer = Zipkin | OpenTelemetry | Datadog | SkyWalking
TagKind = Literal["literal", "environment", "header", "formatter"]


@dataclass(frozen=True)
class Reporting:
    """The mesh configuration's settings for telemetry."""

    access_log_file: str = ""
    access_log_format: LogFormat | None = field(default=None, hash=False)
    """None: Istio's default text format."""
    lean: bool = False
    """Fewer histograms, and no access log unless a Telemetry asks for one."""
    logs_refused: bool = True
    """Whether connections that no filter chain takes are logged."""
    enable_tracing: bool = False
    """Trace according to ``defaultConfig.tracing`` if neither a Telemetry nor a default provider is configured."""
    default_logs: tuple[str, ...] = ()
    default_metrics: tuple[str, ...] = (PROMETHEUS.name,)
    default_tracers: tuple[str, ...] = ()
    providers: tuple[ExtensionProvider, ...] = field(default=(), hash=False)

    def provider(self, name: str) -> ExtensionProvider | None:
        """The provider with this name; names are case-insensitive, as in Istio."""
        known = (*self.providers, PROMETHEUS, ENVOY)
        return next((p for p in known if p.name.lower() == name.lower()), None)


DEFAULT_REPORTING = Reporting()


@dataclass(frozen=True)
class AccessLog:
    """One access logger."""

    target: LogTarget = field(hash=False)
    name: str = ""
    """The provider's name; empty for the mesh's ``accessLogFile``."""
    filter: str = ""
    """A CEL expression that requests and connections must meet."""
    cluster: str = ""
    """The cluster of the service that it sends to."""


GRPC_MESSAGES = ("GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES")
"""Metrics of messages, as in the Telemetry API."""


@dataclass(frozen=True)
class MetricRule:
    """A change to one of Istio's metrics."""

    metric: str
    """As in the Telemetry API: REQUEST_COUNT."""
    disabled: bool = False
    tags: tuple[tuple[str, str | None], ...] = ()
    """(label, its CEL expression); None removes the label."""


@dataclass(frozen=True)
class Metrics:
    """Istio's standard metrics."""

    rules: tuple[MetricRule, ...] = ()
    lean: bool = False
    every_s: float | None = connections.EVERY_S
    """Seconds between reports about an open connection; None if the proxy's agent does not support them."""
    joined: bool = True
    """Whether the proxy's agent takes labels apart (``wire.labels``)."""
    requests: bool = True
    """Whether it counts requests (``wire.requests``)."""
    messages: bool = True
    """Whether it counts messages of gRPC."""

    @property
    def of_messages(self) -> bool:
        """Whether somebody wants these, and is told."""
        wanted = any(not self.rule(metric).disabled for metric in GRPC_MESSAGES)
        return wanted and self.requests and self.messages and not self.lean

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
    """The cluster of the service that receives the spans."""
    service: str
    """The service name in the proxy's spans: ``app.namespace``."""
    sampling: float
    """Percentage of sampled requests, among those without a caller's decision."""
    tags: tuple[TraceTag, ...] = ()
    by_request_id: bool = True
    """Whether x-request-id carries the sampling decision."""
    max_path_tag: int | None = None
    """Maximum length of a path in a span, in bytes; None: Envoy's default."""
    propagated: bool = True
    """Whether requests carry the trace's context on to the next one."""


@dataclass(frozen=True)
class Side:
    """What a proxy adds to outbound (client) or inbound (server) requests and connections: telemetry, the user's own
    filters, and the handling of headers and connections."""

    cluster: str = CLUSTER_NAME
    """The name of the cluster that the proxy runs in."""
    workload: str = ""
    """The workload that is reported about; empty if the proxy has only one."""
    origins: tuple[str, ...] = ()
    """The Telemetry objects that it derives from."""
    logs: tuple[AccessLog, ...] = ()
    logs_refused: bool = True
    """Whether they also have the connections that no filter chain takes."""
    metrics: Metrics | None = Metrics()
    trace: Trace | None = None
    hooks: tuple[Hook, ...] = ()
    """The positions of plugins, in their order within a phase."""
    handling: Handling = PLAIN
    """The handling of headers and connections."""

    def at(self, *numbers: int) -> Side:
        """The side at a port, by the port's numbers for clients and for servers; without a number, for connections to
        unknown ports."""
        if not any(h.ports for h in self.hooks):
            return self
        return replace(self, hooks=tuple(h for h in self.hooks if h.at(numbers)))


@dataclass(frozen=True)
class Observability:
    client: Side = Side()
    """Also for gateways, as in Istio."""
    server: Side = Side()
