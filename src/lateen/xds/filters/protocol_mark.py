"""Tells the server's sidecar, by the ALPN of mutual TLS, what connections hold where their cluster's ALPN would tell
something else: requests on ports of unknown protocol (disabled for all other ports), and bytes on ports of HTTP, which
the other end would take for the HTTP version that the cluster announces."""

from __future__ import annotations

from functools import cache

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2 as connection_pb2

from lateen.xds import pb
from lateen.xds.filters.chain import Connections, HttpFilter, NetworkFilter, Requests, http_filter
from lateen.xds.tls import ALPN_TCP

NAME = "envoy.filters.http.set_filter_state"
OF_BYTES = "envoy.filters.network.set_filter_state"
KEY = "envoy.network.application_protocols"
"""The filter state that replaces a cluster's ALPN"""


def http(chain: Requests) -> list[HttpFilter]:
    if chain.kind == "inbound":
        return []
    return [http_filter(NAME, set_filter_state_pb2.Config(), disabled=True)]


def network(chain: Connections) -> list[NetworkFilter]:
    return [_of_bytes()] if chain.bytes_on_http else []


@cache
def _of_bytes() -> lc.Filter:
    value = value_pb2.FilterStateValue(object_key=KEY)
    value.format_string.text_format_source.inline_string = ",".join(ALPN_TCP)
    return lc.Filter(name=OF_BYTES, typed_config=pb.any_of(connection_pb2.Config(on_new_connection=[value])))
