"""Inbound listeners: connections to the application, captured on 15006, are matched by port and by mesh TLS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2

from lateen.api import objects as o
from lateen.api.reading import SERVER_FIRST
from lateen.mesh.inbound_view import InboundPort, InboundView
from lateen.mesh.observability import Side
from lateen.mesh.protocols import HTTP
from lateen.wire import names, ports
from lateen.wire.resource import Resource
from lateen.xds import pb, telemetry, tls
from lateen.xds import security as policies
from lateen.xds.filters import quota, rate_limit, security
from lateen.xds.filters.chain import Requests, Screen
from lateen.xds.listeners import http, tcp
from lateen.xds.routes import virtual_host

ALPN_SERVER = ("h2", "http/1.1")
HTTP_ALPN = ("http/1.0", "http/1.1", "h2c")
"""The protocols that Envoy's HTTP inspector reports for plain text."""


class Kind(NamedTuple):
    """A kind of connection to a port, and how it is treated."""

    transport: str
    """``tls``, ``raw_buffer``, or empty for both"""
    alpn: tuple[str, ...]
    http: bool
    mesh: bool
    """Whether the chain terminates the mesh's mutual TLS."""


_MESH_HTTP = Kind("tls", tls.MESH_HTTP, True, True)
_PLAIN_HTTP = Kind("raw_buffer", HTTP_ALPN, True, False)
WAYS: dict[tuple[str, str], tuple[Kind, ...]] = {
    ("http", "STRICT"): (Kind("tls", (), True, True),),
    ("http", "PERMISSIVE"): (Kind("tls", (*tls.MESH_ALPN, tls.GRPC), True, True), Kind("raw_buffer", (), True, False)),
    ("http", "DISABLE"): (Kind("", (), True, False),),
    ("tcp", "STRICT"): (Kind("tls", (), False, True),),
    ("tcp", "PERMISSIVE"): (
        Kind("tls", tls.MESH_ALPN, False, True),
        Kind("tls", (), False, False),  # the application's own TLS passes through
        Kind("raw_buffer", (), False, False),
    ),
    ("tcp", "DISABLE"): (Kind("", (), False, False),),
    ("auto", "STRICT"): (_MESH_HTTP, Kind("tls", (), False, True)),
    ("auto", "PERMISSIVE"): (
        _MESH_HTTP,
        Kind("tls", tls.MESH_TCP, False, True),
        Kind("tls", (), False, False),
        _PLAIN_HTTP,
        Kind("raw_buffer", (), False, False),
    ),
    ("auto", "DISABLE"): (_PLAIN_HTTP, Kind("raw_buffer", (), False, False), Kind("tls", (), False, False)),
}
"""(protocol, mode of mutual TLS) -> the filter chains, as in Istio. A connection that matches none is reset."""


def _match(port: int | None, kind: Kind) -> lc.FilterChainMatch:
    out = lc.FilterChainMatch(transport_protocol=kind.transport, application_protocols=kind.alpn)
    if port is not None:
        out.destination_port.value = port
    return out


def _server(view: InboundView, service: o.Service | None, secure: bool, name: str = "unknown") -> telemetry.Server:
    return telemetry.Server(
        "mutual_tls" if secure else "none",
        service.host if service else name,
        service.name if service else name,
        view.pod.namespace,
        view.identity,
    )


def _filters(
    view: InboundView, screen: Screen, seen: Side, i: InboundPort, secure: bool, is_http: bool, stat: str
) -> list[Any]:
    """The network filters of connections to a port."""
    server = _server(view, i.service, secure)
    seen = seen.at(i.port.number)
    cluster = names.inbound(i.port.number, view.seat.name)
    if not is_http:
        option = tcp.option(i.pool)
        # if requests are protected, bytes that Envoy does not take for HTTP must not reach the application: servers
        # answer requests that it does not recognize, such as those after an empty line
        unknown = i.port.protocol == "auto"
        closed = any(found.guards for found in i.secured) or (unknown and rate_limit.enforced(i.limits))
        screen = screen.of_unknown if unknown else screen
        return tcp.weighted(seen, ((names.BLACK_HOLE if closed else cluster, 100),), server, option, screen)
    route = virtual_host.inbound(cluster, i.port.number, i.port.protocol)
    policies.across(route.virtual_hosts[0].routes[0], i.secured)
    requests = replace(
        _requests(view, screen),
        paths=rate_limit.paths(screen, [i.limits]),
        limits=rate_limit.slots(i),
        quotas=quota.slots(i),
        guards=security.at_port(i),
        messages=i.port.protocol != "http",
    )
    return http.filters(seen, requests, f"inbound_{stat}", route=route, server=server)


