"""AuthorizationPolicies: CUSTOM, then DENY, then ALLOW.

For requests the filters are slots whose configuration is delivered separately (ECDS): a changed policy applies to the
next request, including those on open connections, and no listener is drained. The slots for DENY and ALLOW always
exist, so that a workload's first policy does not change the listener either (unless it is about paths, which changes
how they are normalized); those for CUSTOM exist while some policy asks a provider.

For connections the filters are part of the chain: they decide when a connection is opened, so a changed policy has to
close those that the old one has admitted. Envoy drains the chains that change and leaves all others alone.
"""

from __future__ import annotations

from functools import lru_cache

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from google.protobuf import any_pb2

from lateen.mesh.view import Authorization
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.authz import filters
from lateen.xds.filters.chain import Connections, NetworkFilter, Requests

QUESTION, CUSTOM, DENY, ALLOW = (f"istio.authorization.{n}" for n in ("question", "custom", "deny", "allow"))
_PREFIX = "type.googleapis.com/envoy.extensions.filters.http."
_RBAC, _EXT_AUTHZ = f"{_PREFIX}rbac.v3.RBAC", f"{_PREFIX}ext_authz.v3.ExtAuthz"
_TYPES = {
    QUESTION: (_RBAC,),  # whether a CUSTOM policy matches
    CUSTOM: (_EXT_AUTHZ, _RBAC),  # asks its provider; empty if the provider cannot be asked
    DENY: (_RBAC,),
    ALLOW: (_RBAC,),
}
KINDS = {QUESTION: filters.HTTP_RBAC, CUSTOM: filters.HTTP_EXT, DENY: filters.HTTP_RBAC, ALLOW: filters.HTTP_RBAC}
"""Slot -> the name by which EnvoyFilters refer to such a filter."""


def kind(slot: str) -> str | None:
    """The name by which EnvoyFilters refer to a slot's filter; None for other filters."""
    return KINDS.get(slot.partition("~")[0])


@lru_cache(maxsize=4096)
def _slot(name: str, workload: str) -> hcm.HttpFilter:
    source = config_source_pb2.ExtensionConfigSource(config_source=pb.ads(), type_urls=_TYPES[name])
    return hcm.HttpFilter(name=names.of_workload(name, workload), config_discovery=source)


def asks(access: Authorization) -> bool:
    """Whether some policy asks a provider about requests."""
    return any(p.spec.action == "CUSTOM" and not p.dry_run for p in access.policies)


def http(chain: Requests) -> list[hcm.HttpFilter]:
    if chain.kind == "outbound":
        return []
    return [_slot(n, chain.workload) for n in ((QUESTION, CUSTOM, DENY, ALLOW) if chain.asks else (DENY, ALLOW))]


def network(chain: Connections) -> tuple[NetworkFilter, ...]:
    return filters.of_workload(chain.access, chain.access.policies, tcp=True)


def extensions(access: Authorization, workload: str = "") -> tuple[Resource, ...]:
    """The contents of a workload's slots."""
    out = [
        _resource(DENY, access, _of(access, "DENY"), workload),
        _resource(ALLOW, access, _of(access, "ALLOW"), workload),
    ]
    if asks(access):
        mine = _of(access, "CUSTOM")
        out += [_resource(QUESTION, access, mine, workload), _resource(CUSTOM, access, mine, workload)]
    return tuple(out)


def _of(access: Authorization, action: str) -> filters.Policies:
    return tuple(p for p in access.policies if p.spec.action == action)


def _held(slot: str, access: Authorization, policies: filters.Policies) -> any_pb2.Any:
    found = filters.of_workload(access, policies, tcp=False)
    at = 1 if slot == CUSTOM else 0
    return found[at].typed_config if at < len(found) else pb.any_of(rbac_pb2.RBAC())


@lru_cache(maxsize=4096)
def _resource(slot: str, access: Authorization, policies: filters.Policies, workload: str) -> Resource:
    held = filters.denied(policies, access.domains) if slot == DENY else _held(slot, access, policies)
    name = names.of_workload(slot, workload)
    message = extension_pb2.TypedExtensionConfig(name=name, typed_config=held)
    return pb.resource(name, message, tuple(str(p.ref) for p in policies))
