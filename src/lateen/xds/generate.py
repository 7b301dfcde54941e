"""A view in, resource sets out. Pure; equal parts of views give the same set objects, with the same bytes.

What is derived from a view, or from a part of it, is stored in the view and freed with it (``kit.derived``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lateen.api.annotations import TAP_BODIES
from lateen.api.networking.server_tls import ServerTLS
from lateen.api.objects import Credential
from lateen.kit.derived import Shared, derived
from lateen.mesh import policy
from lateen.mesh.authentication import Authentication
from lateen.mesh.gateway_view import GatewayServer, GatewayView
from lateen.mesh.inbound_view import UNRESTRICTED, InboundView
from lateen.mesh.observability import Side
from lateen.mesh.outbound_view import DomainSpace, EndpointSpace, HostSpace, OutboundView, Spaces
from lateen.mesh.secured import Secured
from lateen.mesh.settings import Transport
from lateen.mesh.view import Callers, Own, View
from lateen.mesh.workloads import ALONE, Described, Seat
from lateen.wire import names
from lateen.wire.resource import EMPTY, Offer, Part, Resource, ResourceSet, Sets
from lateen.xds import clusters, endpoints, tls
from lateen.xds.filters import acme, authentication, authorization, plugins, quota, rate_limit, security, workload
from lateen.xds.listeners import gateway, inbound, outbound
from lateen.xds.routes import gateway as gateway_routes
from lateen.xds.routes import virtual_host

_shared = Shared()


def _set(found: Iterable[Resource]) -> ResourceSet:
    made = {r.name: r for r in found}
    return ResourceSet(made) if made else EMPTY


def _union(parts: Iterable[ResourceSet]) -> ResourceSet:
    """The same object for the same parts."""
    some = tuple(p for p in parts if p is not EMPTY)
    made = ResourceSet.union(some)
    return made if len(some) < 2 else _shared(("union", *map(id, some)), lambda: made)


@derived
def _clusters(part: HostSpace) -> ResourceSet:
    """The same object where something else of a host has changed, such as a route."""
    return _known("clusters", tuple(r for h in part.members for r in clusters.of_host(h)))


@derived
def _sni_clusters(part: HostSpace) -> ResourceSet:
    return _set(r for h in part.members for r in clusters.by_sni(h))


@derived
def _endpoints(part: EndpointSpace) -> ResourceSet:
    return _set(map(endpoints.of_cluster, part.members))


@derived
def _sni_endpoints(part: EndpointSpace) -> ResourceSet:
    return _set(map(endpoints.by_sni, part.members))


@derived
def _hosts(part: DomainSpace) -> ResourceSet:
    return _set(virtual_host.hosts(part))


@derived
def _files(part: HostSpace) -> ResourceSet:
    rules = {dr: None for h in part.members for dr in h.rules}
    return _set(r for dr in rules for level in policy.tls(dr.spec) for r in tls.of_files(level))


@derived
def _all_clusters(spaces: Spaces[HostSpace]) -> ResourceSet:
    return _union(map(_clusters, spaces.parts))


@derived
def _all_sni_clusters(spaces: Spaces[HostSpace]) -> ResourceSet:
    return ResourceSet.union(tuple(map(_sni_clusters, spaces.parts)))


@derived
def _all_files(spaces: Spaces[HostSpace]) -> ResourceSet:
    return _set(r for part in spaces.parts if (found := _files(part)) is not EMPTY for r in found.resources.values())


@derived
def _all_endpoints(spaces: Spaces[EndpointSpace]) -> ResourceSet:
    return ResourceSet.union(tuple(map(_endpoints, spaces.parts)))


@derived
def _all_sni_endpoints(spaces: Spaces[EndpointSpace]) -> ResourceSet:
    return ResourceSet.union(tuple(map(_sni_endpoints, spaces.parts)))


@derived
def _all_hosts(spaces: Spaces[DomainSpace]) -> ResourceSet:
    return ResourceSet.union(tuple(map(_hosts, spaces.parts)))


@derived
def _fixed_clusters(view: OutboundView) -> ResourceSet:
    made = clusters.fixed(view.connect_timeout_s)
    return _shared(("fixed", tuple(r.version for r in made)), lambda: _set(made))


def _listeners(view: OutboundView, seen: Side, seat: Seat) -> ResourceSet:
    """The same for all views whose listeners are the same, whatever else differs."""
    plan, inside = outbound.plan(view), seat.network_namespace
    key = ("outbound", plan, seen, inside)
    return _shared(key, lambda: _known("listeners", outbound.resources(plan, seen, inside)))


def _known(kind: str, made: tuple[Resource, ...]) -> ResourceSet:
    """Identified by its contents: a set that a proxy still has outlives the view that it was made from."""
    return _shared((kind, tuple((r.name, r.version) for r in made)), lambda: _set(made))


@derived
def _routes(view: OutboundView) -> ResourceSet:
    made = virtual_host.outbound(view)
    return _shared(("routes", made), lambda: _set(made))


@derived
def _own_clusters(view: InboundView) -> ResourceSet:
    return _set(clusters.of_workload(view))


def _own_listeners(view: InboundView, seen: Side) -> ResourceSet:
    return _shared(("inbound", view, seen), lambda: _set(inbound.of_view(view, seen)))


@derived
def _own_files(view: InboundView) -> ResourceSet:
    return _served_files(i.tls for i in view.ports)


@derived
def _gateway_files(view: GatewayView) -> ResourceSet:
    return _served_files(s.tls for s in view.servers)


def _gateway_listeners(view: GatewayView, seen: Side) -> ResourceSet:
    return _shared(("gateway", view, seen), lambda: _set(gateway.of_view(view, seen)))


@derived
def _gateway_routes(view: GatewayView) -> ResourceSet:
    return _known("gateway routes", tuple(gateway_routes.configuration(s) for s in view.servers if s.route))


@derived
def _gateway_hosts(view: GatewayView) -> ResourceSet:
    return ResourceSet.union(tuple(_hosts_of_server(s) for s in view.servers if s.route))


@derived
def _hosts_of_server(server: GatewayServer) -> ResourceSet:
    return _set(gateway_routes.hosts(server))


def _datagram_clusters(view: GatewayView, connect_timeout: float) -> ResourceSet:
    made = (clusters.of_datagrams(s, connect_timeout) for s in view.servers)
    return _known("datagrams", tuple(m for m in made if m is not None))


def _served_files(served: Iterable[ServerTLS | None]) -> ResourceSet:
    return _set(r for found in served if found for r in tls.of_files(found))


def _secrets(credentials: tuple[Credential, ...]) -> ResourceSet:
    if not credentials:
        return EMPTY
    return _shared(("secrets", credentials), lambda: _set(map(tls.secret, credentials)))


def _tokens(found: Authentication, seat: str, gateway: bool) -> ResourceSet:
    """One for all workloads with the same policies."""
    key = ("tokens", found, seat, gateway)
    return _shared(key, lambda: _set([authentication.extension(found, seat, gateway)]))


@derived
def _inbound_authorization(view: InboundView) -> ResourceSet:
    return _set(authorization.extensions(view.authorization, view.seat.name, _tapped(view)))


def _tapped(view: InboundView | GatewayView) -> bool:
    """Whether somebody looks at bodies."""
    return dict(view.pod.notes).get(TAP_BODIES) == "true"


@derived
def _limits(view: InboundView) -> ResourceSet:
    name = view.seat.name
    return _set(r for i in view.ports for r in (*rate_limit.extensions(i, name), *quota.extensions(i, name)))


@derived
def _gateway_limits(view: GatewayView) -> ResourceSet:
    return _set(r for s in view.servers for r in quota.of_server(s))


@derived
def _plugins(view: InboundView) -> ResourceSet:
    return _set(plugins.extensions(view.plugins, view.seat.name))


@derived
def _gateway_plugins(view: GatewayView) -> ResourceSet:
    return _set(plugins.extensions(view.plugins))


@derived
def _gateway_authorization(view: GatewayView) -> ResourceSet:
    """All servers of a gateway have the same policies: those of its workload."""
    access = view.servers[0].authorization if view.servers else UNRESTRICTED
    return _set(authorization.extensions(access, tapped=_tapped(view)))


@derived
def _security(view: InboundView) -> ResourceSet:
    return _set(r for i in view.ports for r in security.of_port(i, view.seat.name))


@derived
def _gateway_security(view: GatewayView) -> ResourceSet:
    return _set(security.at_gateways(view))


@derived
def _logins(view: InboundView) -> ResourceSet:
    return _set(security.secrets(security.of_workload(view)))


@derived
def _gateway_logins(view: GatewayView) -> ResourceSet:
    return _set(security.secrets(security.of_gateway(view)))


@derived
def _gateway_challenges(view: GatewayView) -> ResourceSet:
    return _set([acme.extension(view.challenges)]) if view.challenges is not None else EMPTY


def _providers(found: Iterable[Secured], transport: Transport) -> ResourceSet:
    return _known("logins", tuple(clusters.of_login(at, transport) for at in security.outside(found)))


def _workload(identity: Described, seat: Seat = ALONE) -> ResourceSet:
    return _shared(("workload", identity, seat.name), lambda: _set([workload.resource(identity, seat.name)]))


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
        (_fixed_clusters(out), _all_clusters(out.host_spaces)),
        (_all_endpoints(out.endpoint_spaces),),
        _all_files(out.host_spaces),
        (_routes(out),),
        (_all_hosts(out.domain_spaces),),
    )


@derived
def _of_callers(out: OutboundView, callers: Callers) -> Part:
    """The outbound part of a proxy's resources; its listeners are those of each of its workloads."""
    called = _called(out)
    return Part(
        {
            names.CDS: called.clusters,
            names.EDS: called.endpoints,
            names.SDS: (called.files,),
            names.LDS: tuple(_listeners(out, side, seat) for side, seat in callers.sides),
            names.RDS: called.routes,
            names.VHDS: called.hosts,
        }
    )


