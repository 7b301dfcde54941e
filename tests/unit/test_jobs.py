"""Jobs and CronJobs over the real API verbs, with pods that do as they are told."""

import asyncio
from datetime import timedelta

import pytest
from apiserver import Cluster
from test_controllers import play, until

from lateen.api import kinds
from lateen.cluster.controllers import cron_job, job_indexes, pod_garbage
from lateen.cluster.controllers.job import FINALIZER
from lateen.kit import times
from lateen.kit.jsons import dig
from lateen.kube.client import KubeError


def job(name, **spec):
    template = {"spec": {"restartPolicy": spec.pop("restart", "Never"), "containers": [{"name": "c", "image": "i"}]}}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template, **spec}}


async def pods_of(client, name):
    found, _ = await client.list(kinds.POD, "default")
    return [p for p in found if p["metadata"]["labels"].get("job-name") == name]


async def running(client, name, count):
    async def enough():
        found = [p for p in await pods_of(client, name) if dig(p, "status", "phase") == "Pending"]
        return found if len(found) == count else None

    return await until(enough)


CONTAINER = {"name": "c", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}


async def end(client, pod, phase="Succeeded", code=0, condition=None):
    state = {"terminated": {"exitCode": code, "finishedAt": times.stamp(times.now() - timedelta(hours=1))}}
    status = {"phase": phase, "containerStatuses": [CONTAINER | {"state": state}]}
    if condition:
        status["conditions"] = [{"type": condition, "status": "True"}]
    await client.patch(kinds.POD, "default", pod["metadata"]["name"], {"status": status}, "status")


async def condition(client, name, wanted):
    async def there():
        found = (await client.get(kinds.JOB, "default", name)) or {}
        conditions = dig(found, "status", "conditions", default=[])
        return found if any(c["type"] == wanted and c["status"] == "True" for c in conditions) else None

    return await until(there)


def test_a_job_runs_as_many_pods_at_once_as_it_says_until_enough_have_succeeded():
    async def story(client, told):
        await client.create(kinds.JOB, job("sum", completions=3, parallelism=2))
        await asyncio.gather(*(end(client, pod) for pod in await running(client, "sum", 2)))
        await end(client, (await running(client, "sum", 1))[0])
        found = await condition(client, "sum", "Complete")
        assert found["status"]["succeeded"] == 3
        assert found["status"]["completionTime"]

        async def said():
            return ("Job", "sum", "Normal", "Completed", "Job completed") in told.events

        await until(said)

        async def released():
            return not any(FINALIZER in p["metadata"].get("finalizers", []) for p in await pods_of(client, "sum"))

        await until(released)

    play(story)


def test_a_deleted_pod_has_been_counted_before_it_goes():
    async def story(client, told):
        await client.create(kinds.JOB, job("two", completions=2, parallelism=1))
        (pod,) = await running(client, "two", 1)
        await end(client, pod)
        await client.delete(kinds.POD, "default", pod["metadata"]["name"])
        (pod,) = await running(client, "two", 1)
        await end(client, pod)
        assert (await condition(client, "two", "Complete"))["status"]["succeeded"] == 2

    play(story)


def test_a_job_fails_when_its_pods_have_failed_too_often():
    async def story(client, told):
        await client.create(kinds.JOB, job("bad", backoffLimit=1, parallelism=2, completions=2))
        await asyncio.gather(*(end(client, pod, "Failed", 1) for pod in await running(client, "bad", 2)))
        found = await condition(client, "bad", "Failed")
        assert found["status"]["failed"] == 2
        ended = next(c for c in found["status"]["conditions"] if c["type"] == "Failed")
        assert ended["reason"] == "BackoffLimitExceeded"

    play(story)


