"""Access loggers: files, OpenTelemetry, and Envoy's own access log service.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-ExtensionProvider.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec
from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import extension_pb2, grpc_service_pb2, substitution_format_string_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as log_types_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.access_loggers.open_telemetry.v3 import logs_service_pb2
from envoy.extensions.formatter.req_without_query.v3 import req_without_query_pb2
from opentelemetry.proto.common.v1 import common_pb2

from lateen.api.mesh.accesslog import TEXT
from lateen.api.mesh.providers import FileAccessLog, HttpAls, LogFormat, OtelAls, TcpAls
from lateen.mesh.observability import AccessLog
from lateen.xds import pb

STDOUT = "/dev/stdout"


@lru_cache(maxsize=256)
def logger(log: AccessLog, http: bool) -> accesslog_pb2.AccessLog | None:
    """The access logger; None if this kind of log does not apply to the chain. ``http``: the chain routes requests."""
    config = _config(log, http)
    if config is None:
        return None
    name, message = config
    out = accesslog_pb2.AccessLog(name=f"envoy.access_loggers.{name}", typed_config=pb.any_of(message))
    if log.filter:
        out.filter.CopyFrom(expression(log.filter))
    return out


def expression(text: str) -> accesslog_pb2.AccessLogFilter:
    """A filter that logs only if a CEL expression is true."""
    out = accesslog_pb2.AccessLogFilter()
    out.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
    out.extension_filter.typed_config.CopyFrom(pb.any_of(cel_pb2.ExpressionFilter(expression=text)))
    return out


def moment(kind: str) -> accesslog_pb2.AccessLogFilter:
    """A filter that logs only one ``AccessLogType`` of a connection."""
    types = [log_types_pb2.AccessLogType.Value(kind)]
    return accesslog_pb2.AccessLogFilter(log_type_filter=accesslog_pb2.LogTypeFilter(types=types))


def flagged(*flags: str) -> accesslog_pb2.AccessLogFilter:
    """A filter by response flags."""
    return accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=flags))


def of_grpc() -> accesslog_pb2.AccessLogFilter:
    """A filter for requests of gRPC."""
    out = accesslog_pb2.AccessLogFilter()
    out.header_filter.header.name = "content-type"
    out.header_filter.header.string_match.prefix = "application/grpc"
    return out


def lasting(ms: int, longer: bool) -> accesslog_pb2.AccessLogFilter:
    """A filter by duration: at least ``ms``, or less. Envoy requires a runtime key, which is never set."""
    out = accesslog_pb2.AccessLogFilter()
    comparison = out.duration_filter.comparison
    comparison.op = accesslog_pb2.ComparisonFilter.GE if longer else accesslog_pb2.ComparisonFilter.LE
    comparison.value.default_value = ms if longer else ms - 1
    comparison.value.runtime_key = "lateen.unset"
    return out


def all_of(*filters: accesslog_pb2.AccessLogFilter) -> accesslog_pb2.AccessLogFilter:
    return accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=filters))


def either(*filters: accesslog_pb2.AccessLogFilter) -> accesslog_pb2.AccessLogFilter:
    return accesslog_pb2.AccessLogFilter(or_filter=accesslog_pb2.OrFilter(filters=filters))


def of_clients(log: AccessLog) -> AccessLog:
    """The same for connections that get no further than to the proxy: what their lines say of TLS is about the client,
    as there is no server yet."""
    target = log.target
    if not isinstance(target, FileAccessLog | OtelAls):
        return log
    shape = target.log_format or LogFormat()
    text = _of_clients(_text(shape))
    shape = LogFormat(text=text, labels=_of_clients(shape.labels))
    return replace(log, target=msgspec.structs.replace(target, log_format=shape))


def _of_clients(given: Any) -> Any:
    """A format, or one in JSON, which may be nested."""
    if isinstance(given, str):
        return given.replace("%UPSTREAM_TRANSPORT_FAILURE_REASON%", "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%")
    if isinstance(given, dict):
        return {key: _of_clients(value) for key, value in given.items()}
    return [_of_clients(value) for value in given] if isinstance(given, list | tuple) else given


def _config(log: AccessLog, http: bool) -> tuple[str, Any] | None:
    target = log.target
    match target:
        case FileAccessLog():
            return "file", _file(target)
        case OtelAls():
            return "open_telemetry", _otel(target, log.cluster)
        case HttpAls():
            return ("http_grpc", _http_als(target, log.cluster)) if http else None
        case TcpAls():
            return None if http else ("tcp_grpc", _tcp_als(target, log.cluster))


def _file(target: FileAccessLog) -> file_pb2.FileAccessLog:
    source = substitution_format_string_pb2.SubstitutionFormatString(omit_empty_values=target.omit_empty_values)
    shape = target.log_format
    if shape is not None and shape.labels:
        source.json_format.update(shape.labels)
        used = str(shape.labels)
    else:
        used = _text(shape)
        source.text_format_source.inline_string = used if used.endswith("\n") else used + "\n"
    source.formatters.extend(formatters(used))
    return file_pb2.FileAccessLog(path=target.path or STDOUT, log_format=source)


def _text(shape: LogFormat | None) -> str:
    return (shape.text if shape else "") or TEXT


def formatters(text: str) -> list[Any]:
    """Extensions for the operators in Istio's documentation that are not built into Envoy. METADATA is built in, and
    Envoy would log a warning for each listener that names its extension."""
    out = []
    if "%REQ_WITHOUT_QUERY(" in text:
        out.append(_extension("envoy.formatter.req_without_query", req_without_query_pb2.ReqWithoutQuery()))
    return out


def _extension(name: str, message: Any) -> Any:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=pb.any_of(message))


def _common(cluster: str, name: str, state: tuple[str, ...] = ()) -> als_pb2.CommonGrpcAccessLogConfig:
    service = grpc_service_pb2.GrpcService()
    service.envoy_grpc.cluster_name = cluster
    return als_pb2.CommonGrpcAccessLogConfig(
        log_name=name,
        grpc_service=service,
        transport_api_version="V3",
        filter_state_objects_to_log=state,
    )


def _otel(target: OtelAls, cluster: str) -> logs_service_pb2.OpenTelemetryAccessLogConfig:
    shape = target.log_format
    text = _text(shape)
    out = logs_service_pb2.OpenTelemetryAccessLogConfig(
        common_config=_common(cluster, target.log_name or "otel_envoy_accesslog"),
        disable_builtin_labels=True,
        body=common_pb2.AnyValue(string_value=text),
    )
    for key, value in (shape.labels if shape else {}).items():
        out.attributes.values.add(key=key).value.CopyFrom(_value(value))
    used = f"{text} {shape.labels if shape else ''}"
    out.formatters.extend(formatters(used))
    return out


def _value(given: Any) -> common_pb2.AnyValue:
    if isinstance(given, bool):
        return common_pb2.AnyValue(bool_value=given)
    if isinstance(given, (int, float)):
        return common_pb2.AnyValue(double_value=given)
    if isinstance(given, dict):
        out = common_pb2.AnyValue()
        out.kvlist_value.SetInParent()
        for key, value in given.items():
            out.kvlist_value.values.add(key=key).value.CopyFrom(_value(value))
        return out
    if isinstance(given, (list, tuple)):
        return common_pb2.AnyValue(array_value=common_pb2.ArrayValue(values=[_value(v) for v in given]))
    return common_pb2.AnyValue(string_value="" if given is None else str(given))


def _http_als(target: HttpAls, cluster: str) -> als_pb2.HttpGrpcAccessLogConfig:
    return als_pb2.HttpGrpcAccessLogConfig(
        common_config=_common(cluster, target.log_name or "http_envoy_accesslog", target.filter_state_objects_to_log),
        additional_request_headers_to_log=target.additional_request_headers_to_log,
        additional_response_headers_to_log=target.additional_response_headers_to_log,
        additional_response_trailers_to_log=target.additional_response_trailers_to_log,
    )


def _tcp_als(target: TcpAls, cluster: str) -> als_pb2.TcpGrpcAccessLogConfig:
    name = target.log_name or "tcp_envoy_accesslog"
    return als_pb2.TcpGrpcAccessLogConfig(common_config=_common(cluster, name, target.filter_state_objects_to_log))
