"""What the comparison with kube-controller-manager (tests/real-kubernetes) has shown, without it."""

import asyncio
from datetime import UTC, datetime

from apiserver import Cluster
from test_controllers import Told, deployment, play, pods_of, until

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.controllers import conditions, endpoints, pod_garbage
from lateen.cluster.controllers.daemon_set import DaemonSets, daemon_set
from lateen.cluster.controllers.deployment import deployment as rollout
from lateen.cluster.controllers.disruption import DisruptionBudgets
from lateen.cluster.controllers.job_indexes import shown
from lateen.cluster.controllers.loop import Loop
from lateen.cluster.controllers.namespace import remaining
from lateen.cluster.controllers.ownership import DELETION_COST, surplus
from lateen.cluster.controllers.revisions import hash_of
from lateen.cluster.kubelet.events import COMBINED, SIMILAR, Recorder
from lateen.kit.jsons import dig

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NODE = {"metadata": {"name": "n", "labels": {}}, "spec": {}}


def pod(name, ready=True, since="2026-01-01T00:00:00Z", **more):
    labels = more.pop("labels", {})
    state = {"type": "Ready", "status": str(ready), "lastTransitionTime": since}
    meta = {"name": name, "namespace": "default", "uid": name, "creationTimestamp": since, "labels": labels}
    meta["annotations"] = more.pop("annotations", {})
    spec = {"nodeName": more.pop("node", "n"), "containers": [{"name": "c", "ports": more.pop("ports", [])}]}
    status = {"phase": "Running", "conditions": [state], "podIP": f"10.0.0.{len(name)}"} | more
    return {"metadata": meta, "spec": spec, "status": status}


def test_the_pods_that_are_the_least_loss_go_first():
    """kubectl scale --replicas takes those that serve nobody, then the cheap ones, then the newest."""
    old, new = pod("old"), pod("new", since="2026-01-01T01:00:00Z")
    cheap = pod("cheap", annotations={DELETION_COST: "-1"})
    unready, homeless = pod("unready", ready=False), pod("homeless", ready=False, node="")
    restarted = pod("restarted", containerStatuses=[{"restartCount": 3}])
    found = surplus([old, new, cheap, unready, homeless, restarted], 6)
    assert [p["metadata"]["name"] for p in found] == ["homeless", "unready", "cheap", "new", "restarted", "old"]
    assert surplus([old, new], 0) == surplus([old], -1) == []


def test_a_pod_of_nobody_is_adopted_and_is_one_too_many():
    async def story(client, told):
        await client.create(kinds.DEPLOYMENT, deployment("web"))

        async def one():
            found = await pods_of(client, "web")()
            return found if len(found) == 1 and found[0]["metadata"].get("ownerReferences") else None

        (there,) = await until(one)
        labels = there["metadata"]["labels"]
        spec = {"containers": [{"name": "c", "image": "i"}]}
        stray = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray", "namespace": "default"}, "spec": spec}
        stray["metadata"]["labels"] = labels
        await client.create(kinds.POD, stray)
        await until(one)

    play(story)


def test_a_deployment_goes_on_with_the_replica_sets_that_one_before_it_has_left():
    """kubectl delete deployment web --cascade=orphan, and apply it again."""

    async def story(client, told):
        await client.create(kinds.DEPLOYMENT, deployment("web"))
        await until(pods_of(client, "web"))
        (rs,), _ = await client.list(kinds.REPLICA_SET, "default")
        await client.patch(
            kinds.REPLICA_SET, "default", rs["metadata"]["name"], {"metadata": {"ownerReferences": None}}
        )
        d = await client.get(kinds.DEPLOYMENT, "default", "web")

        async def adopted():
            (found,), _ = await client.list(kinds.REPLICA_SET, "default")
            refs = found["metadata"].get("ownerReferences") or []
            return [r["uid"] for r in refs] == [d["metadata"]["uid"]] and found["metadata"]["uid"] == rs["metadata"][
                "uid"
            ]

        await until(adopted)

    play(story)


