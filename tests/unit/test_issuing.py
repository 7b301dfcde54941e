"""Certificates kept up to date by istiod: whose turn it is, and what happens when something fails. The API server and
the issuers are fakes; objects are real."""

import asyncio
import base64
from types import SimpleNamespace

import meshes as mesh
import pytest

from lateen.api import kinds, validate
from lateen.ca import serving
from lateen.control import issuing as module
from lateen.control import renewing
from lateen.control.acme import HTTP, TLS, Challenge, NotReached, Refused
from lateen.control.challenges import Challenges
from lateen.control.issuers import Made, _bundle
from lateen.control.issuing import Issuing
from lateen.control.issuing_status import State
from lateen.control.renewing import Rights
from lateen.kit import certs, tasks, times
from lateen.kube.client import KubeError
from lateen.mesh.challenges import SECRET

ISSUER = """
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: public}
spec: {KIND}
"""
CERTIFICATE = """
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: NAME, namespace: SPACE, uid: u}
spec:
  secretName: NAME
  dnsNames: [NAME.test]
  issuerRef: {kind: ClusterIssuer, name: public}
  privateKey: {algorithm: ECDSA}
"""
ACME = "acme: {server: 'https://ca.test/dir', privateKeySecretRef: {name: k}, solvers: [{http01: {}}]}"


class Api:
    """Keeps Secrets; ``conflicts``: how many writes are answered with 409; ``fails``: whether all writes fail."""

    def __init__(self):
        self.secrets, self.conflicts, self.fails, self.events = {}, 0, False, []

    async def get(self, kind, namespace, name):
        assert kind is kinds.SECRET
        return self.secrets.get((namespace, name))

    async def apply(self, _, body, __):
        return body

    async def create(self, kind, body):
        if kind is kinds.EVENT:
            self.events.append(body)
            return body
        return self._write(body)

    async def update(self, _, body):
        return self._write(body)

    def _write(self, body):
        key = body["metadata"]["namespace"], body["metadata"]["name"]
        if self.fails:
            raise KubeError(500, "InternalError", "broken")
        if self.conflicts:
            self.conflicts -= 1
            raise KubeError(409, "Conflict", "changed in between")
        self.secrets[key] = body
        return body


class Signing:
    """An issuer of its own; ``fails``: an error to raise instead of issuing."""

    def __init__(self):
        self.fails, self.issued, self.waits, self.at_work = None, [], None, []

    async def ready(self, _):
        return {}

    async def issue(self, _, wanted, key):
        self.issued.append(wanted.ref)
        if self.waits is not None:
            self.at_work.append(wanted.ref.namespace)
            await self.waits.wait()
        if self.fails is not None:
            raise self.fails
        chain = serving.by_itself(wanted.spec, key, times.now())
        return Made(chain)


def setting(*certificates, kind="selfSigned: {}", before=None):
    documents = ISSUER.replace("KIND", kind) + "".join(
        CERTIFICATE.replace("NAME", n).replace("SPACE", s) for s, n in certificates
    )
    api, signing = Api(), Signing()
    world = SimpleNamespace(objects=mesh.objects(documents), foreign=set(), writes=lambda _: True)
    rights = Rights("istio-system", "istiod", "writer")
    out = Issuing(api, world, signing, rights, lambda: True, before or (lambda _: {}))
    issuer = world.objects.cluster_issuers[("", "public")]
    out.states[issuer.ref] = State((("Ready", "True", "Ready", ""),))
    return out, api, signing


async def until(met):
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.005)


def state(issuing, name, namespace="shop"):
    found = issuing.states.get(kinds.CERTIFICATE.ref(namespace, name))
    return next(((c[1], c[2], c[3]) for c in found.conditions if c[0] == "Ready"), None) if found else None


def run(issuing, met):
    async def go():
        task = tasks.spawn(issuing.run(), "issuing")
        issuing.wake()
        try:
            await until(met)
        finally:
            await tasks.cancel(task)

    asyncio.run(go())


