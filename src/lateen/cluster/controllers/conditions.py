"""Lists of conditions as Kubernetes' controllers keep them. Pure; nothing is changed in place."""

from __future__ import annotations

from lateen.kit.jsons import Json


def find(conditions: list[Json], kind: str) -> Json:
    """Empty if there is none."""
    return next((c for c in conditions if c["type"] == kind), {})


def without(conditions: list[Json], kind: str) -> list[Json]:
    return [c for c in conditions if c["type"] != kind]


def put(conditions: list[Json], new: Json, timed: str = "lastTransitionTime") -> list[Json]:
    """With a condition as Deployments and ReplicaSets set theirs, which comes last if its status or reason is
    another than before, whatever its message says; the time of its transition stays if its status does."""
    was = find(conditions, str(new["type"]))
    if was and (was["status"], was.get("reason")) == (new["status"], new.get("reason")):
        return conditions
    same = was and was["status"] == new["status"]
    return [*without(conditions, str(new["type"])), new | ({timed: was[timed]} if same and was.get(timed) else {})]


def replace(conditions: list[Json], new: Json) -> list[Json]:
    """With a condition in the place of the one before; the time of its transition stays if its status does (as
    ``meta.SetStatusCondition`` and the controllers of namespaces and pods do it)."""
    was = find(conditions, str(new["type"]))
    if not was:
        return [*conditions, new]
    same = was["status"] == new["status"] and was.get("lastTransitionTime")
    made = new | ({"lastTransitionTime": was["lastTransitionTime"]} if same else {})
    return [made if c is was else c for c in conditions]