def test_pods_that_cannot_be_made_are_a_condition_of_the_deployment_and_its_replica_set():
    async def story(client, told):
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "default"}}
        await client.create(kinds.RESOURCE_QUOTA, quota | {"spec": {"hard": {"pods": "0"}}})
        await client.create(kinds.DEPLOYMENT, deployment("web"))

        async def failed():
            d = await client.get(kinds.DEPLOYMENT, "default", "web")
            return conditions.find(dig(d, "status", "conditions", default=[]), "ReplicaFailure")

        found = await until(failed)
        assert (found["status"], found["reason"]) == ("True", "FailedCreate")
        assert "exceeded quota: q" in found["message"]
        await client.patch(kinds.RESOURCE_QUOTA, "default", "q", {"spec": {"hard": {"pods": "1"}}})
        await client.patch(kinds.DEPLOYMENT, "default", "web", {"metadata": {"labels": {"a": "b"}}})
        await until(pods_of(client, "web"))

        async def well():
            return not await failed()

        await until(well)

    play(story)


def test_recreating_waits_until_the_old_pods_have_gone():
    d = deployment("web") | {"kind": "Deployment"}
    d["metadata"]["uid"] = "u"
    d["spec"]["strategy"] = {"type": "Recreate"}
    ((_, old),) = rollout(d, [], NOW).create
    old["metadata"] |= {"uid": "old", "creationTimestamp": "2026-01-01T00:00:00Z"}
    d["spec"]["template"] = {**d["spec"]["template"], "spec": {"containers": [{"name": "c", "image": "new"}]}}
    first = rollout(d, [old], NOW)
    assert (first.scale, first.create) == ([(old["metadata"]["name"], 0)], [])
    old["spec"]["replicas"] = 0
    left = pod("p") | {"metadata": {"ownerReferences": [{"uid": "old", "controller": True}]}}
    assert rollout(d, [old], NOW, [left]).create == []
    ((_, new),) = rollout(d, [old], NOW, []).create
    assert new["spec"]["replicas"] == 1


def test_a_job_that_is_suspended_has_no_failures_by_that():
    async def story(client, told):
        spec = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "default"}}
        await client.create(
            kinds.JOB, job | {"spec": {"template": {"metadata": {"labels": {"app": "j"}}, "spec": spec}}}
        )
        await until(pods_of(client, "j"))
        await client.patch(kinds.JOB, "default", "j", {"spec": {"suspend": True}})

        async def suspended():
            found = await client.get(kinds.JOB, "default", "j")
            return found if not await pods_of(client, "j")() and found["status"].get("terminating") == 0 else None

        assert "failed" not in (await until(suspended))["status"]

    play(story)


def test_two_indexes_in_a_row_are_no_range():
    assert (shown([1, 2]), shown([1, 2, 3])) == ("1,2", "1-3")


def test_pods_with_different_ports_of_a_name_are_in_slices_of_their_own():
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "default", "uid": "u", "labels": {"a": "b"}},
        "spec": {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": "http", "appProtocol": "http"}]},
    }

    def of(name, number):
        return pod(name, labels={"app": "x"}, ports=[{"name": "http", "containerPort": number}])

    whole, slices = endpoints.objects(service, [of("a", 81), of("bb", 82), of("ccc", 82)], {"n": "z"})
    found = {s["ports"][0]["port"]: [e["targetRef"]["name"] for e in s["endpoints"]] for s in slices}
    assert found == {81: ["a"], 82: ["bb", "ccc"]}
    assert {s["ports"][0]["appProtocol"] for s in slices} == {"http"}
    assert {e["zone"] for s in slices for e in s["endpoints"]} == {"z"}
    assert len(whole["subsets"]) == 2
    assert {s["metadata"]["generateName"] for s in slices} == {"s-"}


def test_a_pod_that_is_about_to_go_is_listed_as_serving_but_not_as_ready():
    going = pod("p", labels={"app": "x"})
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"selector": {"app": "x"}, "ports": [{"port": 80}]}
    meta = {"name": "s", "namespace": "default", "uid": "u"}
    for early in (False, True):
        service = {"apiVersion": "v1", "kind": "Service", "metadata": meta}
        service["spec"] = spec | {"publishNotReadyAddresses": early}
        _, (found,) = endpoints.objects(service, [going], {})
        assert found["endpoints"][0]["conditions"] == {"ready": early, "serving": True, "terminating": True}


