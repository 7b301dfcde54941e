"""Gateways of the Gateway API get proxies of their own, and forward requests, connections and datagrams."""

import json
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import timedelta

import pytest

from lateen.kit import certs, times

pytestmark = pytest.mark.system

GATEWAY = """
apiVersion: v1
kind: Namespace
metadata: {name: edge}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: edge}
spec:
  gatewayClassName: istio
  infrastructure: {labels: {team: shop}}
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - name: https
    port: 443
    protocol: HTTPS
    hostname: books.example.com
    tls: {certificateRefs: [{name: books}]}
    allowedRoutes: {namespaces: {from: All}}
  - {name: tls, port: 443, protocol: TLS, hostname: own.example.com, tls: {mode: Passthrough}}
  - {name: tcp, port: 9000, protocol: TCP}
  - {name: udp, port: 5300, protocol: UDP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: books, namespace: default}
spec:
  parentRefs: [{name: web, namespace: edge}]
  rules: [{backendRefs: [{name: productpage, port: 9080}]}]
"""
BACKENDS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: talks, namespace: edge}
spec:
  selector: {matchLabels: {app: talks}}
  template:
    metadata: {labels: {app: talks}}
    spec: {containers: [{name: talks, image: test/talks}]}
---
apiVersion: v1
kind: Service
metadata: {name: talks, namespace: edge}
spec:
  selector: {app: talks}
  ports:
  - {name: tcp, port: 7000}
  - {name: udp, port: 7001, protocol: UDP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: talks, namespace: edge}
