"""Resolves the SNI of a connection (ServiceEntries with resolution DYNAMIC_DNS)."""

from __future__ import annotations

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3 import sni_dynamic_forward_proxy_pb2

from lateen.xds import discovery, pb
from lateen.xds.filters.chain import Connections

NAME = "envoy.filters.network.sni_dynamic_forward_proxy"


def network(chain: Connections) -> list[lc.Filter]:
    if chain.resolved is None:
        return []
    lookup, port = chain.resolved
    found = sni_dynamic_forward_proxy_pb2.FilterConfig(dns_cache_config=discovery.dns_cache(lookup), port_value=port)
    return [lc.Filter(name=NAME, typed_config=pb.any_of(found))]
