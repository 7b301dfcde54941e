"""Spans in the store's form, independent of the protocol. Pure."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

Kind = Literal["CLIENT", "SERVER", "PRODUCER", "CONSUMER", "INTERNAL"]
MAX_TAGS, MAX_EVENTS = 128, 128
MAX_NAME, MAX_VALUE = 256, 4096
"""Longer texts are cut."""
LATEST_US = (1 << 53) - 1
LONGEST_US = 30 * 24 * 3600 * 1_000_000
_HEX = re.compile(r"[0-9a-f]+")


class BadSpans(ValueError):
    """The body is not a list of spans; the message says where and why."""


class Event(msgspec.Struct, frozen=True):
    time: int
    """Microseconds since 1970."""
    fields: dict[str, str]


class Span(msgspec.Struct, frozen=True):
    trace: str
    """32 hexadecimal digits."""
    id: str
    """16 hexadecimal digits."""
    parent: str
    """Empty for a root."""
    service: str
    name: str
    kind: Kind
    start: int
    """Microseconds since 1970."""
    duration: int
    """Microseconds."""
    tags: dict[str, str]
    events: list[Event]
    error: bool
    remote: str = ""
    """The service at the other end, if known."""
    shared: bool = False
    """Whether it shares its id with the client's span (Zipkin)."""


def trace_id(text: str) -> str:
    """Padded to 32 digits. Raises BadSpans."""
    found = text.strip().lower()
    if not _HEX.fullmatch(found) or len(found) > 32 or not found.strip("0"):
        raise BadSpans(f'"{text[:64]}" is not a trace id: it must have 16 or 32 hexadecimal digits')
    return found.rjust(32, "0")


def span_id(text: str) -> str:
    """Raises BadSpans."""
    found = text.strip().lower()
    if not _HEX.fullmatch(found) or len(found) > 16 or not found.strip("0"):
        raise BadSpans(f'"{text[:64]}" is not a span id: it must have 16 hexadecimal digits')
    return found.rjust(16, "0")


def short(text: object, limit: int = MAX_VALUE) -> str:
    """A text that is safe to keep: no NUL, no lone surrogates, not too long."""
    found = str(text)[:limit].replace("\0", "")
    return found.encode(errors="replace").decode()


def tags(given: list[tuple[str, str]]) -> dict[str, str]:
    return {short(k, MAX_NAME): short(v) for k, v in given[:MAX_TAGS]}


def failed(found: dict[str, str]) -> bool:
    """By the tags of OpenTracing, Envoy and OpenTelemetry; a client's own mistake (4xx) is no error."""
    if found.get("error", "false").lower() not in ("false", ""):
        return True
    code = found.get("http.status_code") or found.get("http.response.status_code") or ""
    grpc = found.get("rpc.grpc.status_code") or found.get("grpc.status_code") or "0"
    return (
        code.startswith("5") or grpc in ("2", "4", "12", "13", "14", "15") or found.get("otel.status_code") == "ERROR"
    )


def times(start: int, duration: int) -> tuple[int, int]:
    """Within what a database can hold and a page can draw. Raises BadSpans."""
    if not 0 < start <= LATEST_US:
        raise BadSpans(f"the start {start} is not a time in microseconds")
    return start, min(max(duration, 0), LONGEST_US)


def happened(at: int) -> int:
    """The time of an event, as far as it can be kept."""
    return min(max(at, 0), LATEST_US)
