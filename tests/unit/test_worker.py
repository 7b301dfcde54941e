"""A node of somebody else's control plane: who may ask the kubelet, how it stays a member, what it takes back."""

import asyncio
import socket
import ssl
from datetime import timedelta
from types import SimpleNamespace

import aiohttp
import pytest

from lateen.cluster.apiserver.front_door import tls
from lateen.cluster.kubelet import pod_status, registration
from lateen.cluster.node_api import API_SERVER, NodeApi
from lateen.cluster.pki import Pki
from lateen.cluster.rules import fitting
from lateen.kit import certs, tasks, times

DAY = timedelta(days=1)


class Pods:
    """One container with two lines of output."""

    async def logs(self, namespace, pod, container, options):
        if pod != "web":
            raise LookupError(f'pod "{pod}" does not run on this node')
        yield b""
        for line in (f"{namespace}/{container}\n", f"{options.tail}\n"):
            yield line.encode()


def asked(tmp_path, user, path):
    """The answer to somebody with a certificate of this name; none for an empty one."""
    pki = Pki(tmp_path)

    def pair(file, names, common, **usage):
        made = certs.issue(pki.authority(), names, times.now(), DAY, common, **usage)
        (tmp_path / f"{file}.crt").write_text(made.certificate)
        (tmp_path / f"{file}.key").write_text(made.key)
        return str(tmp_path / f"{file}.crt"), str(tmp_path / f"{file}.key")

    async def work():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        await NodeApi(Pods()).serve("127.0.0.1", port, tls(*pair("node", ["127.0.0.1"], "node"), str(pki.ca_file)))
        context = ssl.create_default_context(cafile=str(pki.ca_file))
        if user:
            context.load_cert_chain(*pair("client", [], user, server=False))
        url = f"https://127.0.0.1:{port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
            return answer.status, await answer.text()

    return asyncio.run(work())


def test_the_api_server_gets_logs_and_nobody_else(tmp_path):
    path = "/containerLogs/shop/web/app?tailLines=7"
    assert asked(tmp_path, API_SERVER, path) == (200, "shop/app\n7\n")
    for user in ("", "kubernetes-admin", "system:node:other"):
        assert asked(tmp_path, user, path)[0] == 401


@pytest.mark.parametrize(
    ("path", "code"),
    [("/containerLogs/shop/gone/app", 400), ("/containerLogs/shop/web/app?tailLines=x", 400), ("/pods", 404)],
)
def test_what_a_kubelet_cannot_answer_is_told(tmp_path, path, code):
    assert asked(tmp_path, API_SERVER, path)[0] == code


class Api:
    """An API server that holds one Node and its Lease."""

    def __init__(self):
        self.objects, self.renewed = {}, 0

    async def get(self, kind, _, name):
        return self.objects.get((kind.kind, name))

    async def create(self, kind, obj):
        self.objects[kind.kind, obj["metadata"]["name"]] = obj

    async def patch(self, kind, _, name, change, *__):
        self.objects[kind.kind, name] |= change
        self.renewed += kind.kind == "Lease"


def test_a_node_renews_its_lease_and_is_ready_again_after_it_was_taken_for_dead(monkeypatch, tmp_path):
    monkeypatch.setattr(registration, "RENEWAL", 0.00025)
    monkeypatch.setattr(registration.limits, "condition", lambda *_: {"type": "Limits", "status": "True"})
    api = Api()
    node = SimpleNamespace(client=api, name="n", groups=None, root=tmp_path)

    async def work():
        staying = tasks.spawn(registration.stay(node, alone=False), "heartbeat")
        while api.renewed < 2:
            await asyncio.sleep(0.01)
        assert "node-role.kubernetes.io/control-plane" not in api.objects["Node", "n"]["metadata"]["labels"]
        api.objects["Node", "n"]["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
        before = api.renewed
        while api.renewed < before + 2:
            await asyncio.sleep(0.01)
        await tasks.cancel(staying)

    asyncio.run(work())
    (ready, _) = api.objects["Node", "n"]["status"]["conditions"]
    assert (ready["type"], ready["status"]) == ("Ready", "True")


def test_a_node_has_what_pods_of_charts_ask_for(monkeypatch, tmp_path):
    monkeypatch.setattr(registration.limits, "condition", lambda *_: {"type": "Limits", "status": "True"})
    api = Api()
    asyncio.run(registration.register(SimpleNamespace(client=api, name="n", groups=None, root=tmp_path), alone=True))
    node = api.objects["Node", "n"]

    def unfit(storage):
        resources = {"requests": {"ephemeral-storage": storage}, "limits": {"ephemeral-storage": storage}}
        return fitting.unfit({"spec": {"containers": [{"name": "c", "resources": resources}]}}, node)

    assert unfit("50Mi") == ""
    selects = {"beta.kubernetes.io/os": "linux", "kubernetes.io/os": "linux"}
    assert fitting.selected({"nodeSelector": selects}, node)
    assert "Insufficient ephemeral-storage" in unfit("1Ei")


def test_only_what_the_control_plane_has_said_of_a_pod_is_taken_back():
    def said(**conditions):
        return {"status": {"conditions": [{"type": t, "status": s} for t, s in conditions.items()]}}

    assert pod_status.is_disowned(said(ContainersReady="True", Ready="False"))
    assert not pod_status.is_disowned(said(ContainersReady="False", Ready="False"))
    assert not pod_status.is_disowned(said(ContainersReady="True", Ready="True"))
    assert not pod_status.is_disowned({})
