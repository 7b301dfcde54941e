"""The controllers over the real API verbs: one object's trouble is its own, and what has no owner any more goes."""

import asyncio
import base64
import contextlib
import time
from dataclasses import dataclass
from datetime import timedelta

import pytest
from apiserver import Cluster

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.apiserver.built_in import BUILT_IN
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.controllers import loop as loops
from lateen.cluster.controllers.cron_job import CronJobs
from lateen.cluster.controllers.daemon_set import DaemonSets
from lateen.cluster.controllers.garbage import Garbage
from lateen.cluster.controllers.job import Jobs
from lateen.cluster.controllers.loop import Loop, collection_of
from lateen.cluster.controllers.manager import controllers
from lateen.cluster.controllers.replica_set import ReplicaSets
from lateen.cluster.controllers.stateful_set import StatefulSets
from lateen.kit import certs, tasks, times
from lateen.kube.client import KubeError

AUTHORITY = certs.authority("test", times.now())
WIDGET = Kind("example.com", "v1", "widgets", "Widget")
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


@dataclass
class Measured:
    containers: dict
    window: float = 15.0


class Told:
    def __init__(self):
        self.events, self.used = [], {}

    async def usage(self):
        return Measured(self.used)

    def event(self, obj, type_, reason, message, path=""):
        self.events.append((obj["kind"], obj["metadata"]["name"], type_, reason, message + path))


@contextlib.asynccontextmanager
async def running(cluster):
    client, told = DirectClient(cluster.api, "kube-controller-manager"), Told()
    work = tasks.spawn(
        controllers(
            client, lambda _: told, AUTHORITY, told.usage, lambda account, _: f"{account['metadata']['name']}-token"
        ).run(),
        "controllers",
    )
    try:
        yield client, told
        assert not work.done(), work.exception()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await cluster.webhooks.close()


async def until(test):
    for _ in range(2000):
        if found := await test():
            return found
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come true")


def play(story, **more):
    """Run a coroutine function of a client and the recorded events against a fresh cluster with its controllers."""
    cluster = Cluster(**more)

    async def run():
        async with running(cluster) as (client, told):
            await story(client, told)

    asyncio.run(run())
    return cluster


def deployment(name, **spec):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
    body = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": body}


def thing(name, *owners, kind=kinds.CONFIG_MAP, **more):
    refs = [
        {"apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"], "uid": o["metadata"]["uid"]}
        for o in owners
    ]
    meta = {"name": name, "namespace": "default", "ownerReferences": refs, **more}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}


def pods_of(client, app):
    async def found():
        return (await client.list(kinds.POD, "default", f"app={app}"))[0]

    return found


def test_a_deployment_without_its_service_account_does_not_block_others(monkeypatch):
    monkeypatch.setattr(loops, "FIRST_S", 0.0)

    async def story(client, told):
        await client.create(kinds.DEPLOYMENT, deployment("broken", serviceAccountName="nobody"))
        await until(lambda: _said(told, "FailedCreate", 30))
        await client.create(kinds.DEPLOYMENT, deployment("fine"))
        await until(pods_of(client, "fine"))
        failed = next(e for e in told.events if e[3] == "FailedCreate")
        assert failed[0] == "ReplicaSet"
        assert 'serviceaccount "nobody" not found' in failed[4]
        (rs,) = (await client.list(kinds.REPLICA_SET, "default", "app=broken"))[0]
        assert rs["status"]["conditions"][0]["type"] == "ReplicaFailure"
        await client.create(kinds.SERVICE_ACCOUNT, thing("nobody", kind=kinds.SERVICE_ACCOUNT))
        await until(pods_of(client, "broken"))
        await until(lambda: _said(told, "SuccessfulCreate", 2))
        said = {(e[0], e[3]) for e in told.events}
        assert {("Deployment", "ScalingReplicaSet"), ("ReplicaSet", "SuccessfulCreate")} <= said

    play(story)


async def _said(told, reason, times):
    return sum(1 for e in told.events if e[3] == reason) >= times


def test_back_off_grows_to_a_limit_and_never_overflows():
    pauses = []

    class Failing:
        name, watches = "failing", ()

        def keys(self, *_):
            return ()

        async def reconcile(self, key):
            raise RuntimeError(f"never {key}")

    async def run():
        loop = Loop(None)
        loop.register(Failing())
        loop._later = lambda _, seconds: pauses.append(seconds)
        for _ in range(3000):
            await loop._reconcile(("failing", ("a",)))

    asyncio.run(run())
    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert max(pauses) == pauses[-1] == loops.LONGEST_S


