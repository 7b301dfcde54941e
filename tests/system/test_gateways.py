"""Gateways that terminate TLS with certificates from Secrets, renew them, verify clients, and pass TLS through."""

import base64
import json
from datetime import timedelta

import pytest
from revoking import listing
from world import Secrets

from lateen.kit import certs, times

pytestmark = pytest.mark.system

GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: secure}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [books.example.com]
    tls: {mode: SIMPLE, credentialName: books}
  - port: {number: 443, name: https-clients, protocol: HTTPS}
    hosts: [staff.example.com]
    tls: {mode: MUTUAL, credentialName: staff}
  - port: {number: 443, name: tls, protocol: TLS}
    hosts: [own.example.com]
    tls: {mode: PASSTHROUGH}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure}
spec:
  hosts: [books.example.com, staff.example.com, own.example.com]
  gateways: [secure]
  http:
  - route: [{destination: {host: productpage, port: {number: 9080}}}]
  tls:
  - match: [{sniHosts: [own.example.com]}]
    route: [{destination: {host: istiod.istio-system.svc.cluster.local, port: {number: 443}}}]
"""


@pytest.fixture(scope="module")
def ca():
    return certs.authority("example", times.now(), days=2)


@pytest.fixture
def secure(mesh, ca, tmp_path):
    (tmp_path / "ca.pem").write_text(ca.certificate)
    mesh.secrets = Secrets(mesh, ca, tmp_path)
    mesh.apply(GATEWAY)
    yield mesh.secrets
    mesh.kubectl("delete", "gateway/secure", "virtualservice/secure")
    mesh.kubectl("delete", "secret", "-n", "istio-system", "books", "staff", "--ignore-not-found")


def test_https_by_a_secret_that_is_renewed(mesh, secure):
    assert secure.curl("books.example.com", ca=False).startswith("000")
    secure.tls("books", "books.example.com")
    mesh.until(lambda: secure.curl("books.example.com") == "200 2", 20, "HTTPS with the secret")
    first = secure.presented("books.example.com")
    secure.tls("books", "books.example.com")
    mesh.until(lambda: secure.presented("books.example.com") not in (None, first), 20, "the renewed certificate")
    assert secure.curl("books.example.com") == "200 2"
    # Names without a server get nothing, with or without one of the others' certificates.
    assert secure.curl("nobody.example.com", ca=False).startswith("000")


def test_clients_are_verified_for_mutual_tls(mesh, secure):
    crt, key = secure.issue("staff", "staff.example.com")
    mesh.kubectl(
        "create", "secret", "generic", "staff", "-n", "istio-system", f"--from-file=tls.crt={crt}",
        f"--from-file=tls.key={key}", f"--from-file=ca.crt={secure.directory / 'ca.pem'}",
    )  # fmt: skip
    mine, mykey = secure.issue("client", "client.example.com")
    client = ["--cert", str(mine), "--key", str(mykey)]
    mesh.until(lambda: secure.curl("staff.example.com", *client) == "200 2", 20, "HTTPS with a client certificate")
    assert secure.curl("staff.example.com").startswith("000")
    other, otherkey = secure.issue("other", "client.example.com")
    revoked = base64.b64encode(listing(secure.ca, mine.read_text()).encode()).decode()
    mesh.kubectl("patch", "secret", "staff", "-n", "istio-system", "-p", json.dumps({"data": {"ca.crl": revoked}}))
    mesh.until(lambda: secure.curl("staff.example.com", *client).startswith("000"), 20, "the end of what is revoked")
    assert secure.curl("staff.example.com", "--cert", str(other), "--key", str(otherkey)) == "200 2"
    past = certs.issue(secure.ca, ["client.example.com"], times.now() - timedelta(days=9), timedelta(days=1))
    old, oldkey = secure.directory / "old.crt", secure.directory / "old.key"
    old.write_text(past.certificate)
    oldkey.write_text(past.key)
    assert secure.curl("staff.example.com", "--cert", str(old), "--key", str(oldkey)).startswith("000")
    reasons = ("the client has no certificate", "the client's certificate is revoked", "certificate has expired")

    def explained():
        where = ("deploy/istio-ingressgateway", "-n", "istio-system")
        said = mesh.lateen("logs", "--explain", *where).stdout
        return "refused by Gateway secure.default, server " in said and all(reason in said for reason in reasons)

    mesh.until(explained, 20, "the reasons in the log")


def test_tls_passes_through_to_the_server_of_that_name(mesh, secure):
    def subject():
        got = secure.presented("own.example.com")
        return got and b"istiod.istio-system.svc" in got

    mesh.until(subject, 20, "istiod's own certificate through the gateway")


def test_a_broken_secret_is_named_and_affects_nothing_else(mesh, secure):
    secure.tls("books", "books.example.com")
    mesh.until(lambda: secure.curl("books.example.com") == "200 2", 20, "HTTPS with the secret")
    mesh.kubectl("create", "secret", "generic", "staff", "-n", "istio-system", "--from-literal=tls.crt=x",
                 "--from-literal=tls.key=y", "--from-literal=ca.crt=z")  # fmt: skip
    mesh.until(lambda: "staff" in mesh.lateen("check", ok=False).stdout, 15, "the bad secret in lateen check")
    assert secure.curl("books.example.com") == "200 2"


EDGE = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: empty
  components:
    ingressGateways: [{name: edge, namespace: edge, enabled: true, label: {istio: edge}}]
"""
EDGE_RULES = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: edge}
spec:
  selector: {istio: edge}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [edge.example.com]
    tls: {mode: SIMPLE, credentialName: edge}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: edge}
spec:
  hosts: [edge.example.com]
  gateways: [edge]
  http: [{directResponse: {status: 204}}]
"""


def test_a_gateway_of_another_namespace_has_its_secrets_there(mesh, ca, tmp_path):
    (tmp_path / "ca.pem").write_text(ca.certificate)
    secrets = Secrets(mesh, ca, tmp_path)
    crt, key = secrets.issue("edge", "edge.example.com")
    (tmp_path / "edge.yaml").write_text(EDGE)
    mesh.kubectl("create", "namespace", "edge")
    try:
        mesh.lateen("install", "-y", "-f", str(tmp_path / "edge.yaml"))
        mesh.kubectl("create", "secret", "tls", "edge", "-n", "edge", f"--cert={crt}", f"--key={key}")
        mesh.apply(EDGE_RULES)
        address = mesh.get("svc", "edge", "-n", "edge", "-o", "jsonpath={.spec.clusterIP}")

        def served():
            flags = ["-s", "-m", "5", "-k", "-o", "/dev/null", "-w", "%{http_code}"]
            return mesh.inside(
                "productpage", "curl", *flags, "--resolve", f"edge.example.com:443:{address}",
                "https://edge.example.com/", container="istio-proxy", ok=False,
            ).stdout  # fmt: skip

        mesh.until(lambda: served() == "204", 25, "HTTPS with the secret of its namespace")
        # Without the right to read them, the way out is named.
        mesh.kubectl("delete", "rolebinding", "istiod-secrets", "-n", "edge")
        mesh.kubectl("rollout", "restart", "deployment/istiod", "-n", "istio-system")
        mesh.until(lambda: "kubectl create rolebinding" in mesh.lateen("check", ok=False).stdout, 40, "the remedy")
    finally:
        mesh.remove("edge")
        mesh.reinstall()