@pytest.mark.parametrize(
    "error",
    [
        TypeError("cadata"),
        ValueError("not what was asked for"),
        OSError("reset"),
        KubeError(500, "InternalError", "broken"),
    ],
)
def test_whatever_fails_once_a_certificate_was_ordered_is_tried_again_after_a_long_pause_only(error):
    issuing, _, signing = setting(("shop", "a"))
    signing.fails = error
    run(issuing, lambda: state(issuing, "a"))
    status, reason, says = state(issuing, "a")
    assert (status, reason) == ("False", "Failed")
    assert "attempt 1 failed" in says
    assert "the next one is in 5 min" in says
    assert len(signing.issued) == 1
    assert issuing.states[kinds.CERTIFICATE.ref("shop", "a")].fields["failedIssuanceAttempts"] == 1


def test_a_secret_that_cannot_be_written_counts_as_a_failure_too():
    issuing, api, signing = setting(("shop", "a"))
    api.fails = True
    run(issuing, lambda: state(issuing, "a"))
    assert state(issuing, "a")[1] == "Failed"
    assert len(signing.issued) == 1


def test_a_secret_that_somebody_changes_at_the_same_time_is_written_with_what_they_have_added():
    issuing, api, signing = setting(("shop", "a"))
    api.conflicts = 2
    run(issuing, lambda: (state(issuing, "a") or [""])[0] == "True")
    assert set(api.secrets[("shop", "a")]["data"]) == {"tls.crt", "tls.key"}
    assert len(signing.issued) == 1


def test_an_issuer_that_is_not_reached_does_not_erase_what_is_known_of_earlier_failures():
    earlier = {"failedIssuanceAttempts": 3, "lastFailureTime": "2020-01-01T00:00:00Z"}
    issuing, _, signing = setting(("shop", "a"), before=lambda ref: earlier if ref.kind == "Certificate" else {})
    signing.fails = NotReached("nobody is there")
    run(issuing, lambda: state(issuing, "a"))
    assert state(issuing, "a")[1] == "NotReached"
    assert issuing.states[kinds.CERTIFICATE.ref("shop", "a")].fields == earlier


@pytest.mark.parametrize("wrong", ["soon", "", "2026-01-01", 7, None])
def test_a_status_that_somebody_has_written_by_hand_stops_no_metrics(wrong):
    earlier = {"notAfter": wrong, "renewalTime": "2030-01-01T00:00:00Z"}
    earlier |= {"failedIssuanceAttempts": 3, "lastFailureTime": wrong}
    issuing, _, signing = setting(("shop", "a"), before=lambda ref: earlier if ref.kind == "Certificate" else {})
    signing.fails = NotReached("nobody is there")
    run(issuing, lambda: state(issuing, "a"))
    assert renewing.expiry(issuing.states, "notAfter") == {}
    assert issuing.states[kinds.CERTIFICATE.ref("shop", "a")].fields == {"renewalTime": "2030-01-01T00:00:00Z"}
    shown = State((), {"notAfter": wrong})
    assert renewing.expiry({kinds.CERTIFICATE.ref("shop", "a"): shown}, "notAfter") == {}


def test_one_namespace_leaves_turns_for_others():
    wanted = [("many", f"m{i}") for i in range(6)] + [("few", "f")]
    issuing, _, signing = setting(*wanted)

    async def go():
        signing.waits = asyncio.Event()
        task = tasks.spawn(issuing.run(), "issuing")
        issuing.wake()
        await until(lambda: "few" in signing.at_work)
        assert signing.at_work.count("many") <= module.OF_ONE
        signing.waits.set()
        await until(lambda: all((state(issuing, n, s) or [""])[0] == "True" for s, n in wanted))
        await tasks.cancel(task)

    asyncio.run(go())


def test_an_issuer_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(renewing, "WHOLE_S", 0.05)
    issuing, _, signing = setting(("shop", "a"))

    async def go():
        signing.waits = asyncio.Event()
        task = tasks.spawn(issuing.run(), "issuing")
        issuing.wake()
        await until(lambda: state(issuing, "a"))
        await tasks.cancel(task)

    asyncio.run(go())
    assert state(issuing, "a")[1] == "Failed"
    assert "has not finished" in state(issuing, "a")[2]


