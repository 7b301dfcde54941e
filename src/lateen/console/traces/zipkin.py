"""Zipkin's JSON, version 2. Pure.

Source: https://zipkin.io/zipkin-api/zipkin2-api.yaml.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

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
from lateen.kit.jsons import Json

KINDS = ("CLIENT", "SERVER", "PRODUCER", "CONSUMER")


class _Endpoint(msgspec.Struct, rename="camel"):
    service_name: str | None = None
    ipv4: str | None = None
    ipv6: str | None = None
    port: int | None = None


class _Annotation(msgspec.Struct):
    timestamp: int
    value: str


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str
    id: str
    parent_id: str | None = None
    name: str | None = None
    kind: str | None = None
    timestamp: int | None = None
    duration: int | None = None
    local_endpoint: _Endpoint | None = None
    remote_endpoint: _Endpoint | None = None
    annotations: list[_Annotation] | None = None
    tags: dict[str, str] | None = None
    shared: bool | None = None


_DECODER = msgspec.json.Decoder(list[_Span])


def decode(body: bytes) -> list[Span]:
    """Raises BadSpans."""
    try:
        return [_span(s, i) for i, s in enumerate(_DECODER.decode(body))]
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise BadSpans(f"the body is not a JSON list of Zipkin spans: {e}") from None


def _span(s: _Span, index: int) -> Span:
    try:
        start, duration = times(s.timestamp or 0, s.duration or 0)
        found = tags(list((s.tags or {}).items()))
        local, remote = s.local_endpoint or _Endpoint(), s.remote_endpoint or _Endpoint()
        if local.ipv4 or local.ipv6:
            found.setdefault("ip", short(local.ipv4 or local.ipv6, MAX_NAME))
        return Span(
            trace_id(s.trace_id),
            span_id(s.id),
            span_id(s.parent_id) if s.parent_id else "",
            short(local.service_name or "unknown", MAX_NAME),
            short(s.name or "unknown", MAX_NAME),
            cast("Kind", s.kind) if s.kind in KINDS else "INTERNAL",
            start,
            duration,
            found,
            [Event(happened(a.timestamp), {"event": short(a.value)}) for a in (s.annotations or [])[:MAX_EVENTS]],
            failed(found),
            short(remote.service_name or "", MAX_NAME),
            bool(s.shared),
        )
    except BadSpans as e:
        raise BadSpans(f"span {index}: {e}") from None


def encode(s: Span) -> Json:
    out: dict[str, Any] = {
        "traceId": s.trace,
        "id": s.id,
        "name": s.name,
        "timestamp": s.start,
        "duration": max(1, s.duration),
        "localEndpoint": {"serviceName": s.service} | ({"ipv4": s.tags["ip"]} if "." in s.tags.get("ip", "") else {}),
        "tags": s.tags,
    }
    if s.parent:
        out["parentId"] = s.parent
    if s.kind != "INTERNAL":
        out["kind"] = s.kind
    if s.remote:
        out["remoteEndpoint"] = {"serviceName": s.remote}
    if s.events:
        out["annotations"] = [{"timestamp": e.time, "value": e.fields.get("event", str(e.fields))} for e in s.events]
    if s.shared:
        out["shared"] = True
    return out
