"""Listeners of gateway workloads: one for each port, with a filter chain for each server that differs by SNI."""

from __future__ import annotations

from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2

from lateen.api.security import JWTRule
from lateen.mesh.authentication import Authentication
from lateen.mesh.challenges import Challenges
from lateen.mesh.gateway_view import GatewayServer, GatewayView
from lateen.mesh.observability import Side
from lateen.mesh.proxies import Place
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import origins, pb, telemetry, tls
from lateen.xds.filters import acme, order, quota, rate_limit, security
from lateen.xds.filters.chain import Connections, Requests, Screen
from lateen.xds.jwt import claimed_headers
from lateen.xds.listeners import datagrams, http, tcp
from lateen.xds.listeners.chains import Taken
from lateen.xds.routes import connections

ALPN = ("h2", "http/1.1")


Tokens = tuple[JWTRule, ...]
"""The rules of RequestAuthentications"""
Found = tuple[tuple[str, ...], tuple[str, ...], Any]
"""(SNI names, destination ranges, the filter chain without its match for these)"""


def _requests(
    server: GatewayServer, where: Place, seen: Side, challenges: bool, tokens: Tokens, screen: Screen
) -> Found:
    """The chain of a server that routes requests."""
    requests = Requests(
        "gateway",
        paths=rate_limit.paths(screen, (some for _, some in server.limits)),
        limits=rate_limit.AT_GATEWAY,
        quotas=quota.at_gateway(server),
        questions=screen.questions,
        guards=security.at_gateway(server),
        guarded=security.routes_of(server),
        challenges=challenges,
        claimed=claimed_headers((*tokens, *security.routing_tokens(server))),
    )
    stat = f"outbound_0.0.0.0_{server.target}"
    filters = http.filters(seen, requests, stat, rds=server.route, place=where)
    chain = lc.FilterChain(name=server.name, filters=filters)
    if server.tls:
        chain.transport_socket.CopyFrom(tls.gateway(server.tls, ALPN, server.transport))
    return server.sni, (), chain


def _connections(server: GatewayServer, seen: Side, screen: Screen) -> list[Found]:
    """Chains that forward connections: by SNI where TLS passes through, else by destination."""

    if server.automatic:
        return [_by_cluster_name(server, seen, screen)]
    out = []
    for route in server.connections:
        clusters = connections.clusters(route)
        if not clusters:
            continue
        filters = tcp.weighted(seen, clusters, screen=screen, bytes_on_http=route.bytes_on_http)
        made = origins.metadata(route.rule, route.name)
        chain = lc.FilterChain(name=server.name, filters=filters, metadata=made)
        if server.tls:
            chain.transport_socket.CopyFrom(tls.gateway(server.tls, (), server.transport))
        out.append((route.sni if server.passthrough or route.sni else server.sni, route.subnets, chain))
    return out


def _by_cluster_name(server: GatewayServer, seen: Side, screen: Screen) -> Found:
    """AUTO_PASSTHROUGH: the SNI of mesh TLS (``outbound_.80_._.host``) names the cluster."""
    match = lc.FilterChainMatch(application_protocols=tls.MESH_ALPN)
    otherwise = ((names.BLACK_HOLE, 100),)
    filters = order.network(Connections(seen, otherwise, screen=screen, by_sni=True))
    return server.sni, (), lc.FilterChain(filters=filters, filter_chain_match=match)


def _listener(
    place: tuple[str, int],
    where: Place,
    servers: tuple[GatewayServer, ...],
    reported: Side,
    challenges: Challenges | None,
    tokens: Tokens,
    screen: Screen,
    ipv6: bool,
) -> Resource | None:
    """None while nothing is routed from the port."""
    chains: list[Any] = []
    taken = Taken()
    for server in servers:
        # The oldest Gateway wins; the other one's status says so.
        seen = reported.at(server.port, server.target)
        requests = [_requests(server, where, seen, challenges is not None, tokens, screen)] if server.route else None
        found = requests or _connections(server, seen, screen)
        for sni, ranges, chain in found:
            for match in taken.left(sni, ranges):
                made = lc.FilterChain()
                made.CopyFrom(chain)
                made.filter_chain_match.MergeFrom(match)
                chains.append(made)
    shown = acme.chains(challenges, place, chains)
    chains += shown
    if not chains:
        return None
    secure = bool(shown) or any(s.tls or s.passthrough for s in servers)
    out = listener_pb2.Listener(
        name=f"{place[0]}_{place[1]}",
        address=pb.address(*place),
        filter_chains=chains,
        listener_filters=[
            *([tcp.proxy_protocol()] if where.proxy_protocol else []),
            *([tcp.tls_inspector()] if secure else []),
        ],
        access_log=telemetry.refused(reported),
        max_connections_to_accept_per_socket_event=pb.u32(tcp.ACCEPTED_AT_ONCE),
        per_connection_buffer_limit_bytes=tcp.buffered(reported),
        traffic_direction="OUTBOUND",
    )
    causes = [origin for s in servers for origin in s.origins]
    causes += screen.origins if servers else ()
    causes += [str(h.ref) for h in reported.hooks]
    causes += [str(r.rule) for s in servers for r in s.connections]
    causes += [challenges.origin] if challenges and shown else []
    return pb.resource(out.name, pb.also(out, ipv6), tuple(dict.fromkeys((*causes, *reported.origins))))


def of_view(view: GatewayView, screen: Screen, accepted: Authentication, seen: Side) -> tuple[Resource, ...]:
    """``accepted``: the tokens whose claims are headers."""
    places = view.challenges.places if view.challenges else ()
    by_place: dict[tuple[str, int], list[GatewayServer]] = {place: [] for place in places}
    for s in view.servers:
        if s.datagrams is None:
            by_place.setdefault((s.bind, s.target), []).append(s)
    tokens = tuple(rule for rule, _ in accepted)
    made = (
        _listener(place, view.place, tuple(servers), seen, view.challenges, tokens, screen, view.ipv6)
        for place, servers in sorted(by_place.items())
    )
    return (*(m for m in made if m is not None), *datagrams.listeners(view))
