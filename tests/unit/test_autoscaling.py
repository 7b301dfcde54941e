"""HorizontalPodAutoscalers: what the use of pods asks for, and how fast it is followed."""

import pytest
from apiserver import Cluster
from hypothesis import given
from hypothesis import strategies as st
from test_controllers import deployment, play, until

from lateen.api import kinds
from lateen.cluster.controllers import autoscaler, scaling
from lateen.kit import times

READY = [{"type": "Ready", "status": "True"}]


def pod(name, ready=True, request="100m"):
    container = {"name": "c", "resources": {"requests": {"cpu": request}} if request else {}}
    status = {"phase": "Running", "conditions": READY if ready else []}
    return {"metadata": {"name": name, "namespace": "n"}, "spec": {"containers": [container]}, "status": status}


def metric(percent=50, name="cpu", **target):
    target = target or {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def wanted(cpus, unready=0, percent=50, replicas=None, **more):
    """Of pods that use so many CPUs each, with requests of a tenth."""
    pods = [pod(f"p{i}") for i in range(len(cpus))] + [pod(f"u{i}", ready=False) for i in range(unready)]
    used = {("n", f"p{i}"): {"c": (cpu, 1 << 20)} for i, cpu in enumerate(cpus)}
    return scaling.wish(metric(percent, **more), pods, used, replicas or len(pods)).replicas


def test_replicas_follow_the_use_of_what_is_requested():
    assert wanted([0.1]) == 2  # all of it, where half is wanted
    assert wanted([0.05, 0.05]) == 2
    assert wanted([0.054, 0.054]) == 2  # within the tolerance
    assert wanted([0.01] * 4) == 1
    assert wanted([0.2, 0.0]) == 4
    assert wanted([0.3], type="AverageValue", averageValue="100m") == 3
    assert wanted([0.3], name="memory", type="AverageValue", averageValue="512Ki") == 2


def test_pods_that_are_not_ready_do_not_add_to_a_rush():
    assert wanted([0.1], unready=1, replicas=2) == 2
    assert wanted([0.3], unready=1, replicas=2) == 6
    assert wanted([0.01, 0.01], unready=2, replicas=4) == 4  # of two nothing is known: they may be busy


def test_the_cpu_of_a_pod_that_starts_tells_nothing_but_its_memory_does():
    now = times.parse("2026-01-01T00:01:00Z")
    starts = pod("b", ready=False)
    state = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:10Z"}
    starts["status"] |= {"startTime": "2026-01-01T00:00:00Z", "conditions": [state]}
    pods, used = [pod("a"), starts], {("n", "a"): {"c": (0.02, 1 << 20)}, ("n", "b"): {"c": (2.0, 3 << 20)}}
    assert scaling.wish(metric(), pods, used, 2, now).replicas == 1
    memory = metric(name="memory", type="AverageValue", averageValue="1Mi")
    assert scaling.wish(memory, pods, used, 2, now).replicas == 4
    pods[1]["status"]["phase"] = "Pending"
    assert scaling.wish(memory, pods, used, 2, now).replicas == 2
    for late, counts in (("2026-01-01T00:00:10Z", False), ("2026-01-01T00:05:00Z", True)):
        pods[1]["status"] |= {"phase": "Running", "conditions": [state | {"lastTransitionTime": late}]}
        found = scaling.wish(metric(), pods, used, 2, times.parse("2026-01-01T01:00:00Z")).replicas
        assert (found > 2) is counts


def test_percentages_are_cut_off_and_requests_of_sidecars_count():
    """As kubectl get hpa shows them."""
    found = scaling.wish(metric(), [pod("p")], {("n", "p"): {"c": (0.0559, 0)}}, 1)
    assert found.current["resource"]["current"] == {"averageUtilization": 55, "averageValue": "55m"}
    with_sidecar = pod("p")
    side = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}
    with_sidecar["spec"]["initContainers"] = [side]
    found = scaling.wish(metric(), [with_sidecar], {("n", "p"): {"c": (0.1, 0), "s": (0.0, 0)}}, 1)
    assert found.replicas == 1


def test_without_a_behaviour_replicas_double_at_most():
    plain = {"spec": {"minReplicas": 1, "maxReplicas": 100}}
    assert scaling.settle(plain, 50, 1, scaling.Past(), 0.0) == (4, "ScaleUpLimit")
    assert scaling.settle(plain, 50, 10, scaling.Past(), 0.0) == (20, "ScaleUpLimit")
    assert scaling.settle(plain, 1, 10, scaling.Past([(0.0, 7)]), 10.0) == (7, "")
    assert scaling.settle(plain, 1, 10, scaling.Past([(0.0, 7)]), 301.0) == (1, "")


def test_a_missing_request_or_use_is_told():
    with pytest.raises(scaling.NoMetric, match="missing request for cpu in container c of Pod p"):
        scaling.wish(metric(), [pod("p", request=None)], {("n", "p"): {"c": (0.1, 0)}}, 1)
    with pytest.raises(scaling.NoMetric, match="cpu utilization: no metrics returned matched known pods"):
        scaling.wish(metric(), [pod("p", request="0")], {("n", "p"): {"c": (1.0, 0)}}, 3)
    with pytest.raises(scaling.NoMetric, match="no metrics returned from"):
        scaling.wish(metric(), [pod("p")], {}, 1)


def hpa(least=1, most=10, **behavior):
    return {"spec": {"minReplicas": least, "maxReplicas": most, "behavior": behavior}}


