"""The wall clock in Kubernetes' spelling."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC)


def stamp(at: datetime | None = None) -> str:
    """RFC 3339 with whole seconds, as metav1.Time."""
    return (at or now()).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_micro(at: datetime | None = None) -> str:
    """RFC 3339 with microseconds, as metav1.MicroTime."""
    return (at or now()).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> datetime:
    return datetime.fromisoformat(text)
