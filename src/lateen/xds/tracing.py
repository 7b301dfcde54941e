"""Spans: Envoy's tracers for Zipkin, OpenTelemetry, Datadog and SkyWalking, with Istio's settings.

Source: https://istio.io/latest/docs/reference/config/telemetry/#Tracing and
https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-ExtensionProvider.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from envoy.config.core.v3 import base_pb2, extension_pb2, grpc_service_pb2, http_service_pb2, http_uri_pb2
from envoy.config.trace.v3 import datadog_pb2, http_tracer_pb2, opentelemetry_pb2, skywalking_pb2, zipkin_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.request_id.uuid.v3 import uuid_pb2
from envoy.extensions.tracers.opentelemetry.resource_detectors.v3 import (
    dynatrace_resource_detector_pb2,
    environment_resource_detector_pb2,
)
from envoy.type.v3 import percent_pb2

from lateen.api.mesh.providers import (
    Datadog,
    HttpHeader,
    HttpService,
    OpenTelemetry,
    SkyWalking,
    Zipkin,
)
from lateen.mesh.observability import Trace, TraceTag
from lateen.xds import pb

ZIPKIN_PATH = "/api/v2/spans"
OPERATION = "%REQ(:AUTHORITY)%/*"
"""The name of spans. Istio's is the route's host, as in ``reviews.default.svc.cluster.local:9080/*``."""
_NOT_PROPAGATED = b"\x68\x01"
"""``no_context_propagation: true``, field 13 of HttpConnectionManager.Tracing, which our bindings lack."""
EXPORT_S = 10.0
"""How long an export may take, where the provider does not say."""


@lru_cache(maxsize=1024)
def of(trace: Trace) -> hcm.HttpConnectionManager.Tracing:
    name, message = _tracer(trace)
    out = hcm.HttpConnectionManager.Tracing(
        client_sampling=percent_pb2.Percent(value=100),
        random_sampling=percent_pb2.Percent(value=trace.sampling),
        overall_sampling=percent_pb2.Percent(value=100),
        operation=OPERATION,
        provider=http_tracer_pb2.Tracing.Http(name=f"envoy.tracers.{name}", typed_config=pb.any_of(message)),
    )
    if not trace.propagated:
        out.MergeFromString(_NOT_PROPAGATED)
    longest = trace.max_path_tag or getattr(trace.tracer, "max_tag_length", None)
    if longest:
        out.max_path_tag_length.value = longest
    for tag in trace.tags:
        _tag(out.custom_tags.add(tag=tag.name), tag)
    return out


@cache
def request_id() -> hcm.RequestIDExtension:
    """x-request-id without the decision whether the request is traced."""
    config = uuid_pb2.UuidRequestIdConfig(use_request_id_for_trace_sampling=pb.boolean(False))
    return hcm.RequestIDExtension(typed_config=pb.any_of(config))


def _tag(out: Any, tag: TraceTag) -> None:
    match tag.kind:
        case "literal":
            out.literal.value = tag.value
        case "environment":
            out.environment.name, out.environment.default_value = tag.value, tag.default
        case "header":
            out.request_header.name, out.request_header.default_value = tag.value, tag.default
        case "formatter":
            out.value = tag.value


def _tracer(trace: Trace) -> tuple[str, Any]:
    tracer = trace.tracer
    match tracer:
        case Zipkin():
            return "zipkin", _zipkin(tracer, trace.cluster)
        case OpenTelemetry():
            return "opentelemetry", _otel(tracer, trace.cluster, trace.service)
        case Datadog():
            return "datadog", datadog_pb2.DatadogConfig(
                collector_cluster=trace.cluster, collector_hostname=_host(tracer.service), service_name=trace.service
            )
        case SkyWalking():
            return "skywalking", _skywalking(tracer, trace)


def _host(service: str) -> str:
    """``namespace/host`` or a host."""
    return service.rpartition("/")[2]


def _zipkin(z: Zipkin, cluster: str) -> zipkin_pb2.ZipkinConfig:
    path = z.path or ZIPKIN_PATH
    out = zipkin_pb2.ZipkinConfig(
        collector_endpoint_version="HTTP_JSON",
        trace_id_128bit=not z.enable_64bit_trace_id,
        shared_span_context=pb.boolean(False),
        trace_context_option=z.trace_context_option or "USE_B3",
    )
    if z.headers or z.timeout:
        uri = f"http://{_host(z.service)}:{z.port}{path}"
        timeout = z.timeout.seconds if z.timeout else EXPORT_S
        out.collector_service.CopyFrom(_service(uri, cluster, timeout, z.headers))
    else:
        out.collector_cluster, out.collector_endpoint, out.collector_hostname = cluster, path, _host(z.service)
    return out


def _otel(o: OpenTelemetry, cluster: str, service: str) -> opentelemetry_pb2.OpenTelemetryConfig:
    out = opentelemetry_pb2.OpenTelemetryConfig(service_name=service)
    if o.http is not None:
        out.http_service.CopyFrom(_http(o.http, o.service, o.port, cluster))
    else:
        out.grpc_service.envoy_grpc.cluster_name = cluster
        out.grpc_service.envoy_grpc.authority = _host(o.service)
        if o.grpc is not None:
            if o.grpc.timeout is not None:
                out.grpc_service.timeout.CopyFrom(pb.duration(o.grpc.timeout.seconds))
            out.grpc_service.initial_metadata.extend(_header(h) for h in o.grpc.initial_metadata)
    detectors = o.resource_detectors
    if detectors is not None and detectors.environment is not None:
        found = environment_resource_detector_pb2.EnvironmentResourceDetectorConfig()
        out.resource_detectors.append(_extension("resource_detectors.environment", found))
    if detectors is not None and detectors.dynatrace is not None:
        out.resource_detectors.append(
            _extension(
                "resource_detectors.dynatrace", dynatrace_resource_detector_pb2.DynatraceResourceDetectorConfig()
            )
        )
    return out


def _extension(name: str, message: Any) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(
        name=f"envoy.tracers.opentelemetry.{name}", typed_config=pb.any_of(message)
    )


def _http(given: HttpService, service: str, port: int, cluster: str) -> http_service_pb2.HttpService:
    uri = f"http://{_host(service)}:{port}/{given.path.removeprefix('/')}"
    return _service(uri, cluster, given.timeout.seconds if given.timeout else EXPORT_S, given.headers)


def _service(uri: str, cluster: str, timeout_s: float, headers: tuple[HttpHeader, ...]) -> http_service_pb2.HttpService:
    return http_service_pb2.HttpService(
        http_uri=http_uri_pb2.HttpUri(uri=uri, cluster=cluster, timeout=pb.duration(timeout_s)),
        request_headers_to_add=[
            base_pb2.HeaderValueOption(header=_header(h), append_action="OVERWRITE_IF_EXISTS_OR_ADD") for h in headers
        ],
    )


def _header(given: HttpHeader) -> base_pb2.HeaderValue:
    """A value may come from a variable of the proxy's container."""
    value = f"%ENVIRONMENT({given.env_name})%" if given.env_name else given.value.replace("%", "%%")
    return base_pb2.HeaderValue(key=given.name, value=value)


def _skywalking(s: SkyWalking, trace: Trace) -> skywalking_pb2.SkyWalkingConfig:
    out = skywalking_pb2.SkyWalkingConfig(grpc_service=grpc_service_pb2.GrpcService())
    out.grpc_service.envoy_grpc.cluster_name = trace.cluster
    out.grpc_service.envoy_grpc.authority = _host(s.service)
    out.client_config.service_name = trace.service
    out.client_config.instance_name = trace.service
    if s.access_token:
        out.client_config.backend_token = s.access_token
    return out
