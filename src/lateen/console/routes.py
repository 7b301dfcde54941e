"""Routes of the Gateway API: where each leads, and what its rules do to requests. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api import kinds
from lateen.api.domain import service_host
from lateen.kit.jsons import Json, dig

KINDS = (kinds.HTTP_ROUTE, kinds.GRPC_ROUTE, kinds.TLS_ROUTE, kinds.TCP_ROUTE, kinds.UDP_ROUTE)
IN_MESH = ("Service", "ServiceEntry")
"""Kinds of parents whose callers have the route; any other parent is a gateway."""


def rules(route: Json) -> list[Json]:
    return list(dig(route, "spec", "rules", default=[]))


def filters(rule: Json) -> Iterator[Json]:
    """Of a rule and of its backends."""
    yield from rule.get("filters") or []
    for backend in rule.get("backendRefs") or []:
        yield from backend.get("filters") or []


def backends(route: Json, domain: str) -> set[str]:
    """The hosts that its rules send to, mirrors included."""
    out = set()
    for rule in rules(route):
        mirrors = (dig(f, "requestMirror", "backendRef", default={}) for f in filters(rule))
        for ref in (*(rule.get("backendRefs") or []), *mirrors):
            kind, namespace = ref.get("kind") or "Service", ref.get("namespace") or route["metadata"].get("namespace")
            if kind == "Service" and ref.get("name"):
                out.add(service_host(ref["name"], str(namespace), domain))
            elif kind == "Hostname":
                out.add(str(ref.get("name")))
    return out


def at_gateway(route: Json) -> bool:
    """Whether a Gateway or a ListenerSet is one of its parents."""
    return any((p.get("kind") or "Gateway") not in IN_MESH for p in dig(route, "spec", "parentRefs", default=[]))


def badges(route: Json) -> set[str]:
    """See ``console.badges``."""
    out = {"virtual-service"}
    for rule in rules(route):
        out |= {badge for field, badge in (("timeouts", "timeout"), ("retry", "retries")) if rule.get(field)}
        if any(f.get("type") == "RequestMirror" for f in filters(rule)):
            out.add("mirror")
        if len([b for b in rule.get("backendRefs") or [] if b.get("weight", 1)]) > 1:
            out.add("shift")
    return out
