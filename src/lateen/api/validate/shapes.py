"""Rules for every kind: annotations that are not for users, nulls in lists, the range of numbers.

Protobuf has neither a null in a list nor (in the fields of these kinds) a number of more than 32 bits, so Istio refuses
them while it decodes an object.
"""

from __future__ import annotations

import functools
from typing import Any

from lateen.api.config import Config, fields, form
from lateen.api.effective import general
from lateen.api.kinds import AUTHORIZATION_POLICY, PEER_AUTHENTICATION, Kind
from lateen.api.validate.findings import Findings, no
from lateen.kit.jsons import Json

DRY_RUN = "istio.io/dry-run"
REJECT = "internal.istio.io/webhook-always-reject"
"""An object with this annotation is always refused: a test that the webhook is called."""
INTERNAL = ("internal.istio.io/parent-namespace", "internal.istio.io/parents")
NULLABLE = {
    "spec.http[].match[]",
    "spec.jwtRules[]",
    "spec.tracing[]",
    "spec.metrics[]",
    "spec.accessLogging[]",
    "spec.match[].ports[]",
}
"""Lists in which Istio ignores a null, or that have a rule of their own about it."""
NULLS = {
    "spec.servers[]": "cannot have nil server",
    "spec.subsets[]": "subset may not be null",
    "spec.trafficPolicy.portLevelSettings[]": "traffic policy may not be null",
    "spec.ingress[]": "sidecar: ingress may not be null",
    "spec.egress[]": "egress listener may not be null",
    "spec.rules[]": "`rule` must not be nil",
    "spec.rules[].from[]": "`from` must not be nil",
    "spec.rules[].to[]": "`to` must not be nil",
    "spec.rules[].when[]": "when field cannot be nil",
    "spec.jwtRules[].fromHeaders[]": "location header name must be non-null",
    "spec.jwtRules[].outputClaimToHeaders[]": "outputClaimToHeaders must not be null",
    "spec.http[]": "http route may not be null",
    "spec.http[].route[]": "weight may not be nil",
    "spec.http[].mirrors[]": "mirror cannot be null",
    "spec.tls[].match[]": "TLS match may not be null",
    "spec.tls[].route[]": "weight may not be nil",
    "spec.tcp[].match[]": "tcp match may not be nil",
    "spec.tcp[].route[]": "weight may not be nil",
    "spec.ports[]": "service entry port may not be null",
    "spec.endpoints[]": "endpoint cannot be nil",
    "spec.probe.httpGet.httpHeaders[]": "invalid nil header",
    "spec.metrics[].overrides[]": "tagOverrides may not be null",
    "spec.configPatches[]": "Envoy filter: null config patch",
}
"""Istio's words for a null in a list."""
NEGATIVE = {"weight": "weight {} < 0", "attempts": "attempts cannot be negative, is {}"}
"""Istio's words for a negative number of some fields; of others, they must be non-negative."""
SIGNED = ("priority",)
INT32 = {
    "attempts",
    "concurrency",
    "consecutiveErrors",
    "failureThreshold",
    "http1MaxPendingRequests",
    "http2MaxRequests",
    "initialDelaySeconds",
    "maxConcurrentStreams",
    "maxConnections",
    "maxRequestsPerConnection",
    "maxRetries",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
}
"""Fields of protobuf's type int32, though they cannot be negative; likewise the weights of routes, other than those of
endpoints."""
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
        deep = _has_numbers(inner)
        for i, v in enumerate(value):
            if v is None and (place := general(f"{path}[{i}]")) not in NULLABLE:
                yield no(f"{path}[{i}]", NULLS.get(place, "it may not be null"))
            elif deep:
                yield from values(inner, v, f"{path}[{i}]")
    elif how == "map" and isinstance(value, dict):
        for key, v in value.items():
            yield from values(inner, v, f"{path}[{key}]")
    elif how == "message" and isinstance(value, dict):
        known = _checked(inner)
        for name, v in value.items():
            if name in known:
                yield from values(known[name], v, f"{path}.{name}" if path else name)
    elif inner is int and isinstance(value, int):
        yield from _number(value, path)


@functools.cache
def _checked(kind: type[Config]) -> dict[str, Any]:
    """The fields of a message that can have a null in a list or a number, with their types."""
    return {name: t for name, t in fields(kind).items() if form(t).how == "list" or _has_numbers(t)}


def _has_numbers(kind: Any) -> bool:
    """Whether values of a type can contain a null in a list or a number; of every message it is supposed."""
    how, inner = form(kind)
    if how == "map":
        return _has_numbers(inner)
    return how != "leaf" or inner is int


def _number(value: int, path: str) -> Findings:
    name = path.rpartition(".")[2]
    if name in SIGNED:
        if not -(2**31) <= value < 2**31:
            yield no(path, f"{value} is not in the range -2147483648..2147483647")
    elif value < 0:
        field = name.partition("[")[0]
        yield no(path, NEGATIVE.get(field, f"{field} must be non-negative, is {{}}").format(value))
    elif value > (most := _most(name, path)):
        yield no(path, f"{value} is larger than {most}, the most that it can be")


def _most(name: str, path: str) -> int:
    if name in WIDE:
        return 2**64 - 1
    return MOST // 2 if name in INT32 or (name == "weight" and "].route[" in path) else MOST
