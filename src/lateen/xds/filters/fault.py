"""Fault injection; the faults are settings of routes."""

from __future__ import annotations

from envoy.extensions.filters.http.fault.v3 import fault_pb2

from lateen.xds.filters.chain import HttpFilter, Requests, http_filter

NAME = "envoy.filters.http.fault"


def http(chain: Requests) -> list[HttpFilter]:
    return [] if chain.kind == "inbound" else [http_filter(NAME, fault_pb2.HTTPFault(), disabled=True)]
