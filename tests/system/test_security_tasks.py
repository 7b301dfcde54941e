"""Istio's security tasks that change the whole mesh: another trust domain, certificates of an external signer, and a
minimum version of TLS."""

import base64
import contextlib
import json
import threading
from datetime import timedelta

import pytest
from cryptography import x509
from samples import NS, obj, tasks  # noqa: F401 - a fixture of this module

from lateen.kit import certs, pkcs10, times

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(600)]
APPS = ("sleep", "httpbin")
STRICT = obj("PeerAuthentication", "strict", "{mtls: {mode: STRICT}}", "security.istio.io/v1")


def install(mesh, *settings):
    mesh.lateen("install", "--set", "profile=demo", *(a for s in settings for a in ("--set", s)), "-y", timeout=120)


def restart(mesh):
    for app in APPS:
        mesh.kubectl("rollout", "restart", f"deploy/{app}", "-n", NS)
    for app in APPS:
        mesh.kubectl("rollout", "status", f"deploy/{app}", "-n", NS, "--timeout=60s", timeout=70)
        selected = ("pods", "-n", NS, "-l", f"app={app},version notin (v2)", "-o", "name")
        mesh.until(lambda s=selected: len(mesh.get(*s).split()) == 1, 60, "the end of the former pod")


def certificate(found, app):
    """(the identity of an application's proxy, the subject of who has signed it)"""
    chain = found.sh("cat /etc/istio/proxy/cert-chain.pem", app, "istio-proxy")
    made = x509.load_pem_x509_certificate(chain.encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (name,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return name, made.issuer.rfc4514_string()


@pytest.fixture
def one_version(tasks):  # noqa: F811
    tasks.mesh.kubectl("scale", "deploy/httpbin-v2", "-n", NS, "--replicas=0")
    tasks.until(lambda: tasks.mesh.get("endpoints", "httpbin", "-n", NS).count("8080") == 1, what="one endpoint")
    yield tasks
    tasks.mesh.kubectl("delete", "secret", "cacerts", "-n", "istio-system", "--ignore-not-found")
    tasks.mesh.reinstall()


def test_policies_hold_while_the_trust_domain_changes(one_version):
    mesh, found = one_version.mesh, one_version
    install(mesh, "meshConfig.trustDomain=old.example")
    restart(mesh)
    assert certificate(found, "sleep")[0] == f"spiffe://old.example/ns/{NS}/sa/sleep"
    source = f'{{source: {{principals: ["%s/ns/{NS}/sa/%s"]}}}}'
    rule = f"{{selector: {{matchLabels: {{app: httpbin}}}}, rules: [{{from: [{source}]}}]}}"

    def admits(domain, account, wanted, what):
        with found.applied(obj("AuthorizationPolicy", "callers", rule % (domain, account), "security.istio.io/v1")):
            mesh.kubectl("wait", "authorizationpolicy/callers", "-n", NS, "--for=condition=Reconciled", "--timeout=30s")
            found.until(lambda: found.get("httpbin:8000/get")[0] == wanted, 20, what)

    with found.applied(STRICT):
        admits("old.example", "sleep", 200, "the caller by the old domain")
        admits("old.example", "other", 403, "the refusal of another caller")
        install(mesh, "meshConfig.trustDomain=new.example", "meshConfig.trustDomainAliases[0]=old.example")
        admits("old.example", "sleep", 200, "the old certificates under the old name")
        restart(mesh)
        assert certificate(found, "sleep")[0] == f"spiffe://new.example/ns/{NS}/sa/sleep"
        admits("old.example", "sleep", 200, "new certificates under the old name")
        admits("old.example", "other", 403, "the refusal of another caller")
        install(mesh, "meshConfig.trustDomain=new.example")
        admits("new.example", "sleep", 200, "new certificates under the new name")
        admits("old.example", "sleep", 403, "the end of the old name")


def test_workloads_accept_no_version_of_tls_below_the_minimum(one_version):
    mesh, found = one_version.mesh, one_version
    address = mesh.get("endpoints", "httpbin", "-n", NS, "-o", "jsonpath={.subsets[0].addresses[0].ip}")
    own = "-cert /etc/istio/proxy/cert-chain.pem -key /etc/istio/proxy/key.pem"

    def negotiated(version):
        """What openssl says of the handshake."""
        client = f"openssl s_client -alpn istio -{version} {own} -connect {address}:8080"
        return found.sh(f"{client} </dev/null 2>&1 | grep -a 'Cipher is'", "sleep", "istio-proxy")

    with found.applied(STRICT):
        assert "TLSv1.2, Cipher is ECDHE" in negotiated("tls1_2")
        assert "TLSv1.3, Cipher is TLS" in negotiated("tls1_3")
        install(mesh, "meshConfig.meshMTLS.minProtocolVersion=TLSV1_3")
        found.until(lambda: "Cipher is (NONE)" in negotiated("tls1_2"), 20, "the refusal of TLS 1.2")
        assert "TLSv1.3, Cipher is TLS" in negotiated("tls1_3")
        assert found.get("httpbin:8000/get")[0] == 200, "the proxies speak TLS 1.3"


SIGNER = "signers.example.com"


@contextlib.contextmanager
def signing(mesh, ca):
    """A signer in the cluster: signs what istiod has approved."""
    stop, problems = threading.Event(), []

    def run():
        while not stop.wait(0.3):
            for csr in json.loads(mesh.get("csr", "-o", "json"))["items"]:
                status = csr.get("status", {})
                approved = any(c["type"] == "Approved" for c in status.get("conditions", []))
                if not approved or status.get("certificate") or not csr["spec"]["signerName"].startswith(SIGNER):
                    continue
                text = base64.b64decode(csr["spec"]["request"]).decode()
                key = pkcs10.public_key(text)
                (name,) = pkcs10.names(text)
                made = certs.sign(ca, key, [name], times.now(), timedelta(hours=1))
                change = {"status": {"certificate": base64.b64encode(made.encode()).decode()}}
                where = ("patch", "csr", csr["metadata"]["name"], "--subresource=status", "--type=merge")
                done = mesh.kubectl(*where, "-p", json.dumps(change), ok=False)
                problems.extend([done.stderr] if done.returncode else [])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield problems
    finally:
        stop.set()
        thread.join()


def test_an_external_signer_signs_for_the_pods_that_name_it(one_version, tmp_path):
    mesh, found = one_version.mesh, one_version
    theirs = certs.authority("theirs", times.now())
    operator = {
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "spec": {
            "profile": "demo",
            "meshConfig": {
                "caCertificates": [{"pem": theirs.certificate, "certSigners": [f"{SIGNER}/mesh"]}],
                "defaultConfig": {"proxyMetadata": {"ISTIO_META_CERT_SIGNER": "mesh"}},
            },
            "values": {
                "pilot": {"env": {"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API", "CERT_SIGNER_DOMAIN": SIGNER}},
            },
        },
    }
    file = tmp_path / "operator.json"
    file.write_text(json.dumps(operator))
    with signing(mesh, theirs) as problems:
        mesh.lateen("install", "-f", str(file), "-y", timeout=120)
        restart(mesh)
        for app in APPS:
            name, issuer = certificate(found, app)
            assert (name, issuer) == (f"spiffe://cluster.local/ns/{NS}/sa/{app}", "CN=theirs")
        with found.applied(STRICT):
            found.until(lambda: found.get("httpbin:8000/get")[0] == 200, 20, "mutual TLS with their certificates")
    assert problems == []
    assert mesh.get("csr", "-o", "name") == ""
