"""Pods with scheduling gates: until these are removed, the nodes that a pod may run on may still be narrowed.

Follows ``ValidatePodUpdate`` of Kubernetes ("Mutable Pod scheduling directives" in its documentation).
"""

from __future__ import annotations

from lateen.cluster.apiserver.validation.fields import Causes, bad
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_ADDITIONS = "only additions are allowed (no mutations or deletions)"


def narrowed(new: Json, old: Json) -> tuple[Json, Causes]:
    """The new spec with the former directives, for comparing the rest, and which changes of them are refused."""
    if not old.get("schedulingGates"):
        return new, []
    out = _selector(new.get("nodeSelector") or {}, old.get("nodeSelector") or {})
    out += _affinity(_terms(new), _terms(old))
    return _with(new, old), out


def _selector(new: Json, old: Json) -> Causes:
    if old.items() <= new.items():
        return []
    says = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
    return [bad("spec.nodeSelector", new, says)]


def _terms(spec: Json) -> list[Json]:
    found: list[Json] = dig(spec, "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms", default=[])
    return found


def _affinity(new: list[Json], old: list[Json]) -> Causes:
    at = f"spec.affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
    if old and len(new) != len(old):
        return [bad(at, new, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")]
    return [
        bad(f"{at}[{i}]", now, _ADDITIONS)
        for i, (now, was) in enumerate(zip(new, old, strict=False))
        if not _extended(now, was)
    ]


def _extended(new: Json, old: Json) -> bool:
    keys = ("matchExpressions", "matchFields")
    if not any(old.get(k) for k in keys):  # it selects nothing, and no longer would
        return not any(new.get(k) for k in keys)
    return all((new.get(k) or [])[: len(old.get(k) or [])] == (old.get(k) or []) for k in keys)


def _with(new: Json, old: Json) -> Json:
    out = jsons.copy(new)
    out.pop("nodeSelector", None)
    out |= {"nodeSelector": old["nodeSelector"]} if "nodeSelector" in old else {}
    own = {**(out.pop("affinity", None) or {})}
    own.pop("nodeAffinity", None)
    before = old.get("affinity") or {}
    own |= {"nodeAffinity": before["nodeAffinity"]} if "nodeAffinity" in before else {}
    return out | ({"affinity": own} if own or "affinity" in old else {})
