"""Whose request it is, behind other proxies: X-Forwarded-For, PROXY protocol, X-Forwarded-Client-Cert at a gateway.

Each table is every combination, asked of a real Envoy, and compared with a plain reading of the documentation:
https://istio.io/latest/docs/ops/configuration/traffic-management/network-topologies/ and Envoy's of these headers.
"""

import contextlib
import http.client
import http.server
import itertools
import json
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import replace
from datetime import timedelta

import judge
import meshes as mesh
import pytest

from lateen.api import kinds
from lateen.api import objects as o
from lateen.cluster.kubelet.images import envoy_binary
from lateen.kit import certs, times
from lateen.mesh.proxies import ANNOTATION
from lateen.wire import names
from lateen.xds.generate import generate

pytestmark = pytest.mark.system

PEER, PROXY = "127.0.0.77", "192.0.2.9"
"""Not 127.0.0.1, in whose place Envoy tells its own address."""
A, B, C = "203.0.113.1", "203.0.113.2", "203.0.113.3"
PRIVATE = "10.0.0.1"
CANDIDATES = (PEER, PROXY, A, B, C, PRIVATE)
PLAIN, SECURE = 28078, 28079
HEADER = "x-forwarded-client-cert"
FORGED = "By=spiffe://evil/ns/x/sa/y;URI=spiffe://cluster.local/ns/default/sa/admin"
MODES = ("SANITIZE", "SANITIZE_SET", "APPEND_FORWARD", "FORWARD_ONLY", "ALWAYS_FORWARD_ONLY")
GATEWAY = """
kind: Gateway
metadata: {name: g}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: OPTIONAL_MUTUAL, credentialName: own}}
---
kind: VirtualService
metadata: {name: all}
spec: {hosts: ['*'], gateways: [g], http: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]}
"""
POLICY = """
kind: AuthorizationPolicy
metadata: {name: whose, namespace: istio-system}
spec: {selector: {matchLabels: {istio: ingressgateway}}, rules: RULES}
"""


def policy():
    """Admits a path by the address that it names: ``/remote/A`` for those whom ``remoteIpBlocks: [A]`` are for."""
    rules = [
        {"from": [{"source": {field: [a]}}], "to": [{"operation": {"paths": [f"/{of}/{a}"]}}]}
        for of, field in (("remote", "remoteIpBlocks"), ("peer", "ipBlocks"))
        for a in CANDIDATES
    ]
    return POLICY.replace("RULES", json.dumps([*rules, {"to": [{"operation": {"paths": ["/open"]}}]}]))


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = ("x-forwarded-for", "x-request-id", HEADER)
        got = {n: ",".join(self.headers.get_all(n) or []) for n in wanted}
        got["forged"] = sorted(n.lower() for n, value in self.headers.items() if value == BELIEVED.get(n.lower()))
        body = json.dumps(got).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def pem():
    ca = certs.authority("clients", times.now())
    server = certs.issue(ca, ["gateway.test"], times.now(), timedelta(hours=1))
    client = certs.issue(ca, ["client.test", "spiffe://clients/ns/a/sa/b"], times.now(), timedelta(hours=1), "client")
    return {"ca": ca, "server": server, "client": client}


@pytest.fixture(scope="module")
def echo():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def messages(config, pem):
    """Of a gateway with this ProxyConfig."""
    found = mesh.objects(GATEWAY + "---" + policy())
    pod = replace(found.pods["istio-system", "ingress"], notes=((ANNOTATION, json.dumps(config)),))
    found = found.put(kinds.POD, ("istio-system", "ingress"), pod)
    own = o.Credential("istio-system", "own", pem["server"].certificate, pem["server"].key, pem["ca"].certificate)
    found = found.put(kinds.SECRET, ("istio-system", "own"), own)
    return judge.decoded(generate(mesh.view(found, "ingress", "istio-system")))


