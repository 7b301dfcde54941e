"""Disruption budgets, priorities, limit ranges and quotas (follows policy, scheduling and core validation)."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.validation import meta, names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, immutable, required, unsupported
from lateen.cluster.apiserver.validation.workloads import share
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json

HIGHEST = 1_000_000_000
"""Of a user's priority; above it are Kubernetes' own."""
SYSTEM = {"system-cluster-critical": 2 * HIGHEST, "system-node-critical": 2 * HIGHEST + 1000}
_PREEMPTION = ("PreemptLowerPriority", "Never")
_TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_FRACTIONAL = ("cpu", "memory", "ephemeral-storage")
_QUOTA = {
    *(*_FRACTIONAL, "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps"),
    *("persistentvolumeclaims", "services.nodeports", "services.loadbalancers", "storage"),
}
_OPPOSITE = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
_SCOPES = ("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating")


def disruption_budget(obj: Json, _: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out: Causes = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        out.append(bad("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        wrong = share(spec.get(key), f"spec.{key}")
        if not wrong and str(spec.get(key)).endswith("%") and int(spec[key][:-1]) > 100:
            wrong = [bad(f"spec.{key}", spec[key], "must not be greater than 100%")]
        out += wrong
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy not in (None, "IfHealthyBudget", "AlwaysAllow"):
        out.append(unsupported("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget")))
    return out + (meta.selector(spec["selector"], "spec.selector") if spec.get("selector") else [])


def priority_class(obj: Json, old: Json | None) -> Causes:
    name, value = str(obj["metadata"].get("name") or ""), obj.get("value") or 0
    out: Causes = []
    if name.startswith("system-"):
        if SYSTEM.get(name) != value:
            says = "priority class names with 'system-' prefix are reserved for system use only"
            out.append(denied("metadata.name", says))
    elif value > HIGHEST:
        out.append(denied("value", f"maximum allowed value of a user defined priority is {HIGHEST}"))
    if obj.get("preemptionPolicy") not in _PREEMPTION:
        out.append(unsupported("preemptionPolicy", obj.get("preemptionPolicy"), _PREEMPTION, ordered=True))
    if old is not None and value != (old.get("value") or 0):
        out.append(denied("value", "may not be changed in an update."))
    if old is not None and obj.get("preemptionPolicy") != old.get("preemptionPolicy"):
        out.append(immutable("preemptionPolicy", obj.get("preemptionPolicy")))
    return out


def limit_range(obj: Json, _: Json | None) -> Causes:
    out: Causes = []
    seen: set[str] = set()
    for i, limit in enumerate((obj.get("spec") or {}).get("limits") or []):
        at, kind = f"spec.limits[{i}]", str(limit.get("type") or "")
        if kind not in _TYPES and "/" not in kind:
            out.append(bad(f"{at}.type", kind, "must be a standard limit type or fully qualified"))
        if kind in seen:
            out.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
        parts = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
        wrong = [c for part in parts for c in _amounts(limit.get(part) or {}, f"{at}.{part}")]
        if kind == "Pod":
            says = "may not be specified when `type` is 'Pod'"
            wrong += [denied(f"{at}.{k}", says) for k in ("default", "defaultRequest") if limit.get(k)]
        if kind == "PersistentVolumeClaim" and not limit.get("min") and not limit.get("max"):
            says = "either minimum or maximum storage value is required, but neither was provided"
            wrong.append(required(f"{at}.limits", says))
        out += wrong or _ordered(limit, at)
    return out


def _ordered(limit: Json, at: str) -> Causes:
    """min <= defaultRequest <= default <= max, as far as they are given; ratios are at least 1."""
    out: Causes = []
    for name, ratio in (limit.get("maxLimitRequestRatio") or {}).items():
        if amounts.parse(ratio) < 1:
            out.append(bad(f"{at}.maxLimitRequestRatio[{name}]", str(ratio), f"ratio {ratio} is less than 1"))
    parts = [(p, limit.get(p) or {}) for p in ("min", "defaultRequest", "default", "max")]
    for i, (low, lower) in enumerate(parts):
        for high, higher in parts[i + 1 :]:
            for name in sorted(lower.keys() & higher.keys()):
                if amounts.parse(lower[name]) > amounts.parse(higher[name]):
                    says = f"{_words(low)} value {lower[name]} is greater than {_words(high)} value {higher[name]}"
                    where = high if low == "min" and high != "max" else low
                    out.append(bad(f"{at}.{where}[{name}]", str(lower[name]), says))
    return out


def _words(part: str) -> str:
    return {"defaultRequest": "default request"}.get(part, part)


def quota(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    hard = spec.get("hard") or {}
    out = _amounts(hard, "spec.hard")
    for name in hard:
        plain = name.removeprefix("requests.").removeprefix("limits.")
        if "/" not in name and not plain.startswith("hugepages-"):
            if plain not in (_QUOTA if plain == name else (*_FRACTIONAL, "storage")):
                says = ("must be a standard resource type or fully qualified", "must be a standard resource for quota")
                out += [bad(f"spec.hard[{name}]", name, s) for s in says]
            elif not out and name not in _FRACTIONAL and amounts.parse(hard[name]) % 1:
                out.append(bad(f"spec.hard[{name}]", str(hard[name]), "must be an integer"))
    scopes = spec.get("scopes") or []
    if any(scope not in _SCOPES for scope in scopes):
        out.append(bad("spec.scopes", scopes, "unsupported scope"))
    if ("BestEffort" in scopes and any(name != "pods" for name in hard)) or any(
        not _of_pods(name) for name in hard if set(scopes) & set(_SCOPES)
    ):
        out.append(bad("spec.scopes", scopes, "unsupported scope applied to resource"))
    if any(set(pair) <= set(scopes) for pair in _OPPOSITE):
        out.append(bad("spec.scopes", scopes, "conflicting scopes"))
    selected = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    if any(match.get("scopeName") in _SCOPES for match in selected) and not all(map(_of_pods, hard)):
        why = "unsupported scope applied to resource"
        out.append(bad("spec.scopeSelector.matchExpressions", spec["scopeSelector"], why))
    for i, match in enumerate(selected):
        at = f"spec.scopeSelector.matchExpressions[{i}]"
        if match.get("scopeName") not in _SCOPES:
            where = "spec.scopeSelector.matchExpressions.scopeName"
            out.append(bad(where, match.get("scopeName"), "unsupported scope"))
        out += _matched(match, "spec.scopeSelector.matchExpressions", at)
    if old is not None and spec.get("scopes") != old["spec"].get("scopes"):
        out.append(immutable("spec.scopes", spec.get("scopes")))
    return out


def _matched(match: Json, shared: str, at: str) -> Causes:
    """The operator of a scope and its values; ``shared``: as Kubernetes, which does not say which expression."""
    scope, operator, values = match.get("scopeName"), match.get("operator") or "", match.get("values") or []
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        return [bad(f"{at}.operator", operator, "not a valid selector operator")]
    if scope in _SCOPES and scope != "PriorityClass" and operator != "Exists":
        says = (
            "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
            "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
            "ResourceQuotaScopeCrossNamespacePodAffinity"
        )
        return [bad(f"{shared}.operator", operator, says)]
    if operator in ("In", "NotIn") and not values:
        says = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
        return [required(f"{shared}.values", says)]
    if operator in ("Exists", "DoesNotExist") and values:
        says = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
        return [bad(f"{shared}.values", values, says)]
    return []


def _of_pods(name: str) -> bool:
    """Whether a quota's resource is counted of pods, which scopes select."""
    plain = name.removeprefix("requests.").removeprefix("limits.")
    return name == "pods" or plain in _FRACTIONAL


def _amounts(values: dict[str, Any], path: str) -> Causes:
    out: Causes = []
    for name, value in values.items():
        at = f"{path}[{name}]"
        out += [bad(at, name, s) for s in names.qualified(name)]
        try:
            if amounts.parse(value) < 0:
                out.append(bad(at, str(value), "must be greater than or equal to 0"))
        except ValueError as e:
            out.append(bad(at, value, str(e)))
    return out
