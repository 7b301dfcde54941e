"""What a pod says when it ends, for whoever keeps its object."""

import asyncio
import signal
from types import SimpleNamespace

import pytest
from apiserver import Cluster

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.kubelet.images import UnknownImage
from lateen.cluster.kubelet.kubelet import Kubelet
from lateen.cluster.kubelet.pod import Pod
from lateen.kit import tasks
from lateen.kit.rounds import Rounds
from lateen.kube.client import KubeError

HELD = {"name": "once", "namespace": "default", "finalizers": ["example.com/counted"]}


class Node:
    """A node without containers of its own: ``code`` is what a container exits with when it is told to stop. Turns to
    publish a status come too late for everybody."""

    rootless, groups = False, SimpleNamespace(change=lambda *_: None, killed=lambda _: 0, remove=lambda _: None)

    def __init__(self, client, root, code):
        self.client, self.root, self.folders, self._code = client, root, root, code
        self.statuses = Rounds(3600.0)
        self.policies = SimpleNamespace(disconnected=lambda _: None)
        self.events = SimpleNamespace(event=lambda *_: None)
        self.runtime, self.images, self.plugins = self, self, self
        self.seen, self.pod, self.on_exit = {}, None, {}

    def find(self, image):
        raise UnknownImage(image)

    async def remove(self, *_):
        pass

    async def call(self, verb, **given):
        assert (verb, given["signal"]) == ("kill", signal.SIGTERM)
        self.pod.main[0].ends(self._code, 200.0)


async def ended(client, root, policy, code, starts=True):
    """The object of a pod that was deleted while it ran, and is kept by a finalizer."""
    spec = {"containers": [{"name": "app", "image": "app"}], "nodeName": "n", "restartPolicy": policy}
    await client.create(kinds.POD, {"metadata": HELD, "spec": spec})
    await client.patch(kinds.POD, "default", "once", {"status": {"phase": "Running"}}, "status")
    await client.delete(kinds.POD, "default", "once")
    node = Node(client, root, code)
    node.pod = pod = Pod(node, await client.get(kinds.POD, "default", "once"), {})
    if starts:
        pod.main[0].starts(0, "u/app/0", 100.0, {})
    pod.end(5.0)
    async with asyncio.timeout(60):
        await pod.run()
    return await client.get(kinds.POD, "default", "once")


@pytest.mark.parametrize("policy", ["Never", "OnFailure", "Always"])
@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (143, "Failed")])
def test_a_deleted_pod_that_a_finalizer_keeps_says_how_it_has_ended(tmp_path, policy, code, phase):
    client = DirectClient(Cluster().api, "kubelet")
    status = asyncio.run(ended(client, tmp_path, policy, code))["status"]
    assert status["phase"] == phase
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code


def test_a_pod_that_is_deleted_before_it_has_started_has_failed(tmp_path):
    client = DirectClient(Cluster().api, "kubelet")
    assert asyncio.run(ended(client, tmp_path, "Always", 0, starts=False))["status"]["phase"] == "Failed"


def test_a_pod_whose_last_status_nobody_takes_goes_all_the_same(tmp_path, monkeypatch):
    class Deaf(DirectClient):
        tries = 0

        async def patch(self, *given):
            if given[3].get("metadata"):
                self.tries += 1
                raise KubeError(409 if self.tries == 1 else 500, "", "refused")
            return await super().patch(*given)

    monkeypatch.setattr("lateen.cluster.kubelet.pod.LAST_TRIES", 2)
    client = Deaf(Cluster().api, "kubelet")
    kept = asyncio.run(ended(client, tmp_path, "Never", 143))
    assert (client.tries, kept["metadata"]["deletionGracePeriodSeconds"]) == (2, 0)


def left(code):
    """What the runtime says of a container that the previous node daemon has started."""
    return {"app": {"id": "u/app/0", "pid": 7, "code": code, "started": 100.0, "finished": 200.0}}


