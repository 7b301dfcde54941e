"""TCP and TLS routes of VirtualServices: which connections go to which clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lateen.api import networking as api
from lateen.api import objects as o
from lateen.wire import names

Resolve = Callable[[api.Destination, o.Resource[api.VirtualService]], tuple[str, int]]


class Route(NamedTuple):
    sni: tuple[str, ...]
    """Names that a client must ask for; empty for all connections."""
    clusters: tuple[tuple[str, int], ...]
    origin: str


def _clusters(
    routes: tuple[api.RouteDestination, ...], vs: o.Resource[api.VirtualService], resolve: Resolve
) -> tuple[tuple[str, int], ...]:
    """A weight of 0 gets nothing, unless it is the only one."""
    out = []
    for r in routes:
        if len(routes) > 1 and not r.weight:
            continue
        host, port = resolve(r.destination, vs)
        out.append((names.outbound(host, port, r.destination.subset), r.weight or 100))
    return tuple(out)


def _applies(m: api.L4MatchAttributes | api.TLSMatchAttributes, gateways: tuple[str, ...], port: int) -> bool:
    return (not m.port or m.port == port) and (not m.gateways or bool(set(m.gateways) & set(gateways)))


def tls(
    rules: Iterable[tuple[o.Resource[api.VirtualService], tuple[str, ...]]], port: int, resolve: Resolve
) -> list[Route]:
    """By name, the first rule that has a name winning it."""
    out: list[Route] = []
    taken: set[str] = set()
    for vs, gateways in rules:
        for route in vs.spec.tls:
            for m in route.match:
                free = tuple(dict.fromkeys(s for s in m.sni_hosts if s not in taken))
                if free and _applies(m, gateways, port):
                    taken |= set(free)
                    sni = () if "*" in free else free
                    out.append(Route(sni, _clusters(route.route, vs, resolve), str(vs.ref)))
    return out


def tcp(
    rules: Iterable[tuple[o.Resource[api.VirtualService], tuple[str, ...]]], port: int, resolve: Resolve
) -> Route | None:
    """The first that applies."""
    for vs, gateways in rules:
        for route in vs.spec.tcp:
            if not route.match or any(_applies(m, gateways, port) for m in route.match):
                return Route((), _clusters(route.route, vs, resolve), str(vs.ref))
    return None