def test_a_host_that_the_namespace_does_not_serve_is_not_ordered_of_an_acme_server():
    issuing, _, signing = setting(("shop", "a"), kind=ACME)
    run(issuing, lambda: state(issuing, "a"))
    assert state(issuing, "a")[1] == "NotReady"
    assert "no Gateway or Ingress of namespace shop serves a.test; add the host to one" in state(issuing, "a")[2]
    assert not signing.issued


def test_a_renewal_that_fails_leaves_the_present_certificate_in_the_status_and_in_the_metrics():
    issuing, api, signing = setting(("shop", "a"))
    ref, ends = kinds.CERTIFICATE.ref("shop", "a"), []

    def is_lost():
        """Once it is issued, the Secret is lost and the CA refuses another certificate."""
        if not ends and (state(issuing, "a") or [""])[0] == "True" and ref not in issuing._busy:
            ends.append(issuing.states[ref].fields["notAfter"])
            signing.fails = Refused("the CA said no")
            api.secrets.clear()
            issuing.secret("shop", "a")
        return ends and state(issuing, "a")[1] == "Failed"

    run(issuing, is_lost)
    (end,) = ends
    assert f"the current certificate expires at {end}" in state(issuing, "a")[2]
    assert issuing.states[ref].fields["notAfter"] == end
    assert issuing.states[ref].fields["failedIssuanceAttempts"] == 1
    assert renewing.expiry(issuing.states, "notAfter") == {("a", "shop"): times.parse(end).timestamp()}
    assert renewing.readiness(issuing.states) == {("a", "shop"): 0.0}


# --- proofs ----------------------------------------------------------------------------------------------------------


def challenge(host, kind=TLS, token="token-of-an-order"):
    return Challenge(kind, host, token, f"{token}.me", None)


def test_orders_that_share_a_host_take_turns_and_others_do_not_wait():
    async def go():
        challenges, begun, ends = Challenges(Api(), "istio-system", lambda _: True), [], asyncio.Event()

        async def order(name, *hosts):
            async with challenges.alone(hosts):
                begun.append(name)
                await ends.wait()

        work = [tasks.spawn(order(n, *h), n) for n, h in (("one", "ab"), ("two", "bc"), ("three", "d"))]
        await asyncio.sleep(0.01)
        assert begun == ["one", "three"]
        ends.set()
        await asyncio.gather(*work)
        assert begun == ["one", "three", "two"]
        assert not challenges._hosts

    asyncio.run(go())


def test_a_token_that_is_in_use_for_another_host_is_refused():
    challenges = Challenges(Api(), "istio-system", lambda _: True)
    challenges.add([challenge("a.test", HTTP)])
    with pytest.raises(Refused, match="in use"):
        challenges.add([challenge("b.test", HTTP)])


def test_proofs_that_cannot_be_removed_fail_no_order_and_go_with_the_next_change():
    async def go():
        api = Api()
        challenges = Challenges(api, "istio-system", lambda _: True)
        challenges.add([challenge("a.test")])
        await challenges.show()
        api.fails = True
        await challenges.hide([challenge("a.test")])
        api.fails = False
        assert api.secrets[("istio-system", SECRET)]["data"]
        await challenges.hide([])
        assert not api.secrets[("istio-system", SECRET)]["data"]

    asyncio.run(go())


# --- fields ----------------------------------------------------------------------------------------------------------


def test_a_bundle_with_comments_in_any_language_is_the_certificates_alone():
    root = certs.authority("root", times.now()).certificate
    text = base64.b64encode(f"# Zertifizierungsstelle für Tests\n{root}".encode()).decode()
    assert _bundle(text) == root


@pytest.mark.parametrize(
    "template",
    [
        {"labels": {"a b": "c"}},
        {"labels": {"a": "c d"}},
        {"annotations": {"a b": "c"}},
        {"annotations": {"a": "x" * 300000}},
    ],
)
def test_a_template_that_the_api_server_would_refuse_is_refused_before_anything_is_ordered(template):
    spec = {"secretName": "s", "issuerRef": {"name": "i"}, "dnsNames": ["a.test"], "secretTemplate": template}
    meta = {"name": "c", "namespace": "default"}
    obj = {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": meta, "spec": spec}
    assert [p for p, _ in validate.problems(obj) if p.startswith("spec.secretTemplate")]
