"""Marks requests on ports of unknown protocol for the server's sidecar; disabled for all other ports."""

from __future__ import annotations

from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2

from lateen.xds.filters.chain import HttpFilter, Requests, http_filter

NAME = "envoy.filters.http.set_filter_state"


def http(chain: Requests) -> list[HttpFilter]:
    if chain.kind == "inbound":
        return []
    return [http_filter(NAME, set_filter_state_pb2.Config(), disabled=True)]
