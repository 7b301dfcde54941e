"""A finding of validation: the path, a sentence, and whether it is an error or a warning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Finding(NamedTuple):
    path: str
    """In the user's field names, beginning with ``spec`` or ``metadata``."""
    says: str
    warning: bool = False
    own: bool = False
    """A warning that Istio does not have."""


Findings = Iterator[Finding]


def no(path: str, says: str) -> Finding:
    """An error: the object is rejected."""
    return Finding(path, says)


def warn(path: str, says: str) -> Finding:
    """A warning: the object is accepted."""
    return Finding(path, says, True)


def hint(path: str, says: str) -> Finding:
    """A warning that is Lateen's own; ``warn`` is for those that Istio has, too."""
    return Finding(path, says, True, True)
