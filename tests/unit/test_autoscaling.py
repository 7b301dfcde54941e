"""HorizontalPodAutoscalers: what the use of pods asks for, and how fast it is followed."""

import pytest
from apiserver import Cluster
from hypothesis import given
from hypothesis import strategies as st
from test_controllers import Measured, deployment, play, until

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.apiserver import scales
from lateen.cluster.apiserver.built_in import BUILT_IN
from lateen.cluster.controllers import autoscaler, demand, scaling
from lateen.kit import times
from lateen.kube.client import KubeError

LONG_AGO, NOW = "2026-01-01T00:00:00Z", times.parse("2026-01-01T01:00:00Z")
READY = [{"type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO}]


def wish(metric, pods, used, replicas, now=NOW):
    return demand.wish(metric, pods, Measured(used), replicas, now)


def pod(name, ready=True, request="100m"):
    container = {"name": "c", "resources": {"requests": {"cpu": request}} if request else {}}
    status = {"phase": "Running", "startTime": LONG_AGO, "conditions": READY if ready else []}
    return {"metadata": {"name": name, "namespace": "n"}, "spec": {"containers": [container]}, "status": status}


def metric(percent=50, name="cpu", **target):
    target = target or {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def wanted(cpus, unready=0, percent=50, replicas=None, **more):
    """Of pods that use so many CPUs each, with requests of a tenth."""
    pods = [pod(f"p{i}") for i in range(len(cpus))] + [pod(f"u{i}", ready=False) for i in range(unready)]
    used = {("n", f"p{i}"): {"c": (cpu, 1 << 20)} for i, cpu in enumerate(cpus)}
    return wish(metric(percent, **more), pods, used, replicas or len(pods)).replicas


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
    assert wish(metric(), pods, used, 2, now).replicas == 1
    memory = metric(name="memory", type="AverageValue", averageValue="1Mi")
    assert wish(memory, pods, used, 2, now).replicas == 4
    pods[1]["status"]["phase"] = "Pending"
    assert wish(memory, pods, used, 2, now).replicas == 2
    for late, counts in (("2026-01-01T00:00:10Z", False), ("2026-01-01T00:05:00Z", True)):
        pods[1]["status"] |= {"phase": "Running", "conditions": [state | {"lastTransitionTime": late}]}
        found = wish(metric(), pods, used, 2, times.parse("2026-01-01T01:00:00Z")).replicas
        assert (found > 2) is counts


def test_percentages_of_whole_thousandths_are_cut_off_and_requests_of_sidecars_count():
    """As kubectl get hpa shows them."""
    found = wish(metric(), [pod("p")], {("n", "p"): {"c": (0.0559, 0)}}, 1)
    assert found.current["resource"]["current"] == {"averageUtilization": 56, "averageValue": "56m"}
    with_sidecar = pod("p")
    side = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}
    with_sidecar["spec"]["initContainers"] = [side]
    found = wish(metric(), [with_sidecar], {("n", "p"): {"c": (0.1, 0), "s": (0.0, 0)}}, 1)
    assert found.replicas == 1


def test_without_a_behaviour_replicas_double_at_most():
    plain = {"spec": {"minReplicas": 1, "maxReplicas": 100}}
    assert scaling.settle(plain, 50, 1, scaling.Past(), 0.0) == (4, "ScaleUpLimit")
    assert scaling.settle(plain, 50, 10, scaling.Past(), 0.0) == (20, "ScaleUpLimit")
    assert scaling.settle(plain, 1, 10, scaling.Past([(0.0, 7)]), 10.0) == (7, "")
    assert scaling.settle(plain, 1, 10, scaling.Past([(0.0, 7)]), 301.0) == (1, "")


def test_a_missing_request_or_use_is_told():
    with pytest.raises(demand.NoMetric, match="missing request for cpu in container c of Pod p"):
        wish(metric(), [pod("p", request=None)], {("n", "p"): {"c": (0.1, 0)}}, 1)
    with pytest.raises(demand.NoMetric, match="cpu utilization: no metrics returned matched known pods"):
        wish(metric(), [pod("p", request="0")], {("n", "p"): {"c": (1.0, 0)}}, 3)
    with pytest.raises(demand.NoMetric, match="no metrics returned from"):
        wish(metric(), [pod("p")], {}, 1)


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


@given(st.lists(st.floats(0, 4), min_size=1, max_size=8), st.integers(0, 3), st.integers(1, 300))
def test_more_use_never_asks_for_fewer(cpus, unready, percent):
    """Where there are as many pods as replicas."""
    less = wanted(cpus, unready, percent)
    assert wanted([c * 2 for c in cpus], unready, percent) >= min(less, len(cpus) + unready)


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
        status = {"phase": "Running", "startTime": LONG_AGO, "conditions": READY}
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


def test_a_tenth_more_than_wanted_is_no_reason_to_grow():
    """110 % of the target, and what is left of it in binary fractions."""
    assert wanted([0.055, 0.055]) == 2
    assert wanted([0.0551, 0.0551]) == 3
    assert wanted([0.045, 0.045]) == 2


def test_a_container_resource_is_called_by_its_container():
    source = {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50}}
    only = {"type": "ContainerResource", "containerResource": source}
    found = wish(only, [pod("p")], {("n", "p"): {"c": (0.1, 0), "side": (9.0, 0)}}, 1)
    assert (found.replicas, found.what) == (2, "cpu container resource utilization (percentage of request)")
    with pytest.raises(demand.NoMetric) as e:
        wish(only, [pod("p")], {("n", "p"): {"side": (9.0, 0)}}, 1)
    assert (e.value.reason, e.value.of) == (
        "FailedGetContainerResourceMetric",
        "failed to get c container metric value",
    )


def test_cpu_counts_when_a_window_has_passed_since_a_new_pod_was_ready():
    now = times.parse("2026-01-01T00:01:00Z")
    state = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:50Z"}
    new = pod("p")
    new["status"]["conditions"] = [state]
    for window, counts in ((5, True), (30, False)):
        measured = Measured({("n", "p"): {"c": (0.2, 0)}}, window)
        if counts:
            assert demand.wish(metric(), [new], measured, 1, now).replicas == 4
        else:
            with pytest.raises(demand.NoMetric, match="pods might be unready"):
                demand.wish(metric(), [new], measured, 1, now)


async def ready_pods(client, used, told):
    pods = [p for p in (await client.list(kinds.POD, "default"))[0] if not p["metadata"].get("deletionTimestamp")]
    for p in pods:
        if p["status"].get("phase") != "Running":
            status = {"phase": "Running", "startTime": LONG_AGO, "conditions": READY}
            await client.patch(kinds.POD, "default", p["metadata"]["name"], {"status": status}, "status")
    told.used = {("default", p["metadata"]["name"]): {"c": used} for p in pods}
    return pods


def requesting(name):
    return deployment(name, containers=[{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}])


def test_two_autoscalers_of_the_same_pods_do_nothing_and_say_so():
    """Instead of pulling at them in turn."""

    async def story(client, told):
        await client.create(kinds.DEPLOYMENT, requesting("web"))
        await until(lambda: ready_pods(client, (0.5, 1), told))
        for name in ("one", "two"):
            made = manifest()
            made["metadata"]["name"] = name
            await client.create(kinds.AUTOSCALER, made)

        async def refused():
            found, _ = await client.list(kinds.AUTOSCALER, "default")
            said = [c for a in found for c in (a.get("status") or {}).get("conditions") or []]
            return [c["message"] for c in said if c["reason"] == "AmbiguousSelector"]

        (says, *_) = await until(refused)
        assert says == "pods by selector app=web are controlled by multiple HPAs: [default/one default/two]"

    play(story)


SCALED_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "rollouts.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "rollouts", "kind": "Rollout"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                "subresources": {
                    "scale": {
                        "specReplicasPath": ".spec.size",
                        "statusReplicasPath": ".status.size",
                        "labelSelectorPath": ".status.selector",
                    }
                },
            }
        ],
    },
}


