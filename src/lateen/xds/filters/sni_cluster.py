"""AUTO_PASSTHROUGH: the SNI of mesh TLS (``outbound_.80_._.host``) names the cluster."""

from __future__ import annotations

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.sni_cluster.v3 import sni_cluster_pb2

from lateen.xds import pb
from lateen.xds.filters.chain import Connections


def network(chain: Connections) -> list[lc.Filter]:
    if not chain.by_sni:
        return []
    return [lc.Filter(name="envoy.filters.network.sni_cluster", typed_config=pb.any_of(sni_cluster_pb2.SniCluster()))]
