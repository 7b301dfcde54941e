"""Names of hosts that may have a wildcard: ``*``, ``*.example.com``, ``web.example.com``."""

from __future__ import annotations


def covers(pattern: str, host: str) -> bool:
    """Whether a pattern stands for a host (which may itself have a wildcard)."""
    if pattern in ("*", host):
        return True
    return pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:])


def overlap(a: str, b: str) -> bool:
    return covers(a, b) or covers(b, a)


def meet(a: str, b: str) -> str:
    """The narrower of two patterns that overlap; empty where they do not."""
    return b if covers(a, b) else a if covers(b, a) else ""


def narrowness(pattern: str) -> tuple[int, int]:
    """Sorts the narrowest first, as proxies look for hosts: full names, then the longest wildcards."""
    return (1 if pattern.startswith("*") else 0, -len(pattern))


def wildcards(host: str) -> list[str]:
    """Every wildcard that covers a name, the narrowest first."""
    parts = host.split(".")
    return ["*." + ".".join(parts[i:]) for i in range(1, len(parts))] + ([] if host == "*" else ["*"])
