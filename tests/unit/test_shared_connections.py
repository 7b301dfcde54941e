"""Requests of many callers share HTTP/2 connections: an invalid header of one of them ends its own stream alone."""

import pytest
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as upstream

from lateen.xds.listeners import http
from lateen.xds.pools import http_options


@pytest.mark.parametrize("kind", ["h2", "downstream"])
def test_an_invalid_response_header_ends_nobody_elses_request(kind):
    found = upstream.HttpProtocolOptions()
    assert http_options(kind).Unpack(found)
    chosen = found.explicit_http_config if kind == "h2" else found.use_downstream_protocol_config
    assert chosen.http2_protocol_options.override_stream_error_on_invalid_http_message.value


def test_an_invalid_request_header_ends_nobody_elses_request():
    assert http._HTTP2.override_stream_error_on_invalid_http_message.value
