"""Virtual hosts: of mesh services, of gateways, and for everything else."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2 as forward_pb2

from lateen.api.networking.http import HTTPRetry
from lateen.kit.derived import derived, held
from lateen.mesh import policy
from lateen.mesh.outbound_view import Bind, DomainSpace, HostSpace, HostView, OutboundView, Port, Spaces
from lateen.mesh.protocols import REQUESTS
from lateen.mesh.routing import Route
from lateen.mesh.settings import OutboundPolicy
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import origins, pb
from lateen.xds.routes import action, match, sessions


def layered(routes: Any) -> None:
    """What a destination does with headers comes after what its route does, as in the Gateway API."""
    routes.most_specific_header_mutations_wins = True


def domains(view: HostView, port: Port, viewer: str, silent: frozenset[str] = frozenset()) -> list[str]:
    """Every spelling of a service's name at a port; ``silent`` ones belong to other hosts. A bare short name is for
    clients of the service's own namespace. Ports are left out, since the route configurations ignore them."""
    found = [
        s
        for name in view.names
        if port.number not in name.routed
        for s in name.spellings
        if "." in s or s in ("*", view.host) or name.namespace == viewer
    ]
    if view.resolution == "HEADLESS":  # pods of a StatefulSet, by every spelling, too
        found += [f"*.{s}" for s in found if s not in silent]
    found += [f"[{a}]" if ":" in a else a for a in view.addresses if "/" not in a]
    return [f for f in dict.fromkeys(found) if f not in silent]


def routes(found: Iterable[Route], retries: HTTPRetry | None = None) -> list[Any]:
    """``retries``: when requests are repeated where a route does not say it."""
    out = []
    for route in found:
        out += _broken_share(route)
        if not route.backends or route.there:
            out.append(_route(route, retries))
    return out


def _broken_share(route: Route) -> list[Any]:
    """Requests that would go to backends that are not there are answered at once: their share of all."""
    broken = [b for b in route.backends if b.broken]
    out, taken = [], route.before
    for status in dict.fromkeys(b.status for b in broken):
        taken += sum(b.weight for b in broken if b.status == status)
        answer = _named(route)
        answer.direct_response.status = status
        _share(answer, taken, route)
        out.append(answer)
    return out


def _share(target: Any, upto: int, route: Route) -> None:
    """Envoy asks all routes with one random number, so that a share begins where the one before it ends. ``upto``: the
    weights up to the end of this one."""
    total = route.before + sum(b.weight for b in route.backends) + route.after
    if upto < total:
        target.match.runtime_fraction.default_value.CopyFrom(pb.percent(100 * upto / total))


def _named(route: Route) -> Any:
    out = rc.Route(name=route.name, match=match.route_match(route.match, route.below))
    out.metadata.CopyFrom(origins.metadata(route.rule))
    return out


def _route(route: Route, retries: HTTPRetry | None) -> Any:
    http = route.settings
    out = _named(route)
    sessions.follow(out, route)
    if route.after:
        _share(out, route.before + sum(b.weight for b in route.backends), route)
    if http.redirect:
        out.redirect.CopyFrom(action.redirect_action(http.redirect, route))
    elif http.direct_response:
        out.direct_response.CopyFrom(action.direct_response(http.direct_response))
    else:
        out.route.CopyFrom(action.route_action(route, retries))
    action.header_operations(out, http.headers)
    if len(route.there) == 1:
        action.header_operations(out, route.there[0].headers)
        action.announce(out, route.there[0].sniffed)
        sessions.tell(out, route, route.there[0])
    action.filters(http, out)
    sessions.keep(out, route.session or (route.there[0].session if len(route.there) == 1 else None))
    if route.match and route.match.stat_prefix:
        out.stat_prefix = route.match.stat_prefix
    return out


def _plain_route(view: HostView, port: Port) -> Any:
    """To the service itself, where no rule applies."""
    out = rc.Route(name="default", match=rc.RouteMatch(prefix="/"))
    settings = policy.merged(view.rules, "", port.number)
    outside = view.tls_to(port.number) or policy.originates(settings.tls)
    action.announce(out, port.protocol == "auto" and not outside)
    sessions.keep(out, view.sending.session if view.sending else None)
    out.route.cluster = names.outbound(view.host, port.number)
    action.set_timeout(out.route, 0)
    if found := action.retry_policy(view.transport.retries, policy.hashes(settings)):
        out.route.retry_policy.CopyFrom(found)
    if view.resolution == "DYNAMIC_DNS":
        _forwarded(out)
    return out


