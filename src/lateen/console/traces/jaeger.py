"""Traces in the JSON of Jaeger's query API. Pure.

Source: https://www.jaegertracing.io/docs/latest/apis/ ("HTTP JSON"), which Jaeger's own page, Kiali and Grafana use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lateen.console.traces.spans import Span
from lateen.kit.jsons import Json


def answer(data: Sequence[Any] | None, errors: list[Json] | None = None) -> Json:
    return {"data": data, "total": len(data or ()), "limit": 0, "offset": 0, "errors": errors}


def trace(spans: Sequence[Span]) -> Json:
    """``spans``: of one trace."""
    ids = _ids(spans)
    services = {name: f"p{i}" for i, name in enumerate(dict.fromkeys(s.service for s in spans), 1)}
    return {
        "traceID": spans[0].trace,
        "spans": [_span(s, services[s.service], ids) for s in spans],
        "processes": {number: {"serviceName": name, "tags": []} for name, number in services.items()},
        "warnings": None,
    }


def _ids(spans: Sequence[Span]) -> dict[tuple[str, bool], str]:
    """A server's span that shares its id with the client's gets another one: ids are unique in Jaeger."""
    return {(s.id, s.shared): _other(s.id) if s.shared else s.id for s in spans}


def _other(number: str) -> str:
    return f"{int(number, 16) ^ 1 << 63:016x}"


def _span(s: Span, process: str, ids: dict[tuple[str, bool], str]) -> Json:
    parent = s.id if s.shared and (s.id, False) in ids else s.parent
    tags = [_tag(k, v) for k, v in s.tags.items()]
    if s.kind != "INTERNAL" and "span.kind" not in s.tags:
        tags.append(_tag("span.kind", s.kind.lower()))
    if s.error and "error" not in s.tags:
        tags.append({"key": "error", "type": "bool", "value": True})
    return {
        "traceID": s.trace,
        "spanID": ids[s.id, s.shared],
        "operationName": s.name,
        "references": [{"refType": "CHILD_OF", "traceID": s.trace, "spanID": parent}] if parent else [],
        "startTime": s.start,
        "duration": s.duration,
        "tags": tags,
        "logs": [{"timestamp": e.time, "fields": [_tag(k, v) for k, v in e.fields.items()]} for e in s.events],
        "processID": process,
        "warnings": None,
    }


def _tag(key: str, value: str) -> Json:
    return {"key": key, "type": "string", "value": value}
