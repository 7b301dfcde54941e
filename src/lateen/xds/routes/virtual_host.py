"""Virtual hosts: of mesh services, of gateways, and the ones for everything else."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2 as forward_pb2

from lateen.api import networking as api
from lateen.api import objects as o
from lateen.mesh.objects import HTTP, MeshConfig
from lateen.mesh.scope import covers
from lateen.mesh.spelling import spellings
from lateen.mesh.view import GatewayServer, HostView, OutboundView, Port
from lateen.wire import names
from lateen.wire.node import PEER_FALLBACK, PEER_HEADERS, peer_variable
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.routes import action, match

ROUTED = (*HTTP, "auto")
"""Protocols of ports whose requests are routed."""
ALL_HEADERS = tuple(header for _, header in PEER_HEADERS)
OPTIONAL_HEADERS = tuple(header for key, header in PEER_HEADERS if key in PEER_FALLBACK)
"""These are not always overwritten, so what the caller has sent under their names is taken off first."""


@lru_cache(maxsize=1)
def _peer_headers() -> tuple[Any, ...]:
    """Tell the server's sidecar who calls; the values are Envoy's environment, so the bytes are everybody's."""
    return tuple(
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=header, value=f"%ENVIRONMENT({peer_variable(key)})%"),
            append_action="OVERWRITE_IF_EXISTS_OR_ADD",
        )
        for key, header in PEER_HEADERS
    )


def _tell_peers(routes: Any) -> None:
    """Once for all hosts of a port, which is less of Envoy's memory than for each of them; those who shall not know
    take the headers off again."""
    routes.request_headers_to_add.extend(_peer_headers())
    routes.request_headers_to_remove.extend(OPTIONAL_HEADERS)
    routes.most_specific_header_mutations_wins = True


def domains(view: HostView, silent: frozenset[str] = frozenset()) -> list[str]:
    """Every spelling of a service's name; ``silent`` ones belong to other hosts. Ports are left out, since the route
    configurations ignore them."""
    found = list(spellings(view.host, view.namespace, view.name))
    for namespace, name in view.aliases:
        found += spellings(f"{name}.{namespace}.svc.cluster.local", namespace, name)
    found += [f"[{a}]" if ":" in a else a for a in view.addresses if "/" not in a]
    if view.resolution == "HEADLESS":
        found += (f"*.{view.host}", f"*.{view.host}.")  # pods of a StatefulSet
    return [f for f in dict.fromkeys(found) if f not in silent]


class At(NamedTuple):
    """Where rules apply: gateways by all their spellings, and the port and scheme that clients ask for."""

    gateways: tuple[str, ...]
    port: int
    scheme: str = "http"


def routes(vs: o.Resource[api.VirtualService], at: At, resolve: action.Resolve) -> list[Any]:
    """All routes of a VirtualService that apply there, in the user's order."""
    out = []
    for http in vs.spec.http:
        taken = [m for m in http.match if _applies(m, vs, at)]
        if http.match and not taken:
            continue
        out += [_route(vs, http, m, at, resolve) for m in taken]
        if not http.match:
            out.append(_route(vs, http, None, at, resolve))
            return out  # nothing after a route without a match can be reached
    return out


def _applies(m: api.HTTPMatchRequest, vs: o.Resource[api.VirtualService], at: At) -> bool:
    if m.port is not None and m.port != at.port:
        return False
    wanted = m.gateways or vs.spec.gateways or ("mesh",)
    return any(g in at.gateways or f"{vs.ref.namespace}/{g}" in at.gateways for g in wanted)


def _route(
    vs: o.Resource[api.VirtualService],
    http: api.HTTPRoute,
    m: api.HTTPMatchRequest | None,
    at: At,
    resolve: action.Resolve,
) -> Any:
    name = http.name + (f".{m.name}" if m and m.name else "")
    out = rc.Route(name=name or "default", match=match.route_match(m))
    if http.redirect:
        out.redirect.CopyFrom(action.redirect_action(http.redirect, at.port, at.scheme))
    elif http.direct_response:
        out.direct_response.CopyFrom(action.direct_response(http.direct_response))
    else:
        out.route.CopyFrom(action.route_action(http, m, resolve))
    action.header_operations(out, http.headers)
    if http.route and len([r for r in http.route if r.weight != 0] or http.route) == 1:
        action.header_operations(out, http.route[0].headers)
    action.filters(http, out)
    config = f"/apis/networking.istio.io/v1/namespaces/{vs.ref.namespace}/virtual-service/{vs.ref.name}"
    out.metadata.CopyFrom(pb.metadata(istio={"config": config}))
    if m and m.stat_prefix:
        out.stat_prefix = m.stat_prefix
    return out


