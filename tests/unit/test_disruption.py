"""Who has to go, and who may: budgets and evictions, taints and tolerations, where a pod fits."""

from datetime import timedelta

import pytest
from apiserver import Cluster
from test_autoscaling import SCALED_CRD
from test_controllers import deployment, play, until

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.disruption import status_of
from lateen.cluster.controllers.taints import tolerated_s
from lateen.cluster.rules import fitting
from lateen.kit import jsons, times
from lateen.kit.jsons import dig
from lateen.kube.client import KubeError

NOW = times.now()
READY = {"type": "Ready", "status": "True"}


def budget(**spec):
    meta = {"name": "b", "namespace": "default", "generation": 1}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
    }


def pods(ready, unready=0):
    return [
        {"metadata": {"name": f"p{i}"}, "status": {"conditions": [READY] if i < ready else []}}
        for i in range(ready + unready)
    ]


@pytest.mark.parametrize(
    ("spec", "ready", "unready", "scale", "allowed"),
    [
        ({"minAvailable": 2}, 3, 0, 0, 1),
        ({"minAvailable": 2}, 2, 1, 0, 0),
        ({"maxUnavailable": 1}, 3, 0, 3, 1),
        ({"maxUnavailable": 1}, 2, 1, 3, 0),
        ({"minAvailable": "50%"}, 4, 0, 4, 2),
        ({"maxUnavailable": "30%"}, 3, 0, 3, 1),
        ({"maxUnavailable": 0}, 3, 0, 3, 0),
        ({"maxUnavailable": "100%"}, 3, 0, 3, 3),
        ({}, 2, 0, 0, 1),
    ],
)
def test_a_budget_allows_what_leaves_enough(spec, ready, unready, scale, allowed):
    found = status_of(budget(**spec), pods(ready, unready), scale, NOW)
    assert found["disruptionsAllowed"] == allowed
    assert found["conditions"][0]["status"] == str(allowed > 0)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_budget_of_pods_of_a_custom_resource_goes_by_its_scale(scaled):
    """Such as those of operators of databases."""

    async def story(client, told):
        crd = jsons.copy(SCALED_CRD)
        if not scaled:
            crd["spec"]["versions"][0].pop("subresources")
        await client.create(kinds.CRD, crd)
        kind = Kind("example.com", "v1", "rollouts", "Rollout")
        meta = {"name": "web", "namespace": "default"}
        body = {"apiVersion": "example.com/v1", "kind": "Rollout", "metadata": meta, "spec": {"size": 4}}

        async def served():
            try:
                return await client.create(kind, body)
            except KubeError:
                return None

        owner = await until(served)
        ref = {"apiVersion": "example.com/v1", "kind": "Rollout", "name": "web", "controller": True}
        meta = {"namespace": "default", "labels": {"app": "web"}}
        meta["ownerReferences"] = [ref | {"uid": owner["metadata"]["uid"]}]
        for name in ("a", "b"):
            spec = {"containers": [{"name": "c", "image": "i"}]}
            await client.create(
                kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta | {"name": name}, "spec": spec}
            )
        await client.create(kinds.POD_DISRUPTION_BUDGET, budget(maxUnavailable=1))

        async def counted():
            found = await client.get(kinds.POD_DISRUPTION_BUDGET, "default", "b")
            said = [c["message"] for c in dig(found, "status", "conditions", default=[])]
            without = "rollouts.example.com does not implement the scale subresource"
            return dig(found, "status", "expectedPods") == 4 if scaled else without in said

        await until(counted)

    play(story)


def test_an_eviction_that_has_been_granted_counts_until_the_pod_has_gone():
    known = budget(minAvailable=2)
    known["status"] = {"disruptedPods": {"p0": times.stamp(NOW), "gone": times.stamp(NOW)}}
    found = status_of(known, pods(4), 0, NOW)
    assert found["disruptionsAllowed"] == 1
    assert [k for k, v in found["disruptedPods"].items() if v] == ["p0"]
    assert status_of(known, pods(4), 0, NOW + timedelta(minutes=3))["disruptionsAllowed"] == 2


