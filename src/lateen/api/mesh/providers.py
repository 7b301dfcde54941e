"""Extension providers of the mesh configuration: external authorization, tracing, metrics, access logs.

Source: istio.io/api ``mesh/v1alpha1/config.proto``, message ``MeshConfig.ExtensionProvider``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lateen.api.config import Config, Duration


class RequestBody(Config):
    max_request_bytes: int = 0
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


class ExtAuthzGrpc(Config):
    service: str
    port: int
    timeout: Duration | None = None
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: str = ""
    include_request_body_in_check: RequestBody | None = None


class ExtAuthzHttp(Config):
    service: str
    port: int
    timeout: Duration | None = None
    path_prefix: str = ""
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: str = ""
    include_headers_in_check: tuple[str, ...] = ()
    include_request_headers_in_check: tuple[str, ...] = ()
    include_additional_headers_in_check: dict[str, str] = {}
    include_request_body_in_check: RequestBody | None = None
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()
    headers_to_downstream_on_allow: tuple[str, ...] = ()


class HttpHeader(Config):
    name: str
    value: str = ""
    env_name: str = ""


class HttpService(Config):
    path: str = ""
    timeout: Duration | None = None
    headers: tuple[HttpHeader, ...] = ()


class GrpcService(Config):
    timeout: Duration | None = None
    initial_metadata: tuple[HttpHeader, ...] = ()


class Zipkin(Config):
    service: str
    port: int
    max_tag_length: int | None = None
    enable_64bit_trace_id: bool = msgspec.field(default=False, name="enable64bitTraceId")
    path: str = ""
    trace_context_option: Literal["USE_B3", "USE_B3_WITH_W3C_PROPAGATION"] | None = None
    timeout: Duration | None = None
    headers: tuple[HttpHeader, ...] = ()


class Lightstep(Config):
    service: str
    port: int
    access_token: str = ""
    max_tag_length: int | None = None


class Datadog(Config):
    service: str
    port: int
    max_tag_length: int | None = None


class SkyWalking(Config):
    service: str
    port: int
    access_token: str = ""


class StackdriverLogging(Config):
    labels: dict[str, str] = {}


class Stackdriver(Config):
    debug: bool = False
    max_number_of_attributes: int | None = None
    max_number_of_annotations: int | None = None
    max_number_of_message_events: int | None = None
    max_tag_length: int | None = None
    logging: StackdriverLogging | None = None


class OpenCensus(Config):
    service: str
    port: int
    context: tuple[Literal["UNSPECIFIED", "W3C_TRACE_CONTEXT", "GRPC_BIN", "CLOUD_TRACE_CONTEXT", "B3"], ...] = ()
    max_tag_length: int | None = None


class Empty(Config):
    """A message without fields."""


class LogFormat(Config):
    text: str = ""
    labels: dict[str, Any] = {}


class FileAccessLog(Config):
    path: str = ""
    log_format: LogFormat | None = None
    omit_empty_values: bool = False


class HttpAls(Config):
    service: str
    port: int
    log_name: str = ""
    filter_state_objects_to_log: tuple[str, ...] = ()
    additional_request_headers_to_log: tuple[str, ...] = ()
    additional_response_headers_to_log: tuple[str, ...] = ()
    additional_response_trailers_to_log: tuple[str, ...] = ()


class TcpAls(Config):
    service: str
    port: int
    log_name: str = ""
    filter_state_objects_to_log: tuple[str, ...] = ()


class OtelAls(Config):
    service: str
    port: int
    log_name: str = ""
    log_format: LogFormat | None = None


class ResourceDetectors(Config):
    environment: Empty | None = None
    dynatrace: Empty | None = None


class DynatraceApi(Config):
    service: str
    port: int
    http: HttpService | None = None


class DynatraceSampler(Config):
    tenant: str
    cluster_id: int
    root_spans_per_minute: int | None = None
    http_service: DynatraceApi | None = None


class OpenTelemetry(Config):
    service: str
    port: int
    max_tag_length: int | None = None
    http: HttpService | None = None
    grpc: GrpcService | None = None
    resource_detectors: ResourceDetectors | None = None
    service_attribute_enrichment: Literal["ISTIO_CANONICAL", "OTEL_SEMANTIC_CONVENTIONS"] | None = None
    dynatrace_sampler: DynatraceSampler | None = None


class Sds(Config):
    name: str
    service: str
    port: int


class ExtensionProvider(Config):
    """Exactly one of the providers is set."""

    name: str
    envoy_ext_authz_grpc: ExtAuthzGrpc | None = None
    envoy_ext_authz_http: ExtAuthzHttp | None = None
    zipkin: Zipkin | None = None
    lightstep: Lightstep | None = None
    datadog: Datadog | None = None
    stackdriver: Stackdriver | None = None
    opencensus: OpenCensus | None = None
    skywalking: SkyWalking | None = None
    opentelemetry: OpenTelemetry | None = None
    prometheus: Empty | None = None
    envoy_file_access_log: FileAccessLog | None = None
    envoy_http_als: HttpAls | None = None
    envoy_tcp_als: TcpAls | None = None
    envoy_otel_als: OtelAls | None = None
    sds: Sds | None = None
