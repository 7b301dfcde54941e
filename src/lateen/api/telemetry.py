"""telemetry.istio.io. Field names and meanings are Istio's."""

from __future__ import annotations

from typing import Literal

from lateen.api.config import CelRule, Config, Duration, one_target, rules
from lateen.api.networking import PolicyTargetReference, WorkloadSelector

WorkloadMode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]


class ProviderRef(Config):
    name: str


class ModeMatch(Config):
    mode: WorkloadMode = "CLIENT_AND_SERVER"


class LiteralTag(Config):
    value: str = ""


class FromEnvironment(Config):
    name: str = ""
    default_value: str = ""


class FromHeader(Config):
    name: str = ""
    default_value: str = ""


class Formatter(Config):
    value: str = ""


class CustomTag(Config):
    literal: LiteralTag | None = None
    environment: FromEnvironment | None = None
    header: FromHeader | None = None
    formatter: Formatter | None = None


class Tracing(Config):
    match: ModeMatch | None = None
    providers: tuple[ProviderRef, ...] = ()
    random_sampling_percentage: float | None = None
    disable_span_reporting: bool | None = None
    disable_context_propagation: bool | None = None
    custom_tags: dict[str, CustomTag | None] = {}
    enable_istio_tags: bool | None = None
    use_request_id_for_trace_sampling: bool | None = None


class MetricSelector(Config):
    metric: (
        Literal[
            "ALL_METRICS",
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
        ]
        | None
    ) = None
    custom_metric: str | None = None
    mode: WorkloadMode = "CLIENT_AND_SERVER"


class TagOverride(Config):
    RULES = rules(
        CelRule(
            '(has(self.operation) ? self.operation : "") != "REMOVE" || !has(self.value)',
            "value must not be set when operation is REMOVE",
        ),
    )

    operation: Literal["UPSERT", "REMOVE"] = "UPSERT"
    value: str = ""


class MetricsOverride(Config):
    match: MetricSelector | None = None
    disabled: bool | None = None
    tag_overrides: dict[str, TagOverride] = {}


class Metrics(Config):
    providers: tuple[ProviderRef, ...] = ()
    overrides: tuple[MetricsOverride, ...] = ()
    reporting_interval: Duration | None = None


class LogFilter(Config):
    expression: str = ""


class AccessLogging(Config):
    match: ModeMatch | None = None
    providers: tuple[ProviderRef, ...] = ()
    disabled: bool | None = None
    filter: LogFilter | None = None


class Telemetry(Config):
    RULES = rules(one_target("selector", "targetRef", "targetRefs"))

    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    tracing: tuple[Tracing, ...] = ()
    metrics: tuple[Metrics, ...] = ()
    access_logging: tuple[AccessLogging, ...] = ()
