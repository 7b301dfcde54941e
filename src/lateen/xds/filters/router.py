"""Forwards requests. Its own statistics are off: Istio's come from the access logger."""

from __future__ import annotations

from envoy.extensions.filters.http.router.v3 import router_pb2

from lateen.xds import pb
from lateen.xds.filters.chain import HttpFilter, Requests, http_filter

NAME = "envoy.filters.http.router"


def http(chain: Requests) -> list[HttpFilter]:
    quiet = not chain.envoy_headers
    return [http_filter(NAME, router_pb2.Router(dynamic_stats=pb.boolean(False), suppress_envoy_headers=quiet))]