def test_many_replicas_are_created_in_bounded_batches(monkeypatch):
    monkeypatch.setattr("lateen.cluster.apiserver.strategies.MAX_PODS", 60)

    async def story(client, told):
        body = deployment("many")
        body["spec"]["replicas"] = 1_000_000_000
        await client.create(kinds.DEPLOYMENT, body)
        await until(lambda: _said(told, "FailedCreate", 1))
        assert len(await pods_of(client, "many")()) == 60
        assert "takes no more" in told.events[-1][4]

    play(story)


def test_dependents_of_any_kind_are_deleted_with_their_owner():
    async def story(client, told):
        await client.create(kinds.CRD, CRD)
        owner = await client.create(WIDGET, thing("w", kind=WIDGET))
        other = await client.create(kinds.CONFIG_MAP, thing("other"))
        await client.create(kinds.CONFIG_MAP, thing("child", owner))
        await client.create(WIDGET, thing("grandchild", owner, kind=WIDGET))
        await client.create(kinds.SECRET, thing("shared", owner, other, kind=kinds.SECRET))
        await client.delete(WIDGET, "default", "w")

        async def gone():
            found = [
                await client.get(kinds.CONFIG_MAP, "default", "child"),
                await client.get(WIDGET, "default", "grandchild"),
            ]
            return found == [None, None]

        await until(gone)

        async def let_go():
            shared = await client.get(kinds.SECRET, "default", "shared")
            return [r["name"] for r in shared["metadata"]["ownerReferences"]] == ["other"]

        await until(let_go)
        await client.delete(kinds.CONFIG_MAP, "default", "other")
        await until(lambda: _absent(client, kinds.SECRET, "shared"))

    play(story)


async def _absent(client, kind, name):
    return await client.get(kind, "default", name) is None


def test_a_restart_keeps_what_an_existing_custom_resource_owns():
    async def first(client, told):
        await client.create(kinds.CRD, CRD)
        owner = await client.create(WIDGET, thing("w", kind=WIDGET))
        body = deployment("owned")
        body["metadata"]["ownerReferences"] = thing("x", owner)["metadata"]["ownerReferences"]
        await client.create(kinds.DEPLOYMENT, body)
        unknown = {"apiVersion": "v1", "kind": "Unheard", "metadata": {"name": "u", "uid": "1"}}
        await client.create(kinds.CONFIG_MAP, thing("of-unheard", unknown))
        await until(pods_of(client, "owned"))

    cluster = play(first)

    async def again():
        stale = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "no", "uid": "2"}}
        async with running(cluster) as (client, _):
            await client.create(kinds.CONFIG_MAP, thing("dangling", stale))
            await until(lambda: _absent(client, kinds.CONFIG_MAP, "dangling"))
            assert await client.get(kinds.DEPLOYMENT, "default", "owned")
            assert await client.get(kinds.CONFIG_MAP, "default", "of-unheard")
            assert await client.get(WIDGET, "default", "w")

    asyncio.run(again())


