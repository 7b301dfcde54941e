"""Machines that come and go, and which of several istiods removes whose entry. The API server is the embedded one's."""

import asyncio

import pytest
from apiserver import Cluster

from lateen.ads.peers import Connection
from lateen.api import kinds
from lateen.api.crds import crds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.control.registration import GROUP, HOLDER, Registrar
from lateen.control.world import World
from lateen.kit import tasks
from lateen.kube.client import Unreachable
from lateen.kube.informer import Informer
from lateen.wire.node import NodeId

NAME = "vms-10-0-0-9"
GRACE_S = PAUSE_S = 0.1


class Failing:
    """A client whose writes fail for as long as it is told to."""

    def __init__(self, client):
        self._client, self.down = client, False

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def create(self, kind, obj):
        if self.down:
            raise Unreachable("nobody answers")
        return await self._client.create(kind, obj)


class Istiod:
    def __init__(self, mesh, name, leads=False):
        self.client = Failing(mesh.client)
        self.world = World("istio-system", lambda: None)
        self.registrar = Registrar(self.client, self.world, me=name, grace_s=GRACE_S)
        self.registrar.leads, self.registrar.lives = (lambda: leads), mesh.alive.__contains__
        mesh.alive.add(name)
        informers = [
            Informer(mesh.client, kind, self._changed) for kind in (kinds.WORKLOAD_GROUP, kinds.WORKLOAD_ENTRY)
        ]
        self.running = [tasks.spawn(i.run(), "informer") for i in informers]
        self.running.append(tasks.spawn(self.registrar.sweep(PAUSE_S), "sweep"))
        self.mesh, self.name, self.synced = mesh, name, [i.synced for i in informers]

    def _changed(self, kind, key, old, new):
        self.world.changed(kind, key, old, new)
        self.registrar.changed(kind, key, new)

    async def __aenter__(self):
        for s in self.synced:
            await s.wait()
        return self

    async def __aexit__(self, *_):
        """It is killed: nothing is said."""
        self.mesh.alive.discard(self.name)
        await tasks.cancel(*self.running)

    def join(self):
        node = NodeId("sidecar", "10.0.0.9", "vm", "default", "default.svc.cluster.local")
        found = Connection(node, "spiffe://cluster.local/ns/default/sa/default", "1", {GROUP: "vms"})
        self.registrar.connected(found)
        return found