@derived
def _of_workloads(own: Own) -> Part:
    """The inbound part of a sidecar's resources, for its own workloads."""
    return Part(
        {
            names.CDS: (
                *map(_own_clusters, own.inbound),
                *(_providers(security.of_workload(i), i.transport) for i in own.inbound),
            ),
            names.SDS: (_secrets(own.credentials), *map(_own_files, own.inbound), *map(_logins, own.inbound)),
            names.ECDS: tuple(
                s
                for i in own.inbound
                for s in (
                    _tokens(i.authentication, i.seat.name, False),
                    _inbound_authorization(i),
                    _limits(i),
                    _plugins(i),
                    _security(i),
                    _workload(i.identity, i.seat),
                )
            ),
            names.LDS: tuple(_own_listeners(i, seen.server) for i, seen in zip(own.inbound, own.reports, strict=True)),
        }
    )


_NONE = Part({})


def generate(view: View) -> Offer:
    """All resources of a proxy; unchanged parts are the same objects."""
    if view.gateway is None:
        return Offer(_of_callers(view.outbound, view.own.callers), _of_workloads(view.own))
    return Offer(_NONE, _at_gateway(view))


@derived
def _at_gateway(view: View) -> Part:
    assert view.gateway is not None
    made = _of_gateway(view.gateway, view.own, view.outbound)
    return Part(_filtered(made, view.outbound) if view.gateway.filtered and not view.patches else made)


