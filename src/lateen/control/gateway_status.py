"""The statuses of the Gateway API's objects, as JSON. Pure.

The mesh determines validity (``mesh.standings``), the proxies' sessions whether they have the object. Reasons and their
meanings are the API's: https://gateway-api.sigs.k8s.io/reference/spec/#gatewayconditionreason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lateen.api import kinds
from lateen.api.domain import service_host
from lateen.api.kinds import Kind, Ref
from lateen.control.conditions import Outcome, condition, merged
from lateen.control.reach import Reach
from lateen.kit.jsons import Json, dig
from lateen.mesh.dialects.gateway_api.listeners import CONTROLLER
from lateen.mesh.outcomes import (
    ClassStanding,
    Condition,
    GatewayStanding,
    ListenerSetStanding,
    ListenerStanding,
    PolicyStanding,
    RouteStanding,
    Standing,
)

PROGRAMMED, INVALID_PARAMETERS = "Programmed", "InvalidParameters"


class Front(NamedTuple):
    """The state of a Gateway besides its standing."""

    obj: Json
    far: Reach
    """How far its configuration has been distributed."""
    addresses: Sequence[Json]
    """The addresses of its Services."""
    problem: tuple[str, str] | None = None
    """Why its proxies could not be deployed: (reason, sentence)"""


def gateway_of(ref: Ref, standing: Standing) -> Ref | None:
    """The Gateway whose proxies serve an object."""
    match standing:
        case GatewayStanding():
            return ref
        case ListenerSetStanding():
            return standing.gateway
    return None


def by_proxies(kind: Kind) -> bool:
    """Whether statuses of a kind depend on proxies (see ``gateway_of``)."""
    return kind in (kinds.KUBERNETES_GATEWAY, kinds.LISTENER_SET)


def services_of(standing: Standing) -> tuple[str, ...]:
    """Hosts of the Services in front of those proxies."""
    match standing:
        case GatewayStanding():
            return standing.services
        case ListenerSetStanding():
            return standing.of_gateway.services
    return ()


def outcome(obj: Json, standing: Standing, front: Front | None, now: str) -> Outcome:
    """``front``: that of the object's Gateway (``gateway_of``), if it has one."""
    match standing:
        case GatewayStanding():
            assert front is not None
            return _gateway(obj, standing, front, now)
        case ListenerSetStanding():
            assert front is not None
            return _listener_set(obj, standing, front, now)
        case PolicyStanding():
            return _policy(obj, standing, now)
        case RouteStanding():
            return _route(obj, standing, now)
        case ClassStanding():
            status = {
                "conditions": _conditions(obj, ("status",), standing.conditions, now),
                "supportedFeatures": [{"name": name} for name in sorted(standing.features)],
            }
            return _differing(obj, status, True)


def _differing(obj: Json, status: Json, settled: bool) -> Outcome:
    old: Json = obj.get("status") or {}
    return Outcome(None if all(old.get(k) == v for k, v in status.items()) else status, settled)


def _conditions(obj: Json, at: Sequence[str | int], found: Iterable[Condition | Json], now: str) -> list[Json]:
    """``at``: the path of their former state."""
    generation = dig(obj, "metadata", "generation")
    made = [f if isinstance(f, dict) else _written(f) for f in found]
    old: list[Json] = dig(obj, *at, "conditions", default=[])
    return merged(old, [c | {"observedGeneration": generation} for c in made], now)


def _written(c: Condition) -> Json:
    return condition(c.type, "True" if c.true else "False", c.reason, c.says)


# --- Gateways --------------------------------------------------------------------------------------------------


def _gateway(obj: Json, standing: GatewayStanding, front: Front, now: str) -> Outcome:
    programmed = _programmed(standing, front)
    own = [_written(c) for c in standing.conditions]
    if front.problem and front.problem[0] == INVALID_PARAMETERS:
        own = [condition("Accepted", "False", *front.problem) if c["type"] == "Accepted" else c for c in own]
    status = {
        "addresses": list(front.addresses),
        "attachedListenerSets": standing.sets,
        "conditions": _conditions(obj, ("status",), [*own, programmed], now),
        "listeners": _listeners(obj, standing.listeners, programmed, now),
    }
    return _differing(obj, status, programmed["status"] == "True" or not front.far.concerned)


def _listener_set(obj: Json, standing: ListenerSetStanding, front: Front, now: str) -> Outcome:
    """The status of a ListenerSet, which is programmed if its Gateway is."""
    own = next((_written(c) for c in standing.conditions if c.type == PROGRAMMED), None)
    programmed = own or _programmed(standing.of_gateway, front)
    others = [_written(c) for c in standing.conditions if c.type != PROGRAMMED]
    status = {
        "conditions": _conditions(obj, ("status",), [*others, programmed], now),
        "listeners": _listeners(obj, standing.listeners, programmed, now),
    }
    return _differing(obj, status, own is not None or programmed["status"] == "True")


def _listeners(obj: Json, standings: Iterable[ListenerStanding], programmed: Json, now: str) -> list[Json]:
    old = {li.get("name"): li for li in dig(obj, "status", "listeners", default=[])}
    out = []
    for li in standings:
        own = [_written(c) for c in li.conditions]
        if programmed["status"] != "True":
            own = [programmed if (c["type"], c["status"]) == (PROGRAMMED, "True") else c for c in own]
        out.append(
            {
                "name": li.name,
                "supportedKinds": [{"group": k.group, "kind": k.kind} for k in li.kinds],
                "attachedRoutes": li.attached,
                "conditions": _conditions({**obj, "status": old.get(li.name, {})}, ("status",), own, now),
            }
        )
    return out


