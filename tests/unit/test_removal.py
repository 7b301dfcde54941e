"""A pod that has ended on the node, and another one that has its name by then."""

import asyncio
import ssl
from types import SimpleNamespace

import pytest
from aiohttp import web
from apiserver import Cluster

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.kubelet.pod import Pod
from lateen.cluster.kubelet.removal import remove
from lateen.kube.auth import Fixed
from lateen.kube.client import HttpClient, KubeError

SPEC = {"containers": [{"name": "app", "image": "app"}], "nodeName": "n"}


class Refusing(DirectClient):
    """An API that answers deletions, and then questions, with an error."""

    deletion = question = 0

    async def delete(self, *given, **more):
        if self.deletion:
            raise KubeError(self.deletion, "", "refused")
        return await super().delete(*given, **more)

    async def get(self, *given):
        if self.question:
            raise KubeError(self.question, "", "refused")
        return await super().get(*given)


@pytest.fixture
def client():
    return Refusing(Cluster().api, "kubelet")


def put():
    return {"metadata": {"name": "web-0", "namespace": "default"}, "spec": SPEC}


async def replaced(client):
    """A pod that was deleted with force, and its successor."""
    old = await client.create(kinds.POD, put())
    await client.delete(kinds.POD, "default", "web-0", grace=0)
    return old, await client.create(kinds.POD, put())


def test_a_pod_is_removed_and_may_be_gone_already(client):
    async def work():
        pod = await client.create(kinds.POD, put())
        await remove(client, pod)
        assert await client.get(kinds.POD, "default", "web-0") is None
        await remove(client, pod)

    asyncio.run(work())


@pytest.mark.parametrize(("deletion", "question"), [(0, 0), (403, 0), (403, 403)])
def test_a_new_pod_of_the_same_name_stays(client, deletion, question):
    async def work():
        old, new = await replaced(client)
        client.deletion, client.question = deletion, question
        await remove(client, old)
        client.question = 0
        assert (await client.get(kinds.POD, "default", "web-0"))["metadata"]["uid"] == new["metadata"]["uid"]

    asyncio.run(work())


@pytest.mark.parametrize("code", [403, 409, 500])
def test_a_deletion_that_somebody_refuses_for_now_is_not_given_up(client, code):
    """A webhook, for example."""

    async def work():
        pod = await client.create(kinds.POD, put())
        client.deletion = code
        with pytest.raises(KubeError):
            await remove(client, pod)
        client.deletion = 0
        await remove(client, pod)
        assert await client.get(kinds.POD, "default", "web-0") is None

    asyncio.run(work())


def test_the_status_of_a_pod_is_not_written_to_its_successor(client, tmp_path):
    node = SimpleNamespace(
        client=client,
        root=tmp_path,
        folders=tmp_path,
        rootless=False,
        plugins=SimpleNamespace(seen=None),
        runtime=None,
        groups=None,
    )

    async def work():
        old, new = await replaced(client)
        for pod, phase in ((old, "Pending"), (new, "Failed")):
            await Pod(node, pod, {})._publish({"phase": "Failed"})
            assert (await client.get(kinds.POD, "default", "web-0"))["status"]["phase"] == phase

    asyncio.run(work())


def test_another_api_server_is_told_which_pod_is_meant():
    asked = []

    async def pod(request):
        asked.append(await request.json())
        status = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "not this node's"}
        return web.json_response(status, status=403)

    async def another(_):
        return web.json_response(found)

    async def work():
        app = web.Application()
        app.router.add_delete("/api/v1/namespaces/default/pods/web-0", pod)
        app.router.add_get("/api/v1/namespaces/default/pods/web-0", another)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with HttpClient(
            f"http://127.0.0.1:{runner.addresses[0][1]}", ssl.create_default_context(), Fixed("")
        ) as client:
            await remove(client, {"metadata": {**found["metadata"], "uid": "old"}})
        await runner.cleanup()

    found = {"metadata": {"name": "web-0", "namespace": "default", "uid": "new"}}
    asyncio.run(work())
    assert [(a["gracePeriodSeconds"], a["preconditions"]) for a in asked] == [(0, {"uid": "old"})]
