"""Schedulers of users' own bind pods; what clients ask of components and of the kubelet is answered."""

import asyncio
from types import SimpleNamespace

import pytest
from apiserver import Cluster

from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.kubelet.scheduler import Scheduler
from lateen.kit import tasks

POD = {"metadata": {"name": "p"}, "spec": {"schedulerName": "mine", "containers": [{"name": "c", "image": "x"}]}}
PODS = "/api/v1/namespaces/default/pods"
BINDING = {"metadata": {"name": "p", "annotations": {"why": "free"}}, "target": {"kind": "Node", "name": "lateen"}}


@pytest.fixture
def cluster():
    made = Cluster()
    made.must("POST", PODS, POD)
    return made


@pytest.mark.parametrize("path", [f"{PODS}/p/binding", "/api/v1/namespaces/default/bindings"])
def test_a_binding_assigns_the_pod_once(cluster, path):
    assert cluster.must("POST", path, BINDING)["status"] == "Success"
    pod = cluster.must("GET", f"{PODS}/p")
    assert pod["spec"]["nodeName"] == "lateen"
    assert pod["metadata"]["annotations"] == {"why": "free"}
    assert [(c["type"], c["status"]) for c in pod["status"]["conditions"]] == [("PodScheduled", "True")]
    code, refused = cluster.ask("POST", path, BINDING)
    assert (code, refused["reason"]) == (409, "Conflict")
    assert 'pod p is already assigned to node "lateen"' in refused["message"]


def test_bindings_that_name_no_node_or_no_pod_are_refused(cluster):
    code, refused = cluster.ask("POST", f"{PODS}/p/binding", {"target": {"kind": "Rack", "name": ""}})
    assert code == 422
    assert {c["field"] for c in refused["details"]["causes"]} == {"target.kind", "target.name"}
    assert cluster.ask("POST", f"{PODS}/q/binding", {"target": {"name": "lateen"}})[0] == 404
    assert cluster.ask("POST", f"{PODS}/q/binding", BINDING)[0] == 400
    assert cluster.ask("POST", f"{PODS}/p/binding?dryRun=All", BINDING)[0] == 201
    assert "nodeName" not in cluster.must("GET", f"{PODS}/p")["spec"]
    cluster.must(
        "POST", PODS, POD | {"metadata": {"name": "g"}, "spec": POD["spec"] | {"schedulingGates": [{"name": "a/b"}]}}
    )
    code, refused = cluster.ask("POST", f"{PODS}/g/binding", {"target": {"name": "lateen"}})
    assert (code, "schedulingGates" in refused["message"]) == (409, True)


@pytest.mark.parametrize("path", [f"{PODS}/p/binding", "/api/v1/namespaces/default/bindings"])
def test_a_binding_of_another_pod_of_that_name_or_of_an_older_revision_is_a_conflict(cluster, path):
    """As when a scheduler has decided about a pod that has been made anew since."""
    meta = cluster.must("GET", f"{PODS}/p")["metadata"]
    for wrong, says in (({"uid": "of-an-earlier-pod"}, "UID"), ({"resourceVersion": "1"}, "ResourceVersion")):
        code, refused = cluster.ask("POST", path, BINDING | {"metadata": {"name": "p"} | wrong})
        assert (code, refused["reason"]) == (409, "Conflict")
        assert f"Precondition failed: {says} in precondition" in refused["message"]
    assert "nodeName" not in cluster.must("GET", f"{PODS}/p")["spec"]
    right = {key: meta[key] for key in ("name", "uid", "resourceVersion")}
    assert cluster.must("POST", path, BINDING | {"metadata": right})["status"] == "Success"


def change(cluster, spec, name="p"):
    return cluster.ask("PATCH", f"{PODS}/{name}", {"spec": spec})


@pytest.mark.parametrize(
    "spec", [{"nodeName": "lateen"}, {"terminationGracePeriodSeconds": 5}, {"terminationGracePeriodSeconds": 1}]
)
def test_no_update_chooses_a_node_or_another_grace(cluster, spec):
    code, refused = change(cluster, spec)
    assert (code, [c["field"] for c in refused["details"]["causes"]]) == (422, ["spec"])
    assert "nodeName" not in cluster.must("GET", f"{PODS}/p")["spec"]


def test_a_negative_grace_becomes_one_second(cluster):
    meta = {"metadata": {"name": "n"}}
    cluster.must("POST", PODS, meta | {"spec": POD["spec"] | {"terminationGracePeriodSeconds": -1}})
    assert change(cluster, {"terminationGracePeriodSeconds": 2}, "n")[0] == 422
    assert change(cluster, {"terminationGracePeriodSeconds": 1}, "n")[0] == 200


def test_tolerations_last_longer_or_shorter_and_otherwise_stay(cluster):
    there = cluster.must("GET", f"{PODS}/p")["spec"]["tolerations"]
    longer = [t | {"tolerationSeconds": 7} for t in there]
    assert change(cluster, {"tolerations": longer})[0] == 200
    assert cluster.must("GET", f"{PODS}/p")["spec"]["tolerations"] == longer
    more = [*longer, {"key": "k", "operator": "Exists"}]
    assert change(cluster, {"tolerations": more})[0] == 200
    code, refused = change(cluster, {"tolerations": [*longer, {"key": "l", "operator": "Exists"}]})
    assert (code, [c["field"] for c in refused["details"]["causes"]]) == (422, ["spec.tolerations"])


