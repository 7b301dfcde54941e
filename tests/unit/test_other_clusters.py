"""Secrets with kubeconfigs make other clusters part of the mesh, each for itself."""

import asyncio
import base64
import json
import math
import socket

import pytest
from apiserver import Cluster

from lateen.api import kinds
from lateen.cli import remote
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.apiserver.http import Server
from lateen.control.inventory import KINDS
from lateen.control.status import StatusWriter
from lateen.control.statuses import Statuses
from lateen.control.world import World
from lateen.install import reader
from lateen.kit import tasks, yamldoc
from lateen.kube.apply import apply
from lateen.kube.informer import Informer
from lateen.kube.kubeconfig import ConfigError, from_text
from lateen.mesh.model import Mesh

SERVICE = {
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {"ports": [{"name": "http", "port": 9080}], "selector": {"app": "reviews"}},
}


def kubeconfig(server="http://127.0.0.1:1", user=None, **cluster):
    return json.dumps(
        {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
            "users": [{"name": "c", "user": user or {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }
    )


def secret(**clusters):
    data = {name: base64.b64encode(text.encode()).decode() for name, text in clusters.items()}
    return {"metadata": {"labels": {"istio/multiCluster": "true"}}, "data": data}


async def until(test):
    for _ in range(1000):
        if found := test():
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def play(story):
    """With a world, and the address and token of a cluster whose API is served."""
    cluster = Cluster()
    cluster.must("POST", "/api/v1/namespaces/default/services", SERVICE)

    async def run():
        client = DirectClient(cluster.api, "kube-controller-manager")
        await client.create(kinds.NAMESPACE, {"metadata": {"name": "istio-system"}})
        for obj in reader.objects():
            await apply(client, obj)
        account = await client.get(kinds.SERVICE_ACCOUNT, "istio-system", reader.ACCOUNT)
        holder = {"metadata": {"name": "token", "namespace": "istio-system"}, "type": "Opaque"}
        token = cluster.tokens.of_secret(account, await client.create(kinds.SECRET, holder))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Server(cluster.api, None).protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        world = World("istio-system", lambda: None)
        try:
            await story(world, kubeconfig(f"http://127.0.0.1:{port}", {"token": token}), client)
        finally:
            world.clusters.secret("remote", None)
            await until(lambda: not any(t.get_name().startswith("end of") for t in asyncio.all_tasks()))
            server.close()
            await tasks.cancel(*(t for t in asyncio.all_tasks() if t is not asyncio.current_task()))

    asyncio.run(run())


def test_a_cluster_is_part_of_the_mesh_while_its_secret_is_there():
    async def story(world, config, client):
        world.clusters.secret("remote", secret(east=config))
        assert not world.objects.others
        found = await until(lambda: world.objects.others.get("east"))
        assert ("default", "reviews") in found.services
        assert Mesh(world.objects).service("reviews.default.svc.cluster.local").elsewhere
        before = world.objects
        assert world.objects is before
        await client.delete(kinds.SERVICE, "default", "reviews")
        await until(lambda: ("default", "reviews") not in world.objects.others["east"].services)
        world.clusters.secret("remote", None)
        assert not world.objects.others
        assert world.clusters.describe() == []

    play(story)


def test_what_is_wrong_with_one_cluster_is_shown_and_concerns_no_other():
    async def story(world, config, _):
        plugin = kubeconfig(user={"exec": {"command": "/bin/false"}})
        gone = kubeconfig(f"http://127.0.0.1:{free_port()}")
        world.clusters.secret("remote", secret(east=config, gone=gone, plugin=plugin, torn="{"))
        await until(lambda: "east" in world.objects.others)
        await until(lambda: world.clusters.others["gone"].trouble)
        found = {c["id"]: c for c in world.clusters.describe()}
        assert {name: c["syncStatus"] for name, c in found.items()} == {
            "east": "synced",
            "gone": "syncing",
            "plugin": "closed",
            "torn": "closed",
        }
        assert "does not answer" in found["gone"]["problem"]
        assert "user.exec is not allowed" in found["plugin"]["problem"]
        assert list(world.objects.others) == ["east"]

    play(story)


def test_a_cluster_of_two_secrets_is_that_of_the_first_and_stays_when_the_other_goes():
    async def story(world, config, _):
        world.clusters.secret("b", secret(east=config))
        first = world.clusters.others["east"]
        world.clusters.secret("a", secret(east=config, Kubernetes=config))
        assert world.clusters.others["east"] is not first
        assert "Kubernetes" not in world.clusters.others  # it is istiod's own
        second = world.clusters.others["east"]
        world.clusters.secret("b", None)
        assert world.clusters.others["east"] is second
        world.clusters.secret("a", None)
        assert not world.clusters.others

    play(story)


def test_a_renewed_kubeconfig_takes_over_once_it_has_been_read():
    async def story(world, config, client):
        world.clusters.secret("remote", secret(east=config))
        first = await until(lambda: world.objects.others.get("east"))
        gone = kubeconfig(f"http://127.0.0.1:{free_port()}")
        asked = world.clusters.client("east")
        for unusable in (gone, "{", gone):
            world.clusters.secret("remote", secret(east=unusable))
            assert world.objects.others == {"east": first}
            assert world.clusters.client("east") is asked, "tokens are reviewed by the kubeconfig that works"
        await until(lambda: world.clusters.others["east"].trouble)
        await client.delete(kinds.SERVICE, "default", "reviews")
        await until(lambda: ("default", "reviews") not in world.objects.others["east"].services)
        world.clusters.secret("remote", secret(east=config))
        assert "east" in world.objects.others
        await until(lambda: world.clusters.others["east"].synced and not world.clusters.others["east"].former)
        assert world.clusters.client("east") is not asked
        assert "east" in world.objects.others
        await until(lambda: len([t for t in asyncio.all_tasks() if t.get_name().endswith(" of east")]) == len(KINDS))
        world.clusters.secret("remote", secret(east=gone))
        assert "east" in world.objects.others
        world.clusters.secret("remote", None)
        assert not world.objects.others
        await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().endswith(" of east")])

    play(story)


@pytest.mark.parametrize("field", ["certificate-authority-data", "certificate-authority"])
def test_a_field_that_is_no_text_is_an_error_with_its_name(field):
    with pytest.raises(ConfigError, match=f"it: {field} is not a string"):
        from_text(kubeconfig(**{field: 123}), "it", frozenset({"certificateAuthority"}))
    with pytest.raises(ConfigError, match="wrong type"):
        from_text(kubeconfig(user={"as-groups": 5}), "it")


@pytest.mark.parametrize(
    "user",
    [{"exec": {"command": "id"}}, {"tokenFile": "/etc/shadow"}, {"client-key": "/k"}, {"client-certificate": "/c"}],
)
def test_a_kubeconfig_from_elsewhere_runs_no_command_and_reads_no_file(user):
    (field,) = user
    with pytest.raises(ConfigError, match=f"user.{field} is not allowed"):
        from_text(kubeconfig(user=user), "it")
    with pytest.raises(ConfigError, match=r"cluster\.certificate-authority is not allowed"):
        from_text(kubeconfig(**{"certificate-authority": "/etc/passwd"}), "it")
    allowed = from_text(kubeconfig(user={"tokenFile": "/tmp/token"}), "it", frozenset({"tokenFile"}))
    assert allowed.auth.token_file == "/tmp/token"


def test_the_secret_is_as_istioctls():
    token = {"data": {"ca.crt": "Q0E=", "token": base64.b64encode(b"t0ken").decode()}}
    made = remote.remote_secret("east", {"server": "https://1.2.3.4:6443"}, token, "istio-system")
    assert made["metadata"] == {
        "name": "istio-remote-secret-east",
        "namespace": "istio-system",
        "labels": {"istio/multiCluster": "true"},
        "annotations": {"networking.istio.io/cluster": "east"},
    }
    config = yamldoc.load(made["stringData"]["east"])
    assert config["users"][0]["user"] == {"token": "t0ken"}
    assert config["clusters"][0]["cluster"]["server"] == "https://1.2.3.4:6443"
    found = from_text(kubeconfig("https://1.2.3.4:6443", {"token": "t0ken"}), "it")
    assert found.base == "https://1.2.3.4:6443"


RULE = {
    "metadata": {"name": "r", "namespace": "default"},
    "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
}


def test_statuses_know_the_hosts_of_other_clusters_as_they_come_and_go():
    """A rule for a host of another cluster is no mistake, while that host is there."""

    async def story(world, config, client):
        statuses = Statuses(world, None, None, None, None)
        writer = StatusWriter(None, world, statuses, "istio-system", "istiod-1", dict)
        writer.leadership.until = math.inf
        clusters = world.clusters
        clusters.happened, clusters.moved = writer.elsewhere, writer.elsewhere
        clusters.joined = lambda other: writer.elsewhere(other.name)
        informer = Informer(None, kinds.VIRTUAL_SERVICE, writer.changed)
        statuses.informers.append(informer)
        informer._change(("default", "r"), RULE)
        analysing = tasks.spawn(writer._analyse(), "analysis")

        async def settled(wanted):
            ref = "VirtualService default/r"
            await until(lambda: {f.code for f in (statuses.found or {ref: []}).get(ref, [])} == wanted)

        try:
            await settled({"IST0101"})
            world.clusters.secret("remote", secret(east=config))
            await settled(set())
            await client.delete(kinds.SERVICE, "default", "reviews")
            await settled({"IST0101"})
            await client.create(kinds.SERVICE, SERVICE)
            await settled(set())
            writer._gained()  # another istiod begins with all that is there
            await until(writer._analyzed.is_set)
            await settled(set())
            world.clusters.secret("remote", None)
            await settled({"IST0101"})
        finally:
            await tasks.cancel(analysing)
            writer._analyst.close()

    play(story)
