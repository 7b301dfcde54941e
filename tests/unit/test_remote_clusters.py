"""A cluster without a control plane: its installation, its tokens, and the mesh as its proxies see it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import meshes
import pytest
from test_other_clusters import free_port, kubeconfig, play, secret, until

from lateen.ads.peers import Connection
from lateen.api import kinds, validate
from lateen.api import objects as o
from lateen.api.decoding import NETWORK, resource
from lateen.ca.authority import Told
from lateen.control import trust as module
from lateen.control.clusters import NotServed
from lateen.control.plane import Control
from lateen.control.remotes import CONTROLLED_BY, Remotes
from lateen.control.sides import Sides
from lateen.control.trust import Trust
from lateen.install import manifests
from lateen.install.operator import OperatorError, resolve
from lateen.install.remote import PORTS
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.perspective import seen_from
from lateen.mesh.settings import Cluster as Own
from lateen.mesh.settings import MeshConfig
from lateen.mesh.views import Views
from lateen.wire.node import parse
from lateen.wire.revision import Revision
from lateen.xds import proxyless

HOST = "db.shop.svc.cluster.local"
REMOTE = ["profile=remote", "values.global.remotePilotAddress=1.2.3.4", "values.global.multiCluster.clusterName=east"]


def cluster(address, pod, network):
    """A cluster with a TCP service and its only pod."""
    port = o.ServicePort("tcp", 5432, 5432, "TCP")
    service = o.Service("shop", "db", address, (port,), selector=(("app", "db"),))
    of_pod = o.Pod("shop", "db-1", "uid", pod, (("app", "db"),), "default", "db", (), True)
    slices = ("db", {"tcp": (o.Endpoint(pod, 5432, "db-1"),)})
    return {
        kinds.SERVICE: {("shop", "db"): service},
        kinds.POD: {("shop", "db-1"): of_pod},
        kinds.ENDPOINT_SLICE: {("shop", "db-a"): slices},
        kinds.NAMESPACE: {("", "istio-system"): o.Namespace("istio-system", ((NETWORK, network),))},
    }


def both():
    theirs = Objects().with_kinds(cluster("10.2.0.1", "10.20.0.1", "net-east"))
    config = MeshConfig(cluster=Own("west"))
    return Objects(config, others={"east": theirs}).with_kinds(cluster("10.1.0.1", "10.10.0.1", "net-west"))


def test_proxies_see_the_mesh_from_their_own_cluster():
    mine, theirs = Mesh(both()), Mesh(seen_from(both(), "east"))
    for mesh, address, name, network in (
        (mine, "10.1.0.1", "west", "net-west"),
        (theirs, "10.2.0.1", "east", "net-east"),
    ):
        service = mesh.service(HOST, "shop")
        assert (mesh.addresses(service, False), service.elsewhere) == ((address,), False)
        assert (mesh.cluster.name, mesh.network("", "10.20.0.1")) == (name, network)
        found = {(i.address, i.network) for i in mesh.endpoints(service, service.ports[0])}
        assert found == {("10.10.0.1", "net-west"), ("10.20.0.1", "net-east")}
    (other,) = [r for r in theirs.registries if r is not theirs.own]
    assert other.cluster == "west"


def test_a_service_of_another_cluster_alone_has_no_address_here():
    objects = both().replaced(kinds.SERVICE, {})
    service = Mesh(objects).service(HOST, "shop")
    assert (service.elsewhere, service.all_addresses) == (True, ())
    assert not Mesh(seen_from(objects, "east")).service(HOST, "shop").elsewhere


def test_machines_are_on_the_network_of_the_control_planes_cluster():
    spec = kinds.WORKLOAD_ENTRY.spec
    ref = kinds.WORKLOAD_ENTRY.ref("shop", "vm")
    meta = {"name": "vm", "namespace": "shop", "uid": "u", "resourceVersion": "1", "creationTimestamp": ""}
    body = {"address": "192.0.2.1"}
    found = validate.examine(kinds.WORKLOAD_ENTRY, body, meta)
    entry = resource(ref, {"metadata": meta, "spec": body}, found.spec)
    assert isinstance(entry.spec, spec)
    objects = both().put(kinds.WORKLOAD_ENTRY, ("shop", "vm"), entry)
    seen = seen_from(objects, "east").workload_entries["shop", "vm"]
    assert seen.spec.network == "net-west"
    later = objects.replaced(kinds.POD, {})
    assert seen_from(later, "east").workload_entries["shop", "vm"] is seen, "nothing has changed for it"


ROUTED = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec:
  gatewayClassName: istio
  listeners:
  - name: http
    port: 80
    protocol: HTTP
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: web}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: pages}
spec: {parentRefs: [{name: g, namespace: shop}], rules: [{backendRefs: [{name: db, namespace: shop, port: 5432}]}]}
"""


