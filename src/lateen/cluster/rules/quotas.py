"""What objects consume of a ResourceQuota (follows Kubernetes' quota evaluators)."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from lateen.cluster.rules import amounts
from lateen.cluster.rules.amounts import ZERO as ZERO
from lateen.cluster.rules.amounts import Amounts
from lateen.kit.jsons import Json, dig

COUNTED = ("services", "configmaps", "secrets", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas")
"""Resources whose number has a name without ``count/``."""
_PLAIN = ("cpu", "memory", "ephemeral-storage")
_CLASS = ".storageclass.storage.k8s.io/"
_ONE = Decimal(1)


def collection_of(key: str) -> str:
    """The collection that a limit is about; each is about one."""
    if key.startswith("count/"):
        return key.removeprefix("count/")
    if key.partition(".")[0] == "services":
        return "services"
    if key == "requests.storage" or _CLASS in key:
        return "persistentvolumeclaims"
    return key if key in COUNTED else "pods"


def measured(quota: Json, collection: str, obj: Json) -> Amounts:
    """What an object consumes of the amounts that the quota limits."""
    hard = dig(quota, "spec", "hard", default={})
    if not in_scope(quota, collection, obj):
        return {}
    return {key: amount for key, amount in _usage(collection, obj).items() if key in hard}


def used(quota: Json, collection: str, objects: Iterable[Json]) -> Amounts:
    return amounts.total(measured(quota, collection, o) for o in objects)


def text(key: str, amount: Decimal) -> str:
    return amounts.text(amount, binary="memory" in key or "storage" in key.replace(_CLASS, ""))


def _usage(collection: str, obj: Json) -> Amounts:
    out: Amounts = {f"count/{collection}": _ONE}
    if collection in COUNTED:
        out[collection] = _ONE
    if collection == "pods" and dig(obj, "status", "phase") not in ("Succeeded", "Failed"):
        out["pods"] = _ONE
        for part in ("requests", "limits"):
            for name, amount in amounts.of_pod(obj["spec"], part).items():
                out[f"{part}.{name}"] = amount
                if part == "requests" and name in _PLAIN:
                    out[name] = amount
    elif collection == "services":
        kind = dig(obj, "spec", "type")
        ports = sum(bool(p.get("nodePort")) for p in dig(obj, "spec", "ports", default=[]))
        out["services.loadbalancers"] = Decimal(kind == "LoadBalancer")
        out["services.nodeports"] = Decimal(ports if kind in ("NodePort", "LoadBalancer") else 0)
    elif collection == "persistentvolumeclaims":
        size = amounts.parse(dig(obj, "spec", "resources", "requests", "storage", default="0"))
        out["requests.storage"] = size
        if of_class := dig(obj, "spec", "storageClassName"):
            out[f"{of_class}{_CLASS}requests.storage"] = size
            out[f"{of_class}{_CLASS}persistentvolumeclaims"] = _ONE
    return out


def in_scope(quota: Json, collection: str, obj: Json) -> bool:
    scopes = [{"scopeName": s, "operator": "Exists"} for s in dig(quota, "spec", "scopes", default=[])]
    scopes += dig(quota, "spec", "scopeSelector", "matchExpressions", default=[])
    return not scopes or (collection == "pods" and all(_scope(s, obj["spec"]) for s in scopes))


def _scope(scope: Json, spec: Json) -> bool:
    ends = spec.get("activeDeadlineSeconds") is not None
    asks = any(dig(c, "resources", k) for c in amounts.containers(spec) for k in ("requests", "limits"))
    affinity = spec.get("affinity") or {}
    across = any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in _terms(affinity))
    found = {
        "Terminating": ends,
        "NotTerminating": not ends,
        "BestEffort": not asks,
        "NotBestEffort": asks,
        "CrossNamespacePodAffinity": across,
    }
    name, operator, values = scope.get("scopeName"), scope.get("operator"), scope.get("values") or []
    if name != "PriorityClass":
        return found.get(str(name), False)
    of_class = spec.get("priorityClassName")
    return {
        "In": of_class in values,
        "NotIn": of_class not in values,
        "Exists": bool(of_class),
        "DoesNotExist": not of_class,
    }.get(str(operator), False)


def _terms(affinity: Json) -> list[Json]:
    out: list[Json] = []
    for kind in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(kind) or {}
        out += found.get("requiredDuringSchedulingIgnoredDuringExecution") or []
        preferred = found.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        out += [t.get("podAffinityTerm") or {} for t in preferred]
    return out
