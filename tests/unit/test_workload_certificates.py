"""Requests for certificates, by agents and by others, over real TLS: a token's own identity or nothing. The API server
that reviews the tokens is the embedded cluster's."""

import asyncio
import base64
import json
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import IPv4Address

import pytest
from aiohttp import web
from apiserver import Cluster
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from lateen.agent.certificates import Certificates, Renewal, Trusted, renewal, write_files
from lateen.agent.istiod import Istiod
from lateen.api import kinds
from lateen.ca import rotation, signer
from lateen.ca.authority import Authority, Identity, Refused, parse
from lateen.ca.rotation import Pace
from lateen.control import ca_service, serving
from lateen.control.ca_service import BURST, PER_SECOND, CaService, Rates, TooMany
from lateen.control.clusters import NotServed
from lateen.control.external import External, Signers
from lateen.control.settings import Settings
from lateen.install import core
from lateen.kit import certs, http, tasks, times
from lateen.wire.revision import Revision

ME = Identity("cluster.local", "istio-system", "istiod")
OWN = "spiffe://cluster.local/ns/default/sa/default"


class Reviewer:
    """istiod's client, as far as it is asked here."""

    def __init__(self, cluster):
        self.cluster = cluster

    async def request(self, kind, _namespace, _name, _subresource, body):
        assert kind is kinds.TOKEN_REVIEW
        code, answer = await self.cluster.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        assert code == 201, answer
        return answer


