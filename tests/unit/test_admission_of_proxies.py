"""Who may be which proxy: what a client of ADS claims against what its certificate says, over real mutual TLS."""

import asyncio
import socket
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import grpc
import meshes as mesh
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from lateen.ads import listening, server
from lateen.ads.debug import NotAnswered
from lateen.ads.peers import Connection
from lateen.ads.rpc import Status
from lateen.api import kinds
from lateen.ca import rotation, signer
from lateen.ca.authority import Authority, Identity
from lateen.control import serving
from lateen.control.debug import Debug
from lateen.control.plane import Control
from lateen.kit import certs, times
from lateen.wire import names
from lateen.wire.node import NodeId
from lateen.wire.revision import Revision

ME = Identity("cluster.local", "istio-system", "istiod")
OWN = "spiffe://cluster.local/ns/shop/sa/cart"
NODE = "sidecar~10.0.0.1~cart-1.shop~shop.svc.cluster.local"
POD = {
    "metadata": {"name": "cart-1", "namespace": "shop", "labels": {"app": "cart"}, "uid": "1"},
    "spec": {"serviceAccountName": "cart", "containers": [{"name": "app"}, {"name": "istio-proxy"}]},
    "status": {"podIP": "10.0.0.1", "phase": "Running"},
}


class Istiod:
    def __init__(self):
        self.authority = Authority.create(times.now(), "cluster.local")
        self.roots = self.authority.root

    def pair(self, identity, authority=None, lifetime=timedelta(hours=1), now=None):
        ca = (authority or self.authority).state.signer.pair
        return certs.issue(ca, [identity] if identity else [], now or times.now(), lifetime)

    async def ask(self, pair, node):
        """How istiod ends the stream of a client, or None if it has let it in."""
        credentials = grpc.ssl_channel_credentials(self.roots.encode(), pair.key.encode(), pair.certificate.encode())
        options = (("grpc.ssl_target_name_override", "istiod"),)
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            call = channel.stream_stream(
                names.DELTA_METHOD,
                request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
            )()
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=names.CDS)
            request.node.id = node
            try:
                await call.write(request)
                async with asyncio.timeout(0.7):
                    await call.read()
            except TimeoutError:
                return None
            except grpc.aio.AioRpcError as e:
                return e.code().name, e.details()
            return None

    def asked(self, pair, node=NODE, streams=1):
        """How istiod ends the last of several streams, one after the other."""

        async def work():
            control = Control(None, "istio-system", Revision())
            control.world.changed(kinds.POD, ("shop", "cart-1"), None, POD)
            certificate = serving.Certificate(self.authority, ["istiod"], ME)
            self.port = free_port()
            server = await listening.serve(control.ads.accept, "127.0.0.1", self.port, lambda: certificate.mutual)
            try:
                for _ in range(streams):
                    answer = await self.ask(pair, node)
                    while control.ads.connections:
                        await asyncio.sleep(0.01)
                return answer
            finally:
                await server.stop()

        return asyncio.run(work())


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def istiod():
    return Istiod()


def test_a_proxy_may_be_what_its_certificate_says(istiod):
    assert istiod.asked(istiod.pair(OWN)) is None


def test_one_pod_has_a_limited_number_of_streams(istiod, monkeypatch):
    """Each costs memory and time with each change; a proxy has one."""
    monkeypatch.setattr(server, "MAX_STREAMS", 0)
    assert istiod.asked(istiod.pair(OWN)) == ("RESOURCE_EXHAUSTED", "cart-1 has 0 streams already")


def test_where_istiod_is_full_names_of_pods_that_nobody_knows_are_no_way_to_more_streams(monkeypatch):
    """A name that istiod does not know is only claimed: whoever has a certificate could have any number of them."""
    monkeypatch.setattr(server, "MOST_STREAMS", 3)
    ours = server.AdsServer(lambda *_: None, lambda _: {}, lambda *_: {}, lambda *_: None)
    refused = []

    def joined(account, pod):
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=names.CDS)
        first.node.id = NODE.replace("cart-1", pod)
        identities = (f"spiffe://cluster.local/ns/shop/sa/{account}",)
        return ours.join(SimpleNamespace(identities=identities, finish=lambda *why: refused.append(why)), first)

    mine = [joined("cart", f"made-up-{i}") for i in range(5)]
    assert mine[3:] == [None, None]
    assert [code for code, _ in refused] == [Status.RESOURCE_EXHAUSTED] * 2
    theirs = joined("till", "till-1")
    assert theirs is not None
    for connection in (*mine[:3], theirs):
        ours.leave(connection)
    assert joined("cart", "cart-1") is not None


def test_nobody_uses_up_the_streams_of_a_pod_that_is_about_to_come(monkeypatch):
    """The names of a StatefulSet's pods are known before."""
    monkeypatch.setattr(server, "MAX_STREAMS", 2)
    ours = server.AdsServer(lambda *_: None, lambda _: {}, lambda *_: {}, lambda *_: None)

    def joined(account):
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=names.CDS)
        first.node.id = NODE.replace("cart-1", "till-0")
        identities = (f"spiffe://cluster.local/ns/shop/sa/{account}",)
        return ours.join(SimpleNamespace(identities=identities, finish=lambda *_: None), first)

    assert [joined("cart") is not None for _ in range(3)] == [True, True, False]
    assert joined("till") is not None


