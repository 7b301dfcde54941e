"""Features that originate at a proxy: TLS with Secrets, tunnels, PROXY protocol, Redis; and routing by SNI."""

import base64
import json
import re
import socket
import ssl
import subprocess
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from revoking import listing
from samples import NS, dr, obj, tasks  # noqa: F401 - a fixture of this module

from lateen.kit import certs, times

pytestmark = pytest.mark.system

OUTSIDE = "tasks-outside"
SERVERS = r"""
import socket, socketserver, ssl, threading

def serve(port, talk):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            talk(self.request)
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    server = socketserver.ThreadingTCPServer(("0.0.0.0", port), Handler)
    threading.Thread(target=server.serve_forever).start()

def until(s, end):
    got = b""
    while end not in got:
        part = s.recv(4096)
        if not part:
            break
        got += part
    return got

def answer(s, text):
    s.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text) + text)

def tls(s):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="/certs/ca.crt")
    context.load_cert_chain("/certs/tls.crt", "/certs/tls.key")
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        s = context.wrap_socket(s, server_side=True)
    except OSError:
        return
    until(s, b"\r\n\r\n")
    answer(s, str(s.getpeercert()["subjectAltName"]).encode())

def greets(s):  # says who asked for what before it forwards
    first = until(s, b"\r\n\r\n").split(b"\r\n")[0]
    s.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    until(s, b"\n")
    s.sendall(b"through " + first + b"\n")

def proxied(s):
    head = until(s, b"\r\n\r\n")
    answer(s, head.split(b"\r\n")[0])

STORE = {}
def redis(s):
    f = s.makefile("rb")
    while line := f.readline():
        words = []
        for _ in range(int(line[1:])):
            words.append(f.read(int(f.readline()[1:]) + 2)[:-2])
        if words[0].lower() == b"set":
            STORE[words[1]] = words[2]
            s.sendall(b"+OK\r\n")
        elif words[0].lower() == b"get":
            found = STORE.get(words[1], b"")
            s.sendall(b"$%d\r\n%s\r\n" % (len(found), found))
        else:
            s.sendall(b"-ERR not known here\r\n")

serve(8443, tls)
serve(3128, greets)
serve(7000, proxied)
serve(6379, redis)
"""
MORE = f"""
apiVersion: v1
kind: Service
metadata: {{name: servers, namespace: {OUTSIDE}}}
spec:
  selector: {{app: servers}}
  ports:
  - {{name: http-secure, port: 8443}}
  - {{name: tcp-tunnel, port: 3128}}
  - {{name: http-told, port: 7000}}
  - {{name: redis, port: 6379}}
---
apiVersion: v1
kind: Pod
metadata: {{name: servers, namespace: {OUTSIDE}, labels: {{app: servers}}}}
spec:
  containers:
  - name: servers
    image: lateen/sleep
    command: [python3, /code/servers.py]
    readinessProbe: {{tcpSocket: {{port: 6379}}, periodSeconds: 1}}
    volumeMounts: [{{name: certs, mountPath: /certs}}, {{name: code, mountPath: /code}}]
  volumes:
  - {{name: certs, secret: {{secretName: servers}}}}
  - {{name: code, configMap: {{name: servers}}}}
"""
HOST = f"servers.{OUTSIDE}.svc.cluster.local"


@pytest.fixture(scope="module")
def ca():
    return certs.authority("example", times.now(), days=2)


@pytest.fixture(scope="module")
def onward(tasks, ca, tmp_path_factory):
    out = Onward(tasks, ca, tmp_path_factory.mktemp("onward"))
    out.secret("servers", OUTSIDE, HOST)
    out.server = (out.directory / "tls.crt").read_text()
    (out.directory / "servers.py").write_text(SERVERS)
    tasks.mesh.kubectl("create", "configmap", "servers", "-n", OUTSIDE, f"--from-file={out.directory / 'servers.py'}")
    tasks.mesh.apply(MORE)
    tasks.mesh.kubectl("wait", "-n", OUTSIDE, "--for=condition=Ready", "pod/servers", "--timeout=60s", timeout=90)
    return out


class Onward:
    def __init__(self, tasks, ca, directory):
        self.tasks, self.mesh, self.ca, self.directory = tasks, tasks.mesh, ca, directory
        (directory / "ca.crt").write_text(ca.certificate)

    def secret(self, name, namespace, *hosts, pair=None):
        """Certificate, key and the authority of the other side."""
        pair = pair or certs.issue(self.ca, list(hosts), times.now(), timedelta(days=1))
        files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": self.ca.certificate}
        for file, text in files.items():
            (self.directory / file).write_text(text)
        given = [f"--from-file={self.directory / f}" for f in files]
        self.mesh.kubectl("create", "secret", "generic", name, "-n", namespace, *given)

    def until(self, test, what):
        return self.tasks.until(test, what=what)

    def python(self, code, container="sleep"):
        """What Python prints in a pod; connections of ``istio-proxy`` are not captured."""
        pod = self.mesh.pod("sleep", NS)
        argv = ["exec", pod, "-n", NS, "-c", container, "-i", "--", "python3", "-"]
        return self.mesh.kubectl(*argv, stdin=code, ok=False).stdout.strip()