def _plain_route(cluster: str, dynamic: bool) -> Any:
    out = rc.Route(name="default", match=rc.RouteMatch(prefix="/"))
    out.route.cluster = cluster
    action.set_timeout(out.route, 0)
    out.route.retry_policy.CopyFrom(action.retry_policy(None))
    if dynamic:
        _forwarded(out)
    return out


def _forwarded(route: Any) -> None:
    """Look up the name that the request asks for."""
    found = pb.any_of(forward_pb2.PerRouteConfig())
    route.typed_per_filter_config["envoy.filters.http.dynamic_forward_proxy"].CopyFrom(found)


@lru_cache(maxsize=65536)
def of_host(view: HostView, port: Port, silent: frozenset[str] = frozenset()) -> Resource:
    """The virtual host of one service port, as a resource of its own: a change of one costs only that one."""
    found = virtual_host(view, port, silent)
    # Envoy knows hosts by their own names, and takes those away whose names are said to be gone: both are one name.
    found.name = names.host(port.number, found.name)
    origins = (*(n for v in view.virtual_services for n in v.origins), *view.origins)
    return pb.resource(found.name, found, origins)


def virtual_host(view: HostView, port: Port, silent: frozenset[str] = frozenset()) -> Any:
    host = rc.VirtualHost(
        name=f"{view.host}:{port.number}",
        domains=domains(view, silent),
        include_request_attempt_count=True,
        # Who calls is nobody's business outside of the mesh.
        request_headers_to_remove=ALL_HEADERS if view.external else (),
    )
    if port.protocol == "auto":
        host.typed_per_filter_config[action.STATE].CopyFrom(action.as_requests())
    for vs in view.virtual_services:

        def resolve(d: api.Destination, vs: o.Resource[api.VirtualService] = vs) -> tuple[str, int]:
            full, ports = view.resolved(d.host, vs.ref.namespace)
            return full, destination_port(d, ports, port.number)

        found = routes(vs, At(("mesh",), port.number), resolve)
        host.routes.extend(found)
        if found and not _conditional(found[-1]):
            break
    routed = any(vs.spec.http for vs in view.virtual_services)
    if not host.routes and (view.resolution != "RULES" or not routed):
        host.routes.append(_plain_route(names.outbound(view.host, port.number), view.resolution == "DYNAMIC_DNS"))
    elif view.resolution == "DYNAMIC_DNS":
        for route in host.routes:
            if route.route.cluster.endswith(f"|{view.host}"):
                _forwarded(route)
    return host


def _conditional(route: Any) -> bool:
    m = route.match
    return m.prefix != "/" or bool(m.headers) or bool(m.query_parameters)


def destination_port(d: api.Destination, ports: tuple[int, ...], asked: int) -> int:
    """A destination without a port takes the service's only one, else the one that was asked for."""
    if d.port and d.port.number:
        return d.port.number
    return ports[0] if len(ports) == 1 else asked


@lru_cache(maxsize=16)
def _rest(config: MeshConfig) -> Any:
    """Hosts that the mesh does not know."""
    anywhere = config.outbound_policy == "ALLOW_ANY" or config.egress_proxy
    name = "allow_any" if anywhere else "block_all"
    host = rc.VirtualHost(
        name=name, domains=["*"], include_request_attempt_count=True, request_headers_to_remove=ALL_HEADERS
    )
    route = host.routes.add(name=name, match=rc.RouteMatch(prefix="/"))
    if anywhere:
        route.route.cluster = config.egress_proxy or names.PASSTHROUGH
        action.set_timeout(route.route, 0)
    else:
        route.direct_response.status = 502
    return host