class World:
    def __init__(self, ttl=timedelta(hours=24)):
        self.cluster = Cluster()
        self.authority = Authority.create(times.now(), "cluster.local")
        self.aliases = ()
        self.described = {("default", "web"): "web;default;web;v1;web;v1"}
        self.machines = {("default", "group", "default")}
        self.service = CaService(
            Reviewer(self.cluster), self.authority, "cluster.local", ttl,
            machines=lambda *who: who in self.machines, aliases=lambda: self.aliases,
            describes=lambda _cluster, *pod: self.described.get(pod, ""),
        )  # fmt: skip
        self.pod("web")
        self.of_web, self.of_machine = self.token(), self.token(pod=None)

    def pod(self, name):
        spec = {"containers": [{"name": "a", "image": "a"}]}
        self.cluster.must("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": name}, "spec": spec})

    def account(self, namespace="default"):
        return self.cluster.must("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")["metadata"]

    def token(self, *, namespace="default", audience="istio-ca", seconds=600, pod="web"):
        found = None
        if pod:
            found = self.cluster.must("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]
        uid = self.account(namespace)["uid"]
        return self.cluster.tokens.issue(namespace, "default", uid, [audience], seconds, found)[0]

    @asynccontextmanager
    async def serving(self):
        certificate = serving.Certificate(self.authority, ["localhost"], ME)
        routes = [web.post("/certificates", self.service.sign), web.post("/roots", self.service.roots)]
        runner = await serving.http(routes, 0, certificate.asking, "127.0.0.1")
        self.port, self.certificate = runner.addresses[0][1], certificate
        try:
            yield self.port
        finally:
            await runner.cleanup()

    async def ask(self, token, body, path="/certificates", **headers):
        found = await http.fetch(
            "127.0.0.1", self.port, path, method="POST", body=json.dumps(body).encode() if body is not None else b"",
            ssl=ssl.create_default_context(cadata=self.authority.root), server_hostname="localhost",
            headers={**({"authorization": f"Bearer {token}"} if token is not None else {}), **headers},
        )  # fmt: skip
        return found.status, json.loads(found.body)

    def asked(self, *requests):
        """The answers to (token, body) one after the other."""

        async def work():
            async with self.serving():
                return [await self.ask(token, body) for token, body in requests]

        return asyncio.run(work())


@pytest.fixture(scope="module")
def world():
    return World()


def csr(*names, common="", ca=False, key=None):
    made = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)] if common else [])
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(list(names)), False)
    if ca:
        made = made.add_extension(x509.BasicConstraints(True, None), True)
    signed = made.sign(key or certs.new_key(), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def names_in(chain):
    found = x509.load_pem_x509_certificate(chain.encode())
    sans = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    names = [str(n.value) for n in sans if not isinstance(n, x509.OtherName)]
    return names, found.subject.rfc4514_string(), basic.ca


def described_in(chain):
    found = x509.load_pem_x509_certificate(chain.encode())
    sans = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [n.value[2:].decode() for n in sans if isinstance(n, x509.OtherName) and n.type_id == certs.DESCRIPTION]


ADMIN = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/kube-system/sa/admin")
ASKED = {
    "another identity": csr(ADMIN),
    "one's own and another": csr(x509.UniformResourceIdentifier(OWN), ADMIN),
    "a DNS name": csr(x509.DNSName("istiod.istio-system.svc")),
    "an address": csr(x509.IPAddress(IPv4Address("10.96.0.1"))),
    "a subject": csr(common="istiod.istio-system.svc"),
    "a CA": csr(ca=True),
    "a NUL": csr(x509.OtherName(certs.DESCRIPTION, b"\x0c\x05a\0b\0c"), x509.DNSName("a\0.b")),
    "an address of mail": csr(x509.RFC822Name("admin@cluster.local")),
    "a line break": csr(x509.UniformResourceIdentifier("spiffe://cluster.local/ns/a/sa/b\nspiffe://x/ns/a/sa/b")),
}


@pytest.mark.parametrize("what", ASKED)
def test_whatever_a_request_asks_for_the_certificate_is_the_tokens(world, what):
    ((code, answer),) = world.asked((world.token(), {"csr": ASKED[what]}))
    assert code == 200, answer
    assert answer["identity"] == OWN
    assert names_in(answer["certificate"]) == ([OWN], "", False)


def test_a_pods_certificate_says_which_workload_it_is_and_no_request_can_say_otherwise(world):
    claims = csr(x509.OtherName(certs.DESCRIPTION, b"\x0c\x01x"))
    of_pod, of_machine = world.asked((world.token(), {"csr": claims}), (world.of_machine, {"csr": claims}))
    assert described_in(of_pod[1]["certificate"]) == [world.described["default", "web"]]
    assert described_in(of_machine[1]["certificate"]) == []


def test_a_pod_that_istiod_has_not_heard_of_gets_its_certificate_all_the_same(world):
    world.pod("new")
    ((code, answer),) = world.asked((world.token(pod="new"), {"csr": csr()}))
    assert (code, described_in(answer["certificate"])) == (200, [])


OTHER_VERSIONS = {
    "an older one, which says nothing of clusters and groups": ({}, {}),
    "a newer one, which says more": ({"clusterid": "Kubernetes", "x-later": "1"}, {"group": "", "later": {"a": [1]}}),
}


@pytest.mark.parametrize("which", OTHER_VERSIONS)
def test_agents_of_other_versions_are_served(world, which):
    headers, more = OTHER_VERSIONS[which]

    async def work():
        async with world.serving():
            return await world.ask(world.of_web, {"csr": csr(), **more}, **headers)

    code, answer = asyncio.run(work())
    assert (code, answer["identity"]) == (200, "spiffe://cluster.local/ns/default/sa/default")
    assert {"certificate", "root"} <= answer.keys()


class Clusters:
    """``east`` is another cluster, whose pods are served; ``north`` one whose pods are not."""

    def __init__(self, east):
        self._east = Reviewer(east)

    def home(self, claimed):
        if claimed == "north":
            raise NotServed("this istiod serves no proxies of other clusters")
        return claimed if claimed == "east" else ""

    def client(self, name):
        assert name == "east"
        return self._east


def test_a_token_counts_in_the_cluster_whose_api_server_has_issued_it():
    west, east = World(), World()
    seen = []
    west.service = CaService(
        Reviewer(west.cluster), west.authority, "cluster.local", clusters=Clusters(east.cluster),
        describes=lambda *pod: seen.append(pod) or "web;default;web;v1;web;v1",
    )  # fmt: skip

    async def work():
        async with west.serving():
            for token, cluster in (
                (west.of_web, "west"),
                (east.of_web, "east"),
                (east.of_web, "west"),
                (west.of_web, "east"),
                (west.of_web, "north"),
            ):
                yield await west.ask(token, {"csr": csr()}, clusterid=cluster)

    async def all_of_them():
        return [answer async for answer in work()]

    answers = asyncio.run(all_of_them())
    assert [code for code, _ in answers] == [200, 200, 403, 403, 403]
    assert "serves no proxies of other clusters" in answers[-1][1]["error"]
    assert seen == [("", "default", "web"), ("east", "default", "web")]


class BlackHole:
    """The API server of a cluster that takes requests and never answers."""

    async def request(self, *_):
        await asyncio.Event().wait()


def test_pods_get_certificates_while_another_cluster_does_not_answer(monkeypatch):
    monkeypatch.setattr(ca_service, "AT_ONCE", 2)
    west, east = World(), World()
    others = Clusters(east.cluster)
    others._east = BlackHole()
    west.service = CaService(Reviewer(west.cluster), west.authority, "cluster.local", clusters=others)

    async def work():
        async with west.serving():
            waiting = [tasks.spawn(west.ask("x", {"csr": csr()}, clusterid="east"), "pod") for _ in range(2)]
            while not west.service._gates["east", "/certificates"].locked():
                await asyncio.sleep(0.01)
            full = await west.ask("x", {"csr": csr()}, clusterid="east")
            own = await west.ask(west.of_web, {"csr": csr()}, clusterid="west")
            await tasks.cancel(*waiting)
            monkeypatch.setattr(ca_service, "REMOTE_S", 0.01)
            return full, own, await west.ask("x", {}, "/roots", clusterid="east")

    full, own, roots = asyncio.run(work())
    assert (full[0], own[0], roots[0]) == (503, 200, 503)
    assert "cluster east: too many tokens" in full[1]["error"]
    assert "cluster east: no answer within" in roots[1]["error"]


def test_a_cluster_whose_kubeconfig_is_wrong_refuses_nobody_for_good():
    west, east = World(), World()
    others = Clusters(east.cluster)

    def client(name):
        raise NotServed(f'the cluster "{name}" cannot be reached: its kubeconfig is wrong')

    others.client = client
    west.service = CaService(Reviewer(west.cluster), west.authority, "cluster.local", clusters=others)

    async def work():
        async with west.serving():
            return await west.ask(east.of_web, {"csr": csr()}, clusterid="east")

    code, answer = asyncio.run(work())
    assert (code, "its kubeconfig is wrong" in answer["error"]) == (503, True)


def test_a_request_that_nobody_can_sign_just_then_is_counted_and_may_come_again(world, monkeypatch):
    class Down:
        async def sign(self, *_):
            raise OSError("the signer does not answer")

    monkeypatch.setattr(world.service, "_external", Down())
    counter = world.service._measures.unsigned
    before = sum(value for *_, value in counter.samples())
    ((code, answer),) = world.asked((world.token(), {"csr": csr()}))
    assert (code, answer) == (503, {"error": "no certificate can be issued at the moment: the signer does not answer"})
    assert sum(value for *_, value in counter.samples()) == before + 1


def test_nobody_is_believed_to_ask_for_somebody_else(world):
    """As node agents of other meshes do, by metadata of the request."""
    body = {
        "csr": csr(),
        "identity": "spiffe://cluster.local/ns/kube-system/sa/admin",
        "metadata": {"ImpersonatedIdentity": "spiffe://cluster.local/ns/kube-system/sa/admin"},
        "ttl": "999999h",
    }
    ((code, answer),) = world.asked((world.token(), body))
    assert (code, names_in(answer["certificate"])[0]) == (200, [OWN])
    start, end = certs.validity(answer["certificate"])
    assert end - start <= timedelta(hours=24) + certs.SKEW


def test_tokens_that_are_none_of_ones_own_any_more_get_nothing(world):
    world.pod("gone")
    of_deleted = world.token(pod="gone")
    world.cluster.must("DELETE", "/api/v1/namespaces/default/pods/gone?gracePeriodSeconds=0")
    world.pod("again")
    of_former = world.token(pod="again")
    world.cluster.must("DELETE", "/api/v1/namespaces/default/pods/again?gracePeriodSeconds=0")
    world.pod("again")
    good = world.token()
    head, claims, signature = good.split(".")
    refused = {
        "none": None,
        "empty": "",
        "nonsense": "nonsense",
        "for another audience": world.token(audience="vault"),
        "of the API server": world.token(audience="https://kubernetes.default.svc.cluster.local"),
        "expired": world.token(seconds=-1),
        "of a deleted pod": of_deleted,
        "of a former pod of this name": of_former,
        "changed": f"{head}.{claims}.{signature[::-1]}",
        "unsigned": f"{head}.{claims}.",
        "60 kB long": "a" * 8000,
    }
    answers = world.asked(*((t, {"csr": csr()}) for t in refused.values()))
    for what, (code, answer) in zip(refused, answers, strict=True):
        assert code == 403, (what, answer)
        assert "certificate" not in answer
        assert "Traceback" not in str(answer)


def test_the_token_of_another_namespace_gives_its_own_identity_only(world):
    ((code, answer),) = world.asked((world.token(namespace="kube-system", pod=""), {"csr": csr(ADMIN)}))
    assert (code, answer["identity"]) == (200, "spiffe://cluster.local/ns/kube-system/sa/default")


@pytest.mark.parametrize("body", [None, [], {}, {"csr": 1}, {"csr": ""}, {"csr": "x" * 20_000}, {"csr": ["a"]}, "a"])
def test_requests_that_are_none_are_refused_without_an_error_of_ours(world, body):
    ((code, answer),) = world.asked((world.token(), body))
    assert code in (400, 403)
    assert answer["error"]


def test_a_body_without_end_is_not_read_to_its_end(world):
    ((code, _),) = world.asked((world.token(), {"csr": "x" * 1_000_000}))
    assert code == 400


def test_a_request_must_be_signed_with_its_own_key(world):
    good = csr()
    lines = good.splitlines()
    lines[-2] = lines[-2][::-1]
    ((code, answer),) = world.asked((world.token(), {"csr": "\n".join(lines)}))
    assert code == 403, answer


def test_one_token_gets_so_many_certificates_and_others_are_not_affected(world):
    world.pod("greedy")
    world.described["default", "greedy"] = "greedy;default;greedy;v1;greedy;v1"
    greedy = world.token(pod="greedy")
    answers = world.asked(*[(greedy, {"csr": csr()})] * (BURST + 5), (world.token(), {"csr": csr()}))
    codes = [code for code, _ in answers]
    assert codes[:BURST] == [200] * BURST
    assert 429 in codes[BURST:-1]
    assert codes[-1] == 200


def test_a_bucket_fills_again():
    now = [0.0]
    rates = Rates(lambda: now[0])
    for _ in range(BURST):
        rates.take("a")
    with pytest.raises(TooMany):
        rates.take("a")
    rates.take("b")
    now[0] += 1 / PER_SECOND + 0.01
    rates.take("a")


# --- the agent ------------------------------------------------------------------------------------------------------


class Pod:
    """An agent's files: roots and token as Kubernetes mounts them."""

    def __init__(self, world, directory, **more):
        self.world, self.directory = world, directory
        self.root, self.token = directory / "mounted.pem", directory / "token"
        self.root.write_text(world.authority.root)
        self.token.write_text(world.of_web)
        istiod = Istiod("localhost", None, self.root, self.token, world.port)
        self.certificates = Certificates(istiod, directory, write_files, **more)

    def written(self):
        return (self.directory / "cert-chain.pem").read_text(), (self.directory / "root-cert.pem").read_text()

    async def until(self, test):
        async with asyncio.timeout(30):
            while not test(*self.written()):
                await asyncio.sleep(0.05)


PACE = Pace(timedelta(hours=1), timedelta(hours=24))


def other(world, signs=False):
    """The state of ``world`` on its way to another root, or when that one signs."""
    wanted = signer.self_signed(certs.authority("other", times.now()))
    state = rotation.step(world.authority.state, wanted, times.now(), PACE)
    state = rotation.announced(state, wanted.roots, times.now())
    return rotation.step(state, wanted, times.now() + timedelta(hours=2 * signs), PACE)


def test_an_agent_follows_the_roots_and_renews_when_another_one_signs(tmp_path):
    world = World(timedelta(seconds=40))
    wanted = signer.self_signed(certs.authority("other", times.now()))
    announced = rotation.step(world.authority.state, wanted, times.now(), PACE)
    announced = rotation.announced(announced, wanted.roots, times.now())
    signing = rotation.step(announced, wanted, times.now() + timedelta(hours=2), PACE)

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path, renewal=Renewal(0.05, 0.0))
            wait = await pod.certificates.first()
            assert wait > 30
            first, root = pod.written()
            assert root == world.authority.root
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            world.authority.state = announced
            pod.root.write_text(announced.bundle)
            await pod.until(lambda _, found: found == announced.bundle)
            assert pod.written()[0] == first, "the former root signs as yet"
            pod.root.write_text("nonsense")  # nobody's roots are taken away by a bad file
            await asyncio.sleep(2.5)
            assert pod.written()[1] == announced.bundle
            world.authority.state = signing
            world.certificate.replace()
            pod.root.write_text(signing.bundle)
            await pod.until(lambda chain, found: found == signing.bundle and certs.anchored(chain, found))
            renewing.cancel()

    asyncio.run(work())


