"""TLSRoutes, TCPRoutes and UDPRoutes: where connections and datagrams go."""

from __future__ import annotations

from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.gateway_api import TCPRoute, TLSRoute, UDPRoute
from lateen.mesh.dialects.gateway_api import backends
from lateen.mesh.outcomes import Problem
from lateen.mesh.routing import Backend

Object = o.Resource[TLSRoute] | o.Resource[TCPRoute] | o.Resource[UDPRoute]


class Destinations(NamedTuple):
    backends: tuple[Backend, ...]
    """Those with a weight; one that is broken where there are none, so that what comes is refused."""
    problems: tuple[Problem, ...]


def destinations(route: Object, find: backends.Find) -> Destinations:
    """Of its only rule."""
    made: list[Backend] = []
    problems: list[Problem] = []
    for i, rule in enumerate(route.spec.rules[:1]):
        for j, ref in enumerate(rule.backend_refs):
            backend, bad = backends.backend(ref, ref.weight, None, route.ref, find, True)
            if bad[0]:
                problems.append(Problem(*bad, ("spec", "rules", i, "backendRefs", j)))
            if backend.weight:
                made.append(backend)
    return Destinations(tuple(made) or (Backend("", 0, broken="no backend has a weight"),), tuple(problems))