@lru_cache(maxsize=4096)
def _configuration(port: int, config: MeshConfig, everything: bool) -> Resource:
    """The route configuration of a port: its hosts come one by one (VHDS), the rest is inline, unless some host stands
    for ``everything``."""
    out = route_pb2.RouteConfiguration(
        name=str(port),
        validate_clusters=pb.boolean(False),
        max_direct_response_body_size_bytes=pb.u32(1024 * 1024),
        ignore_port_in_host_matching=True,
        virtual_hosts=[] if everything else [_rest(config)],
        vhds=route_pb2.Vhds(config_source=pb.ads()),
    )
    _tell_peers(out)
    return pb.resource(out.name, out)


@lru_cache(maxsize=16)
def outbound(view: OutboundView) -> tuple[Resource, ...]:
    """One route configuration for each HTTP port of the mesh."""
    found = {p.number for h in view.hosts if h.resolution != "RULES" for p in h.ports if p.protocol in ROUTED}
    found |= {b.port for b in view.binds if b.protocol in ROUTED}
    whole = {p.number for h in view.hosts if h.host == "*" for p in h.ports}
    return tuple(_configuration(n, view.config, n in whole) for n in sorted(found))


@lru_cache(maxsize=16)
def hosts(view: OutboundView) -> tuple[Resource, ...]:
    """One virtual host for each HTTP port of each service, named PORT/HOST:PORT."""
    silent: dict[str, frozenset[str]] = {}
    for name, spelling in view.silenced:
        silent[name] = silent.get(name, frozenset()) | {spelling}
    none = frozenset[str]()
    return tuple(
        of_host(host, port, silent.get(host.host, none))
        for host in view.hosts
        for port in host.ports
        if port.protocol in ROUTED
    )


def inbound(cluster: str, number: int) -> Any:
    """Inline: one virtual host that leads to the application."""
    out = route_pb2.RouteConfiguration(name=cluster, validate_clusters=pb.boolean(False))
    host = out.virtual_hosts.add(name=f"inbound|http|{number}", domains=["*"])
    route = host.routes.add(name="default", match=rc.RouteMatch(prefix="/"))
    route.route.cluster = cluster
    action.set_timeout(route.route, 0)
    # Connections to the application may end just when a request goes out on them; such a request has not been seen.
    # Istio does the same (``ENABLE_INBOUND_RETRY_POLICY``).
    route.route.retry_policy.retry_on = "reset-before-request"
    route.route.retry_policy.num_retries.value = 2
    return out


@lru_cache(maxsize=1024)
def gateway(server: GatewayServer) -> Resource:
    """The route configuration of a gateway's port: VirtualServices of one host are merged, oldest first."""
    by_host: dict[str, Any] = {}
    for routed in server.virtual_services:
        vs = routed.rule

        def resolve(d: api.Destination, vs: o.Resource[api.VirtualService] = vs) -> tuple[str, int]:
            full, ports = server.resolved(d.host, vs.ref.namespace)
            return full, destination_port(d, ports, server.port)

        made: dict[int, list[Any]] = {}
        for name, port in routed.domains:
            if port not in made:
                made[port] = routes(vs, At(routed.gateways, port, "https" if server.tls else "http"), resolve)
            _gateway_host(by_host, name, port).routes.extend(made[port])
    for name, port in server.redirects:
        if name not in by_host and (name != "*" or not by_host):
            _gateway_host(by_host, name, port)
        for known, host in by_host.items():
            if covers(name, known):
                host.require_tls = rc.VirtualHost.TlsRequirementType.Value("ALL")
    out = route_pb2.RouteConfiguration(
        name=server.route,
        validate_clusters=pb.boolean(False),
        virtual_hosts=list(by_host.values()),
        max_direct_response_body_size_bytes=pb.u32(1024 * 1024),
        ignore_port_in_host_matching=True,
    )
    _tell_peers(out)
    if not by_host:
        # Nothing is routed yet: say 404 instead of refusing connections.
        out.virtual_hosts.add(name=f"blackhole:{server.port}", domains=["*"])
    rules = [n for r in server.virtual_services for n in r.rule.origins]
    return pb.resource(out.name, out, (*server.origins, *rules))


def _gateway_host(by_host: dict[str, Any], name: str, port: int) -> Any:
    if name not in by_host:
        by_host[name] = rc.VirtualHost(
            name=f"{name}:{port}",
            domains=[name],
            include_request_attempt_count=True,
        )
    return by_host[name]
