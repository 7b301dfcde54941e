"""Certificates of an ACME server at gateways, with cert-manager's kinds: the server looks at the gateway by itself."""

import base64
import json
import socket
import ssl
import sys
from pathlib import Path

import acme
import pytest
from cryptography.hazmat.primitives import serialization

pytestmark = pytest.mark.system

NS = "certificates"
HOST = f"acme.{NS}.svc.cluster.local"
GATEWAY = "istio-ingressgateway.istio-system.svc.cluster.local:80:443"
PLACES = {
    "shop.test": GATEWAY,
    "tls.test": GATEWAY,
    "asked.test": GATEWAY,
    "nobody.test": "productpage.default:9080:9080",
}
"""Where the server finds the hosts."""
SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: acme, namespace: NS}
spec:
  selector: {matchLabels: {app: acme}}
  template:
    metadata: {labels: {app: acme, sidecar.istio.io/inject: "false"}}
    spec:
      containers:
      - {name: acme, image: docker.io/lateen/http-echo, command: COMMAND, env: ENV}
---
apiVersion: v1
kind: Service
metadata: {name: acme, namespace: NS}
spec: {selector: {app: acme}, ports: [{name: https, port: 14000}]}
"""
ISSUER = """
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: public}
spec:
  acme:
    server: https://HOST:14000/dir
    email: me@example.com
    caBundle: BUNDLE
    privateKeySecretRef: {name: account-of-public}
    solvers:
    - http01: {gatewayHTTPRoute: {}}
    - {tlsALPN01: {}, selector: {dnsNames: [tls.test]}}
"""
SHOP = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.test], tls: {httpsRedirect: true}}
  - {port: {number: 80, name: nobody, protocol: HTTP}, hosts: [nobody.test]}
  - {port: {number: 443, name: shop, protocol: HTTPS}, hosts: [shop.test], tls: {mode: SIMPLE, credentialName: shop}}
  - {port: {number: 443, name: tls, protocol: HTTPS}, hosts: [tls.test], tls: {mode: SIMPLE, credentialName: tls}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: istio-system}
spec:
  hosts: [shop.test, tls.test]
  gateways: [shop]
  http: [{directResponse: {status: 200, body: {string: own}}}]
"""
INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: asked, namespace: istio-system, annotations: {cert-manager.io/cluster-issuer: public}}
spec:
  ingressClassName: istio
  tls: [{hosts: [asked.test], secretName: asked}]
  rules:
  - host: asked.test
    http:
      paths: [{path: /, pathType: Prefix, backend: {service: {name: istio-ingressgateway, port: {number: 80}}}}]
"""
CERTIFICATE = """
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: NAME, namespace: istio-system}
spec:
  secretName: NAME
  dnsNames: [NAME.test]
  issuerRef: {kind: ClusterIssuer, name: public}
  privateKey: {algorithm: ECDSA}
