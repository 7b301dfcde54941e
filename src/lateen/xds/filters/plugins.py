"""The user's Lua and Wasm plugins: a slot for each, by its phase, whose content is delivered separately (ECDS).

A plugin that Envoy cannot load affects only itself: its slot keeps the former version, otherwise it lets requests pass
or answers 500, depending on whether it fails open or closed; the object's status has the reason. A module that could
not be fetched denies everything, as in Istio, unless it is to fail open.

Source: https://istio.io/latest/docs/reference/config/proxy_extensions/; istio.io/istio
``pilot/pkg/model/extensions.go``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.http.wasm.v3 import wasm_pb2 as http_wasm_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.wasm.v3 import wasm_pb2 as network_wasm_pb2
from envoy.extensions.wasm.v3 import wasm_pb2
from google.protobuf import wrappers_pb2

from lateen.api.extensions import WasmConfig
from lateen.kit.derived import derived
from lateen.mesh.plugins import Hook, Plugin
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.filters.chain import Connections, HttpFilter, NetworkFilter, Requests
from lateen.xds.filters.slots import LUA, WASM

_PREFIX = "type.googleapis.com/envoy.extensions.filters."
_LUA = (f"{_PREFIX}http.lua.v3.Lua",)
_HTTP = (f"{_PREFIX}http.wasm.v3.Wasm", f"{_PREFIX}http.rbac.v3.RBAC")
_NETWORK = (f"{_PREFIX}network.wasm.v3.Wasm", f"{_PREFIX}network.rbac.v3.RBAC")
RUNTIME = "envoy.wasm.runtime.v8"
UNAVAILABLE = "lateen_wasm_not_fetched"
"""The statistics prefix of a filter that replaces a module that could not be fetched."""
Strategy = wasm_pb2.FailurePolicy
_STRATEGIES = {"FAIL_CLOSE": "FAIL_CLOSED", "FAIL_OPEN": "FAIL_OPEN", "FAIL_RELOAD": "FAIL_RELOAD"}


def _phase(*phases: str) -> Callable[[Requests], list[HttpFilter]]:
    return lambda chain: [_requests(h, chain.workload) for h in chain.hooks if h.phase in phases and not h.network]


before_authentication, before_authorization, others = _phase("AUTHN"), _phase("AUTHZ"), _phase("STATS", "")


def _connections(*phases: str) -> Callable[[Connections], list[NetworkFilter]]:
    return lambda chain: network(chain.seen.hooks, chain.seen.workload, phases)


connections_first, connections_after = _connections("AUTHN", "AUTHZ"), _connections("STATS", "")


def network(hooks: Iterable[Hook], workload: str, phases: tuple[str, ...]) -> list[NetworkFilter]:
    """The filters of connections, in the order of the phases."""
    found = [h for h in hooks if h.network and h.phase in phases]
    return [_of_connections(h, workload) for h in sorted(found, key=lambda h: phases.index(h.phase))]


def _name(hook: Hook) -> str:
    """For Wasm the one that Istio uses, which EnvoyFilters refer to; not one name for both kinds of filters, since a
    plugin may become one of the other kind while listeners with the former one drain."""
    if hook.wasm:
        of = f"network/{hook.ref.kind.lower()}" if hook.network else hook.ref.kind.lower()
        return f"{WASM}/{of}/{hook.ref.namespace}.{hook.ref.name}"
    return f"{LUA}/{hook.ref.namespace}/{hook.ref.name}"


@lru_cache(maxsize=1024)
def _requests(hook: Hook, workload: str) -> hcm.HttpFilter:
    source = config_source_pb2.ExtensionConfigSource(config_source=pb.ads(), type_urls=_HTTP if hook.wasm else _LUA)
    if hook.open:
        passing = http_rbac_pb2.RBAC() if hook.wasm else lua_pb2.Lua()
        source.default_config.CopyFrom(pb.any_of(passing))
    return hcm.HttpFilter(name=names.of_workload(_name(hook), workload), config_discovery=source)


@lru_cache(maxsize=1024)
def _of_connections(hook: Hook, workload: str) -> lc.Filter:
    source = config_source_pb2.ExtensionConfigSource(config_source=pb.ads(), type_urls=_NETWORK)
    if hook.open:
        source.default_config.CopyFrom(pb.any_of(network_rbac_pb2.RBAC(stat_prefix=UNAVAILABLE)))
    return lc.Filter(name=names.of_workload(_name(hook), workload), config_discovery=source)


def extensions(plugins: Iterable[Plugin], workload: str = "") -> tuple[Resource, ...]:
    """The contents of a workload's slots."""
    return tuple(_content(p, workload) for p in plugins)


@derived
def _content(plugin: Plugin, workload: str) -> Resource:
    hook = plugin.hook("CLIENT") or plugin.hook("SERVER")
    name = names.of_workload(_name(hook), workload) if hook else ""
    message = extension_pb2.TypedExtensionConfig(name=name, typed_config=pb.any_of(_config(plugin, name)))
    return pb.resource(name, message, (str(plugin.ref),))


def _config(plugin: Plugin, name: str) -> Any:
    wasm, module = plugin.wasm, plugin.module
    if wasm is None:
        script = lua_pb2.Lua()
        script.default_source_code.inline_string = plugin.lua
        return script
    network = wasm.type == "NETWORK"
    if module is not None and not module.digest:
        nobody = rbac_pb2.RBAC(action="ALLOW")
        return (
            network_rbac_pb2.RBAC(rules=nobody, stat_prefix=UNAVAILABLE)
            if network
            else http_rbac_pb2.RBAC(rules=nobody, rules_stat_prefix=UNAVAILABLE)
        )
    config = _plugin_config(plugin, wasm, name)
    return network_wasm_pb2.Wasm(config=config) if network else http_wasm_pb2.Wasm(config=config)


def _plugin_config(plugin: Plugin, wasm: WasmConfig, name: str) -> wasm_pb2.PluginConfig:
    out = wasm_pb2.PluginConfig(
        name=name, root_id=wasm.plugin_name, failure_policy=Strategy.Value(_STRATEGIES[wasm.fail_strategy])
    )
    vm = out.vm_config
    vm.runtime = RUNTIME
    if plugin.module is not None:
        vm.code.local.inline_bytes = plugin.module.code
    else:
        vm.code.local.filename = unquote(urlsplit(wasm.url).path)
    for env in wasm.vm_config.env if wasm.vm_config else ():
        if env.value_from == "HOST":
            vm.environment_variables.host_env_keys.append(env.name)
        else:
            vm.environment_variables.key_values[env.name] = env.value
    if wasm.plugin_config is not None:
        text = json.dumps(wasm.plugin_config, separators=(",", ":"), sort_keys=True)
        out.configuration.Pack(wrappers_pb2.StringValue(value=text))
    return out
