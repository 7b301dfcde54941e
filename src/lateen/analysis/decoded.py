"""Typed specs of objects, decoded once for all analyzers."""

from __future__ import annotations

from typing import Any

from lateen.analysis.snapshot import Source
from lateen.api import validate
from lateen.api.config import DecodeError
from lateen.api.kinds import Kind
from lateen.api.validate import Finding

_SPEC, _VALIDATED = "spec", "validated"
"""Keys of ``Source.memo``."""


def validated(source: Source, findings: list[Finding]) -> None:
    """Store validation findings of an object that were computed elsewhere."""
    source.memo[_VALIDATED] = findings


def findings(kind: Kind, source: Source) -> list[Finding]:
    """The validation findings (``api.validate``) of an object of one of the mesh's own kinds."""
    if _VALIDATED not in source.memo:
        found = validate.examine(kind, source.obj.get("spec") or {}, source.meta)
        source.memo[_SPEC], source.memo[_VALIDATED] = found.spec, found.findings
    kept: list[Finding] = source.memo[_VALIDATED]
    return kept


def spec(kind: Kind, source: Source) -> Any:
    """The typed spec of an object whose kind has a type; None if it cannot be decoded as it is written."""
    if _SPEC not in source.memo:
        assert kind.spec is not None
        try:
            source.memo[_SPEC] = validate.decoded(kind.spec, source.spec)
        except DecodeError:
            source.memo[_SPEC] = None
    return source.memo[_SPEC]
