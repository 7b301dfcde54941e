"""Session persistence; the sessions are settings of routes (``routes.sessions``)."""

from __future__ import annotations

from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2

from lateen.xds.filters.chain import HttpFilter, Requests, http_filter

NAME = "envoy.filters.http.stateful_session"


def http(chain: Requests) -> list[HttpFilter]:
    config = stateful_session_pb2.StatefulSession()
    return [] if chain.kind == "inbound" else [http_filter(NAME, config, disabled=True)]