def test_a_namespace_says_what_it_waits_for():
    kept = {"metadata": {"finalizers": ["a.b/c"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    found = {c["type"]: (c["status"], c["message"]) for c in remaining({"configmaps": [kept]}, [])}
    says = "Some resources are remaining: configmaps. has 1 resource instances"
    assert found["NamespaceContentRemaining"] == ("True", says)
    says = "Some content in the namespace has finalizers remaining: a.b/c in 1 resource instances"
    assert found["NamespaceFinalizersRemaining"] == ("True", says)
    assert found["NamespaceDeletionContentFailure"][0] == "False"


def test_the_messages_of_a_namespace_follow_what_is_left():
    found = []
    for count, at in ((5, "2026-01-01T00:00:00Z"), (2, "2026-01-01T00:00:09Z")):
        left = {"pods": [{"metadata": {"finalizers": ["a.b/c"]}}] * count}
        for made in remaining(left, []):
            found = conditions.replace(found, made | {"lastTransitionTime": at})
    shown = conditions.find(found, "NamespaceContentRemaining")
    assert shown["message"] == "Some resources are remaining: pods. has 2 resource instances"
    assert shown["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert len(found) == len({c["type"] for c in found}) == 5


def test_a_budget_says_the_latest_reason_why_it_cannot_be_computed():
    client = DirectClient(Cluster().api, "kube-controller-manager")
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
    }
    budget["spec"] = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}}

    async def run():
        await client.create(kinds.POD_DISRUPTION_BUDGET, budget)
        controller, said = DisruptionBudgets(client, None, Told()), []
        for version, kind in (("batch/v1", "Job"), ("apps/v1", "DaemonSet")):
            ref = {"apiVersion": version, "kind": kind, "name": "o", "uid": "u", "controller": True}
            meta = {"name": "p", "namespace": "default", "labels": {"app": "x"}, "ownerReferences": [ref]}
            spec = {"containers": [{"name": "c", "image": "i"}]}
            await client.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
            await controller.reconcile(("default", "b"))
            found = await client.get(kinds.POD_DISRUPTION_BUDGET, "default", "b")
            said += [c["message"] for c in found["status"]["conditions"]]
            await client.delete(kinds.POD, "default", "p", grace=0)
        return said

    said = asyncio.run(run())
    assert said == [f"{k} does not implement the scale subresource" for k in ("jobs.batch", "daemonsets.apps")]


def test_events_that_differ_in_their_messages_only_share_one_when_they_are_many():
    made = []

    class Client:
        async def create(self, _, obj):
            made.append(obj["message"])
            return obj

        async def patch(self, *_):
            made.append(_[-1]["message"])

    async def run():
        recorder = Recorder(Client(), "c")
        obj = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "n", "uid": "u"}}
        for i in range(SIMILAR + 3):
            recorder.event(obj, "Warning", "Failed", f"try {i}")
        for _ in range(200):
            if len(made) == SIMILAR + 3:
                break
            await asyncio.sleep(0.02)

    asyncio.run(run())
    combined = [m for m in made if m.startswith(COMBINED)]
    assert sorted(set(made) - set(combined)) == [f"try {i}" for i in range(SIMILAR - 1)]
    assert len(combined) == 4


def test_a_pod_of_a_node_that_there_is_not_fails_and_goes(monkeypatch):
    monkeypatch.setattr(pod_garbage, "PAUSE_S", 0.02)

    async def story(client, told):
        spec = {"nodeName": "nowhere", "containers": [{"name": "c", "image": "i"}]}
        meta = {"name": "lost", "namespace": "default"}
        await client.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

        async def gone():
            return await client.get(kinds.POD, "default", "lost") is None

        await until(gone)

    play(story)


