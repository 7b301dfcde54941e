"""Fault injection; the faults are settings of routes."""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.http.fault.v3 import fault_pb2

from lateen.xds.filters.chain import Requests, http_filter

NAME = "envoy.filters.http.fault"


def http(chain: Requests) -> list[Any]:
    return [] if chain.kind == "inbound" else [http_filter(NAME, fault_pb2.HTTPFault(), disabled=True)]