class Mesh:
    def __init__(self):
        self.cluster, self.alive = Cluster(), set()
        for crd in crds():
            if crd["spec"]["names"]["kind"] in ("WorkloadGroup", "WorkloadEntry"):
                self.cluster.must("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        self.client = DirectClient(self.cluster.api, "istiod")
        self.group()

    def group(self):
        body = {
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
            "metadata": {"name": "vms", "namespace": "default"}, "spec": {"template": {}},
        }  # fmt: skip
        self.cluster.must("POST", "/apis/networking.istio.io/v1/namespaces/default/workloadgroups", body)

    async def entry(self):
        return await self.client.get(kinds.WORKLOAD_ENTRY, "default", NAME)

    async def held_by(self, name):
        async with asyncio.timeout(20):
            while (found := await self.entry()) is None or found["metadata"]["annotations"][HOLDER] != name:
                await asyncio.sleep(0.01)
        return found["metadata"]["uid"]

    async def gone(self):
        async with asyncio.timeout(20):
            while await self.entry() is not None:
                await asyncio.sleep(0.01)


@pytest.fixture
def mesh():
    return Mesh()


def test_nobody_removes_the_entry_of_a_machine_that_is_connected_to_another_istiod(mesh):
    async def work():
        async with Istiod(mesh, "a", leads=True) as leader, Istiod(mesh, "b") as other:
            connection = other.join()
            uid = await mesh.held_by("b")
            await asyncio.sleep(5 * PAUSE_S)
            assert await mesh.held_by("b") == uid
            leader.join()  # the machine connects anew, to another one
            assert await mesh.held_by("a") == uid
            other.registrar.disconnected(connection)
            await asyncio.sleep(5 * PAUSE_S)
            assert await mesh.held_by("a") == uid

    asyncio.run(work())


def test_a_machine_that_has_left_is_removed(mesh):
    async def work():
        async with Istiod(mesh, "a") as istiod:
            connection = istiod.join()
            uid = await mesh.held_by("a")
            istiod.registrar.disconnected(connection)
            again = istiod.join()
            await asyncio.sleep(3 * GRACE_S)
            assert await mesh.held_by("a") == uid
            istiod.registrar.disconnected(again)
            await mesh.gone()

    asyncio.run(work())


def test_what_an_istiod_leaves_behind_is_removed_by_the_leader_or_by_itself(mesh):
    async def work():
        async with Istiod(mesh, "a", leads=True), Istiod(mesh, "c"):
            async with Istiod(mesh, "b") as other:
                other.join()
                await mesh.held_by("b")
            await mesh.gone()
        async with Istiod(mesh, "b") as other:
            other.join()
            await mesh.held_by("b")
        async with Istiod(mesh, "b"):  # its container was restarted
            await mesh.gone()

    asyncio.run(work())


def test_an_entry_that_is_deleted_while_its_machine_is_connected_comes_back(mesh):
    async def work():
        async with Istiod(mesh, "a") as istiod:
            istiod.join()
            first = await mesh.held_by("a")
            await mesh.client.delete(kinds.WORKLOAD_ENTRY, "default", NAME)
            assert await mesh.held_by("a") != first
            await mesh.client.delete(kinds.WORKLOAD_GROUP, "default", "vms")
            async with asyncio.timeout(20):
                while istiod.world.objects.workload_groups.get(("default", "vms")):
                    await asyncio.sleep(0.01)
            await mesh.client.delete(kinds.WORKLOAD_ENTRY, "default", NAME)
            await asyncio.sleep(0.3)
            assert await mesh.entry() is None, "no group, no machine"
            await mesh.client.create(
                kinds.WORKLOAD_GROUP,
                {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
                 "metadata": {"name": "vms", "namespace": "default"}, "spec": {"template": {}}},
            )  # fmt: skip
            await mesh.held_by("a")

    asyncio.run(work())


def test_a_machine_is_registered_once_the_api_answers_again(mesh):
    async def work():
        async with Istiod(mesh, "a") as istiod:
            istiod.client.down = True
            istiod.join()
            await asyncio.sleep(0.2)
            assert await mesh.entry() is None
            istiod.client.down = False
            await mesh.held_by("a")

    asyncio.run(work())


def test_an_entry_of_somebody_else_is_left_alone(mesh):
    async def work():
        own = {
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": NAME, "namespace": "default"}, "spec": {"address": "10.9.9.9"},
        }  # fmt: skip
        await mesh.client.create(kinds.WORKLOAD_ENTRY, own)
        async with Istiod(mesh, "a", leads=True) as istiod:
            istiod.registrar.disconnected(istiod.join())
            await asyncio.sleep(5 * PAUSE_S)
            assert (await mesh.entry())["spec"]["address"] == "10.9.9.9"

    asyncio.run(work())


def test_machines_of_a_group_without_a_service_account_run_as_default(mesh):
    """As ``x workload entry configure`` makes their tokens; another account must not become an endpoint of theirs."""

    async def work():
        async with Istiod(mesh, "a") as istiod:
            node = NodeId("sidecar", "10.0.0.9", "vm", "default", "default.svc.cluster.local")
            assert istiod.registrar.refuses(node, {GROUP: "vms"}, "default") is None
            says = "machines of the WorkloadGroup vms run as default, not somebody"
            assert istiod.registrar.refuses(node, {GROUP: "vms"}, "somebody") == says
            assert istiod.registrar.admits("default", "vms", "default")
            assert not istiod.registrar.admits("default", "vms", "somebody")

    asyncio.run(work())


def test_a_machine_is_no_gateway(mesh):
    """Any pod with the account of a group could say that it is such a machine, and get Secrets for gateways."""

    async def work():
        async with Istiod(mesh, "a") as istiod:
            node = NodeId("router", "10.0.0.9", "vm", "default", "default.svc.cluster.local")
            assert "are no gateways" in istiod.registrar.refuses(node, {GROUP: "vms"}, "default")
            assert istiod.registrar.refuses(node, {}, "default") is None

    asyncio.run(work())
