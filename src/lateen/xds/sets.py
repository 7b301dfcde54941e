"""The resource sets of parts of views: equal parts give the same set objects, with the same bytes.

What is derived from a view, or from a part of it, is stored in the view and freed with it (``kit.derived``).
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api.annotations import TAP_BODIES
from lateen.api.networking.server_tls import ServerTLS
from lateen.api.objects import Credential
from lateen.kit.derived import Shared, derived
from lateen.mesh import policy
from lateen.mesh.authentication import Authentication
from lateen.mesh.gateway_view import GatewayServer, GatewayView
from lateen.mesh.inbound_view import Checks, InboundView
from lateen.mesh.observability import Side
from lateen.mesh.outbound_view import DomainSpace, EndpointSpace, HostSpace, OutboundView, Spaces
from lateen.mesh.secured import Secured
from lateen.mesh.settings import OutboundPolicy, Transport
from lateen.mesh.workloads import ALONE, Described, Seat
from lateen.wire.resource import EMPTY, Resource, ResourceSet
from lateen.xds import clusters, endpoints, inbound_clusters, sds
from lateen.xds.authz import filters as authz
from lateen.xds.authz.tokens import places
from lateen.xds.filters import acme, authentication, authorization, plugins, quota, rate_limit, security, workload
from lateen.xds.listeners import gateway, inbound, outbound
from lateen.xds.routes import gateway as routes_of_gateway
from lateen.xds.routes import virtual_host

_shared = Shared()


def _set(found: Iterable[Resource]) -> ResourceSet:
    made = {r.name: r for r in found}
    return ResourceSet(made) if made else EMPTY


def union(parts: Iterable[ResourceSet]) -> ResourceSet:
    """The same object for the same parts."""
    some = tuple(p for p in parts if p is not EMPTY)
    made = ResourceSet.union(some)
    return made if len(some) < 2 else _shared(("union", *map(id, some)), lambda: made)


@derived
def _clusters(part: HostSpace) -> ResourceSet:
    """The same object where something else of a host has changed, such as a route."""
    return known("clusters", tuple(r for h in part.members for r in clusters.of_host(h)))


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
    return _set(r for dr in rules for level in policy.tls(dr.spec) for r in sds.of_files(level))


@derived
def all_clusters(spaces: Spaces[HostSpace]) -> ResourceSet:
    return union(map(_clusters, spaces.parts))


@derived
def all_sni_clusters(spaces: Spaces[HostSpace]) -> ResourceSet:
    return ResourceSet.union(tuple(map(_sni_clusters, spaces.parts)))


@derived
def all_files(spaces: Spaces[HostSpace]) -> ResourceSet:
    return _set(r for part in spaces.parts if (found := _files(part)) is not EMPTY for r in found.resources.values())


def policy_files(given: OutboundPolicy) -> ResourceSet:
    """Certificates of requests to unknown hosts."""
    if given.tls is None:
        return EMPTY
    return known("policy files", sds.of_files(given.tls))


@derived
def all_endpoints(spaces: Spaces[EndpointSpace]) -> ResourceSet:
    return ResourceSet.union(tuple(map(_endpoints, spaces.parts)))


@derived
def all_sni_endpoints(spaces: Spaces[EndpointSpace]) -> ResourceSet:
    return ResourceSet.union(tuple(map(_sni_endpoints, spaces.parts)))


@derived
def all_hosts(spaces: Spaces[DomainSpace]) -> ResourceSet:
    return ResourceSet.union(tuple(map(_hosts, spaces.parts)))


@derived
def fixed_clusters(view: OutboundView) -> ResourceSet:
    made = clusters.fixed(view.connect_timeout_s)
    if view.policy.resolves:
        made = (*made, clusters.resolving(view.policy))
    return _shared(("fixed", tuple(r.version for r in made)), lambda: _set(made))


def outbound_listeners(view: OutboundView, seen: Side, seat: Seat) -> ResourceSet:
    """The same for all views whose listeners are the same, whatever else differs."""
    plan = outbound.plan(view)
    key = ("outbound", plan, seen, seat)
    return _shared(key, lambda: known("listeners", outbound.resources(plan, seen, seat)))


def known(kind: str, made: tuple[Resource, ...]) -> ResourceSet:
    """Identified by its contents: a set that a proxy still has outlives the view that it was made from."""
    return _shared((kind, tuple((r.name, r.version) for r in made)), lambda: _set(made))


@derived
def outbound_routes(view: OutboundView) -> ResourceSet:
    made = virtual_host.outbound(view)
    return _shared(("routes", made), lambda: _set(made))


@derived
def own_clusters(view: InboundView) -> ResourceSet:
    return _set(inbound_clusters.of_workload(view))


def own_listeners(view: InboundView, checks: Checks, seen: Side) -> ResourceSet:
    screen = authorization.screen(checks.authorization)
    return _shared(("inbound", view, screen, seen), lambda: _set(inbound.of_view(view, screen, seen)))


@derived
def own_files(view: InboundView) -> ResourceSet:
    return _served_files(i.tls for i in view.ports)


@derived
def gateway_files(view: GatewayView) -> ResourceSet:
    return _served_files(s.tls for s in view.servers)


def gateway_listeners(view: GatewayView, checks: Checks, seen: Side) -> ResourceSet:
    screen, accepted = authorization.screen(checks.authorization), checks.authentication
    key = ("gateway", view, screen, accepted, seen)
    return _shared(key, lambda: _set(gateway.of_view(view, screen, accepted, seen)))


@derived
def gateway_routes(view: GatewayView) -> ResourceSet:
    return known("gateway routes", tuple(routes_of_gateway.configuration(s) for s in view.servers if s.route))


@derived
def gateway_hosts(view: GatewayView) -> ResourceSet:
    return ResourceSet.union(tuple(_hosts_of_server(s) for s in view.servers if s.route))


@derived
def _hosts_of_server(server: GatewayServer) -> ResourceSet:
    return _set(routes_of_gateway.hosts(server))


def datagram_clusters(view: GatewayView, connect_timeout: float) -> ResourceSet:
    made = (clusters.of_datagrams(s, connect_timeout) for s in view.servers)
    return known("datagrams", tuple(m for m in made if m is not None))


def _served_files(served: Iterable[ServerTLS | None]) -> ResourceSet:
    return _set(r for found in served if found for r in sds.of_files(found))


def secrets(credentials: tuple[Credential, ...]) -> ResourceSet:
    if not credentials:
        return EMPTY
    return _shared(("secrets", credentials), lambda: _set(map(sds.secret, credentials)))


def tokens(found: Authentication, seat: str, gateway: bool, claims: bool = True) -> ResourceSet:
    """One for all workloads with the same policies."""
    key = ("tokens", found, seat, gateway, claims)
    return _shared(key, lambda: _set([authentication.extension(found, seat, gateway, claims)]))


@derived
def policies(checks: Checks, seat: str = "", tapped: bool = False) -> ResourceSet:
    """AuthorizationPolicies, and what is denied beside tokens. ``tapped``: see ``tapped``."""
    where = places(rule for rule, _ in checks.authentication).and_written(authz.answered(checks.authorization))
    key = ("policies", checks.authorization, seat, tapped, where)
    return _shared(key, lambda: _set(authorization.extensions(checks.authorization, seat, tapped, where)))


def tapped(view: InboundView | GatewayView) -> bool:
    """Whether somebody looks at bodies."""
    return dict(view.pod.notes).get(TAP_BODIES) == "true"


@derived
def own_limits(view: InboundView) -> ResourceSet:
    name = view.seat.name
    return _set(r for i in view.ports for r in (*rate_limit.extensions(i, name), *quota.extensions(i, name)))


@derived
def gateway_limits(view: GatewayView) -> ResourceSet:
    return _set(r for s in view.servers for r in quota.of_server(s))


@derived
def own_plugins(checks: Checks, seat: str = "") -> ResourceSet:
    key = ("plugins", checks.plugins, seat)
    return _shared(key, lambda: _set(plugins.extensions(checks.plugins, seat)))


@derived
def own_security(view: InboundView) -> ResourceSet:
    return _set(r for i in view.ports for r in security.of_port(i, view.seat.name))


@derived
def gateway_security(view: GatewayView) -> ResourceSet:
    return _set(security.at_gateways(view))


@derived
def own_logins(view: InboundView) -> ResourceSet:
    return _set(security.secrets(security.of_workload(view)))


@derived
def gateway_logins(view: GatewayView) -> ResourceSet:
    return _set(security.secrets(security.of_gateway(view)))


@derived
def gateway_challenges(view: GatewayView) -> ResourceSet:
    return _set([acme.extension(view.challenges)]) if view.challenges is not None else EMPTY


def login_clusters(found: Iterable[Secured], transport: Transport) -> ResourceSet:
    return known("logins", tuple(clusters.of_login(at, transport) for at in security.outside(found)))


def identity(identity: Described, seat: Seat = ALONE) -> ResourceSet:
    return _shared(("workload", identity, seat.name), lambda: _set([workload.resource(identity, seat.name)]))
