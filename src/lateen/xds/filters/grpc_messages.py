"""Counts the messages of gRPC; off for virtual hosts that do not want it (``routes.action.count_messages``)."""

from __future__ import annotations

from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2

from lateen.xds import pb
from lateen.xds.filters.chain import HttpFilter, Requests, http_filter
from lateen.xds.standard_metrics import GRPC_FILTER


def http(chain: Requests) -> list[HttpFilter]:
    if not chain.messages:
        return []
    config = config_pb2.FilterConfig(emit_filter_state=True, stats_for_all_methods=pb.boolean(False))
    return [http_filter(GRPC_FILTER, config, disabled=True)]