def test_custom_resources_with_a_scale_are_scaled():
    """Such as Argo's Rollouts."""

    async def story(client, told):
        await client.create(kinds.CRD, SCALED_CRD)
        kind = Kind("example.com", "v1", "rollouts", "Rollout")
        meta = {"name": "web", "namespace": "default"}
        body = {"apiVersion": "example.com/v1", "kind": "Rollout", "metadata": meta, "spec": {"size": 1}}

        async def served():
            try:
                return await client.create(kind, body | {"status": {"size": 1, "selector": "app=web"}})
            except KubeError:
                return None

        await until(served)
        spec = {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}
        labelled = {"name": "web-1", "namespace": "default", "labels": {"app": "web"}}
        await client.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": labelled, "spec": spec})
        await until(lambda: ready_pods(client, (0.5, 1), told))
        ref = {"apiVersion": "example.com/v1", "kind": "Rollout", "name": "web"}
        await client.create(kinds.AUTOSCALER, manifest(scaleTargetRef=ref))

        async def scaled():
            return (await client.get(kind, "default", "web"))["spec"]["size"] == 3

        await until(scaled)

    play(story)


@pytest.mark.parametrize(
    ("kind", "version", "says"),
    [
        ("Deployment", "apps/v1", 'deployments.apps "web" not found'),
        ("ReplicationController", "v1", 'replicationcontrollers "web" not found'),
        ("DaemonSet", "apps/v1", "the server could not find the requested resource"),
        ("Strange", "apps/v1", 'no matches for kind "Strange" in group "apps"'),
    ],
)
def test_a_target_without_a_scale_is_named(kind, version, says):
    async def story(client, told):
        ref = {"apiVersion": version, "kind": kind, "name": "web"}
        await client.create(kinds.AUTOSCALER, manifest(scaleTargetRef=ref))

        async def told_of():
            return [e for e in told.events if e[3] == "FailedGetScale"]

        assert (await until(told_of))[0][4] == says

    play(story)


