"""Resolves the host that a request names (ServiceEntries with resolution DYNAMIC_DNS)."""

from __future__ import annotations

from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2

from lateen.xds import discovery
from lateen.xds.filters.chain import HttpFilter, Requests, http_filter

NAME = "envoy.filters.http.dynamic_forward_proxy"


def http(chain: Requests) -> list[HttpFilter]:
    if not chain.dynamic:
        return []
    config = dynamic_forward_proxy_pb2.FilterConfig(dns_cache_config=discovery.dns_cache(chain.dynamic))
    return [http_filter(NAME, config, disabled=True)]