def _requests(view: InboundView, screen: Screen) -> Requests:
    return Requests("inbound", view.seat.name, paths=screen.paths, questions=screen.questions)


def _port_chains(view: InboundView, screen: Screen, seen: Side, i: InboundPort) -> list[Any]:
    port = i.port
    name = f"{view.pod.address if i.scoped else '0.0.0.0'}_{port.number}"
    mode = dict(view.mtls_ports).get(port.number, view.mtls)
    family = "http" if port.protocol in HTTP else "auto" if port.protocol == "auto" else "tcp"
    if i.tls is not None and mode == "DISABLE":
        return [_own_tls(view, screen, seen, i, name, family == "http")]
    out = []
    for kind in WAYS[(family, mode)]:
        filters = _filters(view, screen, seen, i, kind.mesh, kind.http, name)
        chain = lc.FilterChain(name=name, filters=filters, filter_chain_match=_match(port.number, kind))
        if kind.mesh:
            alpn = ALPN_SERVER if kind.http else tls.ALPN_TCP
            chain.transport_socket.CopyFrom(tls.downstream(alpn, view.transport, view.seat.account))
        out.append(chain)
    return out


def _own_tls(view: InboundView, screen: Screen, seen: Side, i: InboundPort, name: str, is_http: bool) -> lc.FilterChain:
    """A Sidecar's ingress listener with ``tls``, which is used where mutual TLS is disabled."""
    assert i.tls is not None
    match = lc.FilterChainMatch(transport_protocol="tls")
    match.destination_port.value = i.port.number
    chain = lc.FilterChain(
        name=name, filters=_filters(view, screen, seen, i, False, is_http, name), filter_chain_match=match
    )
    alpn = ALPN_SERVER if is_http else ()
    chain.transport_socket.CopyFrom(tls.gateway(i.tls, alpn, view.transport))
    return chain


def _rest_chains(view: InboundView, screen: Screen, seen: Side) -> list[Any]:
    """Chains for ports that belong to no service."""
    hole = lc.FilterChainMatch()
    hole.destination_port.value = ports.INBOUND
    nowhere = tcp.proxy(seen.at(), names.BLACK_HOLE)
    out = [lc.FilterChain(name="virtualInbound-blackhole", filter_chain_match=hole, filters=nowhere)]
    known = {i.port.number for i in view.ports}
    single = [(number, mode) for number, mode in view.mtls_ports if number not in known]
    for number, mode in [(None, view.mtls), *single]:
        out += _passthrough(view, screen, seen, number, mode)
    return out


def _passthrough(view: InboundView, screen: Screen, seen: Side, port: int | None, mode: str) -> list[Any]:
    """Chains that forward to the original destination; ``port`` is None for all ports without chains of their own."""
    out = []
    seen = seen.at() if port is None else seen.at(port)
    suffix = "" if port is None else f"-{port}"
    rest = names.of_workload(names.INBOUND_PASSTHROUGH, view.seat.name)
    for kind in WAYS[("auto", mode)]:
        server = _server(view, None, kind.mesh, names.INBOUND_PASSTHROUGH)
        if kind.http:
            route = virtual_host.inbound(rest, 0)
            stat = f"{names.INBOUND_PASSTHROUGH}{suffix}"
            filters = http.filters(seen, _requests(view, screen), stat, route=route, server=server)
        else:
            filters = tcp.proxy(seen, rest, server, screen.of_unknown)
        chain = lc.FilterChain(
            name=f"virtualInbound-catchall-http{suffix}" if kind.http else f"virtualInbound{suffix}",
            filters=filters,
            filter_chain_match=_match(port, kind),
        )
        if kind.mesh:
            alpn = ALPN_SERVER if kind.http else tls.ALPN_TCP
            chain.transport_socket.CopyFrom(tls.downstream(alpn, view.transport, view.seat.account))
        out.append(chain)
    return out


