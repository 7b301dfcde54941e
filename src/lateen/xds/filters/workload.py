"""The workload that a connection originates in, for metrics.

A slot sets the values as the connection's filter state; its configuration is a resource of its own (ECDS), one for each
workload. So listeners and routes, which only name the values, are the same bytes for all proxies.
"""

from __future__ import annotations

from functools import lru_cache

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2

from lateen.mesh.workloads import Described, spoken
from lateen.wire import labels, names
from lateen.wire.node import own_key
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.filters.chain import Connections

NAME = "lateen.workload"
_TYPE = "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config"


@lru_cache(maxsize=4096)
def slot(workload: str) -> lc.Filter:
    """``workload``: which of a proxy's (``mesh.workloads.Seat``)."""
    source = config_source_pb2.ExtensionConfigSource(config_source=pb.ads(), type_urls=[_TYPE])
    return lc.Filter(name=names.of_workload(NAME, workload), config_discovery=source)


def network(chain: Connections) -> list[lc.Filter]:
    """On the client's side and at gateways: an inbound chain belongs to one workload, whose values stand in it."""
    return [slot(chain.seen.workload)] if chain.server is None else []


def resource(identity: Described, workload: str = "") -> Resource:
    """What the slot holds for a workload."""
    state = {own_key(k): v for k, v in identity}
    state[own_key(labels.OF_DESCRIPTION)] = spoken(identity)
    config = set_filter_state_pb2.Config()
    for key, value in state.items():
        found = config.on_new_connection.add(object_key=key, factory_key="envoy.string", read_only=True)
        found.format_string.text_format_source.inline_string = value.replace("%", "%%")
    name = names.of_workload(NAME, workload)
    return pb.resource(name, extension_pb2.TypedExtensionConfig(name=name, typed_config=pb.any_of(config)))
