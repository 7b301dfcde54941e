"""AuthorizationPolicies: CUSTOM, then AUDIT, DENY and ALLOW.

For requests the filters are slots (``slots``). Those for DENY and ALLOW always exist, so that a workload's first policy
does not change the listener either (unless it is about paths, which changes how they are normalized); those for CUSTOM
exist while some policy asks a provider, two for each.

For connections the filters are part of the chain: they decide when a connection is opened, so a changed policy has to
close those that the old one has admitted. Envoy drains the chains that change and leaves all others alone.
"""

from __future__ import annotations

from functools import lru_cache

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from google.protobuf import any_pb2

from lateen.mesh.view import Authorization
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.authz import filters
from lateen.xds.filters.chain import Connections, HttpFilter, NetworkFilter, Requests
from lateen.xds.filters.slots import ALLOW, AUDIT, CUSTOM, DENY, QUESTION, named, slot


def asks(access: Authorization) -> tuple[str, ...]:
    """The providers that policies ask about requests."""
    return filters.asked(access.policies)


def audits(access: Authorization) -> bool:
    return any(p.spec.action == "AUDIT" for p in access.policies)


def custom(chain: Requests) -> list[HttpFilter]:
    """Asks providers, one after another."""
    asked = () if chain.kind == "outbound" else chain.asks
    return [slot(n, chain.workload, provider) for provider in asked for n in (QUESTION, CUSTOM)]


def http(chain: Requests) -> list[HttpFilter]:
    """AUDIT comes first, so that requests that are denied are seen, too."""
    found = (AUDIT, DENY, ALLOW) if chain.audits else (DENY, ALLOW)
    return [] if chain.kind == "outbound" else [slot(n, chain.workload) for n in found]


def network(chain: Connections) -> tuple[NetworkFilter, ...]:
    return filters.of_workload(chain.access, chain.access.policies, tcp=True)


def extensions(access: Authorization, workload: str = "") -> tuple[Resource, ...]:
    """The contents of a workload's slots."""
    out = [
        _resource(DENY, access, _of(access, "DENY"), workload),
        _resource(ALLOW, access, _of(access, "ALLOW"), workload),
    ]
    if audits(access):
        out.append(_resource(AUDIT, access, _of(access, "AUDIT"), workload))
    for provider in asks(access):
        mine = filters.of_provider(access.policies, provider)
        out += [_resource(n, access, mine, workload, provider) for n in (QUESTION, CUSTOM)]
    return tuple(out)


def _of(access: Authorization, action: str) -> filters.Policies:
    return tuple(p for p in access.policies if p.spec.action == action)


def _held(slot: str, access: Authorization, policies: filters.Policies) -> any_pb2.Any:
    found = filters.of_workload(access, policies, tcp=False)
    at = 1 if slot == CUSTOM else 0
    return found[at].typed_config if at < len(found) else pb.any_of(rbac_pb2.RBAC())


@lru_cache(maxsize=4096)
def _resource(
    slot: str, access: Authorization, policies: filters.Policies, workload: str, provider: str = ""
) -> Resource:
    if slot == DENY:
        held = filters.denied(policies, access.domains)
    elif slot == AUDIT:
        held = filters.audited(policies, access.domains)
    else:
        held = _held(slot, access, policies)
    name = named(slot, workload, provider)
    message = extension_pb2.TypedExtensionConfig(name=name, typed_config=held)
    return pb.resource(name, message, tuple(str(p.ref) for p in policies))
