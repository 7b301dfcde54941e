"""Resolves references to backends. A broken one has a reason, and its share of the requests is answered with 500."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.gateway_api.common import BackendObjectReference
from lateen.api.networking.http import Headers
from lateen.mesh.outcomes import Path, Problem
from lateen.mesh.protocols import protocol
from lateen.mesh.routing import Backend, Sending

INVALID_KIND, NOT_FOUND, NOT_PERMITTED = "InvalidKind", "BackendNotFound", "RefNotPermitted"
SERVICE, HOSTNAME = ("", "Service"), ("networking.istio.io", "Hostname")


class Find(NamedTuple):
    """Lookups in the mesh."""

    service: Callable[[str, str], o.Service | None]
    """(namespace, name) -> the Service; one of type ExternalName resolves to its target."""
    host: Callable[[str, str], o.Service | None]
    """(host, namespace of the route) -> the service"""
    permitted: Callable[[BackendObjectReference, str, str], bool]
    """(reference, the route's kind, the route's namespace) -> whether a ReferenceGrant allows it."""
    sending: Callable[[o.Service], Sending | None]
    """The settings of a service's own XBackendTrafficPolicy."""


def backend(
    ref: BackendObjectReference,
    weight: int,
    headers: Headers | None,
    route: o.Ref,
    find: Find,
    enforced: bool,
) -> tuple[Backend, tuple[str, str]]:
    """The backend, and (reason, sentence) if it is broken. ``enforced``: whether a backend in another namespace needs a
    ReferenceGrant. Mesh routes need none, as in Istio: clients can call the backend anyway."""
    problem, service = _service(ref, route, find, enforced)
    port = ref.port or 0
    known = next((p for p in service.ports if p.port == port), None) if service else None
    if service is not None and known is None:
        problem = (NOT_FOUND, f"{_name(ref, route)} has no port {port}")
    if problem[0] or service is None or known is None:
        return Backend("", 0, weight=weight, broken=problem[1], status=500), problem
    own = find.sending(service)
    kept = (own.session, str(own.source)) if own and own.session else (None, "")
    sniffed = protocol(known) == "auto"
    made = Backend(service.host, port, "", weight, headers, session=kept[0], policy=kept[1], sniffed=sniffed)
    return made, problem


def _service(
    ref: BackendObjectReference, route: o.Ref, find: Find, enforced: bool
) -> tuple[tuple[str, str], o.Service | None]:
    kind = ("" if ref.group == "core" else ref.group, ref.kind)
    space = ref.namespace or route.namespace
    if kind not in (SERVICE, HOSTNAME):
        says = f"a backend may be a Service, or a Hostname of {HOSTNAME[0]}, not a {ref.kind} of {ref.group or 'core'}"
        return (INVALID_KIND, says), None
    if enforced and space != route.namespace and not find.permitted(ref, route.kind, route.namespace):
        says = (
            f"{_name(ref, route)} may not be used from namespace {route.namespace}: no ReferenceGrant there allows it"
        )
        return (NOT_PERMITTED, says), None
    found = find.service(space, ref.name) if kind == SERVICE else find.host(ref.name, route.namespace)
    return ((NOT_FOUND, f"there is no {_name(ref, route)}") if found is None else ("", ""), found)


def _name(ref: BackendObjectReference, route: o.Ref) -> str:
    return f"host {ref.name}" if ref.kind == "Hostname" else f"Service {ref.namespace or route.namespace}/{ref.name}"


def problem(found: tuple[str, str], path: Path) -> Problem:
    return Problem(found[0], found[1], path)