def test_streams_that_have_ended_do_not_count(istiod, monkeypatch):
    monkeypatch.setattr(server, "MAX_STREAMS", 1)
    assert istiod.asked(istiod.pair(OWN), streams=3) is None


CLAIMS = {
    "another namespace": ("spiffe://cluster.local/ns/other/sa/cart", NODE, "the certificate is for namespace other"),
    "another account's pod": ("spiffe://cluster.local/ns/shop/sa/till", NODE, "pod cart-1 runs as cart, not till"),
    "another trust domain": ("spiffe://evil/ns/shop/sa/cart", NODE, "the certificate is for trust domain evil"),
    "a certificate without an identity": ("istiod.istio-system.svc", NODE, "a workload certificate is required"),
    "a gateway": (OWN, NODE.replace("sidecar~", "router~"), "pod cart-1 is no gateway"),
    "an identity with more": (f"{OWN}/x", NODE, "a workload certificate is required"),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_proxy_may_not_be_somebody_else(istiod, what):
    identity, node, says = CLAIMS[what]
    code, details = istiod.asked(istiod.pair(identity), node)
    assert code == "PERMISSION_DENIED"
    assert says in details


RATINGS = NodeId("sidecar", "10.244.0.6", "ratings-v1", "default", "")
INGRESS = NodeId("router", "10.244.0.99", "ingress", "istio-system", "")
ACCOUNT = "spiffe://cluster.local/ns/{}/sa/{}"


@pytest.mark.parametrize(
    ("node", "identity", "given"),
    [
        (RATINGS, ACCOUNT.format("default", "sa-ratings"), True),
        (RATINGS, ACCOUNT.format("default", "sa-reviews"), False),
        (RATINGS, ACCOUNT.format("default", "ratings"), False),
        (replace(RATINGS, kind="router"), ACCOUNT.format("default", "sa-ratings"), False),
        (INGRESS, ACCOUNT.format("istio-system", "sa-istio-ingressgateway"), True),
        (INGRESS, ACCOUNT.format("istio-system", "sa-ratings"), False),
    ],
)
def test_who_connected_in_the_name_of_a_pod_that_was_not_there_yet_gets_nothing_of_it(node, identity, given):
    async def work():
        control = Control(None, "istio-system", Revision())
        control.world.objects = mesh.objects(mesh.FRONT)
        async with asyncio.timeout(10):
            await control._settled()
        servers = control.offering.proxyless(node, {}, identity)[names.LDS]
        assert any(n.startswith(names.GRPC_SERVER) for s in servers for n in s.resources) == given
        return bool(control.offering.to(Connection(node, identity, "")))

    assert asyncio.run(work()) == given


def test_the_control_plane_of_another_mesh_under_the_same_root_sees_nothing_of_this_one():
    """Such as two meshes whose authorities are below one root of their organization."""
    debug = Debug(Control(None, "istio-system", Revision()), None)
    assert debug.caller("spiffe://cluster.local/ns/istio-system/sa/istiod").everything
    assert not debug.caller(OWN).everything
    for theirs in ("spiffe://their.domain/ns/istio-system/sa/istiod", "spiffe://their.domain/ns/shop/sa/cart"):
        with pytest.raises(NotAnswered, match=r"their\.domain is no trust domain of this mesh"):
            debug.caller(theirs)


@pytest.mark.parametrize("node", ["", "x", "sidecar~~~", "root~10.0.0.1~cart-1.shop~d", "sidecar~a~b~c", "~" * 5000])
def test_what_is_no_proxy_is_told_so(istiod, node):
    code, details = istiod.asked(istiod.pair(OWN), node)
    assert code in ("INVALID_ARGUMENT", "PERMISSION_DENIED")
    assert "Traceback" not in details


def test_certificates_that_are_not_valid_do_not_get_so_far(istiod):
    other = Authority.create(times.now(), "cluster.local")
    for pair in (
        istiod.pair(OWN, other),
        istiod.pair(OWN, lifetime=timedelta(minutes=1), now=times.now() - timedelta(hours=1)),
        istiod.pair(OWN, now=times.now() + timedelta(hours=1)),
    ):
        code, _ = istiod.asked(pair)
        assert code == "UNAVAILABLE", "the handshake fails"


def test_clients_of_a_new_root_are_let_in_as_soon_as_it_is_trusted(istiod):
    wanted = signer.self_signed(certs.authority("other", times.now()))
    theirs = Authority(rotation.begin(wanted, times.now(), rotation.PACE))
    assert istiod.asked(istiod.pair(OWN, theirs)) is not None
    istiod.authority.state = rotation.step(istiod.authority.state, wanted, times.now(), rotation.PACE)
    assert istiod.asked(istiod.pair(OWN, theirs)) is None
