"""gateway.envoyproxy.io: Envoy Gateway's BackendTrafficPolicy, as far as rate limits (SecurityPolicy is in
``api.security_policy``).

Field names and meanings are Envoy Gateway's: https://gateway.envoyproxy.io/docs/api/extension_types/. Lateen also
accepts Services and Istio's Gateways as targets.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from lateen.api.config import Config

FAIL_CLOSED = "lateen.dev/fail-closed"
"""Annotation of a policy: with "true", requests under global limits are refused while no istiod counts them. Lateen's
own; Envoy Gateway has this in its configuration (``rateLimit.failClosed``)."""


class TargetReference(Config):
    group: str = ""
    kind: str = ""
    name: str = ""
    section_name: str = ""


class TargetSelector(Config):
    group: str = ""
    kind: str = ""
    match_labels: dict[str, str] = {}


class HeaderMatch(Config):
    """``Distinct``: the limit applies to each value separately."""

    type: Literal["Exact", "RegularExpression", "Distinct"] = "Exact"
    name: str = ""
    value: str | None = None
    invert: bool = False


class QueryParamMatch(Config):
    type: Literal["Exact", "RegularExpression", "Distinct"] = "Exact"
    name: str = ""
    value: str | None = None
    invert: bool = False


class MethodMatch(Config):
    value: str = ""
    invert: bool = False


class PathMatch(Config):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = ""
    invert: bool = False


class SourceMatch(Config):
    type: Literal["Exact", "Distinct"] = "Exact"
    value: str = ""


class SelectCondition(Config):
    """All conditions that are set must hold; of ``methods``, one must match."""

    headers: tuple[HeaderMatch, ...] = ()
    methods: tuple[MethodMatch, ...] = ()
    path: PathMatch | None = None
    source_cidr: SourceMatch | None = msgspec.field(default=None, name="sourceCIDR")
    query_params: tuple[QueryParamMatch, ...] = ()


class LimitValue(Config):
    requests: int = 0
    unit: Literal["Second", "Minute", "Hour", "Day"] = "Second"


class LimitRule(Config):
    client_selectors: tuple[SelectCondition, ...] = ()
    """The requests that are counted; all if empty."""
    limit: LimitValue | None = None
    shadow_mode: bool = False
    """Shadow mode: requests beyond the limit are counted but not rejected."""
    shared: bool = False
    cost: dict[str, Any] = {}


class LocalLimit(Config):
    rules: tuple[LimitRule, ...] = ()


class GlobalLimit(Config):
    rules: tuple[LimitRule, ...] = ()


class RateLimit(Config):
    type: Literal["Global", "Local"] | None = None
    local: LocalLimit | None = None
    global_: GlobalLimit | None = msgspec.field(default=None, name="global")


class BackendTrafficPolicy(Config):
    target_ref: TargetReference | None = None
    target_refs: tuple[TargetReference, ...] = ()
    target_selectors: tuple[TargetSelector, ...] = ()
    rate_limit: RateLimit | None = None
    merge_type: str = ""
    load_balancer: dict[str, Any] = {}
    retry: dict[str, Any] = {}
    proxy_protocol: dict[str, Any] = {}
    tcp_keepalive: dict[str, Any] = {}
    health_check: dict[str, Any] = {}
    circuit_breaker: dict[str, Any] = {}
    timeout: dict[str, Any] = {}
    connection: dict[str, Any] = {}
    dns: dict[str, Any] = {}
    http2: dict[str, Any] = {}
    compression: tuple[dict[str, Any], ...] = ()
    compressor: tuple[dict[str, Any], ...] = ()
    response_override: tuple[dict[str, Any], ...] = ()
    http_upgrade: tuple[dict[str, Any], ...] = ()
    request_buffer: dict[str, Any] = {}
    telemetry: dict[str, Any] = {}
    fault_injection: dict[str, Any] = {}
    use_client_protocol: bool | None = None
    routing_type: str = ""
    admission_control: dict[str, Any] = {}
    bandwidth_limit: dict[str, Any] = {}


class Targeting(Protocol):
    """A policy with target references."""

    @property
    def target_ref(self) -> TargetReference | None: ...
    @property
    def target_refs(self) -> tuple[TargetReference, ...]: ...


def targets(policy: Targeting) -> tuple[TargetReference, ...]:
    """The policy's targets; ``targetRef`` is the older field for a single one."""
    return (*policy.target_refs, *((policy.target_ref,) if policy.target_ref else ()))


def rules(policy: BackendTrafficPolicy) -> tuple[LimitRule, ...]:
    """The local limits: each proxy counts on its own."""
    found = policy.rate_limit.local if policy.rate_limit else None
    return found.rules if found else ()


def quotas(policy: BackendTrafficPolicy) -> tuple[LimitRule, ...]:
    """The global limits: all proxies share them."""
    found = policy.rate_limit.global_ if policy.rate_limit else None
    return found.rules if found else ()


def is_limiting(policy: BackendTrafficPolicy) -> bool:
    return bool(rules(policy) or quotas(policy))


def fails_closed(annotations: tuple[tuple[str, str], ...]) -> bool:
    return (FAIL_CLOSED, "true") in annotations
