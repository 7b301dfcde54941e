"""Jobs: pods that run to completion (``parallelism`` at once, ``completions`` in total)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import job_indexes, job_pods
from lateen.cluster.controllers.job_indexes import INDEX, Failures, index_of
from lateen.cluster.controllers.job_pods import FINALIZER, Tally
from lateen.cluster.controllers.loop import Events, Key, ending, set_status
from lateen.cluster.controllers.ownership import after, owned_by, pod_of, surplus
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

BACKOFF_S, LONGEST_S = 10.0, 600.0
"""Seconds until the next pod after the first failure, doubled by each further one, and the most."""
BURST = 50


@dataclass
class Step:
    """What to do next; ``delete``: pods of a Job that has come to its end, and counts them; ``spare``: pods that are
    not needed for now, and do not count; ``again``: seconds until the Job has to be looked at again."""

    create: list[Json] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    spare: list[Json] = field(default_factory=list)
    status: Json = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    again: float | None = None


class Jobs:
    name = "job"
    watches = (kinds.JOB, kinds.POD)

    def __init__(self, client: Client, events: Events) -> None:
        self._client, self._events = client, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        """An orphan that still has our finalizer belongs to nobody: ``(namespace, "")``."""
        if kind == kinds.JOB:
            yield from ((o["metadata"]["namespace"], o["metadata"]["name"]) for o in (new or old,) if o)
            return
        for pod in filter(None, (old, new)):
            ref = _controller(pod)
            if ref is not None and ref.get("kind") == "Job":
                yield pod["metadata"]["namespace"], str(ref.get("name"))
            elif ref is None and job_pods.tracked(pod):
                yield pod["metadata"]["namespace"], ""

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        job = await self._client.get(kinds.JOB, namespace, name) if name else None
        found, _ = await self._client.list(kinds.POD, namespace)
        await self._release([p for p in found if _left_behind(p, name, job)])
        if job is None:
            return None
        pods = [p for p in found if owned_by(p, job["metadata"]["uid"])]
        if job["metadata"].get("deletionTimestamp"):
            await self._release([p for p in pods if job_pods.tracked(p)])
            return None
        if finished(job):
            await self._release([p for p in pods if job_pods.tracked(p)])
            return await self._expire(job)
        t = job_pods.tally(job, pods)
        step = plan(job, pods, t, times.now())
        failure = await self._carry_out(job, step)
        await set_status(self._client, kinds.JOB, job, step.status)
        await self._release(t.ended)
        for type_, reason, message in step.events:
            self._events.event(job, type_, reason, message)
        if failure:
            raise failure
        return step.again

    async def _carry_out(self, job: Json, step: Step) -> KubeError | None:
        namespace = job["metadata"]["namespace"]
        await self._release([p for p in step.spare if job_pods.tracked(p)])
        for name in [*step.delete, *(p["metadata"]["name"] for p in step.spare)]:
            if await self._client.delete(kinds.POD, namespace, name):
                self._events.event(job, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")
        for pod in step.create:
            try:
                made = await self._client.create(kinds.POD, pod)
            except KubeError as e:
                if ending(e):
                    return None
                self._events.event(job, "Warning", "FailedCreate", f"Error creating: {e.message}")
                return e
            self._events.event(job, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return None

    async def _release(self, pods: list[Json]) -> None:
        for pod in pods:
            meta = pod["metadata"]
            left = [f for f in meta.get("finalizers") or [] if f != FINALIZER]
            change = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": left}}
            try:
                await self._client.patch(kinds.POD, meta["namespace"], meta["name"], change)
            except KubeError as e:
                if e.code != 404:
                    raise

    async def _expire(self, job: Json) -> float | None:
        """ttlSecondsAfterFinished."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        ends = [str(c.get("lastTransitionTime")) for c in dig(job, "status", "conditions", default=[]) if _is_end(c)]
        left = (times.parse(max(ends)) - times.now()).total_seconds() + float(ttl)
        if left > 0:
            return left
        await self._client.delete(kinds.JOB, job["metadata"]["namespace"], job["metadata"]["name"])
        return None


def _controller(pod: Json) -> Json | None:
    return next((r for r in dig(pod, "metadata", "ownerReferences", default=[]) if r.get("controller")), None)


def _left_behind(pod: Json, name: str, job: Json | None) -> bool:
    """A pod with our finalizer whose Job is gone, also one that another Job of this name has followed."""
    if not job_pods.tracked(pod):
        return False
    ref = _controller(pod)
    if ref is None:
        return True
    mine = ref.get("kind") == "Job" and ref.get("name") == name
    return mine and (job is None or ref.get("uid") != job["metadata"]["uid"])