def test_it_grows_at_once_and_shrinks_after_five_minutes():
    past = scaling.Past()
    assert scaling.settle(hpa(), 3, 1, past, 0.0) == (3, "")
    assert scaling.settle(hpa(), 1, 3, past, 100.0) == (3, "")
    assert scaling.settle(hpa(), 1, 3, past, 290.0) == (3, "")
    assert scaling.settle(hpa(), 1, 3, past, 301.0) == (1, "")


def test_what_holds_it_back_is_the_highest_of_the_recent_wishes_where_nothing_is_said_of_its_behaviour():
    plain = {"spec": {"minReplicas": 1, "maxReplicas": 10}}
    assert autoscaler.held(plain, 4, 3)[0] == autoscaler.held(plain, 2, 3)[0] == "ScaleDownStabilized"
    assert autoscaler.held(hpa(), 4, 3)[0] == "ScaleUpStabilized"
    assert autoscaler.held(hpa(), 2, 3)[0] == "ScaleDownStabilized"


def test_policies_limit_how_far_it_goes_in_their_period():
    past = scaling.Past()
    assert scaling.settle(hpa(most=100), 50, 1, past, 0.0) == (5, "ScaleUpLimit")
    past.changes.append((0.0, 4))
    assert scaling.settle(hpa(most=100), 50, 5, past, 5.0) == (5, "ScaleUpLimit")
    assert scaling.settle(hpa(most=100), 50, 5, past, 16.0) == (10, "ScaleUpLimit")
    one = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "stabilizationWindowSeconds": 0}
    assert scaling.settle(hpa(scaleDown=one), 1, 5, scaling.Past(), 0.0) == (4, "ScaleDownLimit")
    never = {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}
    assert scaling.settle(hpa(scaleDown=never), 1, 5, scaling.Past(), 0.0)[0] == 5


def test_it_stays_within_its_bounds():
    assert scaling.settle(hpa(2, 4), 9, 3, scaling.Past(), 0.0) == (4, "TooManyReplicas")
    assert scaling.settle(hpa(2, 4), 1, 2, scaling.Past(), 0.0) == (2, "TooFewReplicas")


@given(st.lists(st.floats(0, 4), min_size=1, max_size=8), st.integers(0, 3), st.integers(1, 11), st.integers(1, 300))
def test_more_use_never_asks_for_fewer(cpus, unready, replicas, percent):
    less = wanted(cpus, unready, percent, replicas)
    assert wanted([c * 2 for c in cpus], unready, percent, replicas) >= min(less, replicas)


def manifest(**spec):
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"scaleTargetRef": ref, "maxReplicas": 3, **spec},
    }


def test_a_busy_deployment_is_scaled():
    async def story(client, told):
        made = deployment("web", containers=[{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}])
        await client.create(kinds.DEPLOYMENT, made)

        async def pods():
            return (await client.list(kinds.POD, "default"))[0]

        (first,) = await until(pods)
        name = first["metadata"]["name"]
        status = {"phase": "Running", "conditions": READY}
        await client.patch(kinds.POD, "default", name, {"status": status}, "status")
        told.used = {("default", name): {"c": (0.5, 1)}}
        await client.create(kinds.AUTOSCALER, manifest())

        async def scaled():
            return (await client.get(kinds.DEPLOYMENT, "default", "web"))["spec"]["replicas"] == 3

        await until(scaled)

        async def reported():
            found = (await client.get(kinds.AUTOSCALER, "default", "web")).get("status") or {}
            return found.get("desiredReplicas") == 3 and found["currentMetrics"][0]["resource"]["current"]

        assert (await until(reported))["averageUtilization"] == 500
        assert any(e[3] == "SuccessfulRescale" for e in told.events)

    play(story)


def test_too_few_replicas_are_more_at_once_though_nothing_is_requested_that_could_be_measured():
    async def story(client, told):
        await client.create(kinds.DEPLOYMENT, deployment("web", containers=[{"name": "c", "image": "i"}]))
        await client.create(kinds.AUTOSCALER, {**manifest(), "spec": {**manifest()["spec"], "minReplicas": 2}})

        async def scaled():
            return (await client.get(kinds.DEPLOYMENT, "default", "web"))["spec"].get("replicas") == 2

        async def told_of():
            return [e for e in told.events if e[3] == "SuccessfulRescale"]

        await until(scaled)
        assert "below Spec.MinReplicas" in str((await until(told_of))[0])

    play(story)


def test_bounds_hold_whatever_is_measured():
    assert scaling.bound({"minReplicas": 2, "maxReplicas": 4}, 3) == (3, "")
    assert scaling.bound({"minReplicas": 2, "maxReplicas": 4}, 9)[0] == 4
    assert scaling.bound({"maxReplicas": 4}, 1) == (1, "")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"maxReplicas": 0}, "must be greater than 0"),
        ({"minReplicas": 5}, "must be greater than or equal to `minReplicas`"),
        (
            {"metrics": [{"type": "Pods", "pods": {"metric": {"name": "x"}, "target": {"type": "Value"}}}]},
            "not available in the embedded cluster",
        ),
        ({"metrics": [metric(name="disk")]}, 'supported values: "cpu", "memory"'),
        ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 9999}}}, "must be between 0 and 3600"),
    ],
)
def test_an_autoscaler_that_cannot_work_is_refused(spec, says):
    body = manifest(**spec)
    code, answer = Cluster().ask("POST", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", body)
    assert code == 422, answer
    assert says in answer["message"]


def test_a_new_autoscaler_does_not_scale_down_at_once():
    past = scaling.Past([(0.0, 5)])
    assert scaling.settle(hpa(), 1, 5, past, 1.0) == (5, "")
    assert scaling.settle(hpa(), 1, 5, past, 302.0) == (1, "")
