"""SecurityPolicies in slots (their configuration is in ``xds.security``): changes apply to the next request and drain
no listener.

At a workload's port one slot has the authentication parts of all policies, and another one their rules, which run later
(``filters.order``). Both are always there, so that no open connection has a listener without them. At gateways each
policy has two slots of its own, which are off but for the policy's routes; a connection from before the slots are there
gets no further than the gate, which those routes turn on.

Logins are no slot: Envoy does not fetch the secrets of a filter that comes after its listener. They come between what
is before them and what may depend on them, in two slots whose names say whose logins they are around. A listener from
before has another slot in their place, which lets nobody pass.

Nor are settings for other sites (CORS), which are those of routes in Envoy; a workload's port has one route, which is
part of its listener.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from google.protobuf import any_pb2

from lateen.api.security import JWTRule
from lateen.mesh.gateway_view import GatewayServer, GatewayView
from lateen.mesh.inbound_view import InboundPort, InboundView
from lateen.mesh.protocols import REQUESTS
from lateen.mesh.secured import Outside, Secured, jwt_rules
from lateen.wire import names
from lateen.wire.names import SECURITY
from lateen.wire.resource import Resource
from lateen.xds import oidc, pb, sds, security
from lateen.xds.claims import FIRST, LAST
from lateen.xds.filters.chain import Guard, HttpFilter, Requests, http_filter
from lateen.xds.filters.several import several
from lateen.xds.filters.slots import slot
from lateen.xds.security import AROUND, CORS, EXT, GATE, JWT, OIDC, RULED


def cors(chain: Requests) -> list[HttpFilter]:
    """The CORS filter, off except on routes with settings."""
    return [] if chain.kind == "outbound" else [http_filter(CORS, cors_pb2.Cors(), disabled=True)]


def guards(chain: Requests) -> list[HttpFilter]:
    """The filters for authentication."""
    gate = [http_filter(GATE, security.gate(chain.guarded), disabled=True)] if chain.kind == "gateway" else []
    return [*gate, *_filters(chain, late=False)]


def rules(chain: Requests) -> list[HttpFilter]:
    """The filters for authorization rules."""
    return list(_filters(chain, late=True))


def _filters(chain: Requests, late: bool) -> Iterator[HttpFilter]:
    off = chain.kind == "gateway"
    for guard in chain.guards:
        if guard.late == late:
            yield _login(guard, chain.workload, off) if guard.login else slot(guard.name, chain.workload, off)


def _login(guard: Guard, workload: str, off: bool) -> HttpFilter:
    assert guard.login is not None
    return hcm.HttpFilter(
        name=names.of_workload(guard.name, workload),
        typed_config=security.config(guard.login, OIDC, off),
        disabled=off,
    )


# --- at a workload's port -------------------------------------------------------------------------------------------


def at_port(port: InboundPort) -> tuple[Guard, ...]:
    if port.port.protocol not in REQUESTS:
        return ()
    logins = [one for one in port.secured if one.policy.spec.oidc]
    first, *then, ruled = _slots(port, logins)
    questions = (Guard(_question(port, one)) for one in _asking(port)[1:])
    asking = (Guard(security.login(one), one) for one in logins)
    return (Guard(first), *questions, *asking, *map(Guard, then), Guard(ruled, late=True))


def _asking(port: InboundPort) -> list[Secured]:
    """The policies that ask an authorization service. The question of the first is in the slot that is always there; a
    slot can have no other one (``filters.several``)."""
    return [one for one in port.secured if one.policy.spec.ext_auth]


def _question(port: InboundPort, one: Secured) -> str:
    return f"{SECURITY}/{port.port.number}/{security.named(one, EXT)}"


def _slots(port: InboundPort, logins: Sequence[Secured]) -> tuple[str, ...]:
    place = f"{SECURITY}/{port.port.number}"
    ruled = f"{place}/{RULED}"
    if not logins:
        return place, ruled
    whose = hashlib.blake2b("\n".join(str(one.policy.ref) for one in logins).encode(), digest_size=8).hexdigest()
    return (*(f"{place}/{when}/{whose}" for when in AROUND), ruled)


def of_port(port: InboundPort, workload: str) -> Iterator[Resource]:
    """The contents of a port's slots."""
    if port.port.protocol not in REQUESTS:
        return
    logins = [one for one in port.secured if one.policy.spec.oidc]
    _, *more = _asking(port) or (None,)
    for name, parts in zip(_slots(port, logins), security.around(bool(logins)), strict=True):
        yield _resource(name, port.secured, parts, False, workload, more)
    for one in more:
        yield _resource(_question(port, one), (one,), (EXT,), False, workload)
    if logins:  # for listeners from before
        shut = pb.any_of(security.nobody(logins[0].policy, OIDC))
        yield _packed(names.of_workload(f"{SECURITY}/{port.port.number}", workload), shut, logins)