@pytest.mark.parametrize("policy", ["Never", "OnFailure", "Always"])
@pytest.mark.parametrize(
    ("adopted", "ended"),
    [(left(None), None), (left(0), (0, "Completed")), (left(3), (3, "Error")), ({}, (255, "Unknown"))],
)
def test_a_container_that_outlives_the_node_daemon_has_not_ended(tmp_path, policy, adopted, ended):
    """And one that has ended meanwhile has ended as the runtime says: a Job does not run it again."""
    running = {"name": "app", "restartCount": 0, "containerID": "lateen://u/app/0"}
    running["state"] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    spec = {"containers": [{"name": "app", "image": "app"}], "restartPolicy": policy}
    status = {"phase": "Running", "containerStatuses": [running]}
    meta = {"name": "p", "namespace": "default", "uid": "u"}
    (app,) = Pod(Node(None, tmp_path, 0), {"metadata": meta, "spec": spec, "status": status}, adopted).main
    assert app.attempt == 0
    assert bool(app.running) == (ended is None)
    assert (app.ended and (app.ended.code, app.ended.reason)) == ended
    over = ended is not None and (policy == "Never" or (policy == "OnFailure" and ended[0] == 0))
    assert (app.state is app.ended) == over


def running_before(**spec):
    """A pod whose status was written while its container ran, as the next node daemon finds it."""
    ran = {"name": "app", "restartCount": 0, "containerID": "lateen://u/app/0"}
    ran["state"] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    spec = {"containers": [{"name": "app", "image": "app"}], "nodeName": "n", "restartPolicy": "Never", **spec}
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": spec,
        "status": {"phase": "Running", "containerStatuses": [ran]},
    }


def adopting(monkeypatch, node, *states):
    """A kubelet that starts where the runtime has these containers, before it has read the pods."""

    async def none():
        return {}

    async def call(verb, **given):
        node.calls.append((verb, given.get("id")))
        return {"containers": list(states)}

    monkeypatch.setattr("lateen.cluster.kubelet.kubelet.links.in_use", none)
    node.call, node.calls, node.name, node.addresses = call, [], "n", None
    return Kubelet(node, schedules=False)


def test_a_container_that_ends_while_the_node_daemon_starts_has_ended(tmp_path, monkeypatch):
    """Between the runtime's list and the first look at the pod's object, which may take seconds."""

    async def story():
        node = Node(None, tmp_path, 0)
        kubelet = adopting(monkeypatch, node, *left(None).values())
        await kubelet._adopt()
        node.on_exit["u/app/0"]({"event": "exit", "id": "u/app/0", "code": 3, "finished": 150.0})
        (app,) = Pod(node, running_before(), kubelet._adopted.pop("u")).main
        await asyncio.sleep(0)
        return app, node.calls

    app, calls = asyncio.run(story())
    assert (app.ended.code, app.ended.reason, app.ended.finished_at) == (3, "Error", 150.0)
    assert app.state is app.ended
    assert calls == [("list", None), ("forget", "u/app/0")]


def test_a_container_that_ends_before_its_pod_is_looked_after_has_ended(tmp_path, monkeypatch):
    async def story():
        node = Node(None, tmp_path, 0)
        kubelet = adopting(monkeypatch, node, *left(None).values())
        await kubelet._adopt()
        (app,) = Pod(node, running_before(), kubelet._adopted.pop("u")).main
        node.on_exit["u/app/0"]({"event": "exit", "id": "u/app/0", "code": 0, "finished": 150.0})
        return app

    app = asyncio.run(story())
    assert (app.ended.code, app.ended.reason, app.state is app.ended) == (0, "Completed", True)


def test_init_containers_are_not_run_again_when_only_the_node_daemon_was_restarted(tmp_path):
    pod = Pod(Node(None, tmp_path, 0), running_before(initContainers=[{"name": "once", "image": "app"}]), left(None))
    (once,) = pod.init
    assert asyncio.run(pod._initialize(once))
    assert not pod._tasks


