"""Rate limits at the ports of workloads and at gateways (``xds.rate_limits`` has what they are).

At a workload's ports the filter is a slot whose configuration is delivered separately (ECDS): a changed limit drains no
listener, only the first one of a port does. At gateways it is there where some route has limits, and on for those.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.mesh.view import GatewayServer, InboundPort
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.filters.chain import HttpFilter, Requests, http_filter
from lateen.xds.rate_limits import ENFORCED, SHADOW, config, nothing

_TYPE = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


def http(chain: Requests) -> list[HttpFilter]:
    if chain.kind == "gateway":
        return [http_filter(name, nothing(name), disabled=True) for name in chain.limits]
    return [_slot(name, chain.workload) for name in chain.limits]


@lru_cache(maxsize=1024)
def _slot(name: str, workload: str) -> hcm.HttpFilter:
    # Connections of a chain that drains outlive the limit: without a default, Envoy would answer them with 500.
    source = config_source_pb2.ExtensionConfigSource(
        config_source=pb.ads(), type_urls=[_TYPE], default_config=pb.any_of(nothing(name.rpartition(".")[0]))
    )
    return hcm.HttpFilter(name=names.of_workload(name, workload), config_discovery=source)


def at_gateway(server: GatewayServer) -> tuple[str, ...]:
    return (ENFORCED, SHADOW) if server.limits else ()


def slots(port: InboundPort) -> tuple[str, ...]:
    """The names of a port's slots: both, so that rules can change without the listener."""
    return tuple(f"{kind}.{port.port.number}" for kind in (ENFORCED, SHADOW)) if port.limits else ()


def extensions(port: InboundPort, workload: str = "") -> Iterator[Resource]:
    """The contents of a port's slots."""
    for slot in slots(port):
        kind, name = slot.rpartition(".")[0], names.of_workload(slot, workload)
        held = pb.any_of(config(port.limits, kind) or nothing(kind))
        message = extension_pb2.TypedExtensionConfig(name=name, typed_config=held)
        yield pb.resource(name, message, tuple(str(p.ref) for p in port.limits))
