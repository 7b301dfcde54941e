"""TCP and TLS routes of VirtualServices: which connections go to which clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lateen.api import networking as api
from lateen.api import objects as o
from lateen.wire import names

Resolve = Callable[[api.Destination, o.Resource[api.VirtualService]], tuple[str, int]]
Rules = Iterable[tuple[o.Resource[api.VirtualService], tuple[str, ...]]]


class Route(NamedTuple):
    sni: tuple[str, ...]
    """Names that a client must ask for; empty for all connections."""
    clusters: tuple[tuple[str, int], ...]
    origin: str
    subnets: tuple[str, ...] = ()
    """Where the client must want to go; empty for everywhere."""


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


def _applies(
    m: api.L4MatchAttributes | api.TLSMatchAttributes,
    vs: o.Resource[api.VirtualService],
    gateways: tuple[str, ...],
    port: int,
) -> bool:
    if m.port and m.port != port:
        return False
    wanted = m.gateways or vs.spec.gateways or ("mesh",)
    return any(g in gateways or f"{vs.ref.namespace}/{g}" in gateways for g in wanted)


def tls(rules: Rules, port: int, resolve: Resolve) -> list[Route]:
    """By name and place, in the users' order."""
    out: list[Route] = []
    for vs, gateways in rules:
        for route in vs.spec.tls:
            clusters = _clusters(route.route, vs, resolve)
            for m in route.match:
                if _applies(m, vs, gateways, port):
                    sni = () if "*" in m.sni_hosts else m.sni_hosts
                    out.append(Route(sni, clusters, str(vs.ref), m.destination_subnets))
    return out


def tcp(rules: Rules, port: int, resolve: Resolve) -> list[Route]:
    """In order, up to the first that takes all connections."""
    out: list[Route] = []
    for vs, gateways in rules:
        for route in vs.spec.tcp:
            clusters = _clusters(route.route, vs, resolve)
            taken = [m for m in route.match if _applies(m, vs, gateways, port)]
            for m in taken:
                out.append(Route((), clusters, str(vs.ref), m.destination_subnets))
            if not route.match:
                out.append(Route((), clusters, str(vs.ref)))
            if out and not out[-1].subnets:
                return out
    return out
