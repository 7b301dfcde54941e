"""The workload that a connection originates in, for metrics: values of the connection's filter state.

On the client's side a slot sets them; its configuration is a resource of its own (ECDS), one for each workload. So
listeners and routes, which only name the values, are the same bytes for all proxies. On the server's side they come
from the caller's certificate, once for each connection: to read the description there costs half as much as a whole
line about a request (``wire.requests``), and more if there is none.
"""

from __future__ import annotations

from functools import cache, lru_cache

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from xds.type.v3 import typed_struct_pb2

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


@cache
def caller() -> lc.Filter:
    """Whose connection it is by the certificate, known once TLS has shaken hands. As a ``TypedStruct``, because the
    field is newer than our messages (Envoy 1.37)."""
    config = typed_struct_pb2.TypedStruct(type_url=_TYPE)
    said = "%DOWNSTREAM_PEER_OTHERNAME_SAN%"
    formats = {labels.OF_DESCRIPTION: said, labels.OF_IDENTITY: f"{said}{labels.PIECE}%DOWNSTREAM_PEER_URI_SAN%"}
    state = config.value.get_or_create_list("on_downstream_tls_handshake")
    for key, text in formats.items():
        found = state.add_struct()
        found.update({"object_key": own_key(key), "factory_key": "envoy.string", "read_only": True})
        found.get_or_create_struct("format_string").update({"text_format_source": {"inline_string": text}})
    return lc.Filter(name="lateen.caller", typed_config=pb.any_of(config))


def resource(identity: Described, workload: str = "") -> Resource:
    """What the slot holds for a workload."""
    state = {own_key(k): v for k, v in identity}
    said, principal = spoken(identity), state[own_key("principal")]
    state[own_key(labels.OF_DESCRIPTION)] = said
    state[own_key(labels.OF_IDENTITY)] = f"{said}{labels.PIECE}{principal}"
    config = set_filter_state_pb2.Config()
    for key, value in state.items():
        found = config.on_new_connection.add(object_key=key, factory_key="envoy.string", read_only=True)
        found.format_string.text_format_source.inline_string = value.replace("%", "%%")
    name = names.of_workload(NAME, workload)
    return pb.resource(name, extension_pb2.TypedExtensionConfig(name=name, typed_config=pb.any_of(config)))