def test_which_namespaces_may_attach_routes_is_judged_where_the_gateway_is():
    objects = both()
    for i, doc in enumerate(yamldoc.objects(ROUTED)):
        objects = meshes.add(objects, doc, i)

    def attached(found):
        ((_, what),) = Mesh(seen_from(found, "east")).attachments_of(kinds.HTTP_ROUTE.id, "pages", "r")
        return bool(what.at)

    labelled = o.Namespace("pages", (("team", "web"),))
    assert attached(objects.put(kinds.NAMESPACE, ("", "pages"), labelled))
    theirs = objects.others["east"].put(kinds.NAMESPACE, ("", "pages"), labelled)
    assert not attached(replace(objects, others={"east": theirs}))


def test_views_of_a_cluster_follow_the_mesh_and_go_with_the_cluster():
    objects = both()
    sides = Sides(Views(Mesh(objects)))
    views = sides.of("east")
    assert sides.of("") is not views
    assert sides.of("nowhere") is None
    pod = views.mesh.objects.pods.get(("shop", "db-1"))
    before = views.of(pod, "sidecar")
    sides.advance(objects.replaced(kinds.SERVICE, {}))
    assert sides.of("east") is views
    assert views.of(pod, "sidecar").outbound is before.outbound  # its own cluster's service is still there
    sides.advance(Objects(objects.config))
    assert sides.of("east") is None


def test_only_a_control_plane_that_says_so_serves_the_proxies_of_others():
    async def story(world, config, client):
        world.clusters.secret("remote", secret(east=config))
        assert world.clusters.home("") == world.clusters.home("renamed") == ""
        with pytest.raises(NotServed, match="externalIstiod"):
            world.clusters.home("east")
        world.clusters.serves = True
        assert world.clusters.home("east") == "east"
        with pytest.raises(NotServed, match="no Secret"):
            world.clusters.client("north")
        world.clusters.secret("remote", None)
        with pytest.raises(NotServed, match="has left the mesh"):
            world.clusters.home("east")
        world.clusters.secret("remote", secret(east=config))
        assert world.clusters.home("east") == "east"

    play(story)


class Slow:
    """A teller of a cluster that takes its time."""

    where = "cluster east: "

    def __init__(self):
        self.answers, self.began = asyncio.Event(), 0

    async def everywhere(self, _):
        self.began += 1
        await self.answers.wait()
        return [], []


def test_a_cluster_that_answers_slowly_holds_up_no_roots_of_others(monkeypatch):
    monkeypatch.setattr(module, "REMOTE_S", 0.01)

    async def story():
        roots = ["ROOT\n"]
        trust = Trust(Empty(), Revision(), lambda: Told(roots[0], own=""), list, lambda *_: None)
        slow = Slow()
        trust.others = lambda: [(slow, [])]
        for _ in range(3):
            assert "cluster east: it is still being told" in (await trust.everywhere([])).problem
        assert slow.began == 1, "it goes on with what it has begun"
        roots[0] = "OTHER\n"
        assert (await trust.everywhere([])).problem
        assert slow.began == 2, "what was trusted before is told no more"
        slow.answers.set()
        monkeypatch.setattr(module, "REMOTE_S", 10)
        assert (await trust.everywhere([])).problem == ""
        assert trust._woken.is_set(), "somebody may have changed what was written first"
        assert (await trust.everywhere([])).problem == ""
        assert slow.began == 3

    asyncio.run(story())


def test_a_cluster_that_leaves_is_told_nothing_more(monkeypatch):
    monkeypatch.setattr(module, "REMOTE_S", 0.01)

    async def story():
        trust = Trust(Empty(), Revision(), lambda: Told("ROOT\n", own=""), list, lambda *_: None)
        slow = Slow()
        trust.others = lambda: [(slow, [])]
        assert (await trust.everywhere([])).problem
        ((_, task),) = trust._rounds.values()
        trust.others = list
        assert (await trust.everywhere([])).problem == ""
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(story())


HOMES = ("", "east")


