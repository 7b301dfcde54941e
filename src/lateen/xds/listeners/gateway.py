"""Listeners of gateway workloads: one for each port, with a filter chain for each server that differs by SNI."""

from __future__ import annotations

from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2

from lateen.mesh.observability import Side
from lateen.mesh.proxies import Place
from lateen.mesh.view import GatewayServer, GatewayView
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb, tls
from lateen.xds.filters import authorization, order, quota, rate_limit, security
from lateen.xds.filters.chain import Connections, Requests
from lateen.xds.listeners import datagrams, http, tcp
from lateen.xds.listeners.chains import Taken
from lateen.xds.routes import connections

ALPN = ("h2", "http/1.1")


Found = tuple[tuple[str, ...], tuple[str, ...], Any]
"""(SNI names, destination ranges, the filter chain without its match for these)"""


def _requests(server: GatewayServer, where: Place, seen: Side) -> Found:
    """The chain of a server that routes requests."""
    access = server.authorization
    limits, secured = rate_limit.at_gateway(server), security.at_gateway(server)
    requests = Requests(
        "gateway",
        asks=authorization.asks(access),
        paths=access.paths,
        limits=limits,
        quotas=quota.at_gateway(server),
        audits=authorization.audits(access),
        secured=security.slots(secured),
        logins=security.with_logins(secured),
    )
    stat = f"outbound_0.0.0.0_{server.target}"
    filters = http.filters(seen, requests, stat, rds=server.route, place=where)
    chain = lc.FilterChain(name=server.name, filters=filters)
    if server.tls:
        chain.transport_socket.CopyFrom(tls.gateway(server.tls, ALPN, server.trust_domains))
    return server.sni, (), chain


def _connections(server: GatewayServer, seen: Side) -> list[Found]:
    """Chains that forward connections: by SNI where TLS passes through, else by destination."""

    if server.automatic:
        return [_by_cluster_name(server, seen)]
    out = []
    for route in server.connections:
        clusters = connections.clusters(route)
        if not clusters:
            continue
        filters = tcp.weighted(seen, clusters, access=server.authorization)
        chain = lc.FilterChain(name=server.name, filters=filters)
        if server.tls:
            chain.transport_socket.CopyFrom(tls.gateway(server.tls, (), server.trust_domains))
        out.append((route.sni if server.passthrough or route.sni else server.sni, route.subnets, chain))
    return out


def _by_cluster_name(server: GatewayServer, seen: Side) -> Found:
    """AUTO_PASSTHROUGH: the SNI of mesh TLS (``outbound_.80_._.host``) names the cluster."""
    match = lc.FilterChainMatch(application_protocols=tls.MESH_ALPN)
    otherwise = ((names.BLACK_HOLE, 100),)
    filters = order.network(Connections(seen, otherwise, access=server.authorization, by_sni=True))
    return server.sni, (), lc.FilterChain(filters=filters, filter_chain_match=match)


def _listener(
    place: tuple[str, int], where: Place, servers: tuple[GatewayServer, ...], reported: Side
) -> Resource | None:
    """None while nothing is routed from the port."""
    chains: list[Any] = []
    taken = Taken()
    for server in servers:
        # The oldest Gateway wins; the other one's status says so.
        seen = reported.at(server.port, server.target)
        found = [_requests(server, where, seen)] if server.route else _connections(server, seen)
        for sni, ranges, chain in found:
            for match in taken.left(sni, ranges):
                made = lc.FilterChain()
                made.CopyFrom(chain)
                made.filter_chain_match.MergeFrom(match)
                chains.append(made)
    if not chains:
        return None
    secure = any(s.tls or s.passthrough for s in servers)
    out = listener_pb2.Listener(
        name=f"{place[0]}_{place[1]}",
        address=pb.address(*place),
        filter_chains=chains,
        listener_filters=[
            *([tcp.proxy_protocol()] if where.proxy_protocol else []),
            *([tcp.tls_inspector()] if secure else []),
        ],
        max_connections_to_accept_per_socket_event=pb.u32(tcp.ACCEPTED_AT_ONCE),
        traffic_direction="OUTBOUND",
    )
    origins = [origin for s in servers for origin in s.origins]
    origins += [str(p.ref) for s in servers for p in s.authorization.policies]
    origins += [str(h.ref) for h in reported.hooks]
    origins += [str(r.rule) for s in servers for r in s.connections]
    return pb.resource(out.name, out, tuple(dict.fromkeys((*origins, *reported.origins))))


def of_view(view: GatewayView, seen: Side) -> tuple[Resource, ...]:
    by_place: dict[tuple[str, int], list[GatewayServer]] = {}
    for s in view.servers:
        if s.datagrams is None:
            by_place.setdefault((s.bind, s.target), []).append(s)
    made = (_listener(place, view.place, tuple(servers), seen) for place, servers in sorted(by_place.items()))
    return (*(m for m in made if m is not None), *datagrams.listeners(view))
