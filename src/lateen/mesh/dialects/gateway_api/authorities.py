"""References to CA certificates: a ConfigMap or a Secret with ``ca.crt``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.gateway_api.common import LocalObjectReference, ObjectReference

Reference = ObjectReference | LocalObjectReference
HOLDERS = ("ConfigMap", "Secret")


class Trouble(Enum):
    KIND = "kind"
    GRANT = "grant"
    MISSING = "missing"


class Authorities(NamedTuple):
    certificates: str = ""
    """In PEM; empty if no reference resolves."""
    problems: tuple[tuple[Trouble, str], ...] = ()


Find = Callable[[Sequence[Reference], o.Ref], Authorities]
"""(references, the object that contains them) -> the CA certificates"""


def collect(
    refs: Sequence[Reference],
    owner: o.Ref,
    lookup: Callable[[str, str, str], str],
    allowed: Callable[[ObjectReference, o.Ref], bool],
) -> Authorities:
    """Resolve references. ``lookup``: (kind, namespace, name) -> the certificates in it; empty if there are none."""
    found, problems = [], []
    for ref in refs:
        problem, text = _one(ref, owner, lookup, allowed)
        if problem is None:
            found.append(text)
        else:
            problems.append((problem, text))
    return Authorities("\n".join(t.strip() for t in found) + "\n" if found else "", tuple(problems))


def _one(
    ref: Reference,
    owner: o.Ref,
    lookup: Callable[[str, str, str], str],
    allowed: Callable[[ObjectReference, o.Ref], bool],
) -> tuple[Trouble | None, str]:
    space = (ref.namespace if isinstance(ref, ObjectReference) else None) or owner.namespace
    where = f"{ref.kind} {space}/{ref.name}"
    if ref.group not in ("", "core") or ref.kind not in HOLDERS:
        says = f"CA certificates must be in a ConfigMap or Secret, not in a {ref.kind}"
        return Trouble.KIND, f"{says} of group {ref.group or 'core'}"
    if isinstance(ref, ObjectReference) and space != owner.namespace and not allowed(ref, owner):
        says = f"{where} may not be used from namespace {owner.namespace}: no ReferenceGrant there allows it"
        return Trouble.GRANT, says
    text = lookup(ref.kind, space, ref.name)
    return (None, text) if text else (Trouble.MISSING, f"there is no {where} with certificates in ca.crt")
