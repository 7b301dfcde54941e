"""The wall clock, and timestamps in Kubernetes' format."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC)


def stamp(at: datetime | None = None) -> str:
    """RFC 3339 with whole seconds, as metav1.Time."""
    return (at or now()).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def stamp_micro(at: datetime | None = None) -> str:
    """RFC 3339 with microseconds, as metav1.MicroTime."""
    return (at or now()).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse(text: str) -> datetime:
    return datetime.fromisoformat(text)


def moment(found: object) -> datetime | None:
    """The time in a value from outside; None if it is not a timestamp with a time zone."""
    try:
        at = parse(found) if isinstance(found, str) else None
    except ValueError:
        return None
    return at if at and at.tzinfo else None