def _forwarded(route: Any) -> None:
    """Resolve the host that the request names."""
    found = pb.any_of(forward_pb2.PerRouteConfig())
    route.typed_per_filter_config["envoy.filters.http.dynamic_forward_proxy"].CopyFrom(found)


@derived
def of_host(view: HostView, port: Port, viewer: str, silent: frozenset[str]) -> Resource:
    """The virtual host of one service port, as a resource of its own: a change of one costs only that one."""
    found = virtual_host(view, port, viewer, silent)
    # Envoy removes virtual hosts by resource name but keys them by their own name; the two must be equal.
    found.name = names.host(str(port.number), found.name)
    rules = dict.fromkeys(n for r in view.routed(port.number).requests for n in r.origins)
    return pb.resource(found.name, found, (*rules, *view.origins))


def virtual_host(view: HostView, port: Port, viewer: str = "", silent: frozenset[str] = frozenset()) -> Any:
    host = rc.VirtualHost(
        name=f"{view.host}:{port.number}",
        domains=domains(view, port, viewer, silent),
        include_request_attempt_count=True,
    )
    action.count_messages(host, port.protocol)
    rules = view.routed(port.number)
    host.routes.extend(routes(rules.requests, view.transport.retries))
    if not host.routes and view.resolution != "RULES":
        host.routes.append(_plain_route(view, port))
    elif view.resolution == "DYNAMIC_DNS":
        for route in host.routes:
            if route.route.cluster.endswith(f"|{view.host}"):
                _forwarded(route)
    return host


@lru_cache(maxsize=16)
def _rest(policy: OutboundPolicy) -> Any:
    """The virtual host for unknown hosts."""
    anywhere = policy.open or policy.egress_proxy
    name = "allow_any" if anywhere else "block_all"
    host = rc.VirtualHost(name=name, domains=["*"], include_request_attempt_count=True)
    route = host.routes.add(name=name, match=rc.RouteMatch(prefix="/"))
    if anywhere:
        route.route.cluster = policy.egress_proxy or (names.DYNAMIC if policy.resolves else names.PASSTHROUGH)
        action.set_timeout(route.route, 0)
        if policy.resolves:
            _forwarded(route)
    else:
        route.direct_response.status = 502
    return host


@held
def _configuration(port: int, policy: OutboundPolicy, everything: bool) -> Resource:
    """The route configuration of a port: its hosts are delivered separately (VHDS), the rest is inline, unless some
    host matches ``everything``."""
    out = route_pb2.RouteConfiguration(
        name=str(port),
        validate_clusters=pb.boolean(False),
        max_direct_response_body_size_bytes=pb.u32(1024 * 1024),
        ignore_port_in_host_matching=True,
        virtual_hosts=[] if everything else [_rest(policy)],
        vhds=route_pb2.Vhds(config_source=pb.ads()),
    )
    layered(out)
    return pb.resource(out.name, out)


@derived
def _ports(part: HostSpace) -> tuple[frozenset[int], frozenset[int]]:
    """(ports with routed requests, ports where some host matches everything) of one namespace."""
    called = [h for h in part.members if h.resolution != "RULES" and h.called]
    found = {p.number for h in called for p in h.called_ports if p.spoken in REQUESTS}
    whole = {p.number for h in part.members if h.host == "*" for p in h.ports}
    return frozenset(found), frozenset(whole)


@derived
def _all_ports(spaces: Spaces[HostSpace]) -> tuple[frozenset[int], frozenset[int]]:
    found = set(map(_ports, spaces.parts))
    return frozenset().union(*(ports for ports, _ in found)), frozenset().union(*(whole for _, whole in found))


