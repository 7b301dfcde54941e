"""Cross-origin requests; the allowed origins are settings of routes."""

from __future__ import annotations

from envoy.extensions.filters.http.cors.v3 import cors_pb2

from lateen.xds.filters.chain import HttpFilter, Requests, http_filter

NAME = "envoy.filters.http.cors"


def http(chain: Requests) -> list[HttpFilter]:
    return [] if chain.kind == "inbound" else [http_filter(NAME, cors_pb2.Cors(), disabled=True)]
