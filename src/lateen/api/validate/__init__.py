"""Istio's validation: errors and warnings as sentences with the path of the field. Pure.

The structure (types, enums, unknown fields) is checked by the schema of the CRD; this package has the rules between
fields. They are Istio's (istio.io/istio ``pkg/config/validation`` and the CEL rules of its CRDs). ``validate``,
``analyze``, the admission webhook and istiod itself all use this package. The row of a kind in ``api.kinds`` names the
function with its rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from lateen.api import kinds
from lateen.api.config import Config, DecodeError, Defaulted, complete, decode, named, without_nulls
from lateen.api.kinds import Kind
from lateen.api.validate.findings import Finding
from lateen.api.validate.limits import limited
from lateen.api.validate.shapes import shapes
from lateen.kit import faults
from lateen.kit.jsons import Json

__all__ = ["Examined", "Finding", "decoded", "examine", "findings", "problems", "warnings"]


class Examined(NamedTuple):
    """A spec, decoded and checked at once."""

    spec: Any
    """The typed spec; None if it cannot be decoded as it is written."""
    findings: list[Finding]
    """Errors first."""
    undecodable: str = ""
    """Why the spec cannot be decoded as it is written. The findings may say more: they are about the spec with zero
    values for required fields that are missing."""


def examine(kind: Kind, spec: Any, meta: Json) -> Examined:
    """Decode the spec of a kind that has a type, and check it if the kind is one of the mesh's own. ``meta``: the
    object's metadata."""
    if not isinstance(spec, dict):
        says = f"expected a map, got {named(spec)}"
        return Examined(None, [Finding("spec", says)], f"spec: {says}")
    assert kind.spec is not None
    exact, undecodable = None, ""
    try:
        exact = typed = decoded(kind.spec, spec)
    except DecodeError as e:
        undecodable = str(e)
        if not kind.owned:
            return Examined(None, [Finding(e.path, e.says)], undecodable)
        try:
            typed = decode(kind.spec, complete(kind.spec, without_nulls(kind.spec, spec)))
        except DecodeError as e2:
            return Examined(None, [Finding(e2.path, e2.says)], undecodable)
    if not kind.owned:
        return Examined(exact, [])
    found = [*_found(shapes, kind, spec, meta), *(_found(kind.rules, typed, meta) if kind.rules else ())]
    if issubclass(kind.spec, Defaulted):
        found += _found(limited, kind.spec, spec)
    return Examined(exact, sorted(found, key=lambda f: f.warning), undecodable)


def _found(rules: Callable[..., Iterable[Finding]], *given: Any) -> Iterator[Finding]:
    """What some rules find. Where they fail, that is a finding about the object, too: others are not concerned."""
    try:
        yield from rules(*given)
    except Exception as e:  # noqa: BLE001 - whatever it is
        yield Finding("spec", faults.sentence(e))


def decoded(kind: type[Config], spec: Json) -> Any:
    """The typed form of a spec, in which null may stand for "not set" (``rules:`` in a manifest): the API server drops
    such fields, too. Raises DecodeError."""
    try:
        return decode(kind, spec)
    except DecodeError:
        plain = without_nulls(kind, spec)
        if plain == spec:
            raise
        return decode(kind, plain)


def findings(obj: Json) -> list[Finding]:
    """All findings about an object of the mesh's own kinds, errors first; other kinds have none."""
    kind = kinds.of(obj)
    if kind is None or not kind.owned or kind.spec is None:
        return []
    return examine(kind, obj.get("spec") or {}, obj.get("metadata") or {}).findings


def problems(obj: Json) -> list[tuple[str, str]]:
    """(path, sentence) of each error: the object is refused."""
    return [(f.path, f.says) for f in findings(obj) if not f.warning]


def warnings(obj: Json) -> list[tuple[str, str]]:
    """(path, sentence) of each warning: the object is accepted, but may not do what its author expects."""
    return [(f.path, f.says) for f in findings(obj) if f.warning]