@contextlib.contextmanager
def gateways(topologies, pem, echo, directory, **more):
    """One Envoy with the listeners of all gateways; yields topology (JSON) -> its address. ``more`` of their
    ProxyConfig is the same for all."""
    address = {json.dumps(t): f"127.0.0.{i + 2}" for i, t in enumerate(topologies)}
    listeners, path = [], None
    for text, place in address.items():
        found = messages({"gatewayTopology": json.loads(text), **more}, pem)

        def change(bootstrap, place=place):
            for made in bootstrap.static_resources.listeners:
                secure = not made.name.endswith("_8080")
                made.name = f"{place}/{secure}"
                made.address.socket_address.address = place
                made.address.socket_address.port_value = SECURE if secure else PLAIN
                made.ClearField("access_log")
                listeners.append(type(made).FromString(made.SerializeToString()))
            bootstrap.ClearField("admin")
            del bootstrap.static_resources.listeners[:]
            bootstrap.static_resources.listeners.extend(listeners)

        for cluster in found[names.CDS].values():
            cluster.ClearField("transport_socket")
            cluster.ClearField("transport_socket_matches")
            cluster.ClearField("typed_extension_protocol_options")
            for group in found[names.EDS].get(cluster.name, cluster.load_assignment).endpoints:
                for e in group.lb_endpoints:
                    e.endpoint.address.socket_address.address = "127.0.0.1"
                    e.endpoint.address.socket_address.port_value = echo
        path = judge.bootstrap(found, directory, change=change)
    command = [envoy_binary(), "-c", str(path), "--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id"]
    with (directory / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, "Envoy does not listen"
                with contextlib.suppress(OSError), socket.create_connection((place, SECURE), timeout=1):
                    break
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            process.wait(10)


# --- addresses -----------------------------------------------------------------------------------------------------

FORWARDED = (None, A, f"{A}, {B}", f"{A},{B},{C}", PEER, f"{PRIVATE}, unknown", f"{A}, , {B}")
TRUSTED = (0, 1, 2)


def read(forwarded, trusted, peer):
    """Whose request it is: the peer, or as many steps further left as proxies are trusted; where the header is shorter,
    or no address is there, nobody in front has said anything that could be believed."""
    if not trusted or forwarded is None:
        return peer
    steps = [s.strip() for s in forwarded.split(",")]
    found = steps[-trusted] if len(steps) >= trusted else None
    return found if found in CANDIDATES else peer


def believed(address, proxied, forwarded):
    """({addresses that are the client's to a policy}, {those that are the connection's}, the header that the server
    gets)"""
    connection = socket.create_connection((address, PLAIN), timeout=5, source_address=(PEER, 0))
    if proxied:
        connection.sendall(f"PROXY TCP4 {PROXY} 192.0.2.1 4000 80\r\n".encode())
    client = http.client.HTTPConnection(address, PLAIN)
    client.sock = connection
    headers = {"Host": "h.test", **({"X-Forwarded-For": forwarded} if forwarded else {})}

    def get(path):
        client.request("GET", path, headers=headers)
        response = client.getresponse()
        return response.status, response.read()

    found = [{a for a in CANDIDATES if get(f"/{of}/{a}")[0] == 200} for of in ("remote", "peer")]
    status, body = get("/open")
    client.close()
    assert status == 200
    return (*found, json.loads(body)["x-forwarded-for"])


def test_addresses_of_clients_are_those_that_trusted_proxies_tell(pem, echo, tmp_path):
    topologies = [
        {"numTrustedProxies": n, **({"proxyProtocol": {}} if proxied else {})}
        for n, proxied in itertools.product(TRUSTED, (False, True))
    ]
    wrong = []
    with gateways(topologies, pem, echo, tmp_path) as found:
        for topology, forwarded in itertools.product(topologies, FORWARDED):
            proxied = "proxyProtocol" in topology
            peer = PROXY if proxied else PEER
            got = believed(found[json.dumps(topology)], proxied, forwarded)
            client = read(forwarded, topology["numTrustedProxies"], peer)
            told = [s.strip() for s in (forwarded or "").split(",") if s.strip()] + [peer]
            passed = [s.strip() for s in got[2].split(",") if s.strip()]
            if (got[0], got[1], passed) != ({client}, {PEER}, told):
                wrong.append((topology, forwarded, got, (client, told)))
    assert wrong == [], "\n".join(map(str, wrong))


def test_connections_without_the_protocol_are_closed_where_a_gateway_expects_it(pem, echo, tmp_path):
    with gateways([{"proxyProtocol": {}}], pem, echo, tmp_path) as found:
        (address,) = found.values()
        for sent in (b"GET /open HTTP/1.1\r\nHost: h.test\r\n\r\n", b"PROXY TCP4 nonsense\r\nGET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection((address, PLAIN), timeout=5) as s:
                s.sendall(sent)
                with contextlib.suppress(ConnectionResetError):
                    assert s.recv(100) == b""


def test_headers_and_connections_are_handled_as_a_gateway_is_told(pem, echo, tmp_path):
    off = {"disabled": True}
    headers = {"server": off, "requestId": off, "envoyDebugHeaders": off}
    edge = {"profile": "EDGE"}
    with gateways([{}], pem, echo, tmp_path, proxyHeaders=headers, connectionSettings=edge) as found:
        (address,) = found.values()
        answers = []
        for own in ({}, {"under_score": "a"}):
            client = http.client.HTTPConnection(address, PLAIN, timeout=5)
            client.request("GET", "/open", headers={"Host": "h.test", **own})
            response = client.getresponse()
            answers.append((response.status, dict(response.getheaders()), response.read()))
            client.close()
    (status, got, body), (refused, _, _) = answers
    assert (status, refused) == (200, 400)
    assert json.loads(body)["x-request-id"] == ""
    assert got["server"].startswith("BaseHTTP")
    assert not [name for name in got if name.startswith("x-envoy")]


BELIEVED = {
    **dict.fromkeys(
        (
            "x-envoy-original-path", "x-envoy-original-host", "x-envoy-internal", "x-envoy-external-address",
            "x-envoy-downstream-service-cluster", "x-envoy-downstream-service-node", "x-envoy-decorator-operation",
            "x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-istio-attributes", "x-envoy-original-dst-host",
            "x-envoy-upstream-alt-stat-name", "x-envoy-ip-tags", "x-envoy-force-trace",
            "x-envoy-expected-rq-timeout-ms",
        ),
        "forged",
    ),
    "x-envoy-retry-on": "3",
    "x-envoy-max-retries": "3",
    "x-envoy-upstream-rq-timeout-ms": "3",
}  # fmt: skip
"""What proxies believe, or would tell a server about its caller."""


@pytest.mark.parametrize("trusted", [0, 1])
@pytest.mark.parametrize("forwarded", [None, A, PRIVATE])
@pytest.mark.parametrize("own", ["127.0.0.1", "127.0.0.9"])
def test_headers_that_only_proxies_may_send_are_taken_from_clients(trusted, forwarded, own, pem, echo, tmp_path):
    """Also from those with addresses that Envoy counts as private, as 127.0.0.1 is: behind most load balancers
    everybody has one."""
    with gateways([{"numTrustedProxies": trusted}], pem, echo, tmp_path) as found:
        (address,) = found.values()
        client = http.client.HTTPConnection(address, PLAIN, timeout=5, source_address=(own, 0))
        asked = {"Host": "h.test", **({"X-Forwarded-For": forwarded} if forwarded else {}), **BELIEVED}
        client.request("GET", "/open", headers=asked)
        response = client.getresponse()
        assert (response.status, json.loads(response.read())["forged"]) == (200, [])
        client.request("GET", "/other", headers={"Host": "h.test", "x-envoy-original-path": "/open"})
        assert client.getresponse().status == 403
        client.close()


# --- certificates --------------------------------------------------------------------------------------------------


def certified(address, client, forged, pem, tmp_path):
    """The header that the server gets; ``client``: plain text, TLS without a certificate, or with one."""
    if client == "plain":
        c = http.client.HTTPConnection(address, PLAIN, timeout=5)
    else:
        context = ssl.create_default_context(cadata=pem["ca"].certificate)
        if client == "certificate":
            file = tmp_path / "client.pem"
            file.write_text(pem["client"].certificate + pem["client"].key)
            context.load_cert_chain(file)
        c = http.client.HTTPSConnection(address, SECURE, timeout=5)
        plain = socket.create_connection((address, SECURE), timeout=5)
        c.sock = context.wrap_socket(plain, server_hostname="gateway.test")
    c.request("GET", "/open", headers={"Host": "gateway.test", **({HEADER: FORGED} if forged else {})})
    response = c.getresponse()
    body = json.loads(response.read())
    c.close()
    return body[HEADER]


def forwarded(mode, client, forged):
    """Which parts the server is to get: the caller's, the gateway's own, both, or none."""
    shown = client == "certificate"
    theirs = forged and (mode == "ALWAYS_FORWARD_ONLY" or (shown and mode in ("APPEND_FORWARD", "FORWARD_ONLY")))
    own = shown and mode in ("SANITIZE_SET", "APPEND_FORWARD")
    return theirs, own


def test_certificates_of_clients_are_told_as_configured_and_never_believed_otherwise(pem, echo, tmp_path):
    topologies = [{"forwardClientCertDetails": mode} for mode in MODES] + [{}]
    wrong = []
    with gateways(topologies, pem, echo, tmp_path) as found:
        for topology, client, forged in itertools.product(topologies, ("plain", "tls", "certificate"), (False, True)):
            got = certified(found[json.dumps(topology)], client, forged, pem, tmp_path)
            own = "URI=spiffe://clients/ns/a/sa/b" in got and "DNS=client.test" in got and 'Subject="CN=client"' in got
            theirs = got.startswith(FORGED)
            empty = bool(got) == (own or theirs)
            mode = topology.get("forwardClientCertDetails", "SANITIZE_SET")
            if ((theirs, own), empty) != (forwarded(mode, client, forged), True):
                wrong.append((mode, client, forged, got[:200]))
    assert wrong == [], "\n".join(map(str, wrong))
