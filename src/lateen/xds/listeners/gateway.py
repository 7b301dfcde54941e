"""Listeners of gateway workloads: one for each port, with a filter chain for each server that differs by SNI."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2

from lateen.api import networking as api
from lateen.api import objects as o
from lateen.mesh.view import GatewayServer, GatewayView
from lateen.wire.resource import Resource
from lateen.xds import pb, tls
from lateen.xds.authz import filters as authz
from lateen.xds.listeners import http, tcp
from lateen.xds.routes import connections
from lateen.xds.routes.virtual_host import destination_port

ALPN = ("h2", "http/1.1")


def _match(names: tuple[str, ...]) -> Any:
    """Envoy takes the most specific name; a chain without one takes what is left."""
    return lc.FilterChainMatch(server_names=names) if names else None


def _requests(server: GatewayServer) -> Any:
    """A chain whose requests are routed."""
    name = f"0.0.0.0_{server.target}"
    filters = [
        http.manager(
            server.config,
            "gateway",
            f"outbound_{name}",
            rds=server.route,
            authorization=authz.of_workload(server.config, server.authorization, tcp=False),
        )
    ]
    chain = lc.FilterChain(filters=filters, filter_chain_match=_match(server.sni))
    if server.tls:
        chain.transport_socket.CopyFrom(tls.gateway(server.tls, ALPN, server.config.trust_domain))
    return chain


def _connections(server: GatewayServer) -> list[Any]:
    """Chains that forward connections: by name where TLS passes through, else by the first route."""

    def resolve(d: api.Destination, vs: o.Resource[api.VirtualService]) -> tuple[str, int]:
        full, ports = server.resolved(d.host, vs.ref.namespace)
        return full, destination_port(d, ports, server.port)

    rules = [(vs, gateways) for vs, _, gateways in server.virtual_services]
    allowed = authz.of_workload(server.config, server.authorization, tcp=True)
    if server.passthrough:
        found = connections.tls(rules, server.port, resolve)
    else:
        one = connections.tcp(rules, server.port, resolve)
        found = [one._replace(sni=server.sni)] if one else []
    out = []
    for route in found:
        if not route.clusters:
            continue
        filters = [*allowed, tcp.weighted(server.config, route.clusters)]
        chain = lc.FilterChain(filters=filters, filter_chain_match=_match(route.sni))
        if server.tls:
            chain.transport_socket.CopyFrom(tls.gateway(server.tls, (), server.config.trust_domain))
        out.append(chain)
    return out


@lru_cache(maxsize=1024)
def _listener(target: int, servers: tuple[GatewayServer, ...]) -> Resource | None:
    """None where nothing is behind the port yet."""
    chains: list[Any] = []
    taken: set[tuple[str, ...]] = set()
    for server in servers:
        for chain in [_requests(server)] if server.route else _connections(server):
            names = tuple(sorted(chain.filter_chain_match.server_names))
            if names not in taken:  # the oldest gateway wins; the other one's object says so in its status
                taken.add(names)
                chains.append(chain)
    if not chains:
        return None
    secure = any(s.tls or s.passthrough for s in servers)
    out = listener_pb2.Listener(
        name=f"0.0.0.0_{target}",
        address=pb.address("0.0.0.0", target),
        filter_chains=chains,
        listener_filters=[tcp.tls_inspector()] if secure else [],
        traffic_direction="OUTBOUND",
    )
    origins = [origin for s in servers for origin in s.origins]
    origins += [str(p.ref) for s in servers for p in s.authorization]
    origins += [str(vs.ref) for s in servers if not s.route for vs, _, _ in s.virtual_services]
    return pb.resource(out.name, out, tuple(dict.fromkeys(origins)))


def of_view(view: GatewayView) -> tuple[Resource, ...]:
    by_target: dict[int, list[GatewayServer]] = {}
    for s in view.servers:
        by_target.setdefault(s.target, []).append(s)
    made = (_listener(target, tuple(servers)) for target, servers in sorted(by_target.items()))
    return tuple(m for m in made if m is not None)