MUTUAL = "{portLevelSettings: [{port: {number: 8443}, tls: {mode: MUTUAL, credentialName: client}}]}"


def test_a_sidecar_has_its_client_certificate_from_a_secret(onward):
    """A rule that has chosen the workload; and the commands that ``lateen check`` gives where istiod may not read it."""
    tasks, url = onward.tasks, f"{HOST}:8443/"
    with tasks.applied(dr("client", HOST, MUTUAL, ", workloadSelector: {matchLabels: {app: sleep}}")):
        onward.until(lambda: tasks.get(url)[0] == 503, "no answer without a certificate")
        said = onward.until(lambda: re.search(r"remedy: (kubectl create role .*)", _checked(onward)), "the remedy")
        for command in said[1].split(" && "):
            onward.mesh.kubectl(*command.split()[1:])
        onward.secret("client", NS, "client.example.com")
        onward.until(lambda: "client.example.com" in tasks.get(url)[1], "an answer through mutual TLS")
        revoked = base64.b64encode(listing(onward.ca, onward.server).encode()).decode()
        onward.mesh.kubectl("patch", "secret", "client", "-n", NS, "-p", json.dumps({"data": {"ca.crl": revoked}}))
        onward.until(lambda: tasks.get(url)[0] == 503, "no answer of a server that is revoked")
        assert "needs Secrets" not in _checked(onward)
    onward.mesh.kubectl("delete", "secret", "client", "-n", NS)


def _checked(onward):
    return onward.mesh.lateen("check", ok=False).stdout


def test_a_gateway_has_its_client_certificate_from_a_secret(onward):
    """Where the Secret is missing, requests of that host fail, and all else goes on: also proxies that start."""
    mesh = onward.mesh
    gateway = "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [onward.example.com]}]}"
    http = (
        f"[{{match: [{{uri: {{prefix: /secure}}}}], rewrite: {{authority: {HOST}}}, route: [{{destination: {{host: {HOST}, port: {{number: 8443}}}}}}]}},"
        " {route: [{destination: {host: httpbin, port: {number: 8000}}}]}]"
    )
    rule = dr("client", HOST, MUTUAL).replace("metadata: {", f"metadata: {{namespace: {OUTSIDE}, ")
    routes = obj("VirtualService", "onward", f"{{hosts: [onward.example.com], gateways: [onward], http: {http}}}")

    def page(path):
        flags = ["-s", "-m", "5", "-w", "\n%{http_code}", "-H", "Host: onward.example.com"]
        out = subprocess.run(
            ["curl", *flags, mesh.ingress() + path], capture_output=True, text=True, timeout=10, check=False
        ).stdout
        return out.rpartition("\n")[2], out

    with onward.tasks.applied(obj("Gateway", "onward", gateway), routes, rule):
        onward.until(lambda: page("/secure")[0] == "503" and page("/get")[0] == "200", "one route without its secret")
        mesh.kubectl("rollout", "restart", "deploy/istio-ingressgateway", "-n", "istio-system")
        mesh.kubectl("rollout", "status", "deploy/istio-ingressgateway", "-n", "istio-system", "--timeout=60s")
        onward.until(lambda: page("/secure")[0] == "503" and page("/get")[0] == "200", "the same of a new gateway")
        onward.secret("client", "istio-system", "gateway.example.com")
        try:
            onward.until(lambda: "gateway.example.com" in page("/secure")[1], "an answer through mutual TLS")
        finally:
            mesh.kubectl("delete", "secret", "client", "-n", "istio-system")


def test_connections_go_through_a_tunnel(onward):
    """As in Istio's task: the sidecar asks the forward proxy (CONNECT) for the host that the application calls."""
    target = obj(
        "ServiceEntry", "far",
        "{hosts: [far.example.com], addresses: [10.250.0.9], ports: [{number: 4000, name: tcp, protocol: TCP}],"
        " location: MESH_EXTERNAL, resolution: NONE}",
    )  # fmt: skip
    tunnel = "{protocol: CONNECT, targetHost: far.example.com, targetPort: 4000}"
    rule = obj(
        "DestinationRule", "tunnel", f"{{host: {HOST}, subsets: [{{name: far, trafficPolicy: {{tunnel: {tunnel}}}}}]}}"
    )
    route = obj(
        "VirtualService", "far",
        "{hosts: [far.example.com], tcp: [{match: [{port: 4000}], route: [{destination: {host: %s, subset: far,"
        " port: {number: 3128}}}]}]}" % HOST,
    )  # fmt: skip
    code = (
        "import socket\ns = socket.create_connection(('10.250.0.9', 4000), 5)\ns.settimeout(5)\ns.sendall(b'hello\\n')\n"
        "print(s.recv(100).decode())"
    )
    with onward.tasks.applied(target, rule, route):
        onward.until(lambda: onward.python(code) == "through CONNECT far.example.com:4000 HTTP/1.1", "the tunnel")


