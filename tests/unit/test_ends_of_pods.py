"""What a pod says when it ends, for whoever keeps its object."""

import asyncio
import signal
from types import SimpleNamespace

import pytest
from apiserver import Cluster

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.kubelet.images import UnknownImage
from lateen.cluster.kubelet.pod import Pod
from lateen.kit import tasks
from lateen.kit.rounds import Rounds
from lateen.kube.client import KubeError

HELD = {"name": "once", "namespace": "default", "finalizers": ["example.com/counted"]}


class Node:
    """A node without containers of its own: ``code`` is what a container exits with when it is told to stop. Turns to
    publish a status come too late for everybody."""

    rootless, groups = False, None

    def __init__(self, client, root, code):
        self.client, self.root, self.folders, self._code = client, root, root, code
        self.statuses = Rounds(3600.0)
        self.policies = SimpleNamespace(disconnected=lambda _: None)
        self.events = SimpleNamespace(event=lambda *_: None)
        self.runtime, self.images, self.plugins = self, self, self
        self.seen, self.pod = {}, None

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
    assert (app.ended and (app.ended.code, app.ended.reason)) == ended
    over = ended is not None and (policy == "Never" or (policy == "OnFailure" and ended[0] == 0))
    assert (app.state is app.ended) == over


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
