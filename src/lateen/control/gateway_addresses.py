"""Where a Gateway of the Gateway API can be reached: read off the Service of its proxies.

Source: https://gateway-api.sigs.k8s.io/reference/spec/#gatewayconditionreason (AddressNotAssigned, AddressNotUsable).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lateen.api.domain import service_host
from lateen.kit.jsons import Json, dig


class Addresses(NamedTuple):
    assigned: list[Json]
    """``status.addresses``."""
    reason: str = ""
    """Why the Gateway is not programmed; empty where it has an address."""
    says: str = ""


def of_service(service: Json | None, wanted: Sequence[Json], domain: str) -> Addresses:
    """``wanted``: the Gateway's ``spec.addresses``."""
    if service is None:
        return Addresses([], "AddressNotAssigned", "its Service is not there yet")
    meta = service["metadata"]
    name = f"{meta['namespace']}/{meta['name']}"
    if dig(service, "spec", "type") != "LoadBalancer":
        return Addresses([{"type": "Hostname", "value": service_host(meta["name"], meta["namespace"], domain)}])
    found = [_address(point) for point in dig(service, "status", "loadBalancer", "ingress", default=[])]
    asked = [str(a["value"]) for a in wanted if a.get("value")]
    missing = [a for a in asked if a not in [f["value"] for f in found]]
    if missing:
        says = f"the load balancer of Service {name} has not assigned {', '.join(missing)}"
        return Addresses([f for f in found if f["value"] in asked], "AddressNotUsable", says)
    if not found:
        return Addresses([], "AddressNotAssigned", f"the load balancer of Service {name} has not assigned an address")
    return Addresses(found)


def _address(point: Json) -> Json:
    if ip := point.get("ip"):
        return {"type": "IPAddress", "value": str(ip)}
    return {"type": "Hostname", "value": str(point.get("hostname"))}