def test_clients_without_a_proxy_and_metrics_see_the_mesh_from_their_own_cluster():
    control = Control(None, "istio-system", Revision(), Own("west"), serves=True)
    control.world.clusters.objects = lambda: both().others
    control.world.clusters.home = lambda claimed: claimed
    control.world.objects = both()
    control.sides.advance(control.world.objects)
    views = {name: control.offering.home({"CLUSTER_ID": name}) for name in HOMES}
    assert views[""] is not views["east"]
    for name in HOMES:
        seen = control.offering.proxyless(parse("sidecar~10.0.0.9~web-1.shop~d"), {"CLUSTER_ID": name}, "")
        assert seen == proxyless.generate(views[name].outbound("shop"))
    for name, address in (("", "10.10.0.1"), ("east", "10.20.0.1")):
        node = parse(f"sidecar~{address}~db-1.shop~d")
        control.ads.connections.add(Connection(node, "", "", {"CLUSTER_ID": name}))
    assert control._without_endpoint() == {(): 0}
    control.ads.connections.add(Connection(parse("sidecar~10.20.0.1~db-1.shop~d"), "", "", {}))
    assert control._without_endpoint() == {(): 1}

    def left(claimed):
        raise NotServed(claimed)

    control.world.clusters.home = left
    assert control.offering.proxyless(parse("sidecar~10.0.0.9~web-1.shop~d"), {"CLUSTER_ID": "east"}, "") == {}


class Empty:
    """istiod's own cluster, in which there is nothing."""

    async def list(self, *_, **__):
        return [], ""


def remotes(world, client, told):
    trust = Trust(client, Revision(), lambda: Told("ROOT\n", own=""), list, lambda *_: None)
    made = Remotes(world.clusters, "west", "istio-system", trust.teller, told)
    trust.others, trust.unread = made.tellers, made.unread
    world.clusters.joined, world.clusters.happened = made.joined, made.happened
    return trust


def test_namespaces_of_a_cluster_without_a_control_plane_are_told_the_roots():
    async def story(world, config, client):
        heard = []
        world.clusters.serves = True
        trust = remotes(world, Empty(), lambda: heard.append(1))
        for obj in (obj for part in manifests.render(resolve("default", [], REMOTE)) for obj in part.objects):
            if obj["kind"] in ("ClusterRole", "MutatingWebhookConfiguration"):
                kind = kinds.of(obj)
                await client.delete(kind, "", obj["metadata"]["name"])
                await client.create(kind, obj)
        world.clusters.secret("remote", secret(east=config))
        await until(lambda: world.objects.others.get("east"))
        assert not trust.others()  # it has a control plane of its own
        change = {"metadata": {"annotations": {CONTROLLED_BY: "north, west"}}}
        await client.patch(kinds.NAMESPACE, "", "istio-system", change)
        await until(lambda: heard)
        reached = await trust.everywhere([])
        assert (reached.problem, reached.refused) == ("", "")
        found = await client.get(kinds.CONFIG_MAP, "default", "istio-ca-root-cert")
        assert found["data"] == {"root-cert.pem": "ROOT\n"}
        (hooks, _) = await client.list(kinds.MUTATING_WEBHOOK)
        assert {h["clientConfig"]["caBundle"] for h in hooks[0]["webhooks"]} == {"Uk9PVAo="}
        # A namespace that is new hears of them at once; who loses them, or the webhook, is told again.
        await client.create(kinds.NAMESPACE, {"metadata": {"name": "fresh"}})
        await until_async(lambda: client.get(kinds.CONFIG_MAP, "fresh", "istio-ca-root-cert"))
        for kind, where, name in (
            (kinds.CONFIG_MAP, "default", "istio-ca-root-cert"),
            (kinds.MUTATING_WEBHOOK, "", hooks[0]["metadata"]["name"]),
        ):
            heard.clear()
            if kind is kinds.CONFIG_MAP:
                await client.delete(kind, where, name)
            else:
                await client.patch(kind, where, name, {"webhooks": unannounced(hooks[0]["webhooks"])})
            await until(lambda: heard)

    play(story)


def test_a_root_is_not_replaced_while_a_cluster_that_may_need_it_has_not_been_read():
    async def story(world, config, _):
        world.clusters.serves = True
        trust = remotes(world, Empty(), lambda: None)
        gone = kubeconfig(f"http://127.0.0.1:{free_port()}")
        world.clusters.secret("remote", secret(east=gone))
        assert "cluster east: it has not been read yet" in (await trust.everywhere([])).problem
        world.clusters.secret("remote", secret(east=config))
        await until(lambda: world.objects.others.get("east"))
        assert (await trust.everywhere([])).problem == "", "it has a control plane of its own"
        world.clusters.secret("remote", secret(east=gone))
        assert (await trust.everywhere([])).problem == "", "what was read by the former kubeconfig counts on"
        world.clusters.serves = False
        world.clusters.secret("remote", secret(north=gone))
        assert (await trust.everywhere([])).problem == ""

    play(story)


