"""Slots: HTTP filters whose configuration is a resource of its own (ECDS).

Changes apply to the next request, also on open connections, and drain no listener.
"""

from __future__ import annotations

from functools import lru_cache

from envoy.config.core.v3 import config_source_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.wire import names
from lateen.wire.names import SECURITY
from lateen.xds import claims, pb
from lateen.xds.authz import filters
from lateen.xds.filters import several
from lateen.xds.rate_limits import SLOT
from lateen.xds.security import CORS, GATE, OIDC

AUTHENTICATION = "istio.authentication"
LUA, WASM = "lateen.lua", "extensions.istio.io"
CUSTOM, DENY, ALLOW = (f"istio.authorization.{n}" for n in ("custom", "deny", "allow"))
_PREFIX = "type.googleapis.com/envoy.extensions.filters.http."
_RBAC = f"{_PREFIX}rbac.v3.RBAC"
TYPES = {
    CUSTOM: several.TYPES,  # for each provider, whether a policy matches, and the question
    SECURITY: several.TYPES,
    SLOT: (*several.TYPES, f"{_PREFIX}local_ratelimit.v3.LocalRateLimit"),  # one limit, or several
    AUTHENTICATION: (f"{_PREFIX}jwt_authn.v3.JwtAuthentication",),
    DENY: several.TYPES,  # what AUDIT policies record, then what is denied
    ALLOW: (_RBAC,),
}
"""Slot -> the types that it takes. They never change: Envoy asks every listener that names a slot, former and draining
ones, too, whether it takes what comes, so that other types need a slot of another name. Proxies keep a slot that is no
longer used (``ads.session``)."""
KINDS = {
    CUSTOM: filters.HTTP_EXT,
    AUTHENTICATION: claims.FILTER,
    DENY: filters.HTTP_RBAC,
    ALLOW: filters.HTTP_RBAC,
    LUA: "envoy.filters.http.lua",
    WASM: "envoy.filters.http.wasm",
    CORS: "envoy.filters.http.cors",
    SECURITY: "envoy.filters.http.composite",
    OIDC: "envoy.filters.http.oauth2",
    GATE: filters.HTTP_RBAC,
}
"""Slot -> the name by which EnvoyFilters refer to such a filter."""


def kind(slot: str) -> str | None:
    """The name by which EnvoyFilters refer to a slot's filter; None for other filters."""
    return KINDS.get(slot.partition("~")[0].partition("/")[0])


@lru_cache(maxsize=4096)
def slot(name: str, workload: str, disabled: bool = False) -> hcm.HttpFilter:
    """It has no default: without its configuration, requests get status 500."""
    types = TYPES[name.partition("/")[0]]
    source = config_source_pb2.ExtensionConfigSource(config_source=pb.ads(), type_urls=types)
    return hcm.HttpFilter(name=names.of_workload(name, workload), config_discovery=source, disabled=disabled)
