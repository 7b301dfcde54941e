"""Where a pod may run: tolerations, affinity, spreading, gates (follows core validation's validateTolerations and
validateAffinity)."""

from __future__ import annotations

from lateen.cluster.apiserver.validation import meta, names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, required, unsupported
from lateen.kit.jsons import Json, dig

_OPERATORS = ("Exists", "Equal")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NODE_OPERATORS = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")
_UNSATISFIABLE = ("DoNotSchedule", "ScheduleAnyway")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_ALL = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'


def check(spec: Json, path: str) -> Causes:
    out = _tolerations(spec, path) + _affinity(spec.get("affinity") or {}, f"{path}.affinity")
    for i, c in enumerate(spec.get("topologySpreadConstraints") or []):
        out += _spread(c, f"{path}.topologySpreadConstraints[{i}]")
    for i, gate in enumerate(spec.get("readinessGates") or []):
        name = str(gate.get("conditionType") or "")
        out += [bad(f"{path}.readinessGates[{i}].conditionType", name, s) for s in names.qualified(name)]
    return out + _gates(spec.get("schedulingGates") or [], f"{path}.schedulingGates")


def _gates(gates: list[Json], path: str) -> Causes:
    out: Causes = []
    seen: set[str] = set()
    for i, gate in enumerate(gates):
        name = str(gate.get("name") or "")
        out += [bad(f"{path}[{i}]", name, s) for s in names.qualified(name)]
        out += [duplicate(f"{path}[{i}]", name)] if name in seen else []
        seen.add(name)
    return out


def _tolerations(spec: Json, path: str) -> Causes:
    out: Causes = []
    for i, t in enumerate(spec.get("tolerations") or []):
        at, key, operator = f"{path}.tolerations[{i}]", t.get("key"), t.get("operator") or ""
        if key:
            out += [bad(f"{at}.key", key, s) for s in names.qualified(key)]
        elif operator != "Exists":
            out.append(bad(f"{at}.operator", operator, _ALL))
        if t.get("tolerationSeconds") is not None and t.get("effect") != "NoExecute":
            says = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            out.append(bad(f"{at}.effect", t.get("effect") or "", says))
        if operator == "Exists" and t.get("value"):
            out.append(bad(f"{at}.operator", t["value"], "value must be empty when `operator` is 'Exists'"))
        if operator and operator not in _OPERATORS:
            out.append(unsupported(f"{at}.operator", operator, _OPERATORS))
        if t.get("effect") and t["effect"] not in _EFFECTS:
            out.append(unsupported(f"{at}.effect", t["effect"], _EFFECTS))
    return out


def taints(found: list[Json], path: str) -> Causes:
    """Of a node."""
    out: Causes = []
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(found):
        at, key, effect = f"{path}[{i}]", str(taint.get("key") or ""), str(taint.get("effect") or "")
        out += [bad(f"{at}.key", key, s) for s in names.qualified(key)]
        out += [bad(f"{at}.value", taint["value"], s) for s in names.label_value(str(taint.get("value") or ""))]
        if not effect:
            out.append(required(f"{at}.effect"))
        elif effect not in _EFFECTS:
            out.append(unsupported(f"{at}.effect", effect, _EFFECTS, ordered=True))
        out += [duplicate(at, taint)] if (key, effect) in seen else []
        seen.add((key, effect))
    return out


def _affinity(affinity: Json, path: str) -> Causes:
    node = affinity.get("nodeAffinity") or {}
    out: Causes = []
    if (wanted := node.get(_REQUIRED)) is not None:
        at = f"{path}.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
        if not wanted.get("nodeSelectorTerms"):
            out.append(required(at, "must have at least one node selector term"))
        for i, term in enumerate(wanted.get("nodeSelectorTerms") or []):
            out += _term(term, f"{at}[{i}]")
    for i, liked in enumerate(node.get(_PREFERRED) or []):
        at = f"{path}.nodeAffinity.{_PREFERRED}[{i}]"
        out += _weight(liked, at) + _term(liked.get("preference") or {}, f"{at}.preference")
    for key in ("podAffinity", "podAntiAffinity"):
        for i, near in enumerate(dig(affinity, key, _REQUIRED, default=[])):
            out += _near(near, f"{path}.{key}.{_REQUIRED}[{i}]")
        for i, liked in enumerate(dig(affinity, key, _PREFERRED, default=[])):
            at = f"{path}.{key}.{_PREFERRED}[{i}]"
            out += _weight(liked, at) + _near(liked.get("podAffinityTerm") or {}, f"{at}.podAffinityTerm")
    return out


def _weight(liked: Json, at: str) -> Causes:
    weight = liked.get("weight") or 0
    return [] if 1 <= weight <= 100 else [bad(f"{at}.weight", weight, "must be in the range 1-100")]


def _term(term: Json, path: str) -> Causes:
    """Of nodes, by their labels."""
    out: Causes = []
    for i, e in enumerate(term.get("matchExpressions") or []):
        at, operator, values = f"{path}.matchExpressions[{i}]", e.get("operator") or "", e.get("values") or []
        if operator in ("In", "NotIn") and not values:
            out.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        if operator in ("Exists", "DoesNotExist") and values:
            says = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            out.append(denied(f"{at}.values", says))
        if operator in ("Gt", "Lt") and len(values) != 1:
            says = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            out.append(required(f"{at}.values", says))
        if operator not in _NODE_OPERATORS:
            out.append(bad(f"{at}.operator", operator, "not a valid selector operator"))
        out += [bad(f"{at}.key", e.get("key") or "", s) for s in names.qualified(str(e.get("key") or ""))]
    return out


def _near(term: Json, path: str) -> Causes:
    """Of other pods; ``topologyKey`` is required by the schema."""
    out = meta.selector(term["labelSelector"], f"{path}.labelSelector") if term.get("labelSelector") else []
    key = str(term.get("topologyKey") or "")
    if "topologyKey" not in term:
        return out
    out += [] if key else [required(f"{path}.topologyKey", "can not be empty")]
    return out + [bad(f"{path}.topologyKey", key, s) for s in names.qualified(key)]


def _spread(constraint: Json, path: str) -> Causes:
    out: Causes = []
    skew = constraint.get("maxSkew") or 0
    if skew <= 0:
        out.append(bad(f"{path}.maxSkew", skew, "must be greater than zero"))
    key, otherwise = str(constraint.get("topologyKey") or ""), constraint.get("whenUnsatisfiable")
    out += (
        [bad(f"{path}.topologyKey", key, s) for s in names.qualified(key)]
        if key
        else [required(f"{path}.topologyKey", "can not be empty")]
    )
    least = constraint.get("minDomains")
    if least is not None and otherwise != "DoNotSchedule":
        says = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {otherwise}"
        out.append(bad(f"{path}.minDomains", least, says))
    if otherwise not in _UNSATISFIABLE:
        out.append(unsupported(f"{path}.whenUnsatisfiable", otherwise or "", _UNSATISFIABLE))
    if constraint.get("labelSelector"):
        out += meta.selector(constraint["labelSelector"], f"{path}.labelSelector")
    return out