def test_the_time_of_a_missing_node_begins_anew_with_its_next_pod(monkeypatch):
    """As the quarantine of Kubernetes' collector does."""
    clock, removed = [0.0], []
    monkeypatch.setattr(pod_garbage.time, "monotonic", lambda: clock[0])
    there = {}

    class Client:
        async def get(self, kind, *where):
            return there.get(where) if kind == kinds.POD else None

        async def patch(self, *_): ...

        async def delete(self, _, __, name, **___):
            removed.append(name)

    class Loop:
        def objects(self, _):
            return list(there.values())

    async def run():
        garbage = pod_garbage.PodGarbage(Client(), Loop())

        def lost(name):
            meta = {"name": name, "namespace": "n", "uid": name}
            return {"metadata": meta, "spec": {"nodeName": "late"}, "status": {"phase": "Running"}}

        async def told(old, new):
            return [await garbage.reconcile(key) for key in garbage.keys(kinds.POD, old, new)]

        there["n", "a"] = lost("a")
        assert await told(None, lost("a")) == [pod_garbage.PAUSE_S]
        clock[0] = 41.0
        await told(None, lost("a"))
        assert removed == ["a"]
        await told(there.pop(("n", "a")), None)
        clock[0] = 90_000.0
        there["n", "b"] = lost("b")
        assert await told(None, lost("b")) == [pod_garbage.PAUSE_S]
        clock[0] += 30
        list(garbage.keys(kinds.NODE, None, {"metadata": {"name": "late"}}))  # it comes, and goes again
        assert await told(None, lost("b")) == [pod_garbage.PAUSE_S]
        assert removed == ["a"]

    asyncio.run(run())


def test_a_slice_follows_the_zone_of_its_node():
    async def story(client, told):
        zones = {"topology.kubernetes.io/zone": "east"}
        await client.create(kinds.NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}})
        meta, spec = {"name": "s", "namespace": "default"}, {"selector": {"app": "x"}, "ports": [{"port": 80}]}
        await client.create(kinds.SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
        meta = {"name": "p", "namespace": "default", "labels": {"app": "x"}}
        body = {"nodeName": "here", "containers": [{"name": "c", "image": "i"}]}
        await client.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body})
        await client.patch(kinds.POD, "default", "p", {"status": {"phase": "Running", "podIP": "10.0.0.1"}}, "status")

        async def zone():
            found, _ = await client.list(kinds.ENDPOINT_SLICE, "default")
            return [e.get("zone") for s in found for e in s.get("endpoints") or []]

        await until(zone)
        await client.patch(kinds.NODE, "", "here", {"metadata": {"labels": zones}})

        async def east():
            return await zone() == ["east"]

        await until(east)

    play(story)


def test_the_pods_of_a_daemon_set_stay_when_its_history_is_of_an_earlier_version():
    """Which labelled the revisions as those of StatefulSets."""
    revision = {"metadata": {"name": "agent-abc", "labels": {"controller.kubernetes.io/hash": "abc"}}}
    assert hash_of(revision) == "abc"
    labels = {"app": "agent", "controller-revision-hash": "abc"}
    there = pod("p", labels=labels)
    spec = {"template": {"spec": there["spec"]}, "updateStrategy": {"type": "RollingUpdate"}}
    found = daemon_set({"metadata": {"name": "agent"}, "spec": spec}, [NODE], [there], hash_of(revision), NOW)
    assert (found.create, found.delete) == ([], [])
    assert found.status["updatedNumberScheduled"] == 1


def test_a_daemon_set_is_told_of_a_node_that_gets_a_label(monkeypatch, caplog):
    """Nodes have no namespace, in which something could adopt them."""
    told, client = [], DirectClient(Cluster().api, "kube-controller-manager")
    loop = Loop(client)
    daemons = DaemonSets(client, loop, Told())
    loop.register(daemons)
    monkeypatch.setattr(loop, "objects", lambda *_: [{"metadata": {"name": "disks", "namespace": "default"}}])
    monkeypatch.setattr(loop, "add", lambda _, key: told.append(key))
    node = {"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {}}
    loop._tell(daemons, kinds.NODE, node, {**node, "metadata": {"name": "n", "labels": {"disktype": "ssd"}}})
    assert (told, caplog.text) == ([("default", "disks")], "")