def test_gates_are_opened_and_never_added(cluster):
    gates = [{"name": "a/b"}, {"name": "a/c"}]
    cluster.must("POST", PODS, POD | {"metadata": {"name": "g"}, "spec": POD["spec"] | {"schedulingGates": gates}})
    assert change(cluster, {"schedulingGates": gates[1:]}, "g")[0] == 200
    code, refused = change(cluster, {"schedulingGates": gates}, "g")
    assert (code, [c["field"] for c in refused["details"]["causes"]]) == (422, ["spec.schedulingGates[0].name"])
    assert change(cluster, {"schedulingGates": None}, "g")[0] == 200
    assert cluster.must("POST", f"{PODS}/g/binding", {"target": {"name": "lateen"}})["status"] == "Success"


def test_the_clusters_own_scheduler_binds(cluster):
    pod = {"metadata": {"name": "s"}, "spec": {"containers": POD["spec"]["containers"]}}
    found = cluster.must("POST", PODS, pod)
    cluster.must("POST", "/api/v1/nodes", {"metadata": {"name": "lateen"}})
    cluster.must("PATCH", "/api/v1/nodes/lateen/status", {"status": {"allocatable": {"cpu": "1", "memory": "1Gi"}}})

    async def run():
        node = SimpleNamespace(client=DirectClient(cluster.api, "kube-scheduler"), name="lateen")
        made = Scheduler(node, lambda key: cluster.store.get("pods", *key).obj, list, lambda: 0)
        made.add(found["metadata"]["uid"], found)
        task = tasks.spawn(made.run(), "scheduler")
        async with asyncio.timeout(20):
            while "nodeName" not in cluster.store.get("pods", "default", "s").obj["spec"]:
                await asyncio.sleep(0.01)
        await tasks.cancel(task)

    asyncio.run(run())
    pod = cluster.must("GET", f"{PODS}/s")
    assert pod["spec"]["nodeName"] == "lateen"
    assert [(c["type"], c["status"]) for c in pod["status"]["conditions"]] == [("PodScheduled", "True")]


def test_component_statuses(cluster):
    found = cluster.must("GET", "/api/v1/componentstatuses")
    assert [o["metadata"]["name"] for o in found["items"]] == ["scheduler", "controller-manager", "etcd-0"]
    assert "deprecated in v1.19" in cluster.head
    assert cluster.must("GET", "/api/v1/componentstatuses/etcd-0")["conditions"][0]["status"] == "True"
    assert cluster.ask("GET", "/api/v1/componentstatuses/etcd-9")[0] == 404
    assert cluster.ask("DELETE", "/api/v1/componentstatuses/etcd-0")[0] == 405
    table = cluster.must(
        "GET", "/api/v1/componentstatuses", headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    )
    assert table["rows"][0]["cells"] == ["scheduler", "Healthy", "ok", ""]


class Kubelet:
    """What it measures."""

    node, containers, window = (1.5, 1 << 30), {("default", "p"): {"c": (0.25, 1 << 20)}}, 1.0
    node_seconds, seconds = 900.0, {("default", "p"): {"c": 12.5}}

    async def usage(self):
        return self


def test_the_kubelet_is_asked_through_the_api_server(cluster, monkeypatch):
    monkeypatch.setattr(cluster, "access", Kubelet())
    cluster.must("POST", "/api/v1/nodes", {"metadata": {"name": "lateen"}})
    cluster.must("POST", f"{PODS}/p/binding", BINDING)
    proxy = "/api/v1/nodes/lateen/proxy"
    assert cluster.must("GET", f"{proxy}/healthz") == "ok"
    assert [p["metadata"]["name"] for p in cluster.must("GET", f"{proxy}/pods")["items"]] == ["p"]
    stats = cluster.must("GET", f"{proxy}/stats/summary")
    assert stats["node"]["cpu"]["usageNanoCores"] == 1_500_000_000
    assert stats["pods"][0]["podRef"]["name"] == "p"
    assert stats["pods"][0]["containers"][0]["memory"]["workingSetBytes"] == 1 << 20
    for name in ("lateen:10250", "https:lateen:10250"):
        metrics = cluster.must("GET", f"/api/v1/nodes/{name}/proxy/metrics/resource")
        assert 'container_memory_working_set_bytes{container="c",namespace="default",pod="p"} 1048576\n' in metrics
        assert 'container_cpu_usage_seconds_total{container="c",namespace="default",pod="p"} 12.5\n' in metrics
        assert "node_cpu_usage_seconds_total 900.0\n" in metrics
    assert cluster.ask("GET", f"{proxy}/run/default/p")[0] == 404
    assert cluster.ask("POST", f"{proxy}/pods", {})[0] == 405
    assert cluster.ask("GET", "/api/v1/nodes/other/proxy/healthz")[0] == 404
    assert cluster.ask("GET", f"{proxy}/pods", user="bob", groups=())[0] == 403