def test_every_index_is_completed_once():
    async def story(client, told):
        await client.create(kinds.JOB, job("idx", completions=3, parallelism=3, completionMode="Indexed"))
        found = await running(client, "idx", 3)
        assert sorted(job_indexes.index_of(p) for p in found) == [0, 1, 2]
        assert {p["spec"]["hostname"] for p in found} == {"idx-0", "idx-1", "idx-2"}
        env = found[0]["spec"]["containers"][0]["env"][0]
        assert env["name"] == "JOB_COMPLETION_INDEX"
        first = next(p for p in found if job_indexes.index_of(p) == 1)
        await end(client, first, "Failed", 1)
        again = await running(client, "idx", 3)
        assert sorted(job_indexes.index_of(p) for p in again) == [0, 1, 2]
        for pod in again:
            await end(client, pod)
        assert (await condition(client, "idx", "Complete"))["status"]["completedIndexes"] == "0-2"

    play(story)


def of_index(pods, index):
    return next(p for p in pods if job_indexes.index_of(p) == index)


def test_each_index_may_fail_as_often_as_the_job_says():
    async def story(client, told):
        spec = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1}
        await client.create(kinds.JOB, job("each", **spec))
        found = await running(client, "each", 2)
        assert found[0]["metadata"]["annotations"][job_indexes.FAILURES] == "0"
        await end(client, of_index(found, 0), "Failed", 1)
        again = await running(client, "each", 2)
        assert of_index(again, 0)["metadata"]["annotations"][job_indexes.FAILURES] == "1"
        await end(client, of_index(again, 0), "Failed", 1)
        await running(client, "each", 1)
        await end(client, of_index(again, 1))
        found = await condition(client, "each", "Failed")
        assert (found["status"]["failedIndexes"], found["status"]["completedIndexes"]) == ("0", "1")
        assert {c["reason"] for c in found["status"]["conditions"]} == {"FailedIndexes"}

    play(story)


def test_a_job_fails_with_too_many_indexes_or_when_its_policy_gives_one_up():
    rules = [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3]}}]

    async def story(client, told):
        spec = {"completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 5}
        spec |= {"maxFailedIndexes": 1, "podFailurePolicy": {"rules": rules}}
        await client.create(kinds.JOB, job("most", **spec))
        found = await running(client, "most", 4)
        for index in (2, 3):
            await end(client, of_index(found, index))
        await end(client, of_index(found, 0), "Failed", 3)
        await end(client, of_index(found, 1), "Failed", 3)
        found = await condition(client, "most", "Failed")
        assert {c["reason"] for c in found["status"]["conditions"]} == {"MaxFailedIndexesExceeded"}

    play(story)


@pytest.mark.parametrize(
    "rule",
    [
        {"succeededIndexes": "0"},
        {"succeededCount": 1},
        {"succeededIndexes": "0,2", "succeededCount": 1},
    ],
)
def test_a_success_policy_ends_a_job_early(rule):
    async def story(client, told):
        spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
        await client.create(kinds.JOB, job("early", successPolicy={"rules": [rule]}, **spec))
        await end(client, of_index(await running(client, "early", 3), 0))
        found = await condition(client, "early", "Complete")
        assert {c["reason"] for c in found["status"]["conditions"]} == {"SuccessPolicy"}
        assert found["status"]["succeeded"] == 1

    play(story)


def test_a_suspended_job_has_no_pods_until_it_is_resumed():
    async def story(client, told):
        await client.create(kinds.JOB, job("later", suspend=True))
        found = await condition(client, "later", "Suspended")
        assert "startTime" not in found["status"]
        assert not await pods_of(client, "later")
        await client.patch(kinds.JOB, "default", "later", {"spec": {"suspend": False}})
        await running(client, "later", 1)
        await client.patch(kinds.JOB, "default", "later", {"spec": {"suspend": True}})

        async def gone():
            return not await pods_of(client, "later")

        await until(gone)

    play(story)


def test_a_failure_policy_ends_the_job_or_ignores_the_failure():
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    ]

    async def story(client, told):
        await client.create(kinds.JOB, job("policy", backoffLimit=0, podFailurePolicy={"rules": rules}))
        (pod,) = await running(client, "policy", 1)
        await end(client, pod, "Failed", 1, condition="DisruptionTarget")
        (pod,) = await running(client, "policy", 1)
        await end(client, pod, "Failed", 42)
        found = await condition(client, "policy", "Failed")
        ended = next(c for c in found["status"]["conditions"] if c["type"] == "Failed")
        assert ended["reason"] == "PodFailurePolicy"
        assert "failed with exit code 42 matching FailJob rule at index 1" in ended["message"]

    play(story)


