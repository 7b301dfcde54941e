"""Whether a pod may run on a node: selectors, affinity, taints, resources. Follows kube-scheduler."""

from __future__ import annotations

from collections.abc import Iterable

from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json, dig

UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
DAEMON_TOLERATIONS: tuple[Json, ...] = (
    *(
        {"key": f"node.kubernetes.io/{k}", "operator": "Exists", "effect": "NoExecute"}
        for k in ("not-ready", "unreachable")
    ),
    *(
        {"key": f"node.kubernetes.io/{k}", "operator": "Exists", "effect": "NoSchedule"}
        for k in ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
    ),
)
"""What the pods of a DaemonSet tolerate in any case."""


def tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def taints(node: Json) -> list[Json]:
    """A cordoned node has a taint of its own."""
    found = list(dig(node, "spec", "taints", default=[]))
    cordoned = dig(node, "spec", "unschedulable") and not any(t.get("key") == UNSCHEDULABLE["key"] for t in found)
    return [*found, UNSCHEDULABLE] if cordoned else found


def untolerated(spec: Json, node: Json, effects: Iterable[str]) -> Json | None:
    """The first taint of these effects that the pod does not tolerate."""
    wanted, tolerations = set(effects), spec.get("tolerations") or []
    for taint in taints(node):
        if taint.get("effect") in wanted and not any(tolerates(t, taint) for t in tolerations):
            return taint
    return None


def selected(spec: Json, node: Json) -> bool:
    """nodeSelector and the required node affinity."""
    labels = dig(node, "metadata", "labels", default={})
    if any(labels.get(k) != v for k, v in (spec.get("nodeSelector") or {}).items()):
        return False
    required = dig(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term(term, node) for term in required.get("nodeSelectorTerms") or [])


def _term(term: Json, node: Json) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False  # an empty term selects nothing
    labels = dig(node, "metadata", "labels", default={})
    named = {"metadata.name": node["metadata"]["name"]}
    return all(_matches(e, labels) for e in expressions) and all(_matches(e, named) for e in fields)


def _matches(e: Json, values: Json) -> bool:
    key, wanted, operator = str(e.get("key")), e.get("values") or [], e.get("operator")
    found = values.get(key)
    match operator:
        case "In":
            return found in wanted
        case "NotIn":
            return found not in wanted
        case "Exists":
            return key in values
        case "DoesNotExist":
            return key not in values
        case "Gt" | "Lt":
            try:
                has, limit = int(str(found)), int(wanted[0])
                return has > limit if operator == "Gt" else has < limit
            except (TypeError, ValueError, IndexError):
                return False
    return False


def is_extended(name: str) -> bool:
    """Whether a resource is one that administrators have told nodes of (``example.com/dongle``)."""
    domain, slash, _ = name.partition("/")
    return bool(slash) and domain != "kubernetes.io" and not domain.endswith(".kubernetes.io")


def unfit(pod: Json, node: Json, taken: amounts.Amounts | None = None) -> str:
    """Why the only node does not fit, in kube-scheduler's words; empty if it does.

    A pod that asks for more than the node has fits nowhere. What all pods together ask for is not added up: they share
    the user's own machine, and nothing is reserved on it. Extended resources are counted: ``taken`` are those that
    other pods have.
    """
    spec, said = pod["spec"], "0/1 nodes are available: 1 "
    cordoned = {**node, "spec": {"unschedulable": dig(node, "spec", "unschedulable")}}
    if untolerated(spec, cordoned, ("NoSchedule",)):
        return f"{said}node(s) were unschedulable."
    if not selected(spec, node):
        return f"{said}node(s) didn't match Pod's node affinity/selector."
    if taint := untolerated(spec, node, ("NoSchedule", "NoExecute")):
        return f"{said}node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}."
    has = {**dig(node, "status", "capacity", default={}), **dig(node, "status", "allocatable", default={})}
    for name, amount in sorted(amounts.of_pod(spec, "requests").items()):
        used = (taken or {}).get(name, amounts.ZERO) if is_extended(name) else amounts.ZERO
        if amount and amount + used > amounts.parse(has.get(name, "0")):
            return f"{said}Insufficient {name}."
    return ""
