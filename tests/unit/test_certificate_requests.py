"""CertificateSigningRequests: who may approve what, what Kubernetes' signers sign, and what they refuse."""

import base64

import pytest
from apiserver import Cluster
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from test_controllers import AUTHORITY, play, until

from lateen.api import kinds
from lateen.cluster.rules import requests, signing
from lateen.kit import times

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT = "kubernetes.io/kube-apiserver-client"
SERVING = "kubernetes.io/kubelet-serving"
APPROVED = {"type": "Approved", "status": "True", "reason": "KubectlApprove", "message": "yes"}


def pem(common="jane", organizations=(), names=(), key=None):
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)


def request(name="r", signer=CLIENT, usages=("client auth",), raw=None, **more):
    spec = {"request": base64.b64encode(raw or pem()).decode(), "signerName": signer, "usages": list(usages), **more}
    meta = {"name": name}
    kind = kinds.CERTIFICATE_REQUEST
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": spec}


def approve(cluster, obj, **who):
    status = {"conditions": [*obj.get("status", {}).get("conditions", []), APPROVED]}
    return cluster.ask("PUT", f"{CSRS}/{obj['metadata']['name']}/approval", {**obj, "status": status}, **who)


def grant(cluster, user, verb, signer):
    api = "/apis/rbac.authorization.k8s.io/v1"
    group = {"apiGroups": ["certificates.k8s.io"]}
    rules = [{"verbs": ["get", "create", "update"], "resources": ["*"]} | group]
    if verb:
        rules.append({"verbs": [verb], "resources": ["signers"], "resourceNames": [signer]} | group)
    cluster.must("POST", f"{api}/clusterroles", {"metadata": {"name": user}, "rules": rules})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user}
    subjects = [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]
    body = {"metadata": {"name": user}, "roleRef": ref, "subjects": subjects}
    cluster.must("POST", f"{api}/clusterrolebindings", body)


def test_a_request_belongs_to_who_sends_it_and_does_not_change():
    cluster = Cluster()
    grant(cluster, "jane", "", "")
    told = request() | {"status": {"conditions": [APPROVED]}}
    told["spec"] |= {"username": "root", "groups": ["system:masters"]}
    made = cluster.must("POST", CSRS, told, user="jane", groups=("dev",))
    assert made["spec"]["username"] == "jane"
    assert made["spec"]["groups"] == ["dev", "system:authenticated"]
    assert not made.get("status")
    changed = cluster.must("PUT", f"{CSRS}/r", made | {"spec": request(signer="example.com/x")["spec"]})
    assert changed["spec"] == made["spec"]


def test_only_who_may_approve_for_the_signer_approves():
    cluster = Cluster()
    made = cluster.must("POST", CSRS, request(signer="example.com/mine"))
    for user, verb, signer, code in (
        ("nobody", "", "", 403),
        ("signer", "sign", "example.com/mine", 403),
        ("other", "approve", "example.com/other", 403),
        ("domain", "approve", "example.com/*", 200),
    ):
        grant(cluster, user, verb, signer)
        got, answer = approve(cluster, made, user=user, groups=())
        assert got == code, (user, answer)
        if code == 403:
            assert 'user not permitted to approve requests with signerName "example.com/mine"' in answer["message"]
    assert answer["status"]["conditions"][0]["lastUpdateTime"]
    certificate = base64.b64encode(AUTHORITY.certificate.encode()).decode()
    issued = {**answer, "status": answer["status"] | {"certificate": certificate}}
    for user, code in (("nobody", 403), ("domain", 403), ("signer", 200)):
        got, answer = cluster.ask("PUT", f"{CSRS}/r/status", issued, user=user, groups=())
        assert got == code, (user, answer)
    assert requests.state(answer) == "Approved,Issued"


def test_decisions_are_final_and_exclusive():
    cluster = Cluster()
    made = cluster.must("POST", CSRS, request())
    approved = approve(cluster, made)[1]
    denied = APPROVED | {"type": "Denied"}

    def put(sub, conditions, **more):
        code, answer = cluster.ask("PUT", f"{CSRS}/r/{sub}", {**approved, "status": {"conditions": conditions} | more})
        assert code == 422, answer
        return answer["message"]

    kept = approved["status"]["conditions"]
    assert "Approved and Denied conditions are mutually exclusive" in put("approval", [*kept, denied])
    assert 'updates may not remove a condition of type "Approved"' in put("approval", [])
    assert 'updates may not add a condition of type "Denied"' in put("status", [*kept, denied])
    assert 'Unsupported value: "False": supported values: "True"' in put("approval", [APPROVED | {"status": "False"}])
    assert "must contain one or more PEM blocks" in put("status", kept, certificate="aGVsbG8=")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"usages": []}, "spec.usages: Required value: usages must be provided"),
        ({"usages": ["client auth", "client auth"]}, 'spec.usages[1]: Duplicate value: "client auth"'),
        ({"usages": ["making tea"]}, 'spec.usages[0]: Unsupported value: "making tea"'),
        ({"signerName": ""}, "spec.signerName: Required value"),
        ({"signerName": "mine"}, "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        ({"signerName": "com/mine"}, "should be a domain with at least two segments separated by dots"),
        ({"signerName": "kubernetes.io/legacy-unknown"}, "the legacy signerName is not allowed"),
        ({"request": base64.b64encode(b"hello").decode()}, "PEM block type must be CERTIFICATE REQUEST"),
        ({"expirationSeconds": 599}, "may not specify a duration less than 600 seconds (10 minutes)"),
    ],
)
def test_what_is_wrong_with_a_request_is_told(change, says):
    body = request()
    body["spec"] |= change
    code, answer = Cluster().ask("POST", CSRS, body)
    assert code == 422
    assert says in answer["message"]


