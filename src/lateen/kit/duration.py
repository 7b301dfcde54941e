"""Go's spelling of durations ("1h30m", "2.5s", "100ms") as whole nanoseconds."""

from __future__ import annotations

import re
from functools import lru_cache

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
LONGEST = 2.0**63
"""In nanoseconds; Go's durations are shorter than this."""
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


@lru_cache(maxsize=4096)
def nanoseconds(text: str) -> int:
    """Parse a duration. Raises ValueError for anything that Go's time.ParseDuration rejects."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, at = 0.0, 0
    for part in _PART.finditer(rest):
        if part.start() != at:
            break
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not rest or at != len(rest):
        raise ValueError(f'"{text}" is not a duration; write it like "10s", "1.5h" or "100ms"')
    if total >= LONGEST:
        raise ValueError(f'"{text[:40]}" is too long for a duration; the longest is about 292 years')
    return sign * round(total)


def seconds(text: str) -> float:
    return nanoseconds(text) / 10**9


def age(total_seconds: float) -> str:
    """Ages in kubectl's short form: 42s, 3m10s, 5h, 2d3h, 17d."""
    s = max(0, int(total_seconds))
    if s < 120:
        return f"{s}s"
    m = s // 60
    if m < 10:
        return f"{m}m{s % 60}s" if s % 60 else f"{m}m"
    if m < 180:
        return f"{m}m"
    h = m // 60
    if h < 8:
        return f"{h}h{m % 60}m" if m % 60 else f"{h}h"
    if h < 48:
        return f"{h}h"
    d = h // 24
    if d < 8:
        return f"{d}d{h % 24}h" if h % 24 else f"{d}d"
    return f"{d}d" if d < 730 else f"{d // 365}y"
