"""Host names that may have a wildcard: ``*``, ``*.example.com``, ``web.example.com``."""

from __future__ import annotations


def covers(pattern: str, host: str) -> bool:
    """Whether a pattern covers a host (which may itself have a wildcard)."""
    if pattern in ("*", host):
        return True
    return pattern.startswith("*") and host.removeprefix("*").endswith(pattern[1:])


def overlap(a: str, b: str) -> bool:
    return covers(a, b) or covers(b, a)


def meet(a: str, b: str) -> str:
    """The more specific of two overlapping patterns; empty if they do not overlap."""
    return b if covers(a, b) else a if covers(b, a) else ""


def narrowness(pattern: str) -> tuple[int, int]:
    """Sort key in the order in which proxies match hosts: full names, then the longest wildcards."""
    return (1 if pattern.startswith("*") else 0, -len(pattern))


def wildcards(host: str) -> list[str]:
    """All wildcards that cover a name, the most specific first."""
    parts = host.split(".")
    return ["*." + ".".join(parts[i:]) for i in range(1, len(parts))] + ([] if host == "*" else ["*"])


def is_partial(pattern: str) -> bool:
    """Whether a wildcard stands for a part of a label: ``*-web.example.com``."""
    return pattern.startswith("*") and pattern != "*" and not pattern.startswith("*.")
