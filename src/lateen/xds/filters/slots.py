"""Slots: HTTP filters whose configuration is a resource of its own (ECDS).

What is changed there holds for the next request, on open connections too, and drains no listener.
"""

from __future__ import annotations

from functools import lru_cache

from envoy.config.core.v3 import config_source_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.wire import names
from lateen.xds import claims, pb
from lateen.xds.authz import filters
from lateen.xds.security import BASIC, CORS, EXT, GATE, JWT, KEYS, OIDC, RULES

AUTHENTICATION = "istio.authentication"
LUA, WASM = "lateen.lua", "extensions.istio.io"
QUESTION, CUSTOM, AUDIT, DENY, ALLOW = (
    f"istio.authorization.{n}" for n in ("question", "custom", "audit", "deny", "allow")
)
_PREFIX = "type.googleapis.com/envoy.extensions.filters.http."
_RBAC, _EXT_AUTHZ = f"{_PREFIX}rbac.v3.RBAC", f"{_PREFIX}ext_authz.v3.ExtAuthz"
_TYPES = {
    QUESTION: (_RBAC,),  # whether a CUSTOM policy matches
    CUSTOM: (_EXT_AUTHZ, _RBAC),  # asks its provider; empty if the provider cannot be asked
    AUTHENTICATION: (f"{_PREFIX}jwt_authn.v3.JwtAuthentication",),
    AUDIT: (_RBAC,),
    DENY: (_RBAC,),
    ALLOW: (_RBAC,),
}
KINDS = {
    QUESTION: filters.HTTP_RBAC,
    CUSTOM: filters.HTTP_EXT,
    AUTHENTICATION: claims.FILTER,
    AUDIT: filters.HTTP_RBAC,
    DENY: filters.HTTP_RBAC,
    ALLOW: filters.HTTP_RBAC,
    LUA: "envoy.filters.http.lua",
    WASM: "envoy.filters.http.wasm",
    CORS: "envoy.filters.http.cors",
    EXT: filters.HTTP_EXT,
    KEYS: "envoy.filters.http.api_key_auth",
    BASIC: "envoy.filters.http.basic_auth",
    OIDC: "envoy.filters.http.oauth2",
    JWT: claims.FILTER,
    RULES: filters.HTTP_RBAC,
    GATE: filters.HTTP_RBAC,
}
"""Slot -> the name by which EnvoyFilters refer to such a filter."""


def kind(slot: str) -> str | None:
    """The name by which EnvoyFilters refer to a slot's filter; None for other filters."""
    return KINDS.get(slot.partition("~")[0].partition("/")[0])


def named(name: str, workload: str, provider: str = "") -> str:
    return names.of_workload(f"{name}/{provider}" if provider else name, workload)


@lru_cache(maxsize=4096)
def slot(name: str, workload: str, provider: str = "") -> hcm.HttpFilter:
    """``provider``: who is asked, in the slots for CUSTOM."""
    source = config_source_pb2.ExtensionConfigSource(config_source=pb.ads(), type_urls=_TYPES[name])
    return hcm.HttpFilter(name=named(name, workload, provider), config_discovery=source)