def test_nobody_gets_a_certificate_of_an_administrator():
    code, answer = Cluster().ask("POST", CSRS, request(raw=pem(organizations=("system:masters",))))
    assert code == 403
    assert "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed" in str(answer)


def test_approved_requests_are_signed_and_the_others_are_left_alone():
    async def story(client, told):
        kind = kinds.CERTIFICATE_REQUEST

        async def status(name):
            return (await client.get(kind, "", name)).get("status") or {}

        node = pem("system:node:n", ("system:nodes",), [x509.DNSName("n")])
        bodies = (
            request("client", expirationSeconds=3600),
            request("node", SERVING, ("digital signature", "server auth"), node),
            request("bad", SERVING, ("server auth",), node),
            request("custom", "example.com/mine"),
            request("waiting"),
        )
        for body in bodies:
            await client.create(kind, body)
            if (name := body["metadata"]["name"]) != "waiting":
                await client.patch(kind, "", name, {"status": {"conditions": [APPROVED]}}, "approval")

        async def issued_to(name):
            async def certificate():
                return (await status(name)).get("certificate")

            return x509.load_pem_x509_certificate(base64.b64decode(await until(certificate)))

        issued = await issued_to("client")
        issued.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate.encode()))
        assert issued.subject.rfc4514_string() == "CN=jane"
        assert (issued.not_valid_after_utc - times.now()).total_seconds() == pytest.approx(3600, abs=120)
        usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        serving = await issued_to("node")
        assert serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value[0].value == "n"

        async def failed():
            return next((c for c in (await status("bad"))["conditions"] if c["type"] == "Failed"), None)

        failure = await until(failed)
        assert failure["reason"] == "SignerValidationFailure"
        assert "usages did not match" in failure["message"]
        assert "certificate" not in await status("custom")
        assert not await status("waiting")

    play(story)


def test_answered_and_forgotten_requests_are_removed():
    async def story(client, told):
        kind = kinds.CERTIFICATE_REQUEST
        for name in ("kept", "old"):
            await client.create(kind, request(name, "example.com/mine"))
        denied = APPROVED | {"type": "Denied", "lastUpdateTime": "2020-01-01T00:00:00Z"}
        await client.patch(kind, "", "old", {"status": {"conditions": [denied]}}, "approval")

        async def gone():
            return await client.get(kind, "", "old") is None

        await until(gone)
        assert await client.get(kind, "", "kept")

    play(story)


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()])
def test_rsa_and_ed25519_keys_are_signed(key):
    csr = signing.parse(base64.b64encode(pem(key=key)).decode())
    usages = ["client auth", "key encipherment", "signing"]
    assert not signing.unfit(CLIENT, csr, usages[:2])
    made = signing.sign(AUTHORITY, csr, usages, requests.lifetime({}), times.now())
    found = x509.load_pem_x509_certificate(made.encode())
    assert found.public_key() == key.public_key()
    bits = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (bits.digital_signature, bits.key_encipherment, bits.key_cert_sign) == (True, True, False)


@pytest.mark.parametrize(
    ("organizations", "names", "usages", "says"),
    [
        ((), [x509.DNSName("n")], ("digital signature", "server auth"), "subject organization is not system:nodes"),
        (("system:nodes",), [], ("digital signature", "server auth"), "DNS or IP subjectAltName is required"),
        (
            ("system:nodes",),
            [x509.DNSName("n"), x509.UniformResourceIdentifier("spiffe://x/y")],
            ("digital signature", "server auth"),
            "URI subjectAltNames are not allowed",
        ),
        (("system:nodes",), [x509.DNSName("n")], ("client auth",), "usages did not match"),
    ],
)
def test_a_kubelet_gets_certificates_for_itself_only(organizations, names, usages, says):
    csr = signing.parse(base64.b64encode(pem("system:node:n", organizations, names)).decode())
    assert says in signing.unfit(SERVING, csr, list(usages))


def test_requests_are_shown_as_kubectl_shows_them():
    cluster = Cluster()
    made = cluster.must("POST", CSRS, request(expirationSeconds=86400))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    cells = cluster.ask("GET", CSRS, headers=accept)[1]["rows"][0]["cells"]
    assert [cells[0], *cells[2:]] == ["r", CLIENT, "admin", "24h", "Pending"]
    approve(cluster, made)
    assert cluster.ask("GET", CSRS, headers=accept)[1]["rows"][0]["cells"][-1] == "Approved"
    mine = cluster.must("GET", f"{CSRS}?fieldSelector=spec.signerName%3Dexample.com/x")
    assert mine["items"] == []