def _free(view: InboundView, screen: Screen, seen: Side, i: InboundPort) -> Resource:
    """A Sidecar's ingress listener that is not captured: Envoy binds its address."""
    chains = _port_chains(view, screen, seen, i)
    for chain in chains:
        chain.filter_chain_match.ClearField("destination_port")
    out = listener_pb2.Listener(
        name=names.of_workload(f"{i.bind}_{i.port.number}", view.seat.name),
        address=pb.address(i.bind, i.port.number, view.seat.network_namespace),
        filter_chains=chains,
        listener_filters=[tcp.tls_inspector(), tcp.http_inspector()],
        access_log=telemetry.refused(seen),
        per_connection_buffer_limit_bytes=tcp.buffered(seen),
        traffic_direction="INBOUND",
        listener_filters_timeout=tcp.detection(view.transport.detection_s),
        max_connections_to_accept_per_socket_event=pb.u32(tcp.ACCEPTED_AT_ONCE),
        continue_on_listener_filters_timeout=True,
    )
    return pb.resource(out.name, pb.also(out, view.seat.ipv6), (*view.origins, *seen.origins))


def of_view(view: InboundView, screen: Screen, seen: Side) -> tuple[Resource, ...]:
    free = tuple(_free(view, screen, seen, i) for i in view.ports if i.bind)
    return free if view.interception == "NONE" else (_captured(view, screen, seen), *free)


def _captured(view: InboundView, screen: Screen, seen: Side) -> Resource:
    """The listener that connections are redirected to."""
    transparent = view.interception == "TPROXY"
    chains = _rest_chains(view, screen, seen)
    for i in view.ports:
        if not i.bind:
            chains += _port_chains(view, screen, seen, i)
    source = [tcp.original_src(ports.TPROXY_MARK)] if transparent else []
    out = listener_pb2.Listener(
        name=names.of_workload(names.VIRTUAL_INBOUND, view.seat.name),
        address=pb.address("0.0.0.0", ports.INBOUND, view.seat.network_namespace),
        filter_chains=chains,
        listener_filters=[tcp.original_dst(), *source, tcp.tls_inspector(), _inspector(view)],
        transparent=pb.boolean(True) if transparent else None,
        access_log=telemetry.refused(seen),
        per_connection_buffer_limit_bytes=tcp.buffered(seen),
        traffic_direction="INBOUND",
        listener_filters_timeout=tcp.detection(view.transport.detection_s),
        max_connections_to_accept_per_socket_event=pb.u32(tcp.ACCEPTED_AT_ONCE),
        continue_on_listener_filters_timeout=True,
    )
    pb.also(out, view.seat.ipv6)
    origins = (*((str(view.policy),) if view.policy else ()), *screen.origins, *view.origins, *seen.origins)
    return pb.resource(out.name, out, origins)


def _inspector(view: InboundView) -> lc.ListenerFilter:
    """The HTTP inspector, off for ports of known protocol: it would delay servers that speak first."""
    found = lc.ListenerFilter()
    found.CopyFrom(tcp.http_inspector())
    known = [i.port.number for i in view.ports if i.port.protocol != "auto"]
    for number in (*known, *(p for p in SERVER_FIRST if p not in known)):
        found.filter_disabled.CopyFrom(_either(found.filter_disabled, number))
    return found


def _either(so_far: Any, number: int) -> lc.ListenerFilterChainMatchPredicate:
    one = lc.ListenerFilterChainMatchPredicate()
    one.destination_port_range.start, one.destination_port_range.end = number, number + 1
    if not so_far.WhichOneof("rule"):
        return one
    out = lc.ListenerFilterChainMatchPredicate()
    rules = so_far.or_match.rules if so_far.WhichOneof("rule") == "or_match" else [so_far]
    out.or_match.rules.extend([*rules, one])
    return out