def _is_end(condition: Json) -> bool:
    return condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True"


def finished(job: Json) -> bool:
    return any(_is_end(c) for c in dig(job, "status", "conditions", default=[]))


def condition_of(job: Json, kind: str) -> Json | None:
    return next((c for c in dig(job, "status", "conditions", default=[]) if c["type"] == kind), None)


# --- one step --------------------------------------------------------------------------------------------------------


def plan(job: Json, pods: list[Json], t: Tally, now: datetime) -> Step:
    """The next step, from the present state."""
    spec, step = job["spec"], Step()
    succeeded, failed = job_pods.done(t)
    suspended = bool(spec.get("suspend"))
    started = dig(job, "status", "startTime")
    resumes = not suspended and (condition_of(job, "Suspended") or {}).get("status") == "True"
    start = None if suspended else times.stamp(now) if resumes else started or times.stamp(now)
    verdict = _verdict(job, t, succeeded, failed, start, now)
    wanted: Json = {}
    if verdict is not None:
        kind, reason, message = verdict
        step.delete = [p["metadata"]["name"] for p in t.active]
        wanted = {("FailureTarget" if kind == "Failed" else "SuccessCriteriaMet"): ("True", reason, message)}
        if not t.active and not t.terminating:
            wanted[kind] = ("True", reason, message)
            step.events.append(
                ("Normal", "Completed", "Job completed") if kind == "Complete" else ("Warning", reason, message)
            )
    elif suspended:
        step.spare = t.active
        wanted = {"Suspended": ("True", "JobSuspended", "Job suspended")}
    else:
        if resumes:
            wanted = {"Suspended": ("False", "JobResumed", "Job resumed")}
        _more(job, pods, t, succeeded, now, step)
    for kind, (state, _, message) in wanted.items():
        before = condition_of(job, kind)
        if kind == "Suspended" and (before is None or before["status"] != state):
            step.events.append(("Normal", "Suspended" if state == "True" else "Resumed", message))
    if start and spec.get("activeDeadlineSeconds") and verdict is None:
        left = (_deadline(spec, start) - now).total_seconds()
        step.again = min(step.again or left, max(left, 0.0) + 0.05)
    step.status = _status(job, t, step, wanted, start or started, now)
    return step


def _deadline(spec: Json, start: str) -> datetime:
    return times.parse(start) + after(int(spec["activeDeadlineSeconds"]))


def _verdict(
    job: Json, t: Tally, succeeded: int, failed: int, start: str | None, now: datetime
) -> tuple[str, str, str] | None:
    """(condition, reason, message) of a Job that has come to its end."""
    spec = job["spec"]
    for kind, end in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
        if decided := condition_of(job, kind):
            return end, str(decided.get("reason")), str(decided.get("message"))
    if t.failure:
        return "Failed", "PodFailurePolicy", t.failure
    limit = int(spec.get("backoffLimit", 6))
    if failed > limit:
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if dig(spec, "template", "spec", "restartPolicy") == "OnFailure":
        count = job_pods.restarts(t.active)
        if count > 0 and count >= limit:
            return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if start and spec.get("activeDeadlineSeconds") is not None and now >= _deadline(spec, start):
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    indexed = spec.get("completionMode") == "Indexed"
    if indexed and (found := job_indexes.failure(spec, t.indexes)):
        return "Failed", *found
    if indexed and (found := job_indexes.success(spec, t.indexes)):
        return "Complete", *found
    completions = spec.get("completions")
    if completions is not None and succeeded >= int(completions):
        return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
    if completions is None and succeeded and not t.active and not t.terminating:
        return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
    return None


