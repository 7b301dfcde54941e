"""Deployments: rollouts stay within their limits, whatever pods do."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.cluster.controllers.deployment import deadline_s
from lateen.cluster.controllers.deployment import deployment as rollout
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
