"""Rules that hold for every kind: annotations that are not for users, nulls in lists, the range of numbers.

Protobuf has no null in a list and no number outside of 32 bits, so that Istio refuses them while it reads an object.
"""

from __future__ import annotations

from typing import Any

from lateen.api.config import fields, form
from lateen.api.effective import general
from lateen.api.kinds import AUTHORIZATION_POLICY, PEER_AUTHENTICATION, Kind
from lateen.api.validate.findings import Findings, no
from lateen.kit.jsons import Json

DRY_RUN = "istio.io/dry-run"
REJECT = "internal.istio.io/webhook-always-reject"
"""An object with it is refused, which shows that the webhook is asked."""
INTERNAL = ("internal.istio.io/parent-namespace", "internal.istio.io/parents")
NULLABLE = {
    "spec.http[].match[]",
    "spec.jwtRules[]",
    "spec.tracing[]",
    "spec.metrics[]",
    "spec.accessLogging[]",
    "spec.match[].ports[]",
}
"""Lists in which Istio reads a null as nothing, or that have a rule of their own for it."""
SIGNED = ("priority",)
WIDE = ("tableSize", "minimumRingSize")
MOST = 2**32 - 1


def shapes(kind: Kind, spec: Json, meta: Json) -> Findings:
    yield from _annotations(kind, meta)
    yield from values(kind.spec, spec, "spec")
    if kind is PEER_AUTHENTICATION and spec.get("portLevelMtls") == {}:
        yield no("spec.portLevelMtls", "port level mTLS, if defined, must have at least one element")


def _annotations(kind: Kind, meta: Json) -> Findings:
    given = meta.get("annotations") or {}
    if DRY_RUN in given and kind is not AUTHORIZATION_POLICY:
        says = f"has unsupported annotation {DRY_RUN}, please remove the annotation; it is for AuthorizationPolicy"
        yield no(f"metadata.annotations[{DRY_RUN}]", says)
    if REJECT in given:
        yield no(f"metadata.annotations[{REJECT}]", f'"{REJECT}" annotation found, rejecting')
    for name in INTERNAL:
        if name in given:
            yield no(f"metadata.annotations[{name}]", f'"{name}" annotation found, this may not be set by users')


def values(kind: Any, value: Any, path: str) -> Findings:
    """Nulls and numbers in a decoded document of a type."""
    how, inner = form(kind)
    if how == "list" and isinstance(value, list):
        for i, v in enumerate(value):
            at = f"{path}[{i}]"
            if v is None and general(at) not in NULLABLE:
                yield no(at, "it may not be null")
            yield from values(inner, v, at)
    elif how == "map" and isinstance(value, dict):
        for key, v in value.items():
            yield from values(inner, v, f"{path}[{key}]")
    elif how == "message" and isinstance(value, dict):
        known = fields(inner)
        for name, v in value.items():
            if not isinstance(v, str) and name in known:
                yield from values(known[name], v, f"{path}.{name}" if path else name)
    elif inner is int and isinstance(value, int):
        yield from _number(value, path)


def _number(value: int, path: str) -> Findings:
    name = path.rpartition(".")[2]
    if name in SIGNED:
        if not -(2**31) <= value < 2**31:
            yield no(path, f"{value} is not in the range -2147483648..2147483647")
    elif value < 0:
        yield no(path, f"{name.partition('[')[0]} must be non-negative, is {value}")
    elif value > (2**64 - 1 if name in WIDE else MOST):
        yield no(path, f"{value} is larger than {MOST}, the most that it can be")
