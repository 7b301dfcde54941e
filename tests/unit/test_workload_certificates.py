"""Requests for certificates, by agents and by others, over real TLS: a token's own identity or nothing. The API server
that reviews the tokens is the embedded cluster's."""

import asyncio
from datetime import timedelta

import pytest
from certificate_service import ADMIN, ASKED, OWN, Reviewer, World, csr, names_in
from cryptography import x509

from lateen.control import ca_service
from lateen.control.ca_service import BURST, PER_SECOND, CaService, Rates, TooMany
from lateen.control.clusters import NotServed
from lateen.kit import certs, tasks


@pytest.fixture(scope="module")
def world():
    return World()


def described_in(chain):
    found = x509.load_pem_x509_certificate(chain.encode())
    sans = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [n.value[2:].decode() for n in sans if isinstance(n, x509.OtherName) and n.type_id == certs.DESCRIPTION]


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
    """The API server of a cluster that takes requests and does not answer before it is ``over``."""

    def __init__(self):
        self.over = asyncio.Event()

    async def request(self, *_):
        await self.over.wait()
        raise OSError("over")


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
            roots = await west.ask("x", {}, "/roots", clusterid="east")
            others._east.over.set()
            return full, own, roots

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