def test_a_server_learns_its_clients_address_by_the_proxy_protocol(onward):
    with onward.tasks.applied(dr("told", HOST, "{proxyProtocol: {version: V1}}")):
        own = onward.tasks.sh("hostname -i").split()[0]
        onward.until(
            lambda: onward.tasks.get(f"{HOST}:7000/")[1].startswith(f"PROXY TCP4 {own} "), "the client's address"
        )


def test_the_proxy_balances_redis_commands(onward):
    """The filter of ``lateen.redisFilter``: PING is answered by the proxy, and commands reach the server."""
    words = [("PING",), ("SET", "a", "42"), ("GET", "a")]
    asked = "".join(f"*{len(w)}\r\n" + "".join(f"${len(x)}\r\n{x}\r\n" for x in w) for w in words)
    code = (
        f"import socket\ns = socket.create_connection(('{HOST}', 6379), 5)\ns.settimeout(5)\n"
        f"s.sendall({asked.encode()!r})\ngot = b''\nwhile not got.endswith(b'42\\r\\n'): got += s.recv(100)\nprint(got)"
    )
    mesh = onward.mesh
    before = mesh.get("configmap", "istio", "-n", "istio-system", "-o", "jsonpath={.data.mesh}")

    def set_mesh(text):
        change = json.dumps({"data": {"mesh": text}})
        mesh.kubectl("patch", "configmap", "istio", "-n", "istio-system", "--type=merge", "-p", change)

    assert onward.python(code) == repr(b"-ERR not known here\r\n+OK\r\n$2\r\n42\r\n")
    set_mesh(before + "\nlateen: {redisFilter: true}\n")
    try:
        onward.until(lambda: onward.python(code) == repr(b"+PONG\r\n+OK\r\n$2\r\n42\r\n"), "the proxy's own answer")
    finally:
        set_mesh(before)


AUTO = r"""
import socket, ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain("/etc/istio/proxy/cert-chain.pem", "/etc/istio/proxy/key.pem")
context.set_alpn_protocols(["istio-http/1.1", "istio"])
with socket.create_connection((%r, 15443), 5) as plain, context.wrap_socket(plain, server_hostname=%r) as s:
    s.sendall(b"GET /get HTTP/1.1\r\nHost: httpbin:8000\r\nConnection: close\r\n\r\n")
    print(s.recv(100).split(b"\r\n")[0].decode())
"""


def test_the_sni_selects_the_cluster_at_a_gateway_between_meshes(onward):
    """AUTO_PASSTHROUGH: mutual TLS between the workloads, of which the gateway sees only the name."""
    servers = "{port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}"
    address = onward.mesh.get("svc", "istio-ingressgateway", "-n", "istio-system", "-o", "jsonpath={.spec.clusterIP}")

    def ask(service):
        return onward.python(AUTO % (address, f"outbound_.8000_._.{service}.{NS}.svc.cluster.local"), "istio-proxy")

    with onward.tasks.applied(
        obj("Gateway", "between", f"{{selector: {{istio: ingressgateway}}, servers: [{servers}]}}")
    ):
        onward.until(lambda: ask("httpbin") == "HTTP/1.1 200 OK", "an answer through the gateway")
        assert "200" not in ask("nobody")


def test_a_server_has_certificates_of_both_kinds(onward):
    """RSA for clients that know nothing else, ECDSA for all others."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    chain = certs.sign(onward.ca, key.public_key(), ["both.example.com"], times.now(), timedelta(days=1))
    onward.secret("both-rsa", "istio-system", pair=certs.Pair(chain, certs.key_pem(key)))
    onward.secret("both-ec", "istio-system", "both.example.com")
    server = (
        "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [both.example.com],"
        " tls: {mode: SIMPLE, credentialNames: [both-rsa, both-ec]}}"
    )

    def kind(suite):
        context = ssl.create_default_context(cafile=str(onward.directory / "ca.crt"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suite)
        try:
            with (
                socket.create_connection(("127.0.0.1", onward.mesh.host_port(443)), 5) as plain,
                context.wrap_socket(plain, server_hostname="both.example.com") as s,
            ):
                return s.cipher()[0]
        except OSError as e:
            return str(e)

    rule = obj(
        "VirtualService",
        "both",
        "{hosts: [both.example.com], gateways: [both], http: [{directResponse: {status: 204}}]}",
    )
    try:
        with onward.tasks.applied(
            obj("Gateway", "both", f"{{selector: {{istio: ingressgateway}}, servers: [{server}]}}"), rule
        ):
            onward.until(lambda: kind("ECDHE-RSA-AES128-GCM-SHA256").startswith("ECDHE-RSA"), "the RSA certificate")
            onward.until(lambda: kind("ECDHE-ECDSA-AES128-GCM-SHA256").startswith("ECDHE-ECDSA"), "the ECDSA one")
    finally:
        onward.mesh.kubectl("delete", "secret", "both-rsa", "both-ec", "-n", "istio-system")
