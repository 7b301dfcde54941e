"""What leaves the application: captured on 15001, handed to the listener of its destination."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2

from lateen.api import networking as api
from lateen.api import objects as o
from lateen.mesh.model import MeshConfig
from lateen.mesh.view import HostView, OutboundView
from lateen.wire import names, ports
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.listeners import http, tcp
from lateen.xds.routes import connections
from lateen.xds.routes.virtual_host import destination_port


def _listener(name: str, address: str, port: int, chains: list[Any], filters: list[Any] | None = None) -> Any:
    return listener_pb2.Listener(
        name=name,
        address=pb.address(address, port),
        bind_to_port=pb.boolean(False),
        filter_chains=chains,
        listener_filters=filters or [],
        traffic_direction="OUTBOUND",
        continue_on_listener_filters_timeout=True,
        listener_filters_timeout=pb.duration(5 if filters else 0),
    )


@lru_cache(maxsize=16)
def _virtual(config: MeshConfig) -> Resource:
    unknown = names.PASSTHROUGH if config.outbound_policy == "ALLOW_ANY" else names.BLACK_HOLE
    hole = lc.FilterChain(
        name="virtualOutbound-blackhole",
        filters=[tcp.proxy(config, names.BLACK_HOLE)],
        filter_chain_match=lc.FilterChainMatch(destination_port=pb.u32(ports.OUTBOUND)),
    )
    rest = lc.FilterChain(name="virtualOutbound-catchall-tcp", filters=[tcp.proxy(config, unknown)])
    out = listener_pb2.Listener(
        name=names.VIRTUAL_OUTBOUND,
        address=pb.address("0.0.0.0", ports.OUTBOUND),
        use_original_dst=pb.boolean(True),
        filter_chains=[hole, rest],
        traffic_direction="OUTBOUND",
    )
    return pb.resource(out.name, out)


@lru_cache(maxsize=4096)
def _http(config: MeshConfig, port: int) -> Resource:
    name = f"0.0.0.0_{port}"
    chain = lc.FilterChain(filters=[http.manager(config, "outbound", f"outbound_{name}", rds=str(port))])
    return pb.resource(name, _listener(name, "0.0.0.0", port, [chain]))


def _connections(host: HostView, port: int) -> tuple[list[Any], bool, tuple[str, ...]]:
    """Connections to a service: by name where they say one, by the first TCP route, else to the service itself.

    Returns chains, whether names must be looked at, and the user's objects that this comes from.
    """

    def resolve(d: api.Destination, vs: o.Resource[api.VirtualService]) -> tuple[str, int]:
        full, found = host.resolved(d.host, vs.ref.namespace)
        return full, destination_port(d, found, port)

    rules = [(vs, ("mesh",)) for vs in host.virtual_services]
    named = [r for r in connections.tls(rules, port, resolve) if r.clusters]
    chains = [
        lc.FilterChain(
            filters=[tcp.weighted(host.config, r.clusters)],
            filter_chain_match=lc.FilterChainMatch(server_names=r.sni) if r.sni else None,
        )
        for r in named
    ]
    one = connections.tcp(rules, port, resolve)
    if all(r.sni for r in named):
        clusters = one.clusters if one and one.clusters else ((names.outbound(host.host, port), 100),)
        chains.append(lc.FilterChain(filters=[tcp.weighted(host.config, clusters)]))
    origins = tuple(dict.fromkeys([*(r.origin for r in named), *([one.origin] if one else [])]))
    return chains, bool(named), origins


@lru_cache(maxsize=65536)
def _tcp(host: HostView, port: int) -> Resource:
    name = f"{host.address}_{port}"
    chains, by_name, origins = _connections(host, port)
    filters = [tcp.tls_inspector()] if by_name else []
    return pb.resource(name, _listener(name, host.address, port, chains, filters), origins)


@lru_cache(maxsize=65536)
def _auto(host: HostView, port: int) -> Resource:
    """A port of unknown protocol: HTTP where it looks like it, else connections."""
    name = f"{host.address}_{port}"
    # TLS may promise HTTP inside (ALPN); only plain text is HTTP that can be routed here.
    looks = lc.FilterChainMatch(transport_protocol="raw_buffer", application_protocols=["http/1.1", "h2c"])
    requests = [http.manager(host.config, "outbound", f"outbound_{name}", rds=str(port))]
    chains, by_name, origins = _connections(host, port)
    filters = [*([tcp.tls_inspector()] if by_name else []), tcp.http_inspector()]
    found = [lc.FilterChain(filter_chain_match=looks, filters=requests), *chains]
    return pb.resource(name, _listener(name, host.address, port, found, filters), origins)


@lru_cache(maxsize=16)
def of_view(view: OutboundView) -> tuple[Resource, ...]:
    """HTTP ports share one listener each; TCP and unknown ones have one for each service address."""
    config = view.config
    out = {names.VIRTUAL_OUTBOUND: _virtual(config)}
    for host in view.hosts:
        for port in host.ports:
            if port.protocol in ("http", "http2", "grpc"):
                made = _http(config, port.number)
            elif host.address in ("", "None"):
                continue  # a headless service's endpoints are called by their own addresses
            elif port.protocol == "auto":
                made = _auto(host, port.number)
            else:
                made = _tcp(host, port.number)
            out[made.name] = made
    return tuple(out.values())
