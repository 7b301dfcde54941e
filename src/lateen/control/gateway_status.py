"""The statuses of the Gateway API's objects, as JSON. Pure.

What an object can be, the mesh says (``mesh.standings``); whether proxies have it, their sessions. Reasons and their
meanings are the API's: https://gateway-api.sigs.k8s.io/reference/spec/#gatewayconditionreason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lateen.api.domain import service_host
from lateen.control.conditions import Outcome, condition, merged
from lateen.control.reach import Reach
from lateen.kit.jsons import Json, dig
from lateen.mesh.dialects.gateway_api.listeners import CONTROLLER
from lateen.mesh.outcomes import ClassStanding, Condition, GatewayStanding, RouteStanding, Standing

PROGRAMMED = "Programmed"


def outcome(obj: Json, standing: Standing, far: Reach, addresses: Sequence[Json], now: str) -> Outcome:
    """``far``: how far what a Gateway asks for has come; ``addresses``: those of its Services."""
    match standing:
        case GatewayStanding():
            return _gateway(obj, standing, far, addresses, now)
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
    """``at``: where their former state is."""
    generation = dig(obj, "metadata", "generation")
    made = [f if isinstance(f, dict) else _written(f) for f in found]
    old: list[Json] = dig(obj, *at, "conditions", default=[])
    return merged(old, [c | {"observedGeneration": generation} for c in made], now)


def _written(c: Condition) -> Json:
    return condition(c.type, "True" if c.true else "False", c.reason, c.says)


# --- Gateways --------------------------------------------------------------------------------------------------


def _gateway(obj: Json, standing: GatewayStanding, far: Reach, addresses: Sequence[Json], now: str) -> Outcome:
    programmed = _programmed(obj, standing, far, addresses)
    old = {li.get("name"): li for li in dig(obj, "status", "listeners", default=[])}
    listeners = []
    for li in standing.listeners:
        own = [_written(c) for c in li.conditions]
        if programmed["status"] != "True":
            own = [programmed if (c["type"], c["status"]) == (PROGRAMMED, "True") else c for c in own]
        listeners.append(
            {
                "name": li.name,
                "supportedKinds": [{"group": k.group, "kind": k.kind} for k in li.kinds],
                "attachedRoutes": li.attached,
                "conditions": _conditions({**obj, "status": old.get(li.name, {})}, ("status",), own, now),
            }
        )
    status = {
        "addresses": list(addresses),
        "conditions": _conditions(obj, ("status",), [*standing.conditions, programmed], now),
        "listeners": listeners,
    }
    return _differing(obj, status, programmed["status"] == "True" or not far.concerned)


def _programmed(obj: Json, standing: GatewayStanding, far: Reach, addresses: Sequence[Json]) -> Json:
    accepted = next((c for c in standing.conditions if c.type == "Accepted"), None)
    if accepted is not None and not accepted.true:
        return condition(PROGRAMMED, "False", "Invalid", accepted.says)
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
    """The IP addresses that a Gateway asks for."""
    given: list[Json] = dig(obj, "spec", "addresses", default=[])
    return [str(a["value"]) for a in given if a.get("type", "IPAddress") == "IPAddress" and a.get("value")]


def _was_programmed(obj: Json) -> bool:
    """Whether all proxies already had this generation: one that connects later gets it along with everything else."""
    generation = dig(obj, "metadata", "generation")
    return any(
        (c.get("type"), c.get("status"), c.get("observedGeneration")) == (PROGRAMMED, "True", generation)
        for c in dig(obj, "status", "conditions", default=[])
    )


def addresses(service: Json, domain: str) -> list[Json]:
    """Where a Service of a Gateway is reached: from outside of the cluster, if it is meant to be, else by its name.
    ``domain``: the cluster's."""
    outside: list[Json] = dig(service, "status", "loadBalancer", "ingress", default=[])
    found = [_address(point) for point in outside if point.get("ip") or point.get("hostname")]
    meta = service.get("metadata") or {}
    if found or not meta or dig(service, "spec", "type") == "LoadBalancer":
        return found
    return [{"type": "Hostname", "value": service_host(meta["name"], meta["namespace"], domain)}]


def _address(point: Json) -> Json:
    """A point that has both is one place."""
    if point.get("ip"):
        return {"type": "IPAddress", "value": point["ip"]}
    return {"type": "Hostname", "value": point["hostname"]}


# --- routes ----------------------------------------------------------------------------------------------------


def _route(obj: Json, standing: RouteStanding, now: str) -> Outcome:
    """Parents that other controllers judge are left as they are."""
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