def _of_gateway(view: GatewayView, own: Own, out: OutboundView) -> dict[str, Sets]:
    called = _called(out)
    automatic = any(s.automatic for s in view.servers)
    return {
        names.CDS: (
            *called.clusters,
            _all_sni_clusters(out.host_spaces) if automatic else EMPTY,
            _datagram_clusters(view, out.connect_timeout_s),
            *(_providers(security.of_gateway(view), s.transport) for s in view.servers[:1]),
        ),
        names.EDS: (*called.endpoints, _all_sni_endpoints(out.endpoint_spaces) if automatic else EMPTY),
        names.ECDS: (
            _tokens(view.authentication, "", True),
            _gateway_authorization(view),
            _gateway_limits(view),
            _gateway_plugins(view),
            _gateway_security(view),
            _gateway_challenges(view),
            _workload(view.identity),
        ),
        names.SDS: (_secrets(own.credentials), called.files, _gateway_files(view), _gateway_logins(view)),
        names.LDS: (_gateway_listeners(view, own.reports[0].client), EMPTY),
        names.RDS: (_gateway_routes(view),),
        names.VHDS: (_gateway_hosts(view),),
    }


def _filtered(made: dict[str, Sets], out: OutboundView) -> dict[str, Sets]:
    """With the clusters of services alone that other resources name: with many gateways, most services are behind one
    of them. Endpoints are asked for by the clusters that are there, also by those that are about to go. EnvoyFilters
    are applied later and may name any cluster, so a proxy that has some keeps all."""
    wanted = frozenset[str]().union(*(s.clusters for t in names.NAMING for s in made[t]))
    whole = _all_clusters(out.host_spaces)
    return made | {names.CDS: tuple(_only(s, wanted) if s is whole else s for s in made[names.CDS])}


def _only(found: ResourceSet, wanted: frozenset[str]) -> ResourceSet:
    """Those of the clusters that are wanted; the same set as long as these are the same."""
    return _union(_some(p, wanted) for p in found.parts or (found,))


def _some(part: ResourceSet, wanted: frozenset[str]) -> ResourceSet:
    there = sorted(wanted & part.resources.keys())
    return _known(names.CDS, tuple(part.resources[n] for n in there)) if there else EMPTY
