"""What the rules of the mesh configuration's parts have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lateen.api.validate.findings import Finding

Findings = Iterator[tuple[str, str]]
"""(path below the document, sentence)"""
_MAX_PORT = 65535


def camel(name: str) -> str:
    """``access_log_format`` -> ``accessLogFormat``."""
    first, *rest = name.split("_")
    return first + "".join(r.capitalize() for r in rest)


def refused(found: Iterable[Finding]) -> Findings:
    """The errors among findings of ``api.validate``; warnings do not apply to the mesh configuration."""
    yield from ((f.path, f.says) for f in found if not f.warning)


def port(path: str, value: int | None, zero: bool = False) -> Findings:
    """``zero``: 0 is valid, too."""
    if value is not None and not (0 if zero else 1) <= value <= _MAX_PORT:
        yield path, f"port number {value} must be in the range 1..{_MAX_PORT}"
