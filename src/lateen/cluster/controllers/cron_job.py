"""CronJobs: a Job at each time of the schedule (follows Kubernetes' CronJob controller, version 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Events, Key, controller_of, ending, set_status
from lateen.cluster.controllers.ownership import after, owned_by, owner
from lateen.kit import cron, jsons, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
LONGEST_S = 600.0
"""Seconds after which the clock is checked again: timers fire late after the machine was suspended."""


@dataclass
class Step:
    """``due``: the time that a Job is made for; ``stop``: Jobs that make room for it; ``forget``: finished ones beyond
    the history's limits."""

    due: datetime | None = None
    stop: list[Json] = field(default_factory=list)
    forget: list[Json] = field(default_factory=list)
    active: list[Json] = field(default_factory=list)
    last_success: str | None = None
    events: list[tuple[str, str, str]] = field(default_factory=list)
    again: float | None = None


class CronJobs:
    name = "cronjob"
    watches = (kinds.CRON_JOB, kinds.JOB)

    def __init__(self, client: Client, events: Events) -> None:
        self._client, self._events = client, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        return controller_of(kinds.CRON_JOB, kind, old, new)

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        cj = await self._client.get(kinds.CRON_JOB, namespace, name)
        if cj is None or cj["metadata"].get("deletionTimestamp"):
            return None
        found, _ = await self._client.list(kinds.JOB, namespace)
        jobs = [j for j in found if owned_by(j, cj["metadata"]["uid"])]
        step = plan(cj, jobs, times.now())
        for type_, reason, message in step.events:
            self._events.event(cj, type_, reason, message)
        for job in step.stop:
            await self._delete(cj, job, "SuccessfulDelete", "Deleted job")
        for job in step.forget:
            await self._delete(cj, job, "SuccessfulDelete", "Deleted job")
        active = [j for j in step.active if j not in step.stop]
        status: Json = {"lastSuccessfulTime": step.last_success}
        if step.due is not None:
            if (made := await self._start(cj, step.due)) is not None:
                active.append(made)
            status["lastScheduleTime"] = times.stamp(step.due)
        status["active"] = [_reference(j) for j in active] or None
        await set_status(self._client, kinds.CRON_JOB, cj, status)
        return step.again

    async def _start(self, cj: Json, due: datetime) -> Json | None:
        """None if the Job of that time exists already, or its namespace is about to go."""
        try:
            made = await self._client.create(kinds.JOB, job_of(cj, due))
        except KubeError as e:
            if e.code == 409 or ending(e):
                return None
            self._events.event(cj, "Warning", "FailedCreate", f"Error creating job: {e.message}")
            raise
        self._events.event(cj, "Normal", "SuccessfulCreate", f"Created job {made['metadata']['name']}")
        return made

    async def _delete(self, cj: Json, job: Json, reason: str, says: str) -> None:
        meta = job["metadata"]
        if await self._client.delete(kinds.JOB, meta["namespace"], meta["name"]):
            self._events.event(cj, "Normal", reason, f"{says} {meta['name']}")


def _reference(job: Json) -> Json:
    meta = job["metadata"]
    names = {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "resourceVersion": meta.get("resourceVersion", ""), **names}


def job_of(cj: Json, due: datetime) -> Json:
    """Its name is that of the CronJob and the minute, so that no time has two Jobs."""
    meta, template = cj["metadata"], jsons.copy(cj["spec"]["jobTemplate"])
    found = template.get("metadata") or {}
    zone = cron.zone(cj["spec"].get("timeZone")) or UTC
    annotations = {
        **(found.get("annotations") or {}),
        SCHEDULED: due.astimezone(zone).isoformat().replace("+00:00", "Z"),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{meta['name']}-{int(due.timestamp()) // 60}",
            "namespace": meta["namespace"],
            "labels": found.get("labels") or {},
            "annotations": annotations,
            "ownerReferences": [owner(cj)],
        },
        "spec": template.get("spec") or {},
    }


def _end(job: Json) -> str:
    conditions = dig(job, "status", "conditions", default=[])
    return next((c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), "")


def plan(cj: Json, jobs: list[Json], now: datetime) -> Step:
    """Which Job is due, and which finished Jobs to delete."""
    spec, step = cj["spec"], Step()
    ended = {j["metadata"]["uid"]: _end(j) for j in jobs}
    step.active = [j for j in jobs if not ended[j["metadata"]["uid"]]]
    known = {r.get("uid") for r in dig(cj, "status", "active", default=[])}
    for job in jobs:
        if (end := ended[job["metadata"]["uid"]]) and job["metadata"]["uid"] in known:
            says = f"Saw completed job: {job['metadata']['name']}, condition: {end}"
            step.events.append(("Normal", "SawCompletedJob", says))
    complete = [j for j in jobs if ended[j["metadata"]["uid"]] == "Complete"]
    done = [str(dig(j, "status", "completionTime", default="")) for j in complete]
    step.last_success = max([*done, str(dig(cj, "status", "lastSuccessfulTime", default=""))], default="") or None
    _history(spec, jobs, ended, step)
    try:
        schedule, zone = cron.parse(str(spec["schedule"])), cron.zone(spec.get("timeZone"))
    except ValueError as e:
        step.events.append(("Warning", "UnparseableSchedule", f"unparseable schedule: {spec['schedule']}: {e}"))
        return step
    if spec.get("suspend"):
        return step
    _due(cj, schedule, zone, step, now)
    following = schedule.after(now, zone)
    step.again = None if following is None else min((following - now).total_seconds() + 0.05, LONGEST_S)
    return step


def _due(cj: Json, schedule: cron.Schedule, zone: ZoneInfo | None, step: Step, now: datetime) -> None:
    spec, deadline = cj["spec"], cj["spec"].get("startingDeadlineSeconds")
    since = times.parse(dig(cj, "status", "lastScheduleTime") or cj["metadata"]["creationTimestamp"])
    earliest = since if deadline is None else max(since, now - after(int(deadline)))
    due, more = schedule.latest(earliest, now, zone)
    if due is None:
        missed, _ = schedule.latest(since, now, zone) if deadline is not None else (None, False)
        if missed is not None:
            says = f"Missed scheduled time to start a job: {times.stamp(missed)}"
            step.events.append(("Warning", "MissSchedule", says))
        return
    if more:
        says = "start times were missed before this one; only the last one is made up for"
        step.events.append(("Warning", "MissSchedule", says))
    policy = spec.get("concurrencyPolicy", "Allow")
    if step.active and policy == "Forbid":
        says = "Not starting job because prior execution is running and concurrency policy is Forbid"
        step.events.append(("Normal", "JobAlreadyActive", says))
        return
    if policy == "Replace":
        step.stop = list(step.active)
    step.due = due


def _history(spec: Json, jobs: list[Json], ended: dict[str, str], step: Step) -> None:
    for end, key, default in (("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1)):
        limit = spec.get(key)
        found = [j for j in jobs if ended[j["metadata"]["uid"]] == end and not j["metadata"].get("deletionTimestamp")]
        found.sort(key=lambda j: str(dig(j, "status", "startTime", default="")))
        step.forget += found[: max(0, len(found) - int(default if limit is None else limit))]
