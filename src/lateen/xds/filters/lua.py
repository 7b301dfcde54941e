"""Lua of TrafficExtensions: a slot for each, by its phase, whose script is delivered separately (ECDS).

A script that Envoy cannot load is refused alone: its slot does nothing, and the status of the TrafficExtension says
why. Source: https://istio.io/latest/docs/reference/config/proxy_extensions/.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.api import extensions as api
from lateen.mesh.view import Scripts
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.filters.chain import HttpFilter, Requests
from lateen.xds.filters.slots import LUA

_TYPE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
SERVERS, GATEWAYS = ("SERVER",), ("CLIENT",)
_BOTH = ("UNDEFINED", "CLIENT_AND_SERVER")
Row = Callable[[Requests], list[HttpFilter]]


def _phase(*phases: str) -> Row:
    return lambda chain: [_slot(name, chain.workload) for phase, name in chain.scripts if phase in phases]


before_authentication, before_authorization, others = _phase("AUTHN"), _phase("AUTHZ"), _phase("STATS", "UNSPECIFIED")


def at(scripts: Scripts, modes: tuple[str, ...], ports: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    """(phase, slot) of the scripts for a port, which is known by several numbers. ``modes``: SERVERS at a workload's
    ports; a gateway counts as a client, as in Istio."""
    return tuple((e.spec.phase, _name(e.ref.namespace, e.ref.name)) for e in scripts if _matches(e.spec, modes, ports))


def _matches(spec: api.TrafficExtension, modes: tuple[str, ...], ports: tuple[int, ...]) -> bool:
    return not spec.match or any(
        m.mode in (*_BOTH, *modes) and (not m.ports or any(p and p.number in ports for p in m.ports))
        for m in spec.match
    )


def _name(namespace: str, name: str) -> str:
    return f"{LUA}/{namespace}/{name}"


@lru_cache(maxsize=1024)
def _slot(name: str, workload: str) -> hcm.HttpFilter:
    source = config_source_pb2.ExtensionConfigSource(
        config_source=pb.ads(), type_urls=[_TYPE], default_config=pb.any_of(lua_pb2.Lua())
    )
    return hcm.HttpFilter(name=names.of_workload(name, workload), config_discovery=source)


def extensions(scripts: Scripts, workload: str = "") -> tuple[Resource, ...]:
    """The contents of a workload's slots."""
    out = []
    for e in scripts:
        found = lua_pb2.Lua()
        found.default_source_code.inline_string = e.spec.lua.inline_code if e.spec.lua else ""
        name = names.of_workload(_name(e.ref.namespace, e.ref.name), workload)
        message = extension_pb2.TypedExtensionConfig(name=name, typed_config=pb.any_of(found))
        out.append(pb.resource(name, message, (str(e.ref),)))
    return tuple(out)
