"""AuthorizationPolicies: CUSTOM, then AUDIT, DENY and ALLOW.

For requests the filters are slots (``slots``), which always exist, so that a policy does not change the listener
(unless it is the first one about paths, which changes how they are normalized), and no open connection has a listener
without its slot.

Each provider of CUSTOM policies needs a slot of its own, since it is waited for (``several``). There is one for each
provider of the mesh configuration, and a spare one: a provider that has just been added has its place on connections
that are open. Slots have no names of providers, only numbers, so that any slot can have any provider.

For connections the filters are part of the chain: they decide when a connection is opened, so a changed policy has to
close those that the old one has admitted. Envoy drains the chains that change and leaves all others alone.
"""

from __future__ import annotations

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.common.tap.v3 import common_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.tap.v3 import tap_pb2
from google.protobuf import any_pb2

from lateen.kit.derived import Shared, held
from lateen.mesh.inbound_view import Authorization
from lateen.wire import names, tap
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.authz import filters
from lateen.xds.authz.tokens import Places
from lateen.xds.filters.chain import Connections, HttpFilter, NetworkFilter, Requests, Screen
from lateen.xds.filters.several import several
from lateen.xds.filters.slots import ALLOW, CUSTOM, DENY, slot

NOWHERE = Places()
TAP = "envoy.filters.http.tap"
_BY_ADMIN = common_pb2.AdminConfig(config_id=tap.CONFIG)
_TAP = tap_pb2.Tap(common_config=common_pb2.CommonExtensionConfig(admin_config=_BY_ADMIN))


def questions(access: Authorization) -> int:
    """The number of slots for providers."""
    return access.askable + 1


def custom(chain: Requests) -> list[HttpFilter]:
    """Asks providers, one after another."""
    if chain.kind == "outbound":
        return []
    return [slot(_numbered(i), chain.workload) for i in range(chain.questions)]


def _numbered(i: int) -> str:
    return f"{CUSTOM}/{i}" if i else CUSTOM


def http(chain: Requests) -> list[HttpFilter]:
    return [] if chain.kind == "outbound" else [slot(n, chain.workload) for n in (DENY, ALLOW)]


def network(chain: Connections) -> tuple[NetworkFilter, ...]:
    return chain.screen.connections


_screens = Shared()


@held
def screen(access: Authorization) -> Screen:
    """The same object for policies that differ only in what they say about requests."""
    made, more = filters.of_workload(access, access.policies, tcp=True), filters.unasked(access)
    refs = tuple(str(p.ref) for p in access.policies)
    paths = access.paths, access.strict_paths
    key = (paths, questions(access), refs, *(f.SerializeToString(deterministic=True) for f in (*made, *more)))
    return _screens(key, lambda: Screen(*paths, questions(access), made, refs, more))


def extensions(
    access: Authorization, workload: str = "", tapped: bool = False, where: Places = NOWHERE
) -> tuple[Resource, ...]:
    """The contents of a workload's slots. ``tapped``: somebody looks at bodies (``wire.tap``). ``where`` tokens are
    looked for."""
    asked = [_resource(_numbered(i), access, found, workload) for i, found in enumerate(_asked(access))]
    denied = _resource(DENY, access, _of(access, "AUDIT", "DENY"), workload, tapped, where)
    return (*asked, denied, _resource(ALLOW, access, _of(access, "ALLOW"), workload))


def _asked(access: Authorization) -> list[filters.Policies]:
    """The CUSTOM policies in each slot: those of one provider, which keeps its slot while newer policies come and go.
    Those whose provider cannot be asked deny at once, so they are all in the first slot."""
    known = {p.name for p in access.providers}
    names_ = filters.asked(access.policies)
    waited = [filters.of_provider(access.policies, name) for name in names_ if name in known]
    waited.sort(key=lambda found: min(p.age_order for p in found))
    slots = [waited[i] if i < len(waited) else () for i in range(questions(access))]
    unknown = [p for name in names_ if name not in known for p in filters.of_provider(access.policies, name)]
    return [(*unknown, *slots[0]), *slots[1:]]


def _of(access: Authorization, *actions: str) -> filters.Policies:
    return tuple(p for p in access.policies if p.spec.action in actions)


@held
def _resource(
    slot: str,
    access: Authorization,
    policies: filters.Policies,
    workload: str,
    tapped: bool = False,
    where: Places = NOWHERE,
) -> Resource:
    name = names.of_workload(slot, workload)
    message = extension_pb2.TypedExtensionConfig(
        name=name, typed_config=_content(slot, access, policies, tapped, where)
    )
    return pb.resource(name, message, tuple(str(p.ref) for p in policies))


def _content(slot: str, access: Authorization, policies: filters.Policies, tapped: bool, where: Places) -> any_pb2.Any:
    if slot == DENY:
        return _denied(access, policies, tapped, where)
    found = filters.of_workload(access, policies, tcp=False)
    if slot == ALLOW:
        return found[0].typed_config if found else pb.any_of(rbac_pb2.RBAC())
    return several((f.name, f.typed_config) for f in found)


def _denied(access: Authorization, policies: filters.Policies, tapped: bool, where: Places) -> any_pb2.Any:
    """AUDIT comes first, so that denied requests are recorded, too; before it the tap of bodies."""
    audits = tuple(p for p in policies if p.spec.action == "AUDIT")
    denied = filters.denied(tuple(p for p in policies if p.spec.action == "DENY"), access.domains, where)
    looking = [(TAP, pb.any_of(_TAP))] if tapped else []
    if not audits and not looking:
        return denied
    audited = [(filters.HTTP_RBAC, filters.audited(audits, access.domains))] if audits else []
    return several((*looking, *audited, (filters.HTTP_RBAC, denied)))
