"""What is reported of a Deployment. Pure; follows ``calculateStatus`` and ``syncRolloutStatus`` of Kubernetes."""

from __future__ import annotations

from datetime import datetime

from lateen.cluster.controllers import conditions
from lateen.cluster.controllers.ownership import share
from lateen.kit import times
from lateen.kit.jsons import Json, dig

PROGRESSING, AVAILABLE, FAILURE = "Progressing", "Available", "ReplicaFailure"
DONE, GOING_ON, LATE = "NewReplicaSetAvailable", "ReplicaSetUpdated", "ProgressDeadlineExceeded"
CREATED, FOUND = "NewReplicaSetCreated", "FoundNewReplicaSet"
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"
NO_DEADLINE = 2**31 - 1


def spec_count(s: Json) -> int:
    return int(dig(s, "spec", "replicas", default=0))


def available_of(s: Json) -> int:
    return int(dig(s, "status", "availableReplicas", default=0))


def room(spec: Json, want: int) -> tuple[int, int]:
    """How many pods there may be besides the wanted ones, and how many of these may be missing."""
    if dig(spec, "strategy", "type") == "Recreate":
        return 0, 0
    rolling = dig(spec, "strategy", "rollingUpdate", default={})
    surge = share(rolling.get("maxSurge", "25%"), want, up=True)
    missing = share(rolling.get("maxUnavailable", "25%"), want, up=False)
    return surge, min(want, missing if surge or missing else 1)


def complete(d: Json, want: int, status: Json | None = None) -> bool:
    """Whether all pods are of the newest template and serve, by the status (what was reported last)."""
    found = d.get("status") or {} if status is None else status
    counts = [int(found.get(k) or 0) for k in ("updatedReplicas", "replicas", "availableReplicas")]
    return counts == [want] * 3 and found.get("observedGeneration") == d["metadata"].get("generation", 1)


def counted(d: Json, want: int, new: Json | None, mine: list[Json], now: datetime) -> Json:
    """The counts, and whether enough pods serve."""
    available, total = sum(map(available_of, mine)), sum(dig(s, "status", "replicas", default=0) for s in mine)
    enough = available >= want - room(d["spec"], want)[1]
    says = f"Deployment {'has' if enough else 'does not have'} minimum availability."
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    found = _held(d, now)
    return {
        "observedGeneration": d["metadata"].get("generation", 1),
        "replicas": total,
        "updatedReplicas": dig(new, "status", "replicas", default=0) if new else 0,
        "readyReplicas": sum(dig(s, "status", "readyReplicas", default=0) for s in mine),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(map(spec_count, mine)) - available),
        "conditions": conditions.put(found, _condition(AVAILABLE, str(enough), reason, says, now)),
    }


def rollout(d: Json, want: int, new: Json | None, mine: list[Json], now: datetime, created: bool = False) -> Json:
    """The counts, and how the rollout goes. ``created``: whether the newest ReplicaSet is created just now."""
    status = counted(d, want, new, mine, now)
    found: list[Json] = status["conditions"]
    was = conditions.find(dig(d, "status", "conditions", default=[]), PROGRESSING)
    who = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{d["metadata"]["name"]}"'
    limited = _limit(d) is not None
    if not limited:
        found = conditions.without(found, PROGRESSING)
    elif new and (created or not conditions.find(found, PROGRESSING)):
        reason, did = (CREATED, "Created") if created else (FOUND, "Found")
        says = f'{did} new replica set "{new["metadata"]["name"]}"'
        found = conditions.put(found, _condition(PROGRESSING, "True", reason, says, now))
    ended = status["replicas"] == status["updatedReplicas"] and was.get("reason") == DONE
    if limited and not ended:
        if complete(d, want, status):
            says = f"{who} has successfully progressed."
            found = conditions.put(found, _condition(PROGRESSING, "True", DONE, says, now))
        elif _grows(d, status):
            made_ = _condition(PROGRESSING, "True", GOING_ON, f"{who} is progressing.", now)
            if was.get("status") == "True":
                made_["lastTransitionTime"] = was["lastTransitionTime"]
            found = [*conditions.without(found, PROGRESSING), made_]
        elif _late(d, conditions.find(found, PROGRESSING), now):
            says = f"{who} has timed out progressing."
            found = conditions.put(found, _condition(PROGRESSING, "False", LATE, says, now))
    status["conditions"] = _failures(found, new, mine)
    return status


def _condition(kind: str, status: str, reason: str, message: str, now: datetime) -> Json:
    at = times.stamp(now)
    shown = {"type": kind, "status": status, "reason": reason, "message": message}
    return shown | {"lastUpdateTime": at, "lastTransitionTime": at}


def _limit(d: Json) -> int | None:
    found = dig(d, "spec", "progressDeadlineSeconds")
    return None if found is None or int(found) == NO_DEADLINE else int(found)


def _held(d: Json, now: datetime) -> list[Json]:
    """The conditions as they were, or that the rollout is held up, or goes on again."""
    found: list[Json] = list(dig(d, "status", "conditions", default=[]))
    was = conditions.find(found, PROGRESSING)
    if _limit(d) is None or was.get("reason") == LATE:
        return found
    paused = bool(d["spec"].get("paused"))
    if paused and was.get("reason") != PAUSED:
        return conditions.put(found, _condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now))
    if not paused and was.get("reason") == PAUSED:
        return conditions.put(found, _condition(PROGRESSING, "Unknown", RESUMED, "Deployment is resumed", now))
    return found


def _grows(d: Json, status: Json) -> bool:
    """Whether the rollout has progressed since the last status."""
    was = d.get("status") or {}
    before = {k: int(was.get(k) or 0) for k in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")}
    more = any(status[k] > before[k] for k in ("updatedReplicas", "readyReplicas", "availableReplicas"))
    fewer = status["replicas"] - status["updatedReplicas"] < before["replicas"] - before["updatedReplicas"]
    return bool(more or fewer)


def _late(d: Json, condition: Json, now: datetime) -> bool:
    if not condition or condition["reason"] == DONE:
        return False
    return condition["reason"] == LATE or _left_s(d, condition, now) <= 0


def _left_s(d: Json, condition: Json, now: datetime) -> float:
    return (_limit(d) or 0) - (now - times.parse(condition["lastUpdateTime"])).total_seconds()


def _failures(found: list[Json], new: Json | None, mine: list[Json]) -> list[Json]:
    """That pods cannot be made, as the newest ReplicaSet says it, or else an older one."""
    said = {s["metadata"]["name"]: conditions.find(dig(s, "status", "conditions", default=[]), FAILURE) for s in mine}
    own = said.get(new["metadata"]["name"]) if new else None
    failure = own or next((c for c in said.values() if c), None)
    if not failure:
        return conditions.without(found, FAILURE)
    return conditions.put(found, failure | {"lastUpdateTime": failure["lastTransitionTime"]})


def deadline_s(d: Json, status: Json, now: datetime) -> float | None:
    """Seconds until a rollout that is going on counts as failed; None if there is nothing to wait for."""
    condition = conditions.find(status["conditions"], PROGRESSING)
    if d["metadata"].get("deletionTimestamp"):
        return None  # its rollout is not judged any more
    if not condition or _limit(d) is None or d["spec"].get("paused") or condition["reason"] in (DONE, LATE, PAUSED):
        return None
    return max(_left_s(d, condition, now), 0.0) + 0.05