# --- at gateways ----------------------------------------------------------------------------------------------------


def at_gateway(server: GatewayServer) -> tuple[Guard, ...]:
    found = dict.fromkeys(found for _, _, found in server.secured)
    return tuple(guard for one in found for guard in _guards(one))


def _guards(one: Secured) -> Iterator[Guard]:
    *asking, ruled = security.slots(one)
    for name in asking:
        yield Guard(name, one if name == security.login(one) else None)
    yield Guard(ruled, late=True)


def routes_of(server: GatewayServer) -> tuple[str, ...]:
    """For each set of policies that some route has, their slots."""
    each: dict[tuple[int, int], list[Secured]] = {}
    for at, i, found in server.secured:
        each.setdefault((at, i), []).append(found)
    return tuple(dict.fromkeys(map(security.together, each.values())))


def routing_tokens(server: GatewayServer) -> tuple[JWTRule, ...]:
    """Those tokens by whose claims routes are chosen again."""
    found = dict.fromkeys(one.policy for _, _, one in server.secured if security.chooses_again(one.policy.spec))
    return tuple(rule for policy in found if policy.spec.jwt for rule in jwt_rules(policy.spec.jwt))


def at_gateways(view: GatewayView) -> Iterator[Resource]:
    """The contents of the slots."""
    for one in of_gateway(view):
        slots = [n for n in security.slots(one) if n != security.login(one)]
        for name, parts in zip(slots, security.around(bool(one.policy.spec.oidc)), strict=True):
            yield _resource(name, (one,), parts, True)


# --- resources ------------------------------------------------------------------------------------------------------


def _resource(
    name: str,
    found: Sequence[Secured],
    parts: Sequence[str],
    gateway: bool,
    workload: str = "",
    elsewhere: Sequence[Secured] = (),
) -> Resource:
    """Part by part, so that the order is the same whatever policies there are. ``elsewhere``: policies whose questions
    to an authorization service are in slots of their own."""
    held = several(
        (security.named(one, part), security.config(one, part, gateway))
        for part in parts
        for one in found
        if part in security.parts(one) and not (part == EXT and one in elsewhere)
    )
    read = any(security.providers_read(one.policy.spec) for one in found)
    rank = (FIRST if read else LAST) if JWT in parts else 0
    return _packed(names.of_workload(name, workload), held, found, rank)


def _packed(name: str, held: any_pb2.Any, found: Iterable[Secured], rank: int = 0) -> Resource:
    message = extension_pb2.TypedExtensionConfig(name=name, typed_config=held)
    return pb.resource(name, message, tuple(str(one.policy.ref) for one in found), rank)


def of_workload(view: InboundView) -> tuple[Secured, ...]:
    return tuple(dict.fromkeys(found for i in view.ports for found in i.secured))


def of_gateway(view: GatewayView) -> tuple[Secured, ...]:
    return tuple(dict.fromkeys(found for s in view.servers for _, _, found in s.secured))


def secrets(found: Iterable[Secured]) -> Iterator[Resource]:
    """The SDS secrets of logins."""
    for one in found:
        if one.login is not None:
            client, cookies = oidc.secret_names(one.policy)
            yield sds.opaque(client, one.login.client_secret)
            yield sds.opaque(cookies, one.login.cookie_key)


def outside(found: Iterable[Secured]) -> tuple[Outside, ...]:
    """The providers of logins that are no services of the mesh."""
    return tuple(dict.fromkeys(one.login.outside for one in found if one.login and one.login.outside))