spec:
  parentRefs: [{name: web, sectionName: tcp}]
  rules: [{backendRefs: [{name: talks, port: 7000}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: talks, namespace: edge}
spec:
  parentRefs: [{name: web, sectionName: udp}]
  rules: [{backendRefs: [{name: talks, port: 7001}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: own, namespace: edge}
spec:
  parentRefs: [{name: web, sectionName: tls}]
  hostnames: [own.example.com]
  rules: [{backendRefs: [{name: istiod, namespace: istio-system, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: edge, namespace: istio-system}
spec:
  from: [{group: gateway.networking.k8s.io, kind: TLSRoute, namespace: edge}]
  to: [{group: "", kind: Service, name: istiod}]
"""
TALKS = """
import socket, socketserver, threading
class Both(socketserver.BaseRequestHandler):
    def handle(self):
        if isinstance(self.request, tuple):
            self.request[1].sendto(self.request[0].upper(), self.client_address)
        else:
            self.request.sendall(self.request.recv(100).upper())
for kind, port in ((socketserver.ThreadingTCPServer, 7000), (socketserver.ThreadingUDPServer, 7001)):
    threading.Thread(target=kind(("0.0.0.0", port), Both).serve_forever).start()
"""


@pytest.fixture(scope="module")
def gateway(mesh):
    mesh.apply(GATEWAY)
    yield "web"
    mesh.remove("edge")
    mesh.kubectl("delete", "httproute/books", "-n", "default", "--ignore-not-found")
    mesh.kubectl("delete", "referencegrant/edge", "-n", "istio-system", "--ignore-not-found")


def address(mesh):
    """The Gateway's, once its proxy has what it asks for."""

    def programmed():
        status = json.loads(mesh.get("gtw", "web", "-n", "edge", "-o", "json")).get("status") or {}
        found = {c["type"]: c["status"] for c in status.get("conditions", [])}
        return status["addresses"][0]["value"] if found.get("Programmed") == "True" else ""

    return mesh.until(programmed, 60, "a Gateway that is programmed")


def code(address, port, *curl):
    words = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *curl]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip()


def test_a_gateway_is_served_by_proxies_of_its_own(mesh, gateway):
    at = address(mesh)
    assert at not in ("", "127.0.0.1")  # that one is the ingress gateway's
    page = f"http://{at}/productpage"
    mesh.until(lambda: code(at, 80, page) == "200", 30, "the page by the Gateway")
    listed = mesh.get("deploy,svc,sa", "-n", "edge", "-l", "gateway.networking.k8s.io/gateway-name=web,team=shop")
    assert listed.count("web-istio") == 3
    mesh.kubectl("delete", "svc,deploy", "web-istio", "-n", "edge")
    mesh.until(
        lambda: code(at := address(mesh), 80, f"http://{at}/productpage") == "200", 60, "the page by what is made again"
    )


def test_a_certificate_in_the_gateways_namespace_is_used(mesh, gateway, tmp_path):
    ca = certs.authority("example", times.now(), days=2)
    made = certs.issue(ca, ["books.example.com"], times.now(), timedelta(days=1))
    for name, text in (("ca.pem", ca.certificate), ("tls.crt", made.certificate), ("tls.key", made.key)):
        (tmp_path / name).write_text(text)
    files = [f"--cert={tmp_path}/tls.crt", f"--key={tmp_path}/tls.key"]
    mesh.kubectl("create", "secret", "tls", "books", "-n", "edge", *files)

    def page():
        at = address(mesh)
        trust = ["--cacert", str(tmp_path / "ca.pem"), "--resolve", f"books.example.com:443:{at}"]
        return code(at, 443, *trust, "https://books.example.com/productpage")

    mesh.until(lambda: page() == "200", 30, "the page by HTTPS")


def test_connections_and_datagrams_are_forwarded(mesh, gateway, tmp_path):
    mesh.lateen("image", "add", "test/talks", "--", sys.executable, "-c", TALKS)
    mesh.apply(BACKENDS)
    at = address(mesh)

    def over_tcp():
        try:
            with socket.create_connection((at, 9000), 5) as s:
                s.sendall(b"hello")
                return s.recv(100)
        except OSError:
            return b""

    def over_udp():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(1)
            try:
                s.connect((at, 5300))
                s.send(b"hello")
                return s.recv(100)
            except OSError:
                return b""

    def issuer():
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection((at, 443), 5) as plain,
                context.wrap_socket(plain, server_hostname="own.example.com") as secured,
            ):
                return b"istiod" in (secured.getpeercert(binary_form=True) or b"")
        except OSError:
            return False

    mesh.until(lambda: over_tcp() == b"HELLO", 30, "an answer over TCP")
    mesh.until(lambda: over_udp() == b"HELLO", 30, "an answer over UDP")
    mesh.until(issuer, 30, "istiod's certificate by TLS that passes through")


def test_routes_of_connections_and_datagrams_are_named_with_their_rules(mesh, gateway):
    shown = mesh.lateen("proxy-config", "listeners", "deploy/web-istio.edge").stdout
    for kind, name in (("TCPRoute", "talks"), ("UDPRoute", "talks"), ("TLSRoute", "own")):
        assert f"({kind} {name}.edge rule 1)" in shown
    said = mesh.lateen("x", "describe", "service", "talks.edge").stdout
    assert "Exposed on Gateway web.edge at 127." in said
    assert "UDPRoute: talks.edge (listener udp)" in said
    assert "   rule 1: every datagram -> talks:7001" in said


def called(mesh):
    """The hosts whose clusters the gateway has."""
    found = json.loads(mesh.lateen("proxy-config", "clusters", "deploy/web-istio.edge", "-o", "json").stdout)
    return {c["name"].split("|")[3].partition(".")[0] for c in found if c["name"].startswith("outbound|")}


def test_a_gateway_has_the_clusters_of_its_routes_and_loses_no_request_when_these_change(mesh, gateway):
    at = address(mesh)
    mesh.until(lambda: code(at, 80, f"http://{at}/health") == "200", 30, "an answer by the Gateway")
    assert called(mesh) <= {"productpage", "talks", "istiod"}
    done, answers = threading.Event(), set()

    def ask():
        while not done.is_set():
            try:
                with urllib.request.urlopen(f"http://{at}/health", timeout=20) as answer:
                    answers.add(answer.status)
            except (OSError, urllib.error.URLError) as e:
                answers.add(str(e))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        for service in ("reviews", "ratings", "details", "productpage"):
            rules = json.dumps({"spec": {"rules": [{"backendRefs": [{"name": service, "port": 9080}]}]}})
            mesh.kubectl("patch", "httproute", "books", "--type=merge", "-p", rules)
            mesh.until(lambda service=service: service in called(mesh), 60, f"the cluster of {service}")
    finally:
        done.set()
        for thread in asking:
            thread.join()
    assert answers == {200}
    mesh.until(lambda: "ratings" not in called(mesh), 60, "the end of a cluster that nothing names any more")


def test_what_was_made_goes_with_its_gateway(mesh, gateway):
    mesh.kubectl("delete", "gtw", "web", "-n", "edge")

    def left():
        return mesh.get("deploy,svc,sa", "-n", "edge", "-l", "gateway.networking.k8s.io/gateway-name=web")

    mesh.until(lambda: not left().strip(), 30, "the end of what was made")
