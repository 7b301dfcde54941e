"""TLSRoutes, TCPRoutes and UDPRoutes: the destinations of connections and datagrams."""

from __future__ import annotations

from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.gateway_api import TCPRoute, TLSRoute, UDPRoute
from lateen.mesh.dialects.gateway_api import backends
from lateen.mesh.outcomes import Problem
from lateen.mesh.routing import Backend

Object = o.Resource[TLSRoute] | o.Resource[TCPRoute] | o.Resource[UDPRoute]


class Destinations(NamedTuple):
    rule: str
    """The name of the route's only rule."""
    backends: tuple[Backend, ...]
    """The backends with a weight; a broken one if there are none, so that connections are refused."""
    problems: tuple[Problem, ...]


def destinations(route: Object, find: backends.Find, enforced: bool) -> Destinations:
    """The destinations of a route's only rule. ``enforced``: see ``backends.backend``."""
    made: list[Backend] = []
    problems: list[Problem] = []
    for i, rule in enumerate(route.spec.rules[:1]):
        for j, ref in enumerate(rule.backend_refs):
            backend, bad = backends.backend(ref, ref.weight, None, route.ref, find, enforced)
            if bad[0]:
                problems.append(Problem(*bad, ("spec", "rules", i, "backendRefs", j)))
            if backend.weight:
                made.append(backend)
    name = next((r.name for r in route.spec.rules), None) or f"{route.ref.namespace}.{route.ref.name}.0"
    return Destinations(name, tuple(made) or (Backend("", 0, broken="no backend has a weight"),), tuple(problems))
