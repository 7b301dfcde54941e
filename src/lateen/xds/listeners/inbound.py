"""What comes to the application: captured on 15006, told apart by port and by whether it is mesh TLS."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2

from lateen.api import objects as o
from lateen.mesh.view import InboundView, Port
from lateen.wire import names, ports
from lateen.wire.resource import Resource
from lateen.xds import pb, telemetry, tls
from lateen.xds.authz import filters as authz
from lateen.xds.listeners import http, tcp
from lateen.xds.routes import virtual_host

ALPN_SERVER = ("h2", "http/1.1")


def _match(port: int | None, mesh_tls: bool | None) -> Any:
    out = lc.FilterChainMatch()
    if port is not None:
        out.destination_port.value = port
    if mesh_tls:
        out.transport_protocol = "tls"
        out.application_protocols.extend(tls.MESH_ALPN)
    elif mesh_tls is False:
        out.transport_protocol = "raw_buffer"
    return out


def _server(view: InboundView, service: o.Service | None, secure: bool, name: str = "unknown") -> telemetry.Server:
    return telemetry.Server(
        "mutual_tls" if secure else "none",
        service.host if service else name,
        service.name if service else name,
        view.pod.namespace,
    )


def _port_chains(view: InboundView, port: Port, service: o.Service | None) -> list[Any]:
    """Mutual TLS and plain text, as the workload's mode allows. What matches no chain is reset."""
    out = []
    is_http = port.protocol in ("http", "http2", "grpc")
    name = f"0.0.0.0_{port.number}"
    mode = dict(view.mtls_ports).get(port.number, view.mtls)
    allowed = authz.of_workload(view.config, view.authorization, tcp=not is_http)
    for secure in (True, False):
        if (secure and mode == "DISABLE") or (not secure and mode == "STRICT"):
            continue
        server = _server(view, service, secure)
        if is_http:
            route = virtual_host.inbound(port)
            stat = f"inbound_{name}"
            filters = [http.manager(view.config, "inbound", stat, route=route, server=server, authorization=allowed)]
        else:
            filters = [*allowed, tcp.proxy(view.config, names.inbound(port.number), server)]
        chain = lc.FilterChain(name=name, filters=filters, filter_chain_match=_match(port.number, secure))
        if secure:
            alpn = ALPN_SERVER if is_http else tls.ALPN_TCP
            chain.transport_socket.CopyFrom(tls.downstream(alpn, view.config.trust_domain))
        out.append(chain)
    if not is_http and mode != "STRICT":
        # The application's own TLS passes through.
        match = lc.FilterChainMatch(transport_protocol="tls")
        match.destination_port.value = port.number
        filters = [*allowed, tcp.proxy(view.config, names.inbound(port.number), _server(view, service, False))]
        out.append(lc.FilterChain(name=name, filter_chain_match=match, filters=filters))
    return out


def _rest_chains(view: InboundView) -> list[Any]:
    """Ports that no service leads to."""
    hole = lc.FilterChainMatch()
    hole.destination_port.value = ports.INBOUND
    out = [
        lc.FilterChain(
            name="virtualInbound-blackhole", filter_chain_match=hole, filters=[tcp.proxy(view.config, names.BLACK_HOLE)]
        )
    ]
    known = {p.number for p, _ in view.ports}
    single = [(number, mode) for number, mode in view.mtls_ports if number not in known]
    for number, mode in [(None, view.mtls), *single]:
        out += _passthrough(view, number, mode)
    return out


def _passthrough(view: InboundView, port: int | None, mode: str) -> list[Any]:
    """To where the client wanted to go; ``port`` is None for all ports without a chain of their own."""
    out = []
    allowed = authz.of_workload(view.config, view.authorization, tcp=True)
    for secure in (True, False):
        if (secure and mode == "DISABLE") or (not secure and mode == "STRICT"):
            continue
        server = _server(view, None, secure, names.INBOUND_PASSTHROUGH)
        match = _match(port, True if secure else None)
        chain = lc.FilterChain(
            name="virtualInbound" if port is None else f"virtualInbound-{port}",
            filters=[*allowed, tcp.proxy(view.config, names.INBOUND_PASSTHROUGH, server)],
            filter_chain_match=match,
        )
        if secure:
            chain.transport_socket.CopyFrom(tls.downstream(tls.ALPN_TCP, view.config.trust_domain))
        out.append(chain)
    return out


@lru_cache(maxsize=4096)
def of_view(view: InboundView) -> tuple[Resource, ...]:
    chains = _rest_chains(view)
    for port, service in view.ports:
        chains += _port_chains(view, port, service)
    out = listener_pb2.Listener(
        name=names.VIRTUAL_INBOUND,
        address=pb.address("0.0.0.0", ports.INBOUND),
        filter_chains=chains,
        listener_filters=[tcp.original_dst(), tcp.tls_inspector()],
        traffic_direction="INBOUND",
        listener_filters_timeout=pb.duration(5),
        continue_on_listener_filters_timeout=True,
    )
    policies = [str(p.ref) for p in view.authorization]
    return (pb.resource(out.name, out, (*((str(view.policy),) if view.policy else ()), *policies)),)