def test_foreground_deletion_waits_for_the_dependents():
    cluster = Cluster()

    async def story():
        async with running(cluster) as (client, _):
            owner = await client.create(kinds.CONFIG_MAP, thing("owner"))
            child = thing("child", owner, finalizers=["example.com/held"])
            child["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = True
            await client.create(kinds.CONFIG_MAP, child)
            path = "/api/v1/namespaces/default/configmaps/owner"
            code, answer = await cluster.send("DELETE", path, {"propagationPolicy": "Foreground"})
            assert (code, answer["metadata"]["finalizers"]) == (200, ["foregroundDeletion"])

            async def marked():
                found = await client.get(kinds.CONFIG_MAP, "default", "child")
                return "deletionTimestamp" in found["metadata"]

            await until(marked)
            assert await client.get(kinds.CONFIG_MAP, "default", "owner")
            await client.patch(kinds.CONFIG_MAP, "default", "child", {"metadata": {"finalizers": None}})
            await until(lambda: _absent(client, kinds.CONFIG_MAP, "owner"))

    asyncio.run(story())


def test_foreground_deletion_waits_for_the_dependents_of_dependents():
    def owned(name, owner, **more):
        made = thing(name, owner, **more)
        made["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = True
        return made

    cluster = Cluster()

    async def story():
        async with running(cluster) as (client, _):
            owner = await client.create(kinds.CONFIG_MAP, thing("owner"))
            child = await client.create(kinds.CONFIG_MAP, owned("child", owner))
            await client.create(kinds.CONFIG_MAP, owned("grandchild", child, finalizers=["example.com/held"]))
            path = "/api/v1/namespaces/default/configmaps/owner"
            assert (await cluster.send("DELETE", path, {"propagationPolicy": "Foreground"}))[0] == 200

            async def marked():
                return "deletionTimestamp" in (await client.get(kinds.CONFIG_MAP, "default", "grandchild"))["metadata"]

            await until(marked)
            assert await client.get(kinds.CONFIG_MAP, "default", "child")
            assert await client.get(kinds.CONFIG_MAP, "default", "owner")
            await client.patch(kinds.CONFIG_MAP, "default", "grandchild", {"metadata": {"finalizers": None}})
            await until(lambda: _absent(client, kinds.CONFIG_MAP, "owner"))

    asyncio.run(story())


def test_a_namespace_ends_without_new_pods_and_complaints():
    async def story(client, told):
        await client.create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
        made = deployment("web")
        made["metadata"]["namespace"] = "n"
        made["spec"]["replicas"] = 40
        await client.create(kinds.DEPLOYMENT, made)

        async def pods():
            found, _ = await client.list(kinds.POD, "n")
            return len(found) == 40

        await until(pods)
        await client.delete(kinds.NAMESPACE, "", "n")

        async def gone():
            for pod in (await client.list(kinds.POD, "n"))[0]:
                await client.delete(kinds.POD, "n", pod["metadata"]["name"], grace=0)  # as the kubelet does
            return await client.get(kinds.NAMESPACE, "", "n") is None

        await until(gone)
        assert not [e for e in told.events if e[3] == "FailedCreate"]

    play(story, persist=lambda _: time.sleep(0.002))  # a disk


def test_a_daemon_set_follows_nodes_that_come_with_labels(caplog):
    """Labels of a pod may be what a DaemonSet selects, those of a node are not."""

    async def story(client, told):
        made = {**deployment("web"), "kind": "DaemonSet"}
        del made["spec"]["replicas"]
        await client.create(kinds.DAEMON_SET, made)
        meta = {"name": "late", "labels": {"app": "web"}}
        await client.create(kinds.NODE, {"apiVersion": "v1", "kind": "Node", "metadata": meta})

        async def there():
            found, _ = await client.list(kinds.POD, "default")
            return len(found) == 1

        await until(there)

    play(story)
    assert not [r for r in caplog.records if "cannot read" in r.getMessage()]


@pytest.mark.parametrize(
    ("kind", "controller"),
    [
        (kinds.REPLICA_SET, ReplicaSets),
        (kinds.STATEFUL_SET, StatefulSets),
        (kinds.DAEMON_SET, DaemonSets),
        (kinds.JOB, Jobs),
        (kinds.CRON_JOB, CronJobs),
    ],
)
def test_a_controller_that_comes_late_to_a_namespace_that_ends_complains_of_nothing(kind, controller, caplog):
    """It had read its object before that was deleted, too; as in Kubernetes, there is nothing to do for anybody."""

    async def story():
        client, told = DirectClient(cluster.api, "kube-controller-manager"), Told()
        await client.create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
        labels = {"app": "web"}
        pod = {
            "restartPolicy": "Never" if "Job" in kind.kind else "Always",
            "containers": [{"name": "c", "image": "i"}],
        }
        spec = {"template": {"metadata": {"labels": labels}, "spec": pod}}
        if kind is kinds.CRON_JOB:
            spec = {"schedule": "* * * * *", "jobTemplate": {"spec": spec}}
        elif kind is not kinds.JOB:
            spec |= {"selector": {"matchLabels": labels}, "serviceName": "web"}
        meta = {"name": "web", "namespace": "n"}
        await client.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": spec})
        if kind is kinds.CRON_JOB:
            ago = times.stamp(times.now() - timedelta(minutes=3))
            await client.patch(kind, "n", "web", {"status": {"lastScheduleTime": ago}}, "status")
        await client.delete(kinds.NAMESPACE, "", "n")
        loop = Loop(client)
        made = controller(client, loop, told) if controller is DaemonSets else controller(client, told)
        loop.register(made)
        await loop._reconcile((made.name, ("n", "web")))
        assert not [e for e in told.events if e[3] == "FailedCreate"]
        assert not caplog.records
        assert not loop._failures
        answer = await cluster.send("POST", "/api/v1/namespaces/n/configmaps", {"metadata": {"name": "c"}})
        assert answer[1]["details"]["causes"][0]["reason"] == "NamespaceTerminating"

    cluster = Cluster()
    asyncio.run(story())


def test_a_namespace_gets_its_root_certificate_back_and_is_deleted_with_its_contents():
    async def story(client, told):
        await client.create(kinds.NAMESPACE, {"metadata": {"name": "n"}, "apiVersion": "v1", "kind": "Namespace"})

        async def has_root():
            return await client.get(kinds.CONFIG_MAP, "n", "kube-root-ca.crt")

        await until(has_root)
        await client.delete(kinds.CONFIG_MAP, "n", "kube-root-ca.crt")
        await until(has_root)
        lease = thing("l", kind=kinds.LEASE)
        lease["metadata"]["namespace"] = "n"
        await client.create(kinds.LEASE, lease)
        await client.delete(kinds.NAMESPACE, "", "n")

        async def ended():
            return await client.get(kinds.NAMESPACE, "", "n") is None

        await until(ended)
        assert await client.get(kinds.LEASE, "n", "l") is None
        with pytest.raises(KubeError, match="not found"):
            await client.create(kinds.LEASE, lease)

    play(story)


def test_what_has_been_made_anew_is_not_taken_for_the_garbage_of_its_name():
    """Its maker is quicker than the garbage collector, which has just looked at the one before."""
    cluster = Cluster()
    client = DirectClient(cluster.api, "kube-controller-manager")

    class Quick(DirectClient):
        async def get(self, kind, namespace, name, subresource=""):
            found = await super().get(kind, namespace, name, subresource)
            if name == "part" and found and found["metadata"].get("ownerReferences"):
                await client.delete(kind, namespace, name)
                await client.create(kind, thing("part"))
            return found

    async def run():
        gone = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "whole", "uid": "u"}}
        await client.create(kinds.CONFIG_MAP, thing("part", gone))
        quick = Quick(cluster.api, "kube-controller-manager")
        with pytest.raises(KubeError, match="Precondition failed"):
            await Garbage(quick, Loop(quick)).reconcile(("configmaps", "default", "part"))
        assert await client.get(kinds.CONFIG_MAP, "default", "part") is not None

    asyncio.run(run())