def test_an_agent_renews_in_time_and_reports_when_its_certificate_expires(tmp_path):
    world = World(timedelta(seconds=6))

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path, renewal=Renewal(0.5, 0.0))
            wait = await pod.certificates.first()
            assert 1 <= wait <= 3
            assert pod.certificates.end == pytest.approx(times.now().timestamp() + 6, abs=2)
            first, end = pod.written()[0], pod.certificates.end
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            await pod.until(lambda chain, _: chain != first)
            assert pod.certificates.end > end
            renewing.cancel()

    asyncio.run(work())


def test_a_machine_asks_for_the_roots(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path, asks="everything")
            wait = await pod.certificates.first()
            pod.certificates._asked = -1000.0
            world.authority.state = other(world)
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            await pod.until(lambda _, found: found == world.authority.root)
            assert pod.root.read_text() == world.authority.root
            renewing.cancel()

    asyncio.run(work())


class Machine(Pod):
    """An agent that shows its certificate, and whose token has expired after the first one."""

    def __init__(self, world, directory, token=""):
        super().__init__(world, directory, asks="everything")
        self.token.write_text(token or world.of_machine)
        istiod = Istiod("localhost", None, self.root, self.token, world.port, shows=directory)
        self.certificates = Certificates(istiod, directory, write_files, group="group")

    async def expired(self):
        await self.certificates.first()
        self.token.write_text("expired")
        return self.written()[0]


