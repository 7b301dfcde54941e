"""Listeners of gateway workloads: one for each port that a Gateway names."""

from __future__ import annotations

from functools import lru_cache

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2

from lateen.mesh.view import GatewayServer, GatewayView
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.authz import filters as authz
from lateen.xds.listeners import http


@lru_cache(maxsize=1024)
def _server(server: GatewayServer) -> Resource:
    name = f"0.0.0.0_{server.target}"
    chain = lc.FilterChain(
        filters=[
            http.manager(
                server.config,
                "gateway",
                f"outbound_{name}",
                rds=f"http.{server.port}",
                authorization=authz.of_workload(server.config, server.authorization, tcp=False),
            )
        ]
    )
    out = listener_pb2.Listener(
        name=name, address=pb.address("0.0.0.0", server.target), filter_chains=[chain], traffic_direction="OUTBOUND"
    )
    return pb.resource(name, out, (*server.origins, *(str(p.ref) for p in server.authorization)))


def of_view(view: GatewayView) -> tuple[Resource, ...]:
    return tuple(_server(s) for s in view.servers)