def test_a_pod_that_is_deleted_while_the_node_daemon_starts_is_stopped(tmp_path, monkeypatch):
    """Its container was started by the daemon before, and nothing has been done for the pod yet."""

    async def address_of(_):
        return "10.244.0.9"

    monkeypatch.setattr("lateen.cluster.kubelet.sandbox.links.address_of", address_of)

    client = DirectClient(Cluster().api, "kubelet")

    async def story():
        freed = []
        node = Node(client, tmp_path, 143)
        node.addresses = SimpleNamespace(free=freed.append)
        node.pod = pod = Pod(node, running_before(), left(None))
        pod.end(5.0)
        async with asyncio.timeout(60):
            await pod.run()
        return pod.main[0], freed

    app, freed = asyncio.run(story())
    assert app.ended.code == 143
    assert freed[0] == "10.244.0.9"


def test_a_pod_that_has_failed_runs_nothing_after_a_restart_of_the_node_daemon(tmp_path):
    """It was being stopped, for its deadline for example, when the daemon was killed."""

    async def story():
        node = Node(None, tmp_path, 137)
        before = running_before()
        before["status"] |= {"phase": "Failed", "reason": "DeadlineExceeded"}
        node.pod = pod = Pod(node, before, left(None))
        await pod._live()
        return pod

    pod = asyncio.run(story())
    assert pod.main[0].ended.code == 137
    assert pod._status()["phase"] == "Failed"


def test_a_volume_that_an_init_container_fills_evicts_the_pod(tmp_path, monkeypatch):
    """And nothing else of it is started; a Job's policy for failures can tell it from a failure of the program."""
    monkeypatch.setattr("lateen.cluster.kubelet.pod.REFRESH_S", 0.01)

    client = DirectClient(Cluster().api, "kubelet")

    async def story():
        node = Node(client, tmp_path, 137)
        volume = {"name": "v", "emptyDir": {"sizeLimit": "1Ki"}}
        spec = running_before(initContainers=[{"name": "first", "image": "app"}], volumes=[volume])["spec"]
        meta = {"name": "p", "namespace": "default", "uid": "u"}
        pod = Pod(node, {"metadata": meta, "spec": spec}, {})
        pod.sandbox.connect = pod.sandbox.disconnect = nothing
        (tmp_path / "u/volumes/v").mkdir(parents=True)
        (tmp_path / "u/volumes/v/large").write_bytes(b"1" * 8192)
        async with asyncio.timeout(60):
            await pod._live()
        assert not pod._keepers["app"].launched.is_set()
        return pod._status()

    async def nothing():
        pass

    status = asyncio.run(story())
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    (found,) = (c for c in status["conditions"] if c["type"] == "DisruptionTarget")
    assert (found["reason"], found["message"]) == ("TerminationByKubelet", status["message"])


GATE = "example.com/open"


def said(pod, condition):
    return next((c["status"] for c in pod.get("status", {}).get("conditions", []) if c["type"] == condition), "")


def test_a_pod_is_ready_as_soon_as_somebody_has_opened_its_gate(tmp_path):
    """Also if nothing else about it changes."""
    client = DirectClient(Cluster().api, "kubelet")

    async def told(pod, ready):
        async with asyncio.timeout(20):
            while said(now := await client.get(kinds.POD, "default", "p"), "Ready") != ready:
                pod.update(now)
                await asyncio.sleep(0.01)
        return now

    async def story():
        spec = {"containers": [{"name": "app", "image": "app"}], "readinessGates": [{"conditionType": GATE}]}
        made = await client.create(kinds.POD, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
        node = Node(client, tmp_path, 0)
        node.statuses = Rounds(0.001)
        pod = Pod(node, made, {})
        pod.main[0].starts(0, "u/app/0", 100.0, {})
        pod.main[0].has_started()
        pod.main[0].is_ready(True)
        publishing = tasks.spawn(pod._publish_loop(), "status")
        now = await told(pod, "False")
        conditions = [*now["status"]["conditions"], {"type": GATE, "status": "True"}]
        await client.patch(kinds.POD, "default", "p", {"status": {"conditions": conditions}}, "status")
        now = await told(pod, "True")
        await tasks.cancel(publishing)
        return now

    assert said(asyncio.run(story()), GATE) == "True"
