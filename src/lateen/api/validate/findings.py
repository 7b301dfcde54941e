"""What a check of one object yields: where, what, and whether it is refused or only warned about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Finding(NamedTuple):
    path: str
    """In the user's field names, from ``spec`` or ``metadata`` on."""
    says: str
    warning: bool = False


Findings = Iterator[Finding]


def no(path: str, says: str) -> Finding:
    """The object is refused."""
    return Finding(path, says)


def warn(path: str, says: str) -> Finding:
    """The object is accepted, and its author told."""
    return Finding(path, says, True)
