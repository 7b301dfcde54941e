"""Counts the pods of a Job. Pure; follows Kubernetes' job controller.

A pod carries a finalizer until it has been counted, so that a deleted one is not forgotten. Counting takes two steps:
first its uid is written into the status, then the finalizer goes; so it is counted once, whenever we are stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lateen.api.reading import is_finished
from lateen.cluster.controllers import job_indexes
from lateen.cluster.controllers.job_indexes import Indexes, index_of
from lateen.cluster.controllers.ownership import is_ready
from lateen.kit.jsons import Json, dig

FINALIZER = "batch.kubernetes.io/job-tracking"
TARGET = "DisruptionTarget"
DECIDED = ("FailureTarget", "SuccessCriteriaMet")


@dataclass
class Tally:
    """``succeeded`` and ``failed`` count pods (of an Indexed Job: completed indexes); ``uncounted``: uids whose pods
    still have the finalizer, by outcome; ``ended``: those pods."""

    active: list[Json] = field(default_factory=list)
    terminating: list[Json] = field(default_factory=list)
    ended: list[Json] = field(default_factory=list)
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    indexes: Indexes = field(default_factory=Indexes)
    uncounted: dict[str, list[str]] = field(default_factory=dict)
    failure: str = ""
    """Why a pod's failure is the Job's, by its podFailurePolicy."""


def tracked(pod: Json) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or [])


def tally(job: Json, pods: list[Json]) -> Tally:
    status, spec = job.get("status") or {}, job["spec"]
    indexed = spec.get("completionMode") == "Indexed"
    tracking = {p["metadata"]["uid"] for p in pods if tracked(p)}
    out = Tally(succeeded=int(status.get("succeeded") or 0), failed=int(status.get("failed") or 0))
    if indexed:
        out.indexes.succeeded = job_indexes.parse(str(status.get("completedIndexes") or ""))
        out.indexes.failed = job_indexes.parse(str(status.get("failedIndexes") or ""))
    known = status.get("uncountedTerminatedPods") or {}
    for outcome in ("succeeded", "failed"):
        waiting = known.get(outcome) or []
        done = [uid for uid in waiting if uid not in tracking]
        if outcome == "failed":
            out.failed += len(done)
        elif not indexed:
            out.succeeded += len(done)
        out.uncounted[outcome] = [uid for uid in waiting if uid in tracking]
    seen = {uid for uids in out.uncounted.values() for uid in uids}
    for pod in pods:
        _add(out, job, pod, seen, indexed)
    if indexed:
        out.indexes.succeeded = {i for i in out.indexes.succeeded if i < int(spec["completions"])}
        out.indexes.failed -= out.indexes.succeeded
        out.succeeded = len(out.indexes.succeeded)
    return out


def _add(out: Tally, job: Json, pod: Json, seen: set[str], indexed: bool) -> None:
    meta, phase = pod["metadata"], dig(pod, "status", "phase")
    going = bool(meta.get("deletionTimestamp"))
    decided = [c["type"] for c in dig(job, "status", "conditions", default=[]) if c["type"] in DECIDED]
    if going and decided and not is_finished(pod):  # it goes because of the Job's end: that is no failure of an index
        if tracked(pod):
            out.ended.append(pod)
            if meta["uid"] not in seen and "SuccessCriteriaMet" not in decided:
                out.uncounted["failed"].append(meta["uid"])
        out.terminating.append(pod)
    elif phase == "Succeeded" or is_finished(pod) or (going and not _waits_for_end(job)):
        outcome = "succeeded" if phase == "Succeeded" else "failed"
        action, why = _by_policy(job, pod) if outcome == "failed" else ("Count", "")
        if tracked(pod):
            out.ended.append(pod)
            out.failure = out.failure or why
            if indexed and outcome == "succeeded" and (index := index_of(pod)) is not None:
                out.indexes.succeeded.add(index)
            if meta["uid"] not in seen and action != "Ignore" and not (indexed and outcome == "succeeded"):
                out.uncounted[outcome].append(meta["uid"])
        if indexed and outcome == "failed":
            out.indexes.fails(job["spec"], pod, action, ended_at(pod))
        if going and not is_finished(pod):
            out.terminating.append(pod)
    elif going:
        out.terminating.append(pod)
    else:
        out.active.append(pod)
        out.ready += is_ready(pod)


def _waits_for_end(job: Json) -> bool:
    """Whether a pod that is being deleted counts as failed only once it has ended."""
    return job["spec"].get("podReplacementPolicy") == "Failed" or bool(job["spec"].get("podFailurePolicy"))


def done(t: Tally) -> tuple[int, int]:
    """Pods that have succeeded and failed, counted or not."""
    return t.succeeded + len(t.uncounted["succeeded"]), t.failed + len(t.uncounted["failed"])


# --- podFailurePolicy ------------------------------------------------------------------------------------------------


def _by_policy(job: Json, pod: Json) -> tuple[str, str]:
    """The action of the first rule that matches ("Count" without one), and why the Job fails if it does."""
    for i, rule in enumerate(dig(job, "spec", "podFailurePolicy", "rules", default=[])):
        matched = _exit_code(rule["onExitCodes"], pod) if rule.get("onExitCodes") else _condition(rule, pod)
        if not matched:
            continue
        action = str(rule["action"])
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        fails = action == "FailJob"
        return action, f"{matched.format(pod=name)} matching FailJob rule at index {i}" if fails else ""
    return "Count", ""


def _exit_code(wanted: Json, pod: Json) -> str:
    """What the pod's failure is called, if a container's exit code matches."""
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        code = dig(container, "state", "terminated", "exitCode", default=0)
        if wanted.get("containerName") not in (None, container.get("name")) or not code:
            continue
        if (code in (wanted.get("values") or [])) == (wanted.get("operator") == "In"):
            return f"Container {container['name']} for pod {{pod}} failed with exit code {code}"
    return ""


def _condition(rule: Json, pod: Json) -> str:
    for wanted in rule.get("onPodConditions") or []:
        for found in dig(pod, "status", "conditions", default=[]):
            if found.get("type") == wanted.get("type") and found.get("status") == wanted.get("status", "True"):
                return f"Pod {{pod}} has condition {wanted['type']}"
    return ""


def restarts(pods: Iterable[Json]) -> int:
    """Of all containers together: what ``backoffLimit`` counts where pods restart their containers themselves."""
    total = 0
    for pod in pods:
        status = pod.get("status") or {}
        for key in ("initContainerStatuses", "containerStatuses"):
            total += sum(int(c.get("restartCount") or 0) for c in status.get(key) or [])
    return total


def ended_at(pod: Json) -> str:
    """When the last of its containers ended (or it was created)."""
    containers = dig(pod, "status", "containerStatuses", default=[])
    ends = [str(dig(c, "state", "terminated", "finishedAt", default="")) for c in containers]
    return max(ends, default="") or str(pod["metadata"].get("creationTimestamp"))