def outbound(view: OutboundView) -> tuple[Resource, ...]:
    """One route configuration for each HTTP port of the mesh."""
    ports, whole = _all_ports(view.host_spaces)
    binds = [b for b in view.binds if b.protocol in REQUESTS]
    found = ports | {b.port for b in binds if not b.proxy}
    shared = (_configuration(n, view.policy, n in whole) for n in sorted(found))
    proxies = (_of_proxy(b, view.policy) for b in binds if b.proxy)
    return (*shared, *proxies, *_all_addresses(view.host_spaces))


def _of_proxy(bind: Bind, policy: OutboundPolicy) -> Resource:
    """The route configuration of a listener that has no port of its own (a Unix socket), or is an HTTP proxy: requests
    name a service's port in their host, or mean its first one."""
    out = route_pb2.RouteConfiguration(name=bind.routes, validate_clusters=pb.boolean(False))
    taken = {"*"}
    causes: dict[str, None] = {}
    for view in bind.hosts:
        for i, port in enumerate(p for p in view.ports if p.protocol in REQUESTS):
            spelled = domains(view, port, bind.viewer)
            wanted = [f"{d}:{port.number}" for d in spelled] + (spelled if i == 0 else [])
            own = [d for d in wanted if d not in taken]
            if own:
                taken.update(own)
                found = out.virtual_hosts.add()
                found.CopyFrom(virtual_host(view, port))
                found.ClearField("domains")
                found.domains.extend(own)
                causes |= dict.fromkeys(n for r in view.routed(port.number).requests for n in r.origins)
    out.virtual_hosts.append(_rest(policy))
    layered(out)
    return pb.resource(out.name, out, tuple(causes))


@derived
def _all_addresses(spaces: Spaces[HostSpace]) -> tuple[Resource, ...]:
    return tuple(r for part in spaces.parts for r in _of_addresses(part))


@derived
def _of_addresses(part: HostSpace) -> tuple[Resource, ...]:
    """The route configurations of hosts that have the requests to their addresses to themselves."""
    return tuple(
        _of_address(h, p)
        for h in part.members
        for p in h.called_ports
        if h.sniffed(p) or (p.spoken in REQUESTS and h.by_address(p.number))
    )


@derived
def _of_address(view: HostView, port: Port) -> Resource:
    host = virtual_host(view, port)
    host.ClearField("domains")
    host.domains.append("*")
    out = route_pb2.RouteConfiguration(
        name=names.at_address(view.host, port.number),
        validate_clusters=pb.boolean(False),
        max_direct_response_body_size_bytes=pb.u32(1024 * 1024),
        virtual_hosts=[host],
    )
    layered(out)
    rules = dict.fromkeys(n for r in view.routed(port.number).requests for n in r.origins)
    return pb.resource(out.name, out, (*rules, *view.origins))


def hosts(part: DomainSpace) -> tuple[Resource, ...]:
    """One virtual host for each HTTP port of each service, named PORT/HOST:PORT."""
    silent: dict[str, frozenset[str]] = {}
    for name, spelling in part.silenced:
        silent[name] = silent.get(name, frozenset()) | {spelling}
    none = frozenset[str]()
    return tuple(
        of_host(h, port, part.viewer if _has_names_in(h, part.viewer) else "", silent.get(h.host, none))
        for h in part.hosts.members
        if h.called
        for port in h.called_ports
        if port.spoken in REQUESTS and (part.bound or not h.by_address(port.number))
    )


def _has_names_in(view: HostView, viewer: str) -> bool:
    return bool(viewer) and any(n.namespace == viewer for n in view.names)


def inbound(cluster: str, number: int, protocol: str = "auto") -> Any:
    """Inline: one virtual host that leads to the application. ``protocol``: of its port."""
    out = route_pb2.RouteConfiguration(name=cluster, validate_clusters=pb.boolean(False))
    host = out.virtual_hosts.add(name=f"inbound|http|{number}", domains=["*"])
    action.count_messages(host, protocol)
    route = host.routes.add(name="default", match=rc.RouteMatch(prefix="/"))
    route.route.cluster = cluster
    action.set_timeout(route.route, 0)
    # the application may close a connection just when a request is sent on it, without having seen the request;
    # # Istio retries as well (``ENABLE_INBOUND_RETRY_POLICY``).
    route.route.retry_policy.retry_on = "reset-before-request"
    route.route.retry_policy.num_retries.value = 2
    return out
