"""Envoy's Redis proxy, if the mesh is configured to use it: balances commands instead of connections; needs a single
cluster."""

from __future__ import annotations

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.redis_proxy.v3 import redis_proxy_pb2

from lateen.xds import pb
from lateen.xds.filters.chain import Connections

OPERATION_S = 5.0


def wanted(chain: Connections) -> bool:
    return chain.protocol == "redis" and chain.redis


def network(chain: Connections) -> list[lc.Filter]:
    if not wanted(chain):
        return []
    cluster = chain.clusters[0][0]
    found = redis_proxy_pb2.RedisProxy(stat_prefix=cluster)
    found.settings.op_timeout.CopyFrom(pb.duration(OPERATION_S))
    found.prefix_routes.catch_all_route.cluster = cluster
    return [lc.Filter(name="envoy.filters.network.redis_proxy", typed_config=pb.any_of(found))]