def test_the_garbage_collector_knows_every_stored_kind():
    stored = {r.collection for r in BUILT_IN if "watch" in r.verbs}
    assert stored == {collection_of(k) for k in kinds.BUILT_IN}


def test_the_default_roles_gather_the_rules_of_roles_with_their_labels():
    async def story(client, told):
        async def rules(name):
            return (await client.get(kinds.CLUSTER_ROLE, "", name))["rules"]

        async def covers(name, resource):
            return any(resource in r.get("resources", []) for r in await rules(name))

        await until(lambda: covers("admin", "configmaps"))
        assert await covers("admin", "rolebindings")
        assert not await covers("view", "secrets")
        widgets = {"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}
        labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": [widgets]}
        await client.create(kinds.CLUSTER_ROLE, role | {"metadata": {"name": "widgets", "labels": labels}})
        await until(lambda: covers("admin", "widgets"))
        await client.delete(kinds.CLUSTER_ROLE, "", "widgets")

        async def gone():
            return not (await covers("view", "widgets") or await covers("admin", "widgets"))

        await until(gone)

    play(story)


def test_a_secret_for_a_service_account_gets_its_token_and_goes_with_it():
    kind = "kubernetes.io/service-account-token"
    note = {"kubernetes.io/service-account.name": "default"}

    async def story(client, _):
        made = {"type": kind, "metadata": {"name": "token", "namespace": "default", "annotations": note}}
        await client.create(kinds.SECRET, made)

        async def filled():
            found = await client.get(kinds.SECRET, "default", "token")
            return found if (found.get("data") or {}).get("token") else None

        data = (await until(filled))["data"]
        assert base64.b64decode(data["token"]) == b"default-token"
        assert base64.b64decode(data["ca.crt"]).decode() == AUTHORITY.certificate
        await client.delete(kinds.SERVICE_ACCOUNT, "default", "default")

        async def gone():
            return await client.get(kinds.SECRET, "default", "token") is None

        await until(gone)

    play(story)
