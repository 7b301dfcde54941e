"""Deployments: rollouts stay within their limits, whatever pods do."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.cluster.controllers.deployment import deployment as rollout
from lateen.cluster.controllers.deployment_status import deadline_s
from lateen.cluster.controllers.replica_set import replica_set


def deployment(replicas, surge, unavailable, image="a"):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "d"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"image": image}]}},
        },
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 2), st.randoms(use_true_random=False))
def test_a_rollout_completes_within_its_limits(replicas, surge, unavailable, chance: random.Random):
    allowed_down = unavailable or (0 if surge else 1)
    sets = []

    def settle(d):
        plan = rollout(d, sets)
        for _, obj in plan.create:
            sets.append({**obj, "metadata": {**obj["metadata"], "uid": obj["metadata"]["name"]}, "status": {}})
        for name, count in plan.scale:
            next(s for s in sets if s["metadata"]["name"] == name)["spec"]["replicas"] = count
        for s in sets:
            want = s["spec"]["replicas"]
            ready = min(s["status"].get("readyReplicas", 0), want)
            if ready < want and chance.random() < 0.7:
                ready += 1
            s["status"] = {"replicas": want, "readyReplicas": ready, "availableReplicas": ready}
        return plan

    for _ in range(30):
        settle(deployment(replicas, surge, unavailable))
    new = deployment(replicas, surge, unavailable, image="b")
    for _ in range(150):
        total = sum(s["spec"]["replicas"] for s in sets)
        ready = sum(s["status"].get("readyReplicas", 0) for s in sets)
        assert total <= replicas + surge
        assert ready >= replicas - allowed_down
        settle(new)
    alive = [s for s in sets if s["spec"]["replicas"]]
    assert len(alive) == 1
    assert alive[0]["spec"]["template"]["spec"]["containers"][0]["image"] == "b"


def test_the_youngest_pods_are_deleted_first():
    rs = {"metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 1}, "spec": {"replicas": 1}}
    pods = [
        {
            "metadata": {"name": name, "ownerReferences": [{"uid": "u", "controller": True}], "creationTimestamp": at},
            "spec": {"nodeName": "x"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }
        for name, at in (("old", "2026-01-01T00:00:00Z"), ("young", "2026-01-02T00:00:00Z"))
    ]
    assert [name for _, name in replica_set(rs, pods).delete] == ["young"]


def progressing(sets, before, now, deadline=60, generation=1):
    d = deployment(1, 1, 0)
    d["metadata"]["generation"] = generation
    d["spec"]["progressDeadlineSeconds"] = deadline
    d["status"] = before
    plan = rollout(d, sets, now)
    found = next(c for c in plan.status["conditions"] if c["type"] == "Progressing")
    return plan.status, (found["status"], found["reason"]), deadline_s(d, plan.status, now)


def test_a_deployment_that_waits_for_a_finalizer_waits_for_no_deadline():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    going_on = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": ""}
    at = dict.fromkeys(("lastUpdateTime", "lastTransitionTime"), "2026-01-01T00:00:00Z")
    d = deployment(1, 1, 0)
    d["spec"]["progressDeadlineSeconds"] = 60
    d["status"] = {"conditions": [going_on | at]}
    late = begin + timedelta(seconds=90)
    d["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
    assert deadline_s(d, rollout(d, [], late).status, late) is None


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "1_0", "٣", "9" * 5000])
def test_numbers_that_users_write_into_annotations_are_no_trouble(wrong):
    d, begin = deployment(4, 1, 0), datetime(2026, 1, 1, tzinfo=UTC)
    (_, made), *_ = rollout(d, [], begin).create
    for key in ("revision", "desired-replicas", "max-replicas"):
        name = f"deployment.kubernetes.io/{key}"
        meta = made["metadata"] | {"uid": "s", "annotations": made["metadata"]["annotations"] | {name: wrong}}
        plan = rollout(d, [made | {"metadata": meta}], begin)
        assert (plan.create, plan.scale, plan.delete) == ([], [], [])


def test_a_rollout_that_does_not_come_further_fails_after_its_deadline():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    sets = []
    plan = rollout(deployment(1, 1, 0), sets, begin)
    sets = [obj | {"metadata": obj["metadata"] | {"uid": "s"}, "status": {"replicas": 1}} for _, obj in plan.create]
    status, shown, left = progressing(sets, {}, begin)
    assert shown == ("True", "ReplicaSetUpdated")
    assert 60 <= left < 61
    status, shown, _ = progressing(sets, status, begin + timedelta(seconds=59))
    assert shown[0] == "True"
    status, shown, left = progressing(sets, status, begin + timedelta(seconds=61))
    assert (shown, left) == (("False", "ProgressDeadlineExceeded"), None)
    status, shown, _ = progressing(sets, status, begin + timedelta(seconds=90))
    assert shown == ("False", "ProgressDeadlineExceeded")
    sets[0]["status"] = {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    status, shown, _ = progressing(sets, status, begin + timedelta(seconds=99))
    assert shown == ("True", "NewReplicaSetAvailable")
    sets[0]["status"] = {"replicas": 1}  # a pod that is lost later is no failed rollout
    assert progressing(sets, status, begin + timedelta(hours=9))[1] == ("True", "NewReplicaSetAvailable")


def test_the_seconds_that_a_pod_must_be_ready_are_its_replica_sets_too():
    d = deployment(1, 1, 0)
    d["spec"]["minReadySeconds"] = 5
    ((_, made),) = rollout(d, []).create
    assert made["spec"]["minReadySeconds"] == 5
    made = made | {"metadata": made["metadata"] | {"uid": "s"}, "status": {"replicas": 1}}
    d["spec"]["minReadySeconds"] = 7
    assert rollout(d, [made]).change == [(made["metadata"]["name"], {"minReadySeconds": 7})]


def live(d, sets, times_=1):
    """The ReplicaSets after so many steps in which every pod becomes available at once, and the last plan."""
    plan = None
    for _ in range(times_):
        plan = rollout(d, sets)
        for _, obj in plan.create:
            sets.append({**obj, "metadata": {**obj["metadata"], "uid": obj["metadata"]["name"]}, "status": {}})
        for name, count in plan.scale:
            next(s for s in sets if s["metadata"]["name"] == name)["spec"]["replicas"] = count
        for name, notes in plan.annotate:
            next(s for s in sets if s["metadata"]["name"] == name)["metadata"]["annotations"] |= notes
        for s in sets:
            want = s["spec"]["replicas"]
            s["status"] = {"replicas": want, "readyReplicas": want, "availableReplicas": want}
    return plan


def numbers(sets):
    return [s["spec"]["replicas"] for s in sets]


def test_a_paused_rollout_goes_no_further_and_says_so_but_can_be_scaled():
    sets = []
    live(deployment(8, 2, 0), sets, 9)
    new = deployment(8, 2, 0, image="b")
    new["spec"]["progressDeadlineSeconds"] = 600
    live(new, sets)
    assert numbers(sets) == [8, 2]
    new["spec"]["paused"] = True
    plan = live(new, sets, 5)
    assert numbers(sets) == [8, 2]
    condition = next(c for c in plan.status["conditions"] if c["type"] == "Progressing")
    assert (condition["status"], condition["reason"]) == ("Unknown", "DeploymentPaused")

    new["spec"]["replicas"] = 16
    live(new, sets, 3)
    assert sum(numbers(sets)) == 18
    assert numbers(sets)[0] > numbers(sets)[1] > 2

    new["status"] = rollout(new, sets).status
    new["spec"]["paused"] = False
    plan = rollout(new, sets)
    assert next(c["reason"] for c in plan.status["conditions"] if c["type"] == "Progressing") == "DeploymentResumed"
    new["status"] = plan.status
    live(new, sets, 40)
    assert numbers(sets) == [0, 16]


def test_a_replica_set_has_the_annotations_of_its_deployment():
    """`kubectl annotate deploy kubernetes.io/change-cause=…` is what `kubectl rollout history` shows."""
    d, sets = deployment(4, "25%", 0), []
    d["metadata"]["annotations"] = {
        "kubernetes.io/change-cause": "first",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "deployment.kubernetes.io/revision": "7",
    }
    live(d, sets, 2)
    own = {"deployment.kubernetes.io/desired-replicas": "4", "deployment.kubernetes.io/max-replicas": "5"}
    revision = {"deployment.kubernetes.io/revision": "1"}
    assert sets[0]["metadata"]["annotations"] == {"kubernetes.io/change-cause": "first"} | own | revision
    d["metadata"]["annotations"]["kubernetes.io/change-cause"] = "second"
    d["spec"]["replicas"] = 8
    live(d, sets, 2)
    own = {"deployment.kubernetes.io/desired-replicas": "8", "deployment.kubernetes.io/max-replicas": "10"}
    assert sets[0]["metadata"]["annotations"] == {"kubernetes.io/change-cause": "second"} | own | revision
