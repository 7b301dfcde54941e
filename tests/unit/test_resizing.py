"""`kubectl patch pod … --subresource resize`: what may be changed of a pod that runs, and its control groups."""

import pytest
from apiserver import Cluster

from lateen.cluster.runtime import cgroups
from lateen.cluster.runtime.cgroups import Groups, Limits

POD = "/api/v1/namespaces/default/pods/p"
BOTH = {"cpu": "500m", "memory": "64Mi"}


@pytest.fixture
def cluster():
    return Cluster()


def create(cluster, resources, policy=(), restart="Always"):
    container = {"name": "c", "image": "x", "resources": resources, "resizePolicy": list(policy)}
    body = {"metadata": {"name": "p"}, "spec": {"restartPolicy": restart, "containers": [container]}}
    return cluster.ask("POST", "/api/v1/namespaces/default/pods", body)


def resize(cluster, resources, **more):
    patch = {"spec": {"containers": [{"name": "c", "resources": resources, **more}]}}
    return cluster.ask("PATCH", f"{POD}/resize", patch, content="application/strategic-merge-patch+json")


def causes(status):
    return [(c["field"], c["message"].partition(": ")[2]) for c in status["details"]["causes"]]


def test_resources_are_changed_and_nothing_else(cluster):
    create(cluster, {"requests": BOTH})
    code, pod = resize(cluster, {"requests": {"cpu": "1"}}, image="other")
    assert code == 200
    (container,) = pod["spec"]["containers"]
    assert (container["image"], container["resources"]) == ("x", {"requests": {"cpu": "1", "memory": "64Mi"}})
    assert cluster.must("GET", POD)["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "1"
    patch = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}
    assert cluster.ask("PATCH", POD, patch, content="application/strategic-merge-patch+json")[0] == 422