def test_a_deadline_ends_a_job_and_a_finished_one_goes_after_its_time_to_live():
    async def story(client, told):
        await client.create(kinds.JOB, job("slow", activeDeadlineSeconds=0))
        found = await condition(client, "slow", "Failed")
        assert {c["reason"] for c in found["status"]["conditions"]} == {"DeadlineExceeded"}
        await client.create(kinds.JOB, job("brief", ttlSecondsAfterFinished=0))
        await end(client, (await running(client, "brief", 1))[0])

        async def gone():
            return not await client.get(kinds.JOB, "default", "brief") and not await pods_of(client, "brief")

        await until(gone)

    play(story)


def test_the_pods_of_a_deleted_job_go_with_it():
    async def story(client, told):
        await client.create(kinds.JOB, job("gone", parallelism=2))
        await running(client, "gone", 2)
        await client.delete(kinds.JOB, "default", "gone")

        async def none():
            return not await pods_of(client, "gone")

        await until(none)

    play(story)


def cron(name, schedule="* * * * *", **spec):
    meta = {"name": name, "namespace": "default"}
    body = {"schedule": schedule, "jobTemplate": {"spec": job("x")["spec"]}, **spec}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": body}


def test_a_cron_job_makes_one_job_for_the_time_that_is_due():
    async def story(client, told):
        made = await client.create(kinds.CRON_JOB, cron("tick"))
        ago = times.stamp(times.now() - timedelta(minutes=3))
        await client.patch(kinds.CRON_JOB, "default", "tick", {"status": {"lastScheduleTime": ago}}, "status")

        async def one():
            jobs, _ = await client.list(kinds.JOB, "default")
            return [j for j in jobs if j["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]]

        (found,) = await until(one)
        assert found["metadata"]["name"].startswith("tick-")
        await end(client, (await running(client, found["metadata"]["name"], 1))[0])

        async def seen():
            status = (await client.get(kinds.CRON_JOB, "default", "tick")).get("status") or {}
            return status.get("lastSuccessfulTime") and not status.get("active")

        await until(seen)

        async def said():
            return any(e[3] == "SawCompletedJob" for e in told.events)

        await until(said)

    play(story)


def planned(policy="Allow", active=0, done=0, **spec):
    now = times.now()
    old = times.stamp(now - timedelta(minutes=5))
    cj = cron("c", concurrencyPolicy=policy, **spec)
    cj["metadata"] |= {"uid": "u", "creationTimestamp": old}
    ended = [{"type": "Complete", "status": "True"}]
    jobs = [
        {"metadata": {"name": f"j{i}", "uid": f"j{i}"}, "status": {"startTime": f"2026-01-01T00:0{i}:00Z"} | more}
        for i, more in enumerate([{}] * active + [{"conditions": ended}] * done)
    ]
    return cron_job.plan(cj, jobs, now)


def test_what_is_due_depends_on_the_policy_and_the_deadline():
    assert planned().due
    assert planned("Forbid", active=1).due is None
    assert len(planned("Replace", active=1).stop) == 1
    assert planned(suspend=True).due is None
    assert planned(schedule="0 0 1 1 *").due is None
    assert planned(startingDeadlineSeconds=(1 << 63) - 1).due
    assert [j["metadata"]["name"] for j in planned(done=5).forget] == ["j0", "j1"]
    assert len(planned(done=2, successfulJobsHistoryLimit=0).forget) == 2


def test_indexes_are_written_as_ranges():
    assert job_indexes.shown([0, 1, 2, 5, 7, 8]) == "0-2,5,7,8"
    assert job_indexes.parse("0-2,5,7-8") == {0, 1, 2, 5, 7, 8}
    assert job_indexes.parse("") == set()


@pytest.mark.parametrize("indexes", ["", "3-1"])
def test_a_job_is_not_complete_because_of_a_rule_that_names_no_index(indexes):
    """It may have been stored by an earlier version."""
    policy = {"successPolicy": {"rules": [{"succeededIndexes": indexes}]}}
    assert job_indexes.success(policy, job_indexes.Indexes()) is None


def indexed(completions=3, **rule):
    return job("r", completionMode="Indexed", completions=completions, successPolicy={"rules": [rule]})


REFUSED = {
    "restartPolicy": ("Job", job("r", restart="Always"), 'valid values: "OnFailure", "Never"'),
    "completions": ("Job", job("r", completionMode="Indexed", parallelism=2), "when completion mode is Indexed"),
    "per index": ("Job", job("r", backoffLimitPerIndex=1), "requires indexed completion mode"),
    "indexes": ("Job", job("r", maxFailedIndexes=1), "when maxFailedIndexes is specified"),
    "success": (
        "Job",
        job("r", completionMode="Indexed", completions=2, successPolicy={"rules": [{"succeededCount": 3}]}),
        "must be less than or equal to 2",
    ),
    "ranges": (
        "Job",
        job("r", completionMode="Indexed", completions=2, successPolicy={"rules": [{"succeededIndexes": "1;2"}]}),
        "must be numbers and ranges",
    ),
    "range backwards": ("Job", indexed(4, succeededIndexes="3-1"), "non-increasing order, previous: 3, current: 1"),
    "unordered": ("Job", indexed(succeededIndexes="1,0"), "non-increasing order, previous: 1, current: 0"),
    "twice": ("Job", indexed(succeededIndexes="0-1,1"), "non-increasing order, previous: 1, current: 1"),
    "beyond": ("Job", indexed(succeededIndexes="0,7"), 'too large index: "7"'),
    "beyond, in a range": ("Job", indexed(succeededIndexes="0-3"), 'too large index: "3"'),
    "more than listed": (
        "Job",
        indexed(succeededIndexes="0,2", succeededCount=3),
        "must be less than or equal to 2 (the number of indexes in succeededIndexes)",
    ),
    "schedule": ("CronJob", cron("r", "61 * * * *"), "end of range (61) above maximum (59)"),
    "zone": ("CronJob", cron("r", timeZone="Mars/X"), "unknown time zone Mars/X"),
    "TZ": ("CronJob", cron("r", "TZ=UTC * * * * *"), "use timeZone field instead"),
    "policy": ("CronJob", cron("r", concurrencyPolicy="Sometimes"), "supported values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_job_that_cannot_be_run_as_it_is_written_is_refused(case):
    kind, body, says = REFUSED[case]
    plural = kind.lower() + "s"
    code, answer = Cluster().ask("POST", f"/apis/batch/v1/namespaces/default/{plural}", body)
    assert code == 422, answer
    assert says in answer["message"]


def test_what_a_job_runs_does_not_change():
    async def story(client, told):
        await client.create(kinds.JOB, job("fixed"))
        change = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "other"}]}}}}
        with pytest.raises(KubeError, match="field is immutable"):
            await client.patch(kinds.JOB, "default", "fixed", change)

    play(story)


def test_failures_that_do_not_count_are_noted_and_waited_for():
    """A policy's Ignore: the index has another try after a pause, however often."""
    indexes = job_indexes.Indexes()
    notes = {job_indexes.INDEX: "3", job_indexes.FAILURES: "1"}
    indexes.fails({"backoffLimitPerIndex": 5}, {"metadata": {"annotations": notes}}, "Ignore", "2026-01-01T00:00:00Z")
    found = indexes.failures[3]
    assert (found.all, found.counted) == (2, 1)
    assert found.notes() == {job_indexes.FAILURES: "1", job_indexes.IGNORED: "1"}


def test_a_job_counts_pods_that_have_gone_because_there_are_many_that_have_ended(monkeypatch):
    monkeypatch.setattr(pod_garbage, "ENDED", 2)

    async def story(client, told):
        await client.create(kinds.JOB, job("many", completions=6, parallelism=1))
        for _ in range(6):
            (pod,) = await running(client, "many", 1)
            await end(client, pod)

        async def done():
            status = (await client.get(kinds.JOB, "default", "many"))["status"]
            return status.get("succeeded") == 6 and len(await pods_of(client, "many")) == 2

        await until(done)

    play(story)