def unannounced(hooks):
    return [{**h, "clientConfig": {"service": h["clientConfig"]["service"]}} for h in hooks]


async def until_async(ask):
    for _ in range(500):
        if found := await ask():
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true")


def installed(*settings):
    parts = manifests.render(resolve("default", [], [*REMOTE, *settings]))
    return {(obj["kind"], obj["metadata"]["name"]): obj for part in parts for obj in part.objects}


def test_a_remote_installation_leads_to_the_control_plane_of_another_cluster():
    found = installed("values.global.network=net/east", "revision=v2")
    assert not [name for kind, name in found if kind == "Deployment"]
    ports = {p["name"]: (p["port"], p["targetPort"]) for p in found["Service", "istiod-v2"]["spec"]["ports"]}
    assert ports == {"tcp-certificates": (15010, 15010), "tcp-istiod": (15012, 15012), "tcp-webhook": (443, 15017)}
    (subset,) = found["Endpoints", "istiod-v2"]["subsets"]
    assert subset["addresses"] == [{"ip": "1.2.3.4"}]
    assert {p["name"]: p["port"] for p in subset["ports"]} == {name: target for name, (_, target) in ports.items()}
    paths = {
        h["clientConfig"]["service"]["path"]
        for h in found["MutatingWebhookConfiguration", "istio-sidecar-injector-v2"]["webhooks"]
    }
    assert paths == {"/inject/cluster/east/net/net--slash--east"}


def test_where_a_remote_installation_finds_the_webhook_can_be_said():
    named = installed("values.global.remotePilotAddress=istiod.example.com")
    assert named["Service", "istiod"]["spec"]["externalName"] == "istiod.example.com"
    assert ("Endpoints", "istiod") not in named
    own = installed("values.istiodRemote.injectionURL=https://istiod.example.com:15017/inject")
    hooks = own["MutatingWebhookConfiguration", "istio-sidecar-injector"]["webhooks"]
    assert {json.dumps(h["clientConfig"]) for h in hooks} == {
        json.dumps({"url": "https://istiod.example.com:15017/inject"})
    }


@pytest.mark.parametrize(("left", "says"), [(1, "remotePilotAddress"), (2, "clusterName")])
def test_what_a_remote_installation_lacks_is_named(left, says):
    with pytest.raises(OperatorError, match=says):
        resolve("default", [], [s for i, s in enumerate(REMOTE) if i != left])


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("values.global.remotePilotAddress=a b", "expected an IP address or a host name"),
        ("values.istiodRemote.injectionPath=/inject/../x", "expected /inject/cluster/NAME/net/NETWORK"),
        ("values.istiodRemote.injectionPath=/inject/cluster/..", "expected /inject/cluster/NAME/net/NETWORK"),
        ("values.istiodRemote.injectionPath=inject/cluster/a", "expected /inject/cluster/NAME/net/NETWORK"),
        ("values.global.externalIstiod=maybe", "expected true or false"),
        ("meshConfig.protocolDetectionTimeout=-3s", "must not be negative"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_field(setting, says):
    with pytest.raises(OperatorError, match=says) as refused:
        resolve("default", [], [*REMOTE, setting])
    assert setting.partition("=")[0] in str(refused.value)


def test_a_primary_serves_others_by_a_value():
    parts = manifests.render(resolve("minimal", [], ["values.global.externalIstiod=true"]))
    (istiod,) = [obj for part in parts for obj in part.objects if obj["kind"] == "Deployment"]
    env = {e["name"]: e.get("value") for e in istiod["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["EXTERNAL_ISTIOD"] == "true"
    assert not resolve("minimal", [], ["values.global.externalIstiod=true"]).warnings


def test_the_samples_expose_what_a_remote_installation_calls():
    folder = Path(__file__).parents[2] / "samples" / "multicluster"
    gateway, rules = yamldoc.objects((folder / "expose-istiod.yaml").read_text())
    exposed = {s["port"]["number"] for s in gateway["spec"]["servers"]}
    routed = {t["match"][0]["port"] for t in rules["spec"]["tls"]}
    assert exposed == routed == {target for _, _, target in PORTS}
