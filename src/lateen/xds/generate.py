"""A view in, resource sets out. Pure; unchanged parts of views give the same set objects (``sets``).

What is derived from a view, or from a part of it, is stored in the view and freed with it (``kit.derived``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lateen.kit.derived import derived
from lateen.mesh.gateway_view import GatewayView
from lateen.mesh.inbound_view import Checks, InboundView
from lateen.mesh.outbound_view import OutboundView
from lateen.mesh.view import Callers, Own, View
from lateen.wire import names
from lateen.wire.resource import EMPTY, Offer, Part, ResourceSet, Sets
from lateen.xds import claims, sets
from lateen.xds.filters import security


@dataclass(frozen=True)
class _Called:
    """Of what a proxy may call."""

    clusters: Sets
    endpoints: Sets
    files: ResourceSet
    routes: Sets
    hosts: Sets


@derived
def _called(out: OutboundView) -> _Called:
    return _Called(
        (sets.fixed_clusters(out), sets.all_clusters(out.host_spaces)),
        (sets.all_endpoints(out.endpoint_spaces),),
        sets.all_files(out.host_spaces),
        (sets.outbound_routes(out),),
        (sets.all_hosts(out.domain_spaces),),
    )


@derived
def _of_callers(out: OutboundView, callers: Callers) -> Part:
    """The outbound part of a proxy's resources; its listeners are those of each of its workloads."""
    called = _called(out)
    return Part(
        {
            names.CDS: called.clusters,
            names.EDS: called.endpoints,
            names.SDS: (called.files, sets.policy_files(out.policy)),
            names.LDS: tuple(sets.outbound_listeners(out, side, seat) for side, seat in callers.sides),
            names.RDS: called.routes,
            names.VHDS: called.hosts,
        }
    )


@derived
def _listeners_read(own: Own) -> bool:
    return any(
        c.authentication and (c.plugins or claims.read_by(sets.own_listeners(i, c, seen.server)))
        for i, c, seen in zip(own.inbound, own.checks, own.reports, strict=True)
    )


def listeners_read_claims(view: View) -> bool:
    """Whether something in a sidecar's listeners may read the claims of tokens: what logs, metrics and traces say,
    plugins, and EnvoyFilters, which can add whatever Envoy has."""
    return view.gateway is None and (bool(view.patches) or _listeners_read(view.own))


def _extensions(i: InboundView, c: Checks, read: bool) -> Iterable[ResourceSet]:
    seat = i.seat.name
    policies = (
        sets.policies(c, seat, sets.tapped(i)),
        sets.own_limits(i),
        sets.own_plugins(c, seat),
        sets.own_security(i),
    )
    told = bool(c.authentication) and (read or any(map(claims.read_by, policies)))
    return (
        sets.tokens(c.authentication, seat, False, told),
        *policies,
        sets.identity(i.identity, i.seat),
    )


@derived
def _of_workloads(own: Own, read: bool) -> Part:
    """The inbound part of a sidecar's resources, for its own workloads. ``read``: whether listeners read claims."""
    return Part(
        {
            names.CDS: (
                *map(sets.own_clusters, own.inbound),
                *(sets.login_clusters(security.of_workload(i), i.transport) for i in own.inbound),
            ),
            names.SDS: (
                sets.secrets(own.credentials),
                *map(sets.own_files, own.inbound),
                *map(sets.own_logins, own.inbound),
            ),
            names.ECDS: tuple(s for i, c in zip(own.inbound, own.checks, strict=True) for s in _extensions(i, c, read)),
            names.LDS: tuple(
                sets.own_listeners(i, c, seen.server)
                for i, c, seen in zip(own.inbound, own.checks, own.reports, strict=True)
            ),
        }
    )


_NONE = Part({})


def generate(view: View, read: bool = False) -> Offer:
    """All resources of a proxy; unchanged parts are the same objects. ``read``: whether claims of tokens may be read by
    listeners that it had before and still drains."""
    if view.gateway is None:
        read = read or listeners_read_claims(view)
        return Offer(_of_callers(view.outbound, view.own.callers), _of_workloads(view.own, read))
    return Offer(_NONE, _at_gateway(view))


@derived
def _at_gateway(view: View) -> Part:
    assert view.gateway is not None
    made = _of_gateway(view.gateway, view.own, view.outbound)
    return Part(_filtered(made, view.outbound) if view.gateway.filtered and not view.patches else made)


def _of_gateway(view: GatewayView, own: Own, out: OutboundView) -> dict[str, Sets]:
    called, (checks,) = _called(out), own.checks
    automatic = any(s.automatic for s in view.servers)
    return {
        names.CDS: (
            *called.clusters,
            sets.all_sni_clusters(out.host_spaces) if automatic else EMPTY,
            sets.datagram_clusters(view, out.connect_timeout_s),
            *(sets.login_clusters(security.of_gateway(view), s.transport) for s in view.servers[:1]),
        ),
        names.EDS: (*called.endpoints, sets.all_sni_endpoints(out.endpoint_spaces) if automatic else EMPTY),
        names.ECDS: (
            sets.tokens(checks.authentication, "", True),
            sets.policies(checks, "", sets.tapped(view)),
            sets.gateway_limits(view),
            sets.own_plugins(checks),
            sets.gateway_security(view),
            sets.gateway_challenges(view),
            sets.identity(view.identity),
        ),
        names.SDS: (sets.secrets(own.credentials), called.files, sets.gateway_files(view), sets.gateway_logins(view)),
        names.LDS: (sets.gateway_listeners(view, checks, own.reports[0].client), EMPTY),
        names.RDS: (sets.gateway_routes(view),),
        names.VHDS: (sets.gateway_hosts(view),),
    }


def _filtered(made: dict[str, Sets], out: OutboundView) -> dict[str, Sets]:
    """With the clusters of services alone that other resources name: with many gateways, most services are behind one
    of them. Endpoints are asked for by the clusters that are there, also by those that are about to go. EnvoyFilters
    are applied later and may name any cluster, so a proxy that has some keeps all."""
    wanted = frozenset[str]().union(*(s.clusters for t in names.NAMING for s in made[t]))
    whole = sets.all_clusters(out.host_spaces)
    return made | {names.CDS: tuple(_only(s, wanted) if s is whole else s for s in made[names.CDS])}


def _only(found: ResourceSet, wanted: frozenset[str]) -> ResourceSet:
    """Those of the clusters that are wanted; the same set as long as these are the same."""
    return sets.union(_some(p, wanted) for p in found.parts or (found,))


def _some(part: ResourceSet, wanted: frozenset[str]) -> ResourceSet:
    there = sorted(wanted & part.resources.keys())
    return sets.known(names.CDS, tuple(part.resources[n] for n in there)) if there else EMPTY
