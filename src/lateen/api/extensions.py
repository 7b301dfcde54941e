"""extensions.istio.io. Field names and meanings are Istio's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from lateen.api.config import CelRule, Config, Limits, one_target, rules
from lateen.api.networking import PolicyTargetReference, PortSelector, WorkloadSelector

Mode = Literal["UNDEFINED", "CLIENT", "SERVER", "CLIENT_AND_SERVER"]
PluginType = Literal["UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"]
PullPolicy = Literal["UNSPECIFIED_POLICY", "IfNotPresent", "Always"]
FailStrategy = Literal["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"]


class TrafficSelector(Config):
    mode: Mode = "CLIENT_AND_SERVER"
    ports: tuple[PortSelector | None, ...] = ()


class EnvVar(Config):
    RULES = rules(
        CelRule(
            '(has(self.valueFrom) ? self.valueFrom : "") != "HOST" || !has(self.value)',
            "value may only be set when valueFrom is INLINE",
        ),
    )

    name: str
    value: str = ""
    value_from: Literal["INLINE", "HOST"] = "INLINE"


class VMConfig(Config):
    env: Annotated[tuple[EnvVar, ...], Limits(max_items=256)] = ()


class WasmConfig(Config):
    """The fields of a Wasm plugin that both kinds share."""

    url: str = ""
    sha256: str = ""
    image_pull_policy: PullPolicy = "UNSPECIFIED_POLICY"
    image_pull_secret: Annotated[str, Limits(min_length=1)] = ""
    verification_key: str = ""
    plugin_config: dict[str, Any] | None = None
    plugin_name: Annotated[str, Limits(min_length=1)] = ""
    fail_strategy: FailStrategy = "FAIL_CLOSE"
    vm_config: VMConfig | None = None
    type: PluginType = "UNSPECIFIED_PLUGIN_TYPE"


class WasmPlugin(WasmConfig):
    RULES = rules(one_target("selector", "targetRef", "targetRefs"))

    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    phase: Literal["UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"] = "UNSPECIFIED_PHASE"
    priority: int | None = None
    match: tuple[TrafficSelector, ...] = ()


class LuaConfig(Config):
    inline_code: str = ""


class TrafficExtension(Config):
    RULES = rules(one_target("selector", "targetRefs"))

    selector: WorkloadSelector | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    phase: Literal["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"] = "UNSPECIFIED"
    priority: int | None = None
    match: tuple[TrafficSelector, ...] = ()
    wasm: WasmConfig | None = None
    lua: LuaConfig | None = None