"""


class Authority:
    def __init__(self, mesh):
        self.mesh = mesh
        root, key = acme.authority()
        self.root = acme.pem(root)
        raw = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        env = [{"name": "ROOT", "value": self.root}, {"name": "ROOT_KEY", "value": raw.decode()}]
        command = [
            sys.executable,
            "-c",
            Path(acme.__file__).read_text(),
            HOST,
            *(f"{h}={at}" for h, at in PLACES.items()),
        ]
        text = SERVER.replace("NS", NS).replace("COMMAND", json.dumps(command)).replace("ENV", json.dumps(env))
        mesh.kubectl("create", "namespace", NS)
        mesh.apply(text)
        mesh.kubectl("wait", "-n", NS, "--for=condition=Available", "deploy/acme", "--timeout=60s")

    def order(self, name):
        self.mesh.apply(CERTIFICATE.replace("NAME", name))

    def condition(self, name, kind="certificate"):
        """The condition Ready of an object; empty while there is none."""
        namespace = () if kind == "clusterissuer" else ("-n", "istio-system")
        found = json.loads(self.mesh.get(kind, name, *namespace, "-o", "json"))
        return next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == "Ready"), {})

    def shown(self, host):
        """(serial number, names) of what the gateway shows, if the CA has issued it."""
        context = ssl.create_default_context(cadata=self.root)
        port = self.mesh.host_port(443)
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=host) as s,
            ):
                found = s.getpeercert()
                return found["serialNumber"], [n for _, n in found["subjectAltName"]]
        except OSError:
            return None


@pytest.fixture(scope="module")
def ca(mesh):
    out = Authority(mesh)
    mesh.apply(SHOP)
    bundle = base64.b64encode(out.root.encode()).decode()
    mesh.apply(ISSUER.replace("HOST", HOST).replace("BUNDLE", bundle))
    yield out
    mesh.kubectl("delete", "clusterissuer", "public")
    mesh.kubectl("delete", "certificate", "--all", "-n", "istio-system")
    mesh.kubectl("delete", "-f", "-", stdin=SHOP)
    mesh.kubectl("delete", "secret", "shop", "tls", "account-of-public", "-n", "istio-system", "--ignore-not-found")
    mesh.remove(NS)


def test_an_issuer_is_ready_once_its_account_is_registered(ca):
    ca.mesh.until(lambda: ca.condition("public", "clusterissuer").get("status") == "True", 60, what="the account")
    secret = json.loads(ca.mesh.get("secret", "account-of-public", "-n", "istio-system", "-o", "json"))
    assert set(secret["data"]) == {"tls.key"}


@pytest.mark.parametrize("name", ["shop", "tls"])
def test_a_gateway_gets_its_first_certificate_although_it_redirects_plain_text(ca, name):
    """``shop`` by HTTP-01, ``tls`` by TLS-ALPN-01 at a port that has no certificate yet."""
    assert ca.shown(f"{name}.test") is None
    ca.order(name)
    ca.mesh.until(lambda: ca.condition(name).get("status") == "True", what="the certificate")
    _, names = ca.mesh.until(lambda: ca.shown(f"{name}.test"), what="the gateway with its certificate")
    assert names == [f"{name}.test"]
    status = json.loads(ca.mesh.get("certificate", name, "-n", "istio-system", "-o", "json"))["status"]
    assert status["notBefore"] < status["renewalTime"] < status["notAfter"]
    assert "Issued" in ca.mesh.get("events", "-n", "istio-system", "--field-selector", f"involvedObject.name={name}")


def test_what_is_answered_is_gone_afterwards_and_never_in_the_way_of_the_users_routes(ca):
    secret = json.loads(ca.mesh.get("secret", "lateen-acme", "-n", "istio-system", "-o", "json"))
    assert not secret.get("data")
    port = ca.mesh.host_port(443)
    to = ("--resolve", f"shop.test:{port}:127.0.0.1", "-k", f"https://shop.test:{port}/.well-known/acme-challenge/mine")
    assert ca.mesh.run("curl", "-s", "-m", "8", *to).stdout == "own"


def test_an_ingress_asks_by_an_annotation(ca):
    ca.mesh.apply(INGRESS)
    try:
        ca.mesh.until(lambda: ca.mesh.get("certificate", "-n", "istio-system", "-o", "name").find("/asked") > 0)
        ca.mesh.until(lambda: ca.condition("asked").get("status") == "True", what="the certificate")
        assert ca.mesh.until(lambda: ca.shown("asked.test"), what="the gateway")[1] == ["asked.test"]
    finally:
        ca.mesh.kubectl("delete", "ingress", "asked", "-n", "istio-system")


def test_a_certificate_that_is_lost_is_issued_again(ca):
    before = ca.shown("shop.test")
    ca.mesh.kubectl("delete", "secret", "shop", "-n", "istio-system")
    after = ca.mesh.until(lambda: (now := ca.shown("shop.test")) and now != before and now, what="another certificate")
    assert after[1] == ["shop.test"]


def test_a_host_whose_address_is_not_that_of_a_gateway_is_told_with_the_reason_and_tried_again_later(ca):
    ca.order("nobody")
    said = ca.mesh.until(lambda: (c := ca.condition("nobody")).get("reason") == "Failed" and c, what="the failure")
    assert said["status"] == "False"
    assert "nobody.test (http-01) is invalid" in said["message"]
    assert "attempt 1 failed" in said["message"]
    assert "Failed" in ca.mesh.get("events", "-n", "istio-system", "--field-selector", "involvedObject.name=nobody")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"issuerRef": {"kind": "Issuer", "name": "public"}}, 'there is no Issuer "public" in namespace istio-system'),
        ({"secretName": "istio-ca-secret"}, "is the mesh's own"),
        ({"dnsNames": ["odd.test"]}, "no Gateway or Ingress of namespace istio-system serves odd.test"),
        ({"dnsNames": ["*.test"]}, "a wildcard needs a DNS challenge (dns01)"),
    ],
)
def test_what_is_impossible_is_told_at_the_object(ca, change, says):
    ca.order("odd")
    ca.mesh.kubectl(
        "patch", "certificate", "odd", "-n", "istio-system", "--type=merge", "-p", json.dumps({"spec": change})
    )
    ca.mesh.until(lambda: says in ca.condition("odd").get("message", ""), what=says)
    ca.mesh.kubectl("delete", "certificate", "odd", "-n", "istio-system")