def test_an_eviction_waits_for_the_budget():
    async def story(client, told):
        made = deployment("web")
        made["spec"]["replicas"] = 2
        await client.create(kinds.DEPLOYMENT, made)
        await client.create(kinds.POD_DISRUPTION_BUDGET, budget(minAvailable=1))

        async def running():
            found, _ = await client.list(kinds.POD, "default")
            return found if len(found) == 2 else None

        for pod in await until(running):
            status = {"phase": "Running", "conditions": [READY]}
            await client.patch(kinds.POD, "default", pod["metadata"]["name"], {"status": status}, "status")

        async def allowed(count):
            async def there():
                status = (await client.get(kinds.POD_DISRUPTION_BUDGET, "default", "b")).get("status") or {}
                return status.get("disruptionsAllowed") == count

            await until(there)

        await allowed(1)
        names = [p["metadata"]["name"] for p in await running()]
        evict = {"apiVersion": "policy/v1", "kind": "Eviction"}
        answers = []
        for name in names:
            cluster = client._api  # the verb is not one that our own programs use
            call = client._call(kinds.POD, "default", name, "eviction", evict | {"metadata": {"name": name}})
            try:
                answers.append((await cluster.evict(call))["status"])
            except Exception as e:  # noqa: BLE001 - the test looks at it
                answers.append((e.code, e.details["causes"][0]["message"]))
        assert answers[0] == "Success"
        code, why = answers[1]
        assert code == 429
        assert why.startswith("The disruption budget b needs 1 healthy pods and has")
        await allowed(0)

    play(story)


def evicted(cluster, name):
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    return cluster.ask("POST", f"/api/v1/namespaces/default/pods/{name}/eviction", body)


def test_two_budgets_for_one_pod_are_not_supported_and_a_pod_that_has_ended_needs_none():
    cluster = Cluster()
    for name in ("a", "b"):
        body = budget(minAvailable=1)
        body["metadata"] = {"name": name}
        cluster.must("POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", body)
    for name in ("p", "done"):
        spec = {"containers": [{"name": "c", "image": "i"}]}
        cluster.must(
            "POST",
            "/api/v1/namespaces/default/pods",
            {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec},
        )
    base = "/api/v1/namespaces/default/pods"
    cluster.must("PATCH", f"{base}/p/status", {"status": {"phase": "Running", "conditions": [READY]}})
    cluster.must("PATCH", f"{base}/done/status", {"status": {"phase": "Succeeded"}})
    code, answer = evicted(cluster, "p")
    assert (code, "more than one PodDisruptionBudget" in answer["message"]) == (500, True)
    assert evicted(cluster, "done")[0] == 201


def test_an_eviction_of_the_revision_that_its_client_has_seen():
    cluster, path = Cluster(), "/api/v1/namespaces/default/pods"
    spec = {"containers": [{"name": "c", "image": "i"}]}
    seen = cluster.must("POST", path, {"metadata": {"name": "p"}, "spec": spec})["metadata"]["resourceVersion"]
    for revision, code in (("1", 409), (seen, 201)):
        options = {"preconditions": {"resourceVersion": revision}}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": options}
        assert cluster.ask("POST", f"{path}/p/eviction", body)[0] == code
    assert cluster.ask("GET", f"{path}/p")[0] == 404


# --- where a pod fits ------------------------------------------------------------------------------------------------


def node(taints=(), unschedulable=False, **labels):
    spec = {"taints": list(taints)} | ({"unschedulable": True} if unschedulable else {})
    status = {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "250"}}
    return {"metadata": {"name": "n", "labels": labels}, "spec": spec, "status": status}


def of(**spec):
    return {"spec": {"containers": [{"name": "c"}], **spec}}


def affinity(key, operator, *values):
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    required = {"nodeSelectorTerms": [term]}
    return of(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})


