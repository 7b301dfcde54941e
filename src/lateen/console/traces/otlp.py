"""OpenTelemetry's protocol: protobuf (over gRPC or HTTP) and JSON, whose ids are hexadecimal. Pure.

Source: https://opentelemetry.io/docs/specs/otlp/. The messages are those of xds-protos, an older edition: what it calls
``instrumentation_library_spans`` is ``scope_spans`` today, with the same number and contents, so that the bytes are the
same. (opentelemetry-proto would install other files under the same names.)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import json_format, wrappers_pb2
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from lateen.console.traces.spans import (
    MAX_EVENTS,
    MAX_NAME,
    BadSpans,
    Event,
    Kind,
    Span,
    failed,
    happened,
    short,
    span_id,
    tags,
    times,
    trace_id,
)
from lateen.kit import jsons

KINDS: tuple[Kind, ...] = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUS_ERROR = 2
DEEPEST = 8
_RENAMED = dict.fromkeys(("scopeSpans", "scope_spans"), "instrumentationLibrarySpans")
_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
MAX_PROBLEMS = 1_000
"""Of one body: one of nothing but empty spans has millions"""


def decode(body: bytes) -> tuple[list[Span], list[str]]:
    """An ExportTraceServiceRequest: see ``spans``."""
    request = trace_service_pb2.ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except (DecodeError, ValueError) as e:
        raise BadSpans(f"the body is not a protobuf ExportTraceServiceRequest: {e}") from None
    return spans(request)


def decode_json(body: bytes) -> tuple[list[Span], list[str]]:
    """The same as JSON."""
    try:
        given = jsons.loads(body)
        if not isinstance(given, dict):
            raise BadSpans("the body is not a JSON object with resourceSpans")
        request = json_format.ParseDict(
            _with_base64(given, 0), trace_service_pb2.ExportTraceServiceRequest(), ignore_unknown_fields=True
        )
    except BadSpans:
        raise
    except (json_format.ParseError, binascii.Error, RecursionError, ValueError) as e:
        raise BadSpans(f"the body is not a JSON ExportTraceServiceRequest: {e}") from None
    return spans(request)


def _with_base64(node: Any, depth: int) -> Any:
    """Ids as protobuf's JSON has them, names as our edition has them."""
    if depth > 32:
        raise BadSpans("the body is nested too deeply")
    if isinstance(node, dict):
        return {
            _RENAMED.get(k, k): _id(v) if k in _IDS and isinstance(v, str) else _with_base64(v, depth + 1)
            for k, v in node.items()
        }
    return [_with_base64(v, depth + 1) for v in node] if isinstance(node, list) else node


def _id(hexadecimal: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
    except ValueError:
        raise BadSpans(f'"{hexadecimal[:64]}" is not an id: it must have 16 or 32 hexadecimal digits') from None


def spans(request: Any) -> tuple[list[Span], list[str]]:
    """Of an ExportTraceServiceRequest, and what is wrong with those that are left out: a body may have spans of many
    services. Raises BadSpans if there are only such, or very many."""
    out: list[Span] = []
    problems: list[str] = []
    for resource in request.resource_spans:
        about = _attributes(resource.resource.attributes)
        service = short(about.pop("service.name", "unknown"), MAX_NAME)
        for scope in resource.instrumentation_library_spans:
            for span in scope.spans:
                try:
                    out.append(_span(span, service, about))
                except BadSpans as e:
                    problems.append(f"{service}: {e}")
                    if len(problems) > MAX_PROBLEMS:
                        raise BadSpans(f"{_rejected(problems)}, and nothing is read beyond") from None
    if problems and not out:
        raise BadSpans(problems[0])
    return out, problems


def _rejected(problems: Sequence[str]) -> str:
    return f"{len(problems)} spans were rejected, such as one of {problems[0]}"


def accepted(problems: Sequence[str]) -> bytes:
    """An ExportTraceServiceResponse. Our edition does not have its ``partial_success``, which is field 1 with the
    fields ``int64 rejected_spans = 1; string error_message = 2``; others that are written like these stand in."""
    if not problems:
        return b""
    part = status_pb2.Status(code=len(problems), message=_rejected(problems))
    return wrappers_pb2.BytesValue(value=part.SerializeToString()).SerializeToString()


def accepted_json(problems: Sequence[str]) -> bytes:
    part = {"rejectedSpans": str(len(problems)), "errorMessage": _rejected(problems)} if problems else {}
    return jsons.dumps({"partialSuccess": part} if part else {})


def _span(s: Any, service: str, about: dict[str, str]) -> Span:
    start, duration = times(s.start_time_unix_nano // 1000, (s.end_time_unix_nano - s.start_time_unix_nano) // 1000)
    found = tags([*_attributes(s.attributes).items(), *about.items()])
    if s.status.code == STATUS_ERROR:
        found["otel.status_code"] = "ERROR"
        if s.status.message:
            found["otel.status_description"] = short(s.status.message)
    events = [
        Event(happened(e.time_unix_nano // 1000), {"event": short(e.name), **_attributes(e.attributes)})
        for e in list(s.events)[:MAX_EVENTS]
    ]
    return Span(
        trace_id(s.trace_id.hex()),
        span_id(s.span_id.hex()),
        span_id(s.parent_span_id.hex()) if s.parent_span_id.strip(b"\0") else "",
        service,
        short(s.name or "unknown", MAX_NAME),
        KINDS[s.kind] if 0 <= s.kind < len(KINDS) else "INTERNAL",
        start,
        duration,
        found,
        events,
        failed(found),
        short(found.get("peer.service", ""), MAX_NAME),
    )


def _attributes(given: Iterable[Any]) -> dict[str, str]:
    return {short(a.key, MAX_NAME): short(_text(a.value, 0)) for a in given}


def _text(value: Any, depth: int) -> str:
    kind = value.WhichOneof("value")
    if kind is None or depth > DEEPEST:
        return ""
    found = getattr(value, kind)
    match kind:
        case "bool_value":
            return "true" if found else "false"
        case "bytes_value":
            return str(found[:1024].hex())
        case "array_value":
            return "[" + ", ".join(_text(v, depth + 1) for v in list(found.values)[:64]) + "]"
        case "kvlist_value":
            return "{" + ", ".join(f"{v.key}: {_text(v.value, depth + 1)}" for v in list(found.values)[:64]) + "}"
    return str(found)


def encode(given: list[Span]) -> bytes:
    """An ExportTraceServiceRequest with these spans, for another collector."""
    request = trace_service_pb2.ExportTraceServiceRequest()
    by_service: dict[str, Any] = {}
    for s in given:
        if s.service not in by_service:
            resource = request.resource_spans.add()
            resource.resource.attributes.add(key="service.name").value.string_value = s.service
            by_service[s.service] = resource.instrumentation_library_spans.add()
        out = by_service[s.service].spans.add(
            trace_id=bytes.fromhex(s.trace),
            span_id=bytes.fromhex(s.id),
            parent_span_id=bytes.fromhex(s.parent),
            name=s.name,
            kind=KINDS.index(s.kind, 1),
            start_time_unix_nano=s.start * 1000,
            end_time_unix_nano=(s.start + s.duration) * 1000,
        )
        for key, value in s.tags.items():
            out.attributes.add(key=key).value.string_value = value
        for event in s.events:
            made = out.events.add(time_unix_nano=event.time * 1000, name=event.fields.get("event", ""))
            for key, value in event.fields.items():
                made.attributes.add(key=key).value.string_value = value
        if s.error:
            out.status.code = STATUS_ERROR
    return bytes(request.SerializeToString())