def _programmed(standing: GatewayStanding, front: Front) -> Json:
    obj, far, addresses, problem = front
    accepted = next((c for c in standing.conditions if c.type == "Accepted"), None)
    if accepted is not None and not accepted.true:
        return condition(PROGRAMMED, "False", "Invalid", accepted.says)
    if problem:
        return condition(PROGRAMMED, "False", "Invalid", problem[1])
    if not standing.services:
        return condition(PROGRAMMED, "False", "AddressNotUsable", "there is no Service at any of its addresses")
    if missing := set(_asked(obj)) - {a["value"] for a in addresses}:
        says = f"its Service has not been assigned {', '.join(sorted(missing))}"
        return condition(PROGRAMMED, "False", "AddressNotUsable", says)
    if not addresses:
        return condition(PROGRAMMED, "False", "AddressNotAssigned", "its Service has no address yet")
    if far.refused:
        proxy, says = far.refused[0]
        return condition(PROGRAMMED, "False", "Invalid", f"proxy {proxy} refused it: {says}")
    if not far.concerned:
        return condition(PROGRAMMED, "False", "Pending", "no connected proxy serves it")
    if far.have < far.concerned and not _was_programmed(obj):
        return condition(PROGRAMMED, "Unknown", "Pending", "not yet acknowledged by all proxies that serve it")
    says = f"Resource programmed, assigned to service(s) {' and '.join(standing.services)}"
    return condition(PROGRAMMED, "True", PROGRAMMED, says)


def _asked(obj: Json) -> list[str]:
    """The IP addresses that a Gateway requests."""
    given: list[Json] = dig(obj, "spec", "addresses", default=[])
    return [str(a["value"]) for a in given if a.get("type", "IPAddress") == "IPAddress" and a.get("value")]


def _was_programmed(obj: Json) -> bool:
    """Whether all proxies already had this generation: a proxy that connects later gets it along with everything
    else."""
    generation = dig(obj, "metadata", "generation")
    return any(
        (c.get("type"), c.get("status"), c.get("observedGeneration")) == (PROGRAMMED, "True", generation)
        for c in dig(obj, "status", "conditions", default=[])
    )


def addresses(service: Json, domain: str) -> list[Json]:
    """The addresses of a Gateway's Service: external ones if its type has any, otherwise its host name. ``domain``: the
    cluster's."""
    outside: list[Json] = dig(service, "status", "loadBalancer", "ingress", default=[])
    found = [_address(point) for point in outside if point.get("ip") or point.get("hostname")]
    meta = service.get("metadata") or {}
    if found or not meta or dig(service, "spec", "type") == "LoadBalancer":
        return found
    return [{"type": "Hostname", "value": service_host(meta["name"], meta["namespace"], domain)}]


def _address(point: Json) -> Json:
    """One address; an entry with IP and host name counts once."""
    if point.get("ip"):
        return {"type": "IPAddress", "value": point["ip"]}
    return {"type": "Hostname", "value": point["hostname"]}


# --- policies --------------------------------------------------------------------------------------------------


def _policy(obj: Json, standing: PolicyStanding, now: str) -> Outcome:
    """Ancestors of other controllers are left unchanged."""
    before: list[Json] = dig(obj, "status", "ancestors", default=[])
    mine = [p for p in before if p.get("controllerName") == CONTROLLER]
    made = []
    for found in standing.ancestors:
        of = found.ancestor
        ref = {"group": of.group, "kind": of.kind, "namespace": of.namespace, "name": of.name}
        old = next((p for p in mine if p.get("ancestorRef") == ref), {})
        conditions = _conditions({**obj, "status": old}, ("status",), found.conditions, now)
        made.append({"ancestorRef": ref, "controllerName": CONTROLLER, "conditions": conditions})
    if not made and not mine:
        return Outcome(None, True)
    others = [p for p in before if p.get("controllerName") != CONTROLLER]
    return _differing(obj, {"ancestors": [*others, *made]}, True)


# --- routes ----------------------------------------------------------------------------------------------------


def _route(obj: Json, standing: RouteStanding, now: str) -> Outcome:
    """Parents of other controllers are left unchanged."""
    before: list[Json] = dig(obj, "status", "parents", default=[])
    mine = [p for p in before if p.get("controllerName") == CONTROLLER]
    refs: list[Json] = dig(obj, "spec", "parentRefs", default=[])
    made = []
    for parent in standing.parents:
        ref = refs[parent.position] if parent.position < len(refs) else {}
        old = next((p for p in mine if p.get("parentRef") == ref), {})
        made.append(
            {
                "parentRef": ref,
                "controllerName": CONTROLLER,
                "conditions": _conditions({**obj, "status": old}, ("status",), parent.conditions, now),
            }
        )
    if not made and not mine:
        return Outcome(None, True)
    others = [p for p in before if p.get("controllerName") != CONTROLLER]
    return _differing(obj, {"parents": [*others, *made]}, True)
