"""Routes of gateways: a configuration for each port, and a resource for each of its hosts."""

from __future__ import annotations

from typing import Any, NamedTuple

from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.config.route.v3 import route_pb2

from lateen.api.networking.http import HTTPRetry
from lateen.kit.derived import Shared, derived, held
from lateen.mesh.gateway_view import GatewayServer
from lateen.mesh.outbound_view import Limits
from lateen.mesh.routing import HostRoutes, Route
from lateen.mesh.secured import Secured
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb, rate_limits, security
from lateen.xds.routes.action import count_messages
from lateen.xds.routes.virtual_host import layered
from lateen.xds.routes.virtual_host import routes as made_routes

OF_PROXIES = ("x-envoy-original-dst-host", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-istio-attributes")
"""Headers between proxies that clients must not send (Istio's bulletin 2020-002)."""


@held
def _configuration(name: str, origins: tuple[str, ...]) -> Resource:
    out = route_pb2.RouteConfiguration(
        name=name,
        validate_clusters=pb.boolean(False),
        max_direct_response_body_size_bytes=pb.u32(1024 * 1024),
        ignore_port_in_host_matching=True,
        vhds=route_pb2.Vhds(config_source=pb.ads()),
    )
    layered(out)
    out.request_headers_to_remove.extend(OF_PROXIES)
    return pb.resource(out.name, out, origins)


def configuration(server: GatewayServer) -> Resource:
    """The route configuration of a gateway's port, whose hosts are delivered separately (VHDS). They are sent before
    anybody asks for them, so a host that is not there gets 404 at once."""
    return _configuration(server.route, server.origins)


@derived
def _kept(route: Route, retries: HTTPRetry | None) -> tuple[Any, ...]:
    """At a gateway, a change of one route makes its virtual host again; the messages of the other routes are
    copied."""
    return tuple(made_routes((route,), retries))


_kept_hosts = Shared()
"""Virtual hosts of gateways: a new view of a port has most of them from the one before."""


@derived
def hosts(server: GatewayServer) -> tuple[Resource, ...]:
    """The virtual hosts of a gateway's port: VirtualServices for one host are merged, the oldest first; routes that
    take every request come last, as in Istio.
    Source: https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services"""
    limits: dict[Any, Limits] = dict(server.limits)
    secured: dict[tuple[int, int], list[Secured]] = {}
    for at, i, policy in server.secured:
        secured.setdefault((at, i), []).append(policy)
    by_host: dict[str, list[Part]] = {}
    for at, found in enumerate(server.requests):
        whole = dict.fromkeys(p for ref, _ in found.places for p in limits.get(ref, ()))
        held = tuple(limits.get(r.rule) or tuple(whole) for r in found.routes) if limits else ()
        mine = tuple(tuple(secured.get((at, i), ())) for i, _ in enumerate(found.routes)) if secured else ()
        by_host.setdefault(found.host, []).append(Part(found, held, mine if any(mine) else ()))
    ports = {name: parts[0].routed.port for name, parts in by_host.items()}
    for name, port in server.redirects:
        ports.setdefault(name, port)
    if not ports:
        # no routes yet: answer 404 instead of refusing connections
        return (_host(server.route, f"blackhole:{server.port}", "*", (), False, None),)
    secure, retries = {name for name, _ in server.redirects}, server.transport.retries
    out = []
    for name, port in ports.items():
        parts = by_host.get(name, [])
        if len(parts) == 1:
            out.append(_alone(parts[0].routed, server.route, parts[0], name in secure, retries))
        else:
            out.append(_host(server.route, f"{name}:{port}", name, tuple(parts), name in secure, retries))
    return tuple(out)


class Part(NamedTuple):
    """What one object routes for a host, with the policies of each of its routes where some route has any."""

    routed: HostRoutes
    limits: tuple[Limits, ...] = ()
    secured: tuple[tuple[Secured, ...], ...] = ()


def _host(
    routes: str, name: str, domain: str, parts: tuple[Part, ...], secure: bool, retries: HTTPRetry | None
) -> Resource:
    """A host's virtual host. ``secure``: plain text is redirected to HTTPS; ``retries``: the mesh's default."""
    key = (routes, name, domain, parts, secure, retries)
    return _kept_hosts(key, lambda: _made_host(*key))


@derived
def _alone(found: HostRoutes, routes: str, part: Part, secure: bool, retries: HTTPRetry | None) -> Resource:
    """Of a host that only one object routes."""
    return _host(routes, f"{found.host}:{found.port}", found.host, (part,), secure, retries)


def _made_host(
    routes: str, name: str, domain: str, parts: tuple[Part, ...], secure: bool, retries: HTTPRetry | None
) -> Resource:
    # Envoy removes virtual hosts by resource name but keys them by their own name; the two must be equal.
    out = rc.VirtualHost(name=names.host(routes, name), domains=[domain], include_request_attempt_count=True)
    count_messages(out, "auto")  # routes of one host may lead to ports of any protocol
    kinds = rate_limits.kinds_of(some for part in parts for some in part.limits)
    last: list[rc.Route] = []
    for part in parts:
        for i, route in enumerate(part.routed.routes):
            limited = rate_limits.on_routes(part.limits[i] if part.limits else (), _kept(route, retries), kinds)
            made = security.on_routes(part.secured[i] if part.secured else (), limited)
            (last if route.takes_all else out.routes).extend(made)
    out.routes.extend(last)
    rate_limits.on_host(out, (some for part in parts for some in part.limits))
    if secure:
        out.require_tls = rc.VirtualHost.TlsRequirementType.Value("ALL")
    rules = dict.fromkeys(n for part in parts for r in part.routed.routes for n in r.origins)
    limiting = dict.fromkeys(str(p.ref) for part in parts for some in part.limits for p in some)
    securing = dict.fromkeys(str(found.policy.ref) for part in parts for some in part.secured for found in some)
    return pb.resource(out.name, out, (*rules, *limiting, *securing))
