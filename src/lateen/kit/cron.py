"""Schedules in cron's five fields, as Kubernetes parses those of CronJobs (github.com/robfig/cron, ``ParseStandard``).

A day matches when both day fields match, or when either does if both are restricted. Local times skipped by a daylight
saving change are left out; repeated ones occur once. Implemented here because the Python libraries differ from that
parser (names, ``?``, steps, macros), and we must accept exactly what a real cluster accepts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: i for i, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 6, {name: i for i, name in enumerate(_DAYS)}),
)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = re.compile(r"@every\s+((?:[0-9]{1,6}(?:h|m|s))+)")
_PART = re.compile(r"([0-9]{1,4})([hms])")
_NUMBER = re.compile(r"[0-9]{1,4}")
_HORIZON = 5 * 366
"""Days after which the search for the next time is given up (as in robfig/cron: five years)."""


@dataclass(frozen=True)
class Schedule:
    """``every``: seconds of an ``@every`` schedule; otherwise the values of each field."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    either: bool = False
    every: int = 0

    def after(self, at: datetime, zone: ZoneInfo | None = None) -> datetime | None:
        """The first time after ``at`` (both in UTC); None if there is none within five years."""
        if self.every:
            return at.replace(microsecond=0) + timedelta(seconds=self.every)
        local = at.astimezone(zone or UTC)
        first = (local.replace(tzinfo=None) + timedelta(minutes=1)).replace(second=0, microsecond=0)
        day = first.date()
        for _ in range(_HORIZON):
            if day.month in self.months and self._on(day):
                for naive in self._times(day, first):
                    found = naive.replace(tzinfo=zone or UTC).astimezone(UTC)
                    if found > at and found.astimezone(zone or UTC).replace(tzinfo=None) == naive:
                        return found
            day += timedelta(days=1)
        return None

    def _on(self, day: date) -> bool:
        month, week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return month or week if self.either else month and week

    def _times(self, day: date, first: datetime) -> list[datetime]:
        begin = first.replace(hour=0, minute=0) + (day - first.date())
        found = (begin + timedelta(hours=h, minutes=m) for h in sorted(self.hours) for m in sorted(self.minutes))
        return [t for t in found if t >= first]

    def latest(self, after: datetime, until: datetime, zone: ZoneInfo | None = None) -> tuple[datetime | None, bool]:
        """The last time in (after, until], and whether there is another one before it. The work is bounded, however
        long ago ``after`` is: ever longer intervals before ``until`` are searched."""
        if self.every:
            count = int((until - after).total_seconds()) // self.every
            return (after + timedelta(seconds=count * self.every) if count else None), count > 1
        for hours in (1, 24, 24 * 32, 24 * 366, 24 * _HORIZON):
            start = max(after, until - timedelta(hours=hours))
            found = None
            at = self.after(start, zone)
            while at is not None and at <= until:
                found, at = at, self.after(at, zone)
            if found is not None:
                return found, found != self.after(after, zone)
            if start == after:
                break
        return None, False


@lru_cache(maxsize=256)
def parse(text: str) -> Schedule:
    """Parse a schedule. Raises ValueError with robfig/cron's message."""
    text = text.strip()
    if text.startswith("@"):
        return _macro(text)
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(text.split())}]")
    minutes, hours, days, months, weekdays = (_field(part, *_FIELDS[i]) for i, part in enumerate(fields))
    either = not any(part.startswith(("*", "?")) for part in (fields[2], fields[4]))
    return Schedule(minutes, hours, days, months, weekdays, either)


def _macro(text: str) -> Schedule:
    if m := _EVERY.fullmatch(text):
        seconds = sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in _PART.findall(m[1]))
        if seconds < 1:
            raise ValueError("the interval of @every must be at least 1s")
        return Schedule(every=seconds)
    if text not in _MACROS:
        raise ValueError(f"unrecognized descriptor: {text[:40]}")
    return parse(_MACROS[text])


def _field(text: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    out: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        first, dash, last = span.partition("-")
        step = _number(step_text, name, {}) if slash else 1
        if not step:
            raise ValueError(f"step of range should be a positive number: {part}")
        if first in ("*", "?") and not dash:
            begin, end = low, high
        else:
            begin = _number(first, name, names)
            end = _number(last, name, names) if dash else high if slash else begin
        if begin < low:
            raise ValueError(f"beginning of range ({begin}) below minimum ({low}): {part}")
        if end > high:
            raise ValueError(f"end of range ({end}) above maximum ({high}): {part}")
        if begin > end:
            raise ValueError(f"beginning of range ({begin}) beyond end of range ({end}): {part}")
        out.update(range(begin, end + 1, step))
    return frozenset(out)


def _number(text: str, name: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"failed to parse the {name} from {text[:40]!r}")
    return int(text)


def zone(name: str | None) -> ZoneInfo | None:
    """The time zone; None without a name (UTC). Raises ValueError."""
    if not name:
        return None
    if name.lower() == "local":
        raise ValueError(f"unknown time zone {name}")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name[:60]}") from None
