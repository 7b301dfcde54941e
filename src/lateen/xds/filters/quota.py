"""Global rate limits (their configuration is in ``xds.quotas``): a slot for each rule of a port or of a gateway's
server, so that a limit can change without the listener."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.mesh.gateway_view import GatewayServer
from lateen.mesh.inbound_view import InboundPort
from lateen.mesh.outbound_view import Limits
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb, quotas
from lateen.xds.filters.chain import HttpFilter, Requests

_TYPE = "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig"


def http(chain: Requests) -> list[HttpFilter]:
    return [_slot(names.of_workload(name, chain.workload)) for name in chain.quotas]


@lru_cache(maxsize=4096)
def _slot(name: str) -> hcm.HttpFilter:
    # connections of a draining chain outlive the limit: without a default, Envoy would answer them with 500
    source = config_source_pb2.ExtensionConfigSource(
        config_source=pb.ads(), type_urls=[_TYPE], default_config=pb.any_of(quotas.nothing())
    )
    return hcm.HttpFilter(name=name, config_discovery=source)


def slots(port: InboundPort) -> tuple[str, ...]:
    return tuple(f"{quotas.PREFIX}.{n}.{port.port.number}" for n in range(quotas.most([port.limits])))


def at_gateway(server: GatewayServer) -> tuple[str, ...]:
    return tuple(f"{quotas.PREFIX}.{n}.{server.route}" for n in range(quotas.most(_of(server))))


def _of(server: GatewayServer) -> list[Limits]:
    """The distinct sets of limits of a server."""
    return list(dict.fromkeys(limits for _, limits in server.limits))


def extensions(port: InboundPort, workload: str = "") -> Iterator[Resource]:
    """The contents of a port's slots."""
    for position, slot in enumerate(slots(port)):
        policy, _, _ = quotas.rules(port.limits)[position]
        yield _resource(names.of_workload(slot, workload), quotas.at_port(port.limits, position), str(policy.ref))


def of_server(server: GatewayServer) -> Iterator[Resource]:
    """The contents of the slots of a gateway's server."""
    origins = dict.fromkeys(str(p.ref) for limits in _of(server) for p in limits)
    for position, slot in enumerate(at_gateway(server)):
        yield _resource(slot, quotas.at_gateway(_of(server), position), *origins)


def _resource(name: str, config: quotas.Config, *origins: str) -> Resource:
    return pb.resource(name, extension_pb2.TypedExtensionConfig(name=name, typed_config=pb.any_of(config)), origins)
