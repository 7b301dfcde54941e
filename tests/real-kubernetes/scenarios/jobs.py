"""Jobs and CronJobs."""

import time

from scenarios.objects import WORKLOADS, job


def job_plain(b):
    b.create(job("once"))
    b.ready()
    b.succeed()
    b.create(job("many", completions=3, parallelism=2))
    b.succeed("many", 1)
    b.succeed("many", 1)
    b.succeed("many", 1)
    b.create(job("queue", parallelism=2))
    b.ready("queue")
    b.succeed("queue", 1)
    b.succeed("queue", 1)


def job_fails(b):
    b.create(job("bad", backoffLimit=0, parallelism=2, completions=2))
    b.ready()
    b.fail("", 1)
    b.create(job("late", activeDeadlineSeconds=2))
    b.wait(3, "the deadline has passed")
    b.create(job("short", ttlSecondsAfterFinished=2))
    b.succeed("short")
    b.wait(3, "its time is over")


def job_policy(b):
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Count", "onExitCodes": {"operator": "In", "values": [3]}},
    ]
    b.create(job("picky", backoffLimit=3, parallelism=2, completions=2, podFailurePolicy={"rules": rules}))
    b.ready()
    b.fail("", 1, code=42)


def job_retries(b):
    b.create(job("again", backoffLimit=1))
    b.fail("again")
    b.wait(11, "the pause after the first failure")
    b.fail("again")


def job_ignores(b):
    """Failures that do not count, by podFailurePolicy."""
    rules = [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [8]}},
    ]
    more = {"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "parallelism": 2}
    b.create(job("parts", podFailurePolicy={"rules": rules}, **more))
    b.fail("parts-0", code=7)
    b.fail("parts-1", code=8)
    b.wait(11, "the pause after the failure")
    b.succeed("parts-0")


def job_indexed(b):
    b.create(
        job("parts", completions=4, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=0, maxFailedIndexes=2)
    )
    b.ready()
    b.succeed("parts-0")
    b.fail("parts-1")
    b.succeed("parts-2")
    b.succeed("parts-3")


def job_failed_indexes(b):
    b.create(
        job("parts", completions=4, parallelism=4, completionMode="Indexed", backoffLimitPerIndex=0, maxFailedIndexes=1)
    )
    b.ready()
    b.fail("parts-1")
    b.fail("parts-3")


def job_success_policy(b):
    rules = {"rules": [{"succeededIndexes": "0,2", "succeededCount": 1}]}
    b.create(job("parts", completions=3, parallelism=3, completionMode="Indexed", successPolicy=rules))
    b.ready()
    b.succeed("parts-1")
    b.succeed("parts-2")


def job_suspend(b):
    b.create(job("wait", suspend=True, parallelism=2, completions=2))
    b.patch("Job", "wait", {"spec": {"suspend": False}})
    b.ready()
    b.patch("Job", "wait", {"spec": {"suspend": True}})
    b.patch("Job", "wait", {"spec": {"suspend": False, "parallelism": 1}})
    b.patch("Job", "wait", {"spec": {"parallelism": 0}})
    b.patch("Job", "wait", {"spec": {"parallelism": 2}})
    b.succeed()
    b.create(job("kept", completions=1, podReplacementPolicy="Failed"))
    b.delete("Job", "kept", "Foreground")
    b.create(job("left"))
    b.delete("Job", "left", "Orphan")


def cron(name, schedule, **spec):
    spec = {"schedule": schedule, "jobTemplate": {"spec": job("x")["spec"]}} | spec
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": spec}


def minute(b):
    """The next one begins, and both make what is due."""
    b.wait_only(60 - time.time() % 60 + 2)


def cron_job(b):
    b.create(cron("never", "0 0 29 2 *"))
    b.create(cron("often", "* * * * *", timeZone="Europe/Berlin", concurrencyPolicy="Forbid"))
    minute(b)
    b.same("the first minute")
    b.succeed("often")
    b.patch("CronJob", "often", {"spec": {"suspend": True}})
    b.patch("CronJob", "often", {"spec": {"successfulJobsHistoryLimit": 0}})
    b.delete("CronJob", "often")


def cron_job_while_another_runs(b):
    for policy in ("Allow", "Forbid", "Replace"):
        b.create(cron(policy.lower(), "* * * * *", concurrencyPolicy=policy, startingDeadlineSeconds=30))
    minute(b)
    b.same("the first minute")
    minute(b)
    b.patch("CronJob", "allow", {"spec": {"suspend": True}}, step="the second minute")
    b.patch("CronJob", "forbid", {"spec": {"suspend": True}})
    b.patch("CronJob", "replace", {"spec": {"suspend": True}})
    b.fail("allow")
    b.delete("CronJob", "allow", "Orphan")


SCENARIOS = {
    job_plain: ("Job", *WORKLOADS),
    job_fails: ("Job", *WORKLOADS),
    job_policy: ("Job", *WORKLOADS),
    job_retries: ("Job", *WORKLOADS),
    job_ignores: ("Job", *WORKLOADS),
    job_indexed: ("Job", *WORKLOADS),
    job_failed_indexes: ("Job", *WORKLOADS),
    job_success_policy: ("Job", *WORKLOADS),
    job_suspend: ("Job", *WORKLOADS),
    cron_job: ("CronJob", "Job", *WORKLOADS),
    cron_job_while_another_runs: ("CronJob", "Job", *WORKLOADS),
}
