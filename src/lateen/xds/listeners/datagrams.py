"""UDP ports of gateway workloads, which Envoy's UDP proxy forwards: one session for each client.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/udp_filters/udp_proxy.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2, udp_listener_config_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2, udp_proxy_pb2

from lateen.mesh.gateway_view import GatewayServer, GatewayView
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import origins, pb

NAME = "envoy.filters.udp_listener.udp_proxy"


def listeners(view: GatewayView) -> Iterator[Resource]:
    """A port that nothing is routed from is not open; of several servers of a port the first one has it."""
    first: dict[tuple[str, int], GatewayServer] = {}
    for server in view.servers:
        if server.datagrams is not None and server.datagrams.shares:
            first.setdefault((server.bind, server.target), server)
    for (bind, port), server in sorted(first.items(), key=lambda found: found[0]):
        yield _listener(bind, port, server, view.ipv6)


def _listener(bind: str, port: int, server: GatewayServer, ipv6: bool) -> Resource:
    found = udp_proxy_pb2.UdpProxyConfig(stat_prefix=f"udp_{port}")
    action = found.matcher.on_no_match.action
    action.name = "route"
    action.typed_config.CopyFrom(pb.any_of(route_pb2.Route(cluster=names.datagrams(port))))
    address = pb.address(bind, port)
    address.socket_address.protocol = address_pb2.SocketAddress.Protocol.Value("UDP")
    out = listener_pb2.Listener(
        name=f"{bind}_{port}_udp",
        address=address,
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(),
        listener_filters=[lc.ListenerFilter(name=NAME, typed_config=pb.any_of(found))],
        traffic_direction="OUTBOUND",
    )
    pb.also(out, ipv6)
    if server.datagrams is None or server.datagrams.route is None:
        return pb.resource(out.name, out, server.origins)
    route = server.datagrams.route
    out.metadata.CopyFrom(origins.metadata(route.rule, route.name))
    return pb.resource(out.name, out, tuple(dict.fromkeys((*server.origins, str(route.rule)))))