def test_the_class_of_service_stays(cluster):
    create(cluster, {})
    code, status = resize(cluster, {"limits": {"cpu": "1"}})
    assert code == 422
    assert causes(status) == [("spec", '"BestEffort": Pod QOS Class may not change as a result of resizing')]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"limits": {"memory": None}}, "spec.containers[0].resources.limits", "resource limits cannot be removed"),
        (
            {"limits": {"memory": "32Mi"}},
            "spec.containers[0].resources.limits[memory]",
            "memory limits cannot be decreased unless resizePolicy is RestartContainer",
        ),
        ({"limits": {"cpu": "-1"}}, "spec.containers[0].resources.limits[cpu]", None),
        (
            {"limits": {"hugepages-2Mi": "2Mi"}},
            "spec",
            "only cpu and memory resources are mutable",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(cluster, change, field, says):
    create(cluster, {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": BOTH})
    code, status = resize(cluster, change)
    assert code == 422
    assert field in [c[0] for c in causes(status)]
    assert says is None or (field, says) in causes(status)


def test_less_memory_is_given_to_a_container_that_is_restarted_for_it(cluster):
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    create(cluster, {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": BOTH}, policy)
    code, pod = resize(cluster, {"limits": {"memory": "32Mi"}})
    assert (code, pod["spec"]["containers"][0]["resources"]["limits"]["memory"]) == (200, "32Mi")


@pytest.mark.parametrize(
    "policy",
    [
        [{"resourceName": "disk", "restartPolicy": "NotRequired"}],
        [{"resourceName": "cpu", "restartPolicy": "Sometimes"}],
        [{"resourceName": "cpu", "restartPolicy": "NotRequired"}] * 2,
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(cluster, policy):
    code, status = create(cluster, {}, policy)
    assert code == 422
    assert all("resizePolicy" in c["field"] for c in status["details"]["causes"])


def test_a_pod_that_is_never_restarted_cannot_ask_for_a_restart(cluster):
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    code, status = create(cluster, {}, policy, restart="Never")
    assert code == 422
    assert causes(status)[0][1].endswith("must be 'NotRequired' when `restartPolicy` is 'Never'")


def test_the_policy_of_a_container_that_runs_stays(cluster):
    create(cluster, {"requests": BOTH})
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    code, status = resize(cluster, {"requests": {"cpu": "1"}}, resizePolicy=policy)
    assert (code, causes(status)) == (422, [("spec", "only cpu and memory resources are mutable")])


def test_a_quota_counts_what_a_pod_grows_by(cluster):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "1"}}}
    cluster.must("POST", "/api/v1/namespaces/default/resourcequotas", quota)
    create(cluster, {"requests": BOTH})
    assert resize(cluster, {"requests": {"cpu": "900m"}})[0] == 200
    code, status = resize(cluster, {"requests": {"cpu": "1100m"}})
    assert (code, "exceeded quota: q" in status["message"]) == (403, True)


def with_init(cluster, kind):
    init = {"name": "i", "image": "x", "resources": {"limits": BOTH}, **kind}
    spec = {"initContainers": [init], "containers": [{"name": "c", "image": "x", "resources": {"requests": BOTH}}]}
    cluster.must("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}, "spec": spec})


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("kind", "change", "field", "says"),
    [
        (SIDECAR, {"limits": {"cpu": "-1"}}, "spec.initContainers[0].resources.limits[cpu]", None),
        (SIDECAR, {"requests": {"cpu": "2"}}, "spec.initContainers[0].resources.requests", None),
        (SIDECAR, {"limits": {"memory": None}}, "spec.initContainers[0].resources.limits", None),
        (SIDECAR, {"limits": {"memory": "1Mi"}}, "spec.initContainers[0].resources.limits[memory]", None),
        (
            SIDECAR,
            {"limits": {"hugepages-2Mi": "2Mi"}},
            "spec",
            "only cpu and memory resources for sidecar containers are mutable",
        ),
        ({}, {"limits": {"cpu": "1"}}, "spec", "resources for non-sidecar init containers are immutable"),
    ],
)
def test_sidecars_are_resized_under_the_same_rules_and_other_init_containers_never(cluster, kind, change, field, says):
    with_init(cluster, kind)
    patch = {"spec": {"initContainers": [{"name": "i", "resources": change}]}}
    code, status = cluster.ask("PATCH", f"{POD}/resize", patch, content="application/strategic-merge-patch+json")
    assert code == 422
    found = dict(causes(status))
    assert field in found
    assert says is None or found[field] == says


def test_a_sidecar_can_be_resized(cluster):
    with_init(cluster, SIDECAR)
    patch = {"spec": {"initContainers": [{"name": "i", "resources": {"limits": {"cpu": "1"}}}]}}
    code, pod = cluster.ask("PATCH", f"{POD}/resize", patch, content="application/strategic-merge-patch+json")
    assert (code, pod["spec"]["initContainers"][0]["resources"]["limits"]["cpu"]) == (200, "1")


def test_a_limit_of_memory_is_added_by_a_restart_only(cluster):
    create(cluster, {"requests": BOTH})
    code, status = resize(cluster, {"limits": {"memory": "1Gi"}})
    says = "memory limits cannot be added unless resizePolicy is RestartContainer"
    assert (code, causes(status)) == (422, [("spec.containers[0].resources.limits[memory]", says)])


def test_a_limit_range_holds_for_what_a_pod_is_resized_to_and_for_no_other_change(cluster):
    create(cluster, {"requests": BOTH, "limits": BOTH})
    limit = {"type": "Container", "max": {"cpu": "1"}}
    made = {"metadata": {"name": "l"}, "spec": {"limits": [limit]}}
    cluster.must("POST", "/api/v1/namespaces/default/limitranges", made)
    assert resize(cluster, {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}})[0] == 200
    code, status = resize(cluster, {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}})
    assert (code, status["reason"]) == (403, "Forbidden")
    assert status["message"] == 'pods "p" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
    cluster.must(
        "PATCH", "/api/v1/namespaces/default/limitranges/l", {"spec": {"limits": [limit | {"max": {"cpu": "1m"}}]}}
    )
    cluster.must("PATCH", POD, {"metadata": {"labels": {"a": "b"}}})


@pytest.mark.parametrize("version", [1, 2])
def test_the_groups_of_a_running_container_get_other_limits(tmp_path, version):
    groups = Groups([cgroups.Base(tmp_path, version, ("memory", "cpu", "pids"))], {})
    groups.make("c", Limits(memory=1 << 20, cpu=0.5))
    (tmp_path / "c" / "cgroup.procs").write_text("1\n")
    memory, cpu = ("memory.max", "cpu.max") if version == 2 else ("memory.limit_in_bytes", "cpu.cfs_quota_us")
    groups.change("c", Limits(memory=1 << 21, cpu=1.0))
    assert (tmp_path / "c" / memory).read_text() == str(1 << 21)
    assert (tmp_path / "c" / cpu).read_text().split()[0] == "100000"
    groups.change("c", Limits())
    assert (tmp_path / "c" / memory).read_text() == ("max" if version == 2 else "-1")
    assert (tmp_path / "c" / cpu).read_text().split()[0] == ("max" if version == 2 else "-1")