NO = {"key": "k", "value": "v", "effect": "NoSchedule"}
OUT = {"key": "k", "value": "v", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("pod", "at", "why"),
    [
        (of(), node(), ""),
        (of(), node([NO]), "untolerated taint {k: v}"),
        (of(tolerations=[{"key": "k", "operator": "Exists"}]), node([NO]), ""),
        (of(tolerations=[{"key": "k", "value": "w"}]), node([NO]), "untolerated taint"),
        (of(tolerations=[{"operator": "Exists", "effect": "NoExecute"}]), node([NO]), "untolerated taint"),
        (of(tolerations=[{"operator": "Exists"}]), node([NO, OUT], unschedulable=True), ""),
        (of(), node(unschedulable=True), "were unschedulable"),
        (of(), node([{"key": "k", "effect": "PreferNoSchedule"}]), ""),
        (of(nodeSelector={"disk": "ssd"}), node(), "didn't match Pod's node affinity/selector"),
        (of(nodeSelector={"disk": "ssd"}), node(disk="ssd"), ""),
        (affinity("disk", "In", "ssd", "nvme"), node(disk="nvme"), ""),
        (affinity("disk", "NotIn", "ssd"), node(disk="ssd"), "didn't match"),
        (affinity("disk", "Exists"), node(), "didn't match"),
        (affinity("gen", "Gt", "3"), node(gen="4"), ""),
        (of(containers=[{"name": "c", "resources": {"requests": {"cpu": "3"}}}]), node(), "Insufficient cpu"),
        (of(containers=[{"name": "c", "resources": {"limits": {"memory": "5Gi"}}}]), node(), "Insufficient memory"),
        (
            of(containers=[{"name": "c", "resources": {"requests": {"nvidia.com/gpu": "1"}}}]),
            node(),
            "Insufficient nvidia.com/gpu",
        ),
    ],
)
def test_a_pod_fits_the_node_or_is_told_why_not(pod, at, why):
    found = fitting.unfit(pod, at)
    assert (found == "") if not why else (why in found)


@pytest.mark.parametrize(
    ("tolerations", "seconds"),
    [
        ([], 0.0),
        ([{"key": "k", "operator": "Exists"}], None),
        ([{"key": "k", "value": "v", "tolerationSeconds": 30}], 30.0),
        ([{"key": "k", "value": "v", "tolerationSeconds": 30}, {"operator": "Exists", "tolerationSeconds": 5}], 5.0),
        ([{"key": "k", "value": "v", "tolerationSeconds": -1}], 0.0),
    ],
)
def test_a_pod_stays_as_long_as_it_tolerates_the_taint(tolerations, seconds):
    assert tolerated_s({"spec": {"tolerations": tolerations}}, node([OUT])) == seconds


def test_a_pod_that_does_not_tolerate_a_taint_leaves_the_node():
    async def story(client, told):
        await client.create(kinds.NODE, {"apiVersion": "v1", "kind": "Node"} | node())
        for name, tolerations in (("stays", [{"key": "k", "operator": "Exists"}]), ("leaves", [])):
            spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}], "tolerations": tolerations}
            meta = {"name": name, "namespace": "default"}
            await client.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        await client.patch(kinds.NODE, "", "n", {"spec": {"taints": [OUT]}})

        async def marked():
            found = await client.get(kinds.POD, "default", "leaves")
            return found is None or found["metadata"].get("deletionTimestamp")

        await until(marked)
        assert not dig(await client.get(kinds.POD, "default", "stays"), "metadata", "deletionTimestamp")
        assert any(e[3] == "TaintManagerEviction" for e in told.events)

    play(story)


def test_a_budget_that_cannot_be_read_is_refused():
    async def story(client, told):
        with pytest.raises(KubeError, match="cannot be both set"):
            await client.create(kinds.POD_DISRUPTION_BUDGET, budget(minAvailable=1, maxUnavailable=1))

    play(story)


def test_drain_finds_out_that_pods_can_be_evicted():
    """kubectl deletes them otherwise (``CheckEvictionSupport``)."""
    cluster = Cluster()
    listed = cluster.must("GET", "/api/v1")["resources"]
    found = next(r for r in listed if r["name"] == "pods/eviction")
    assert (found["group"], found["version"], found["kind"]) == ("policy", "v1", "Eviction")
    agg = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    core = cluster.must("GET", "/api", headers={"Accept": agg})["items"][0]["versions"][0]["resources"]
    pods = next(r for r in core if r["resource"] == "pods")
    kind = next(s["responseKind"] for s in pods["subresources"] if s["subresource"] == "eviction")
    assert kind == {"group": "policy", "version": "v1", "kind": "Eviction"}