def test_a_scale_that_is_refused_is_told_of():
    async def story(client, told):
        await client.create(kinds.DEPLOYMENT, requesting("web"))
        await until(lambda: ready_pods(client, (0.5, 1), told))
        policy, binding = forbidding_scales()
        await client.create(kinds.ADMISSION_POLICY, policy)
        await client.create(kinds.ADMISSION_POLICY_BINDING, binding)
        await client.create(kinds.AUTOSCALER, manifest())

        async def refused():
            found = (await client.get(kinds.AUTOSCALER, "default", "web")).get("status") or {}
            able = [c for c in found.get("conditions") or [] if c["type"] == "AbleToScale"]
            return able and able[0]["status"] == "False" and able[0]

        assert (await until(refused))["reason"] == "FailedUpdateScale"
        assert any(e[3] == "FailedRescale" and "New size: 3" in e[4] for e in told.events)

    play(story)


def forbidding_scales():
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/scale"]}
    meta = {"name": "no-scale"}
    head = "admissionregistration.k8s.io/v1"
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false"}]}
    policy = {"apiVersion": head, "kind": "ValidatingAdmissionPolicy", "metadata": meta, "spec": spec}
    bound = {"policyName": "no-scale", "validationActions": ["Deny"]}
    return policy, {"apiVersion": head, "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta, "spec": bound}


def test_what_cannot_be_computed_keeps_its_place_among_the_metrics():
    """kubectl get hpa shows the first status as that of the first metric."""

    async def story(client, told):
        await client.create(kinds.DEPLOYMENT, requesting("web"))
        await until(lambda: ready_pods(client, (0.5, 1 << 20), told))
        memory = metric(name="memory")
        await client.create(kinds.AUTOSCALER, manifest(metrics=[memory, metric()]))

        async def reported():
            found = (await client.get(kinds.AUTOSCALER, "default", "web")).get("status") or {}
            return found.get("currentMetrics")

        first, second = await until(reported)
        assert (first, second["resource"]["name"]) == ({"type": ""}, "cpu")

    play(story)


def test_a_scale_selects_by_expressions_and_of_replication_controllers():
    by = {r.kind: r for r in BUILT_IN}
    needs = [{"key": "env", "operator": "In", "values": ["b", "a"]}, {"key": "old", "operator": "DoesNotExist"}]
    selector = {"matchLabels": {"app": "x"}, "matchExpressions": needs}
    made = scales.of(by["Deployment"], "v1", {"metadata": {}, "spec": {"selector": selector}})
    assert made["status"]["selector"] == "app=x,env in (a,b),!old"
    made = scales.of(by["ReplicationController"], "v1", {"metadata": {}, "spec": {"selector": {"b": "c", "a": "d"}}})
    assert made["status"]["selector"] == "a=d,b=c"


def test_a_new_autoscaler_does_not_scale_down_at_once():
    past = scaling.Past([(0.0, 5)])
    assert scaling.settle(hpa(), 1, 5, past, 1.0) == (5, "")
    assert scaling.settle(hpa(), 1, 5, past, 302.0) == (1, "")