def test_a_machine_renews_by_its_certificate_when_its_token_has_expired(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            first = await machine.expired()
            await machine.certificates.get()
            assert machine.written()[0] != first
            assert names_in(machine.written()[0])[0] == [OWN]
            world.authority.state = other(world, signs=True)
            world.certificate.replace()
            machine.root.write_text(world.authority.root)
            await machine.certificates.get()
            assert certs.anchored(machine.written()[0], world.authority.root), "under the new root, by the former one"
            world.authority.state = rotation.begin(world.authority.state.signer, times.now(), PACE)
            world.certificate.replace()
            await machine.certificates.get()

    asyncio.run(work())


def test_a_machine_gets_so_many_certificates_whatever_token_it_invents(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.expired()

            async def ask():
                for i in range(BURST + 10):
                    machine.token.write_text(f"invented-{i}")
                    await machine.certificates.get()

            with pytest.raises(OSError, match="too many requests"):
                await ask()

    asyncio.run(work())


@pytest.mark.parametrize("what", ["a pod's", "of another account", "of a group that is gone"])
def test_only_a_registered_machine_renews_by_its_certificate(tmp_path, what):
    """Any other certificate that was stolen is worth nothing once it has expired, and the token of a deleted pod is
    none, also where machines run under the same account."""
    world = World()

    async def work():
        async with world.serving():
            if what == "of another account":
                world.machines = {("default", "group", "other"), ("other", "group", "default")}
            pod = Machine(world, tmp_path, world.of_web if what == "a pod's" else "")
            await pod.expired()
            if what == "of a group that is gone":
                world.machines = {("default", "another", "default")}
            with pytest.raises(OSError, match="the token is not valid"):
                await pod.certificates.get()

    asyncio.run(work())


def test_a_machine_is_not_locked_out_by_a_certificate_that_istiod_does_not_accept_any_more(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.certificates.first()
            for spoilt in (
                certs.issue(certs.authority("x", times.now()), [OWN], times.now(), timedelta(hours=1)),
                None,
            ):
                if spoilt:
                    write_files(tmp_path, spoilt.certificate, spoilt.key, Trusted(world.authority.root))
                else:
                    (tmp_path / "key.pem").write_text("nonsense")
                await machine.certificates.get()
                assert certs.anchored(machine.written()[0], world.authority.root)
            machine.token.unlink()
            await machine.certificates.get()  # by the certificate alone
            (tmp_path / "cert-chain.pem").unlink()
            with pytest.raises(
                OSError, match=r"the token .*/token, by which istiod knows who asks, cannot be read: No"
            ):
                await machine.certificates.get()

    asyncio.run(work())


def test_a_machine_of_a_renamed_trust_domain_renews(tmp_path):
    world = World()
    old = OWN.replace("cluster.local", "old.domain")

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.expired()
            key = certs.new_key()
            signed = world.authority.sign(certs.request(key), parse(old), times.now(), group="group")
            write_files(tmp_path, signed, certs.key_pem(key), Trusted(world.authority.root))
            with pytest.raises(OSError, match="the token is not valid"):
                await machine.certificates.get()
            world.aliases = ("old.domain",)
            await machine.certificates.get()
            assert names_in(machine.written()[0])[0] == [OWN]

    asyncio.run(work())


def test_what_is_trusted_may_be_an_intermediate(tmp_path):
    """As in Envoy, on both sides."""
    root = certs.authority("root", times.now())
    middle = certs.intermediate(root, "middle", times.now(), path_length=None)
    world = World()
    world.authority.state = rotation.begin(signer.Signer(middle, (), (middle.certificate,)), times.now(), rotation.PACE)

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.expired()
            await machine.certificates.get()

    asyncio.run(work())


def test_an_agent_outlives_a_full_disk(tmp_path):
    world = World(timedelta(seconds=6))
    full = []

    def write(*what):
        if full:
            raise OSError(28, "No space left on device")
        write_files(*what)

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path)
            pod.certificates = Certificates(pod.certificates._istiod, tmp_path, write)
            wait = await pod.certificates.first()
            first = pod.written()[0]
            full.append(True)
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            world.authority.state = other(world)
            pod.root.write_text(world.authority.root)
            await asyncio.sleep(2.5)
            assert not renewing.done()
            full.clear()
            await pod.until(lambda chain, root: chain != first and root == world.authority.root)
            renewing.cancel()

    asyncio.run(work())


@pytest.mark.parametrize(
    "what", ["of another root", "of a root that is not trusted any more", "of another trust domain"]
)
def test_certificates_of_others_are_shown_in_vain(tmp_path, what):
    world = World()

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.expired()
            ca = certs.authority("x", times.now()) if what == "of another root" else world.authority.state.signer.pair
            name = OWN.replace("cluster.local", "evil") if what.endswith("domain") else OWN
            pair = certs.issue(ca, [name], times.now(), timedelta(hours=1))
            write_files(tmp_path, pair.certificate, pair.key, Trusted(world.authority.root))
            if what.endswith("any more"):
                world.authority.state = rotation.begin(
                    signer.self_signed(certs.authority("y", times.now())), times.now(), PACE
                )
                world.certificate.replace()
                machine.root.write_text(world.authority.root)
            with pytest.raises(OSError):  # noqa: PT011 - the handshake fails, or istiod refuses
                await machine.certificates.get()
            assert names_in(machine.written()[0])[0] == [name]
            assert machine.written()[0] == pair.certificate

    asyncio.run(work())


def test_istiod_has_a_new_certificate_as_soon_as_another_ca_signs():
    world = World()

    async def work():
        async with world.serving():
            before = world.certificate.pair
            world.authority.state = other(world, signs=True)
            world.certificate.replace()
            assert world.certificate.pair != before
            code, answer = await world.ask(world.of_web, {"csr": csr()})
            assert code == 200
            assert certs.anchored(answer["certificate"], world.authority.root)

    asyncio.run(work())


def test_settings_of_renewal_are_istios():
    assert renewal({}) == Renewal(0.5, 0.01)
    given = {"SECRET_GRACE_PERIOD_RATIO": "0.25", "SECRET_GRACE_PERIOD_RATIO_JITTER": "0"}
    pair = Authority.create(times.now(), "cluster.local").server_pair(["a"], ME, times.now(), timedelta(hours=4))
    assert renewal(given).wait(pair.certificate) == pytest.approx(3 * 3600, abs=5)
    for wrong in ("2", "-1", "half"):
        with pytest.raises(ValueError, match="SECRET_GRACE_PERIOD_RATIO"):
            renewal({"SECRET_GRACE_PERIOD_RATIO": wrong})


# --- a CA of somebody else's ------------------------------------------------------------------------------------------


class Requests:
    """Kubernetes' certificate requests as istiod sees them, over the embedded cluster's API."""

    def __init__(self, cluster):
        self.cluster = cluster

    async def _must(self, method, path, body=None):
        code, answer = await self.cluster.send(
            method, f"/apis/certificates.k8s.io/v1/certificatesigningrequests{path}", body
        )
        assert code < 300, answer
        return answer

    async def create(self, _kind, body):
        return await self._must("POST", "", body)

    async def get(self, _kind, _namespace, name):
        return await self._must("GET", f"/{name}")

    async def update(self, _kind, body, subresource):
        return await self._must("PUT", f"/{body['metadata']['name']}/{subresource}", body)

    async def delete(self, _kind, _namespace, name):
        await self._must("DELETE", f"/{name}")
        return True

    async def all(self):
        return (await self._must("GET", ""))["items"]

    async def sign(self, how):
        """A signer in the cluster: it signs, with ``how``, one request of the name that somebody has approved."""
        async with asyncio.timeout(10):
            while True:
                for found in await self.all():
                    conditions = [c["type"] for c in found.get("status", {}).get("conditions", [])]
                    if "Approved" in conditions and found["spec"]["signerName"] == "signers.example.com/mine":
                        csr = base64.b64decode(found["spec"]["request"]).decode()
                        found["status"] |= how(csr)
                        await self._must("PUT", f"/{found['metadata']['name']}/status", found)
                        return found
                await asyncio.sleep(0.05)


THEIRS = certs.authority("theirs", times.now())
SIGNERS = Signers("", "signers.example.com")


def signed(csr, name=OWN, key=None, ca=THEIRS):
    made = certs.sign(ca, key or certs.requested_key(csr), [name], times.now(), timedelta(hours=1))
    return {"certificate": base64.b64encode(made.encode()).decode()}


def refused(_csr):
    now = times.stamp()
    failed = {"type": "Failed", "status": "True", "reason": "No", "message": "not today"}
    return {"conditions": [{"type": "Approved", "status": "True", "reason": "a"}, failed | {"lastUpdateTime": now}]}


def from_signer(world, how, csr=None, asked="mine", roots=THEIRS.certificate):
    requests = Requests(world.cluster)
    external = External(requests, SIGNERS, lambda _: roots)
    key = certs.new_key()

    async def work():
        signing = tasks.spawn(requests.sign(how), "signer")
        try:
            text = csr or certs.request(key, OWN)
            return await external.sign(text, parse(OWN), asked, timedelta(hours=1))
        finally:
            signing.cancel()
            assert await requests.all() == [], "nothing is left behind"

    return asyncio.run(work())


def test_somebody_elses_ca_signs_what_istiod_has_approved(world):
    chain = from_signer(world, signed)
    assert names_in(chain)[0] == [OWN]
    assert certs.anchored(chain, THEIRS.certificate)


WRONG = {
    "another identity": (lambda csr: signed(csr, "spiffe://cluster.local/ns/kube-system/sa/admin"), "it is for spiffe"),
    "another key": (lambda csr: signed(csr, key=certs.new_key().public_key()), "it is for another key"),
    "another root": (lambda csr: signed(csr, ca=certs.authority("x", times.now())), "does not lead to a root"),
    "no": (refused, "refuses: not today"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_a_signer_makes_of_it_is_verified(world, what):
    how, says = WRONG[what]
    with pytest.raises(Refused, match=says):
        from_signer(world, how)


@pytest.mark.parametrize("what", [w for w in ASKED if w != "a line break"])
def test_istiod_lets_nobody_else_sign_another_identity_than_the_tokens(world, what):
    with pytest.raises(Refused, match="the request is for"):
        from_signer(world, signed, csr=ASKED[what])


def test_signers_are_those_of_the_domain():
    assert SIGNERS.chosen("mine") == "signers.example.com/mine"
    assert Signers("kubernetes.io/legacy-unknown").chosen("") == "kubernetes.io/legacy-unknown"
    for signers, asked in ((SIGNERS, ""), (SIGNERS, "../x"), (SIGNERS, "a/b"), (Signers("a.b/c"), "mine")):
        with pytest.raises(Refused):
            signers.chosen(asked)


def test_istiod_may_approve_for_its_signers_only_and_only_where_others_sign():
    env = {"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API", "K8S_SIGNER": "a.b/c", "CERT_SIGNER_DOMAIN": "d.e"}
    names = core.signers({"values": {"pilot": {"env": env}}})
    rules = [r for o in core.permissions(Revision(), external=names) for r in o.get("rules", [])]
    (approve,) = [r for r in rules if "signers" in r["resources"]]
    assert (approve["resourceNames"], approve["verbs"]) == (["a.b/c", "d.e/*"], ["approve"])
    without = core.permissions(Revision(), external=core.signers({}))
    assert not [r for o in without for r in o.get("rules", []) if "certificates.k8s.io" in r["apiGroups"]]


def test_settings_of_external_signers():
    with pytest.raises(ValueError, match="EXTERNAL_CA"):
        Settings.of({"EXTERNAL_CA": "VAULT"})
    with pytest.raises(ValueError, match="K8S_SIGNER or CERT_SIGNER_DOMAIN"):
        Settings.of({"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API"})
    found = Settings.of({"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API", "K8S_SIGNER": "a.b/c"})
    assert found.signers == Signers("a.b/c")
    assert Settings.of({}).signers is None
