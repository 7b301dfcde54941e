"""Istio's VirtualService as routes.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lateen.api import networking as api
from lateen.api import objects as o
from lateen.mesh.protocols import HTTP
from lateen.mesh.routing import Backend, ConnectionRoute, Mirror, PortRoutes, Route, takes_all

Rule = o.Resource[api.VirtualService]


class Target(NamedTuple):
    """Where a destination leads."""

    host: str
    """Its full name."""
    ports: tuple[int, ...]
    sniffed: frozenset[int] = frozenset()
    """Ports whose protocol nobody has named."""


Find = Callable[[str, str], Target]
"""(host as written, the rule's namespace) -> where it leads"""


class At(NamedTuple):
    """Where rules apply: the gateways' names in all forms, and the port and scheme that clients use."""

    gateways: tuple[str, ...]
    port: int
    scheme: str = "http"


MESH = ("mesh",)


def destinations_of(spec: api.VirtualService) -> Iterator[api.Destination]:
    """All destinations of a rule, including mirrors."""
    for http in spec.http:
        yield from (r.destination for r in http.route)
        yield from (m.destination for m in http.mirrors)
        if http.mirror:
            yield http.mirror
    for tls in spec.tls:
        yield from (r.destination for r in tls.route)
    for tcp in spec.tcp:
        yield from (r.destination for r in tcp.route)


def connection_targets(spec: api.VirtualService) -> Iterator[str]:
    """Hosts that connections are routed to, as written."""
    for routes in (spec.tls, spec.tcp):
        for route in routes:
            yield from (r.destination.host for r in route.route)


def of_host(rules: tuple[Rule, ...], port: int, protocol: str, find: Find) -> PortRoutes:
    """The routes of a mesh host's port, for sidecars. Several rules for one host are tried in order, the oldest first
    (Istio uses only the oldest). ``tls`` routes are for ports of TLS and HTTPS, ``tcp`` routes for all others that are
    not of HTTP. Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#VirtualService."""
    if not rules:
        return PortRoutes(port)
    at = At(MESH, port)
    bound = [(vs, MESH) for vs in rules]
    return PortRoutes(
        port,
        tuple(merged(rules, at, find)),
        tuple(by_name(bound, port, find)) if protocol == "tls" else (),
        tuple(by_place(bound, port, find)) if protocol not in ("tls", *HTTP) else (),
    )


def merged(rules: Iterable[Rule], at: At, find: Find) -> Iterator[Route]:
    """Routes up to the first that matches all requests."""
    for vs in rules:
        found = requests(vs, at, find)
        yield from found
        if found and found[-1].takes_all:
            return


def requests(vs: Rule, at: At, find: Find) -> list[Route]:
    """The routes of a VirtualService that apply there, in the user's order, up to the first that takes all requests: at
    gateways, that one comes after the routes of other rules, and must not let its own later ones through."""
    out: list[Route] = []
    for i, http in enumerate(vs.spec.http):
        taken: list[tuple[int, api.HTTPMatchRequest | None]] = [
            (j, m) for j, m in enumerate(http.match) if _applies(m, vs, at.gateways, at.port)
        ]
        if http.match and not taken:
            continue
        backends = tuple(_backend(r.destination, vs, at.port, find, r.weight, r.headers) for r in _weighted(http))
        mirrors = tuple(_mirrors(http, vs, at.port, find))
        for j, m in taken or [(-1, None)]:
            out.append(_route(vs, (i, j), m, at, backends, mirrors))
            if out[-1].takes_all:
                return out
    return out


def takes_requests(spec: api.VirtualService) -> bool:
    """Whether the rule matches all requests to its hosts, so that later rules are shadowed wherever it applies."""
    return any(not http.match or any(map(_unconditional, http.match)) for http in spec.http)


def routes_at(vs: Rule, kind: str, gateways: tuple[str, ...], ports: Iterable[int] = ()) -> bool:
    """Whether a route of a kind (``http``, ``tls``, ``tcp``) applies at one of these ports; without any, at whichever
    port."""
    for route in getattr(vs.spec, kind):
        for m in route.match:
            if any(_applies(m, vs, gateways, port) for port in (*ports,) or (m.port or 0,)):
                return True
        if not route.match:
            return True
    return False


def takes_some(spec: api.VirtualService) -> bool:
    """Whether some of its routes have a condition, so that at a gateway they precede those that take all requests.
    What stands after a route of its own that takes all is never used."""
    for http in spec.http:
        for m in http.match:
            if not takes_all(m):
                return True
            if _unconditional(m):
                return False
        if not http.match:
            return False
    return False


def takes_connections(spec: api.VirtualService, port: int | None = None) -> bool:
    """The same for ``tcp`` routes, at one port if it is given; ``tls`` routes are distinguished by server names."""
    whole = api.L4MatchAttributes(port=port)
    return any(not route.match or (port is not None and whole in route.match) for route in spec.tcp)


def is_for_port(spec: api.VirtualService, port: int) -> bool:
    """Whether some ``tcp`` route may match connections to a port."""
    return any(not route.match or any(m.port in (None, port) for m in route.match) for route in spec.tcp)


def _unconditional(m: api.HTTPMatchRequest) -> bool:
    return takes_all(m) and not any((m.port, m.source_labels, m.source_namespace, m.gateways))


def _weighted(http: api.HTTPRoute) -> list[api.HTTPRouteDestination]:
    """Drop backends with weight 0, unless no other backend has a weight."""
    return [r for r in http.route if r.weight != 0] or list(http.route)


def _route(
    vs: Rule,
    place: tuple[int, int],
    m: api.HTTPMatchRequest | None,
    at: At,
    backends: tuple[Backend, ...],
    mirrors: tuple[Mirror, ...],
) -> Route:
    http = vs.spec.http[place[0]]
    name = http.name + (f".{m.name}" if m and m.name else "")
    return Route(
        (vs.ref, vs.version, place, at.port, at.scheme, backends, mirrors),
        name=name or "default",
        match=m,
        settings=http,
        backends=backends,
        mirrors=mirrors,
        port=at.port,
        scheme=at.scheme,
        rule=vs.ref,
        origins=vs.origins,
    )


def _backend(
    d: api.Destination, vs: Rule, asked: int, find: Find, weight: int | None = 100, headers: api.Headers | None = None
) -> Backend:
    """A destination without a port gets the service's only port, otherwise the requested one. A missing destination
    becomes a cluster that no proxy has: requests get 503, as in Istio."""
    host, ports, sniffed = find(d.host, vs.ref.namespace)
    port = d.port.number if d.port and d.port.number else ports[0] if len(ports) == 1 else asked
    return Backend(host, port, d.subset, weight or 0, headers, sniffed=port in sniffed)


def _mirrors(http: api.HTTPRoute, vs: Rule, asked: int, find: Find) -> Iterator[Mirror]:
    if http.mirror:
        old = next((p for p in (http.mirror_percent, http.mirror_percent_old) if p is not None), None)
        share = http.mirror_percentage or (api.Percent(value=float(old)) if old is not None else None)
        yield Mirror(_backend(http.mirror, vs, asked, find), share)
    for m in http.mirrors:
        yield Mirror(_backend(m.destination, vs, asked, find), m.percentage)


# --- connections -------------------------------------------------------------------------------------------------

Bound = Iterable[tuple[Rule, tuple[str, ...]]]
"""(rule, the names of the gateways where it applies)"""


def by_name(rules: Bound, port: int, find: Find) -> Iterator[ConnectionRoute]:
    """TLS routes by server name and destination address, in the user's order."""
    for vs, gateways in rules:
        for route in vs.spec.tls:
            backends = _connected(route.route, vs, port, find)
            for m in route.match:
                if _applies(m, vs, gateways, port):
                    sni = () if "*" in m.sni_hosts else tuple(map(str.lower, m.sni_hosts))
                    yield ConnectionRoute(sni, m.destination_subnets, backends, vs.ref)


def by_place(rules: Bound, port: int, find: Find) -> Iterator[ConnectionRoute]:
    """TCP routes, in order, up to the first that matches all connections."""
    for vs, gateways in rules:
        last = None
        for route in vs.spec.tcp:
            backends = _connected(route.route, vs, port, find)
            for m in route.match:
                if _applies(m, vs, gateways, port):
                    last = ConnectionRoute((), m.destination_subnets, backends, vs.ref)
                    yield last
            if not route.match:
                last = ConnectionRoute((), (), backends, vs.ref)
                yield last
            if last is not None and not last.subnets:
                return


def _connected(routes: tuple[api.RouteDestination, ...], vs: Rule, port: int, find: Find) -> tuple[Backend, ...]:
    """Drop backends with weight 0, unless there is no other."""
    return tuple(
        _backend(r.destination, vs, port, find, r.weight or 100) for r in routes if len(routes) == 1 or r.weight
    )


def _applies(
    m: api.HTTPMatchRequest | api.L4MatchAttributes | api.TLSMatchAttributes,
    vs: Rule,
    gateways: tuple[str, ...],
    port: int,
) -> bool:
    if m.port and m.port != port:
        return False
    wanted = m.gateways or vs.spec.gateways or MESH
    return any(g in gateways or f"{vs.ref.namespace}/{g}" in gateways for g in wanted)
