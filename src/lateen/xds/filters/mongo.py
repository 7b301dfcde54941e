"""Counts MongoDB commands."""

from __future__ import annotations

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.mongo_proxy.v3 import mongo_proxy_pb2

from lateen.xds import pb
from lateen.xds.filters.chain import Connections


def network(chain: Connections) -> list[lc.Filter]:
    if chain.protocol != "mongo":
        return []
    found = mongo_proxy_pb2.MongoProxy(stat_prefix=chain.clusters[0][0])
    return [lc.Filter(name="envoy.filters.network.mongo_proxy", typed_config=pb.any_of(found))]