def _more(job: Json, pods: list[Json], t: Tally, succeeded: int, now: datetime, step: Step) -> None:
    """Start or stop pods until as many run as should."""
    spec = job["spec"]
    parallel, completions = int(spec.get("parallelism", 1)), spec.get("completions")
    if completions is None:
        wanted = len(t.active) if succeeded else parallel
    else:
        wanted = min(parallel, int(completions) - succeeded - len(t.indexes.failed))
    running = len(t.active)
    if spec.get("podReplacementPolicy") == "Failed":
        running += len(t.terminating)
    if running > wanted:
        step.spare = surplus(t.active, running - wanted)
        return
    if running == wanted:
        return
    each = spec.get("backoffLimitPerIndex") is not None
    if not each and (wait := _back_off(pods, now)) > 0:
        step.again = wait
        return
    missing = min(wanted - running, BURST)
    if spec.get("completionMode") == "Indexed":
        waiting = t.active + (t.terminating if spec.get("podReplacementPolicy") == "Failed" else [])
        taken = t.indexes.succeeded | t.indexes.failed | {index_of(p) for p in waiting}
        waits = {i: _pause(f.all, f.last, now) for i, f in t.indexes.failures.items() if f.all}
        later = [wait for i, wait in waits.items() if wait > 0 and i not in taken and i < int(completions or 0)]
        free = (i for i in range(int(completions or 0)) if i not in taken and waits.get(i, 0.0) <= 0)
        due = list(islice(free, missing))  # of any number of completions
        step.create = [_pod(job, i, t.indexes.failures.get(i, Failures()) if each else None) for i in due]
        if len(due) < missing and later:
            step.again = min(later)
    else:
        step.create = [_pod(job, None) for _ in range(missing)]


def _back_off(pods: list[Json], now: datetime) -> float:
    """Seconds to wait after failures that no success has followed."""
    ended = [p for p in pods if dig(p, "status", "phase") in ("Succeeded", "Failed")]
    failures = 0
    last = ""
    for pod in sorted(ended, key=job_pods.ended_at, reverse=True):
        if dig(pod, "status", "phase") == "Succeeded":
            break
        last = last or job_pods.ended_at(pod)
        failures += 1
    return _pause(failures, last, now) if failures else 0.0


def _pause(failures: int, last: str, now: datetime) -> float:
    """Seconds that are left of the pause after the last of some failures."""
    pause: float = min(BACKOFF_S * 2 ** min(failures - 1, 10), LONGEST_S)
    return pause - (now - times.parse(last)).total_seconds()


def _pod(job: Json, index: int | None, failures: Failures | None = None) -> Json:
    """``failures``: how often the index has failed, where that is counted."""
    name = job["metadata"]["name"]
    if index is None:
        pod = pod_of(job, job["spec"]["template"], {"generateName": f"{name}-"})
    else:
        own = {INDEX: str(index)}
        notes = own | (failures.notes() if failures is not None else {})
        pod = pod_of(job, job["spec"]["template"], {"generateName": f"{name}-{index}-"}, own, notes)
        pod["spec"]["hostname"] = f"{name}-{index}"[:63].rstrip("-.")
        field = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": field}
        for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]:
            if not any(e.get("name") == variable["name"] for e in container.get("env") or []):
                container["env"] = [*(container.get("env") or []), variable]
    finalizers = pod["metadata"].get("finalizers") or []
    pod["metadata"]["finalizers"] = [*finalizers, *([] if FINALIZER in finalizers else [FINALIZER])]
    return pod


def _status(job: Json, t: Tally, step: Step, wanted: Json, start: str | None, now: datetime) -> Json:
    before = dig(job, "status", "conditions", default=[])
    conditions = [c for c in before if c["type"] not in wanted]
    for kind, (state, reason, message) in wanted.items():
        was = condition_of(job, kind)
        if was and (was["status"], was["reason"], was["message"]) == (state, reason, message):
            conditions.append(was)
            continue
        at = times.stamp(now)
        times_ = {"lastProbeTime": at, "lastTransitionTime": at}
        conditions.append({"type": kind, "status": state, "reason": reason, "message": message, **times_})
    uncounted = {k: v or None for k, v in t.uncounted.items()} if any(t.uncounted.values()) else None
    indexed = job["spec"].get("completionMode") == "Indexed"
    counted = job["spec"].get("backoffLimitPerIndex") is not None
    over = "Complete" in wanted or "Failed" in wanted
    succeeded, failed = (t.succeeded, t.failed) if not over else job_pods.done(t)
    if over:
        uncounted = None
    status: Json = {
        "active": 0 if over else len(t.active) + len(step.create) - len(step.delete) - len(step.spare),
        "succeeded": succeeded,
        "failed": failed,
    }
    status = {k: v or None for k, v in status.items()} | {
        "conditions": conditions or None,
        "ready": 0 if over else t.ready,
        "terminating": 0 if over else len(t.terminating) + len(step.delete) + len(step.spare),
        "startTime": start,
        "completedIndexes": job_indexes.shown(t.indexes.succeeded) or None if indexed else None,
        "failedIndexes": job_indexes.shown(t.indexes.failed) if counted else None,
        "uncountedTerminatedPods": uncounted,
    }
    if "Complete" in wanted:
        status["completionTime"] = times.stamp(now)
    return status
