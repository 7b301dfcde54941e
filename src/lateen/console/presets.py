"""What the wizards' forms begin with: what is set now. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lateen.console import shapes
from lateen.console.inventory import Inventory
from lateen.console.wizards import Wizards, last, sending
from lateen.kit.jsons import Json, dig


def forms(wizards: Wizards, inventory: Inventory, namespace: str, service: str) -> shapes.Forms:
    """Raises LookupError where there is no such service."""
    found = wizards.service(namespace, service)
    rule, traffic = wizards.rule(found), wizards.traffic(found)
    routes = rule["spec"].get("http") or rule["spec"].get("tcp") or []
    http = next(iter(sending(last(routes))), {})
    retries = http.get("retries") or {}
    limits = bool(retries or http.get("timeout"))
    return {
        "weights": _shares(wizards.versions(found), http, traffic, wizards.names(found)),
        "limits": {
            "timeout": str(http.get("timeout", "")),
            "attempts": retries.get("attempts"),
            "perTryTimeout": str(retries.get("perTryTimeout", "")),
        }
        if limits
        else None,
        "fault": _fault(http["fault"]) if http.get("fault") else None,
        "breaker": _breaker(traffic["spec"].get("trafficPolicy") or {}),
        "mode": inventory.mode(namespace, dig(found, "spec", "selector", default={})),
        "replaces": wizards.replaced(found),
    }


def _shares(
    versions: Mapping[str, Mapping[str, str]], http: Json, traffic: Json, names: Collection[str]
) -> dict[str, int] | None:
    """Percent by version, where rules tell it for all. ``names``: of the service; subsets are those of its host."""
    subsets = {s.get("name"): s.get("labels") or {} for s in traffic["spec"].get("subsets") or []}
    out = dict.fromkeys(versions, 0)
    routes = http.get("route") or []
    for route in routes:
        own = dig(route, "destination", "host") in names
        labels = subsets.get(dig(route, "destination", "subset")) if own else None
        version = next((v for v, of in versions.items() if labels and labels.items() <= of.items()), None)
        if version is None:
            return None
        out[version] += int(route.get("weight") or (100 if len(routes) == 1 else 0))
    return out if sum(out.values()) == 100 else None


def _fault(fault: Json) -> shapes.FaultForm:
    delay, abort = fault.get("delay") or {}, fault.get("abort") or {}
    return {
        "delay": str(delay.get("fixedDelay", "2s")),
        "delayed": float(dig(delay, "percentage", "value", default=delay.get("percent", 100))) if delay else 0,
        "status": int(abort.get("httpStatus", 503)),
        "aborted": float(dig(abort, "percentage", "value", default=100)) if abort else 0,
    }


def _breaker(policy: Json) -> shapes.BreakerForm | None:
    pool, detection = policy.get("connectionPool") or {}, policy.get("outlierDetection") or {}
    if not (pool or detection):
        return None
    return {
        "connections": int(dig(pool, "tcp", "maxConnections", default=0)),
        "pending": int(dig(pool, "http", "http1MaxPendingRequests", default=0)),
        "errors": int(detection.get("consecutive5xxErrors", 5)) if detection else 0,
        "ejection": str(detection.get("baseEjectionTime", "30s")),
    }
