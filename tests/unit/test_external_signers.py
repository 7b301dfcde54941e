"""Certificates that an external signer signs: what istiod approves, and what it accepts."""

import asyncio
import base64
from datetime import timedelta

import pytest
from certificate_service import ASKED, OWN, World, names_in

from lateen.ca.authority import Refused, parse
from lateen.control.external import External, Signers
from lateen.control.settings import Settings
from lateen.install import core
from lateen.kit import certs, pkcs10, tasks, times
from lateen.wire.revision import Revision


@pytest.fixture(scope="module")
def world():
    return World()


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
    made = certs.sign(ca, key or pkcs10.public_key(csr), [name], times.now(), timedelta(hours=1))
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
            text = csr or pkcs10.request(key, OWN)
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
