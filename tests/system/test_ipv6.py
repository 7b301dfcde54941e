"""Sidecars of pods with IPv6 addresses: the real rules and the real Envoy in two network namespaces, and an application
that knows nothing but IPv6.

Proxies run as root, which the rules are told; what calls the client's does not.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta

import judge
import meshes as mesh
import pytest

from lateen.agent import capture
from lateen.agent.certificates import Trusted, write_secrets
from lateen.api import kinds
from lateen.api import objects as o
from lateen.cluster.kubelet.images import envoy_binary
from lateen.kit import certs, times
from lateen.wire import ports

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not shutil.which("ip6tables-restore"), reason="there is no ip6tables"),
]
CLIENT, SERVER = "fd00:6::1", "fd00:6::2"
HTTP, TCP, UNKNOWN = 9080, 7000, 8123
VIP, TCP_VIP = "fd00:96::2", "fd00:96::7"
STRICT = """
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
kind: AuthorizationPolicy
metadata: {name: open}
spec:
  selector: {matchLabels: {app: reviews}}
  rules:
  - {to: [{operation: {paths: [/open]}}], from: [{source: {principals: [cluster.local/ns/default/sa/sa-productpage]}}]}
  - {to: [{operation: {ports: ['7000']}}]}
"""
APPLICATION = """
import http.server, socket, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{self.client_address[0]} {self.path}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()
servers = [Server(("::", int(port)), Answer) for port in sys.argv[1:]]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
"""
AGENT = (sys.executable, "-m", "lateen.agent")
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def objects():
    """Two pods of a dual-stack cluster, and Services with addresses of both families."""
    found = mesh.objects(STRICT)
    for name, address in (("productpage-v1", CLIENT), ("reviews-v1", SERVER)):
        pod = found.pods["default", name]
        found = found.put(kinds.POD, ("default", name), replace(pod, address=address))
    for name, kind, number, vip in (("reviews", "http", HTTP, VIP), ("rawreviews", "tcp", TCP, TCP_VIP)):
        port = o.ServicePort(kind, number, number, "TCP")
        service = o.Service("default", name, vip, (port,), (("app", "reviews"),), addresses=("10.96.9.9",))
        found = found.put(kinds.SERVICE, ("default", name), service)
        for family, address in (("v4", "10.6.0.2"), ("v6", SERVER)):
            part = {kind: (o.Endpoint(address, number, "reviews-v1"),)}
            found = found.put(kinds.ENDPOINT_SLICE, ("default", f"{name}-{family}"), (name, part))
    return found.put(kinds.ENDPOINT_SLICE, ("default", "reviews"), None)


class Pod:
    def __init__(self, name, directory):
        self.name, self.directory = f"lateen-{os.getpid()}-{name}", directory
        self.enter = ("ip", "netns", "exec", self.name)
        directory.mkdir()

    def run(self, *command, ok=True):
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or not ok, done.stderr
        return done

    def asks(self, url, *more, user=NOBODY):
        """(status, body); the status is 0 where the connection is closed without an answer."""
        done = self.run(*user, "curl", "-sg", "-m", "10", "-w", " %{http_code}", *more, url, ok=False)
        body, _, status = done.stdout.rpartition(" ")
        return int(status), body

    def redirected(self, *arguments):
        return self.run(*AGENT, "istio-iptables", "-u", "0", "-d", "15090,15021,15020", *arguments).stdout

    @contextlib.contextmanager
    def started(self, *command, ready):
        with (self.directory / "log").open("a") as log:
            process = subprocess.Popen([*self.enter, *command], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not ready():
                assert process.poll() is None, (self.directory / "log").read_text()
                assert time.monotonic() < deadline, (self.directory / "log").read_text()
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)

    def proxied(self, view, identity, ca, *prefix):
        """By an Envoy with what istiod would send."""
        path = judge.bootstrap(judge.messages(view), self.directory, change=lambda b: b.ClearField("admin"))
        leaf = certs.issue(ca, [f"spiffe://cluster.local/ns/default/sa/{identity}"], times.now(), timedelta(hours=1))
        write_secrets(self.directory, leaf.certificate, leaf.key, Trusted(ca.certificate))
        command = [*prefix, envoy_binary(), "-c", str(path), "--log-level", "error", "--concurrency", "1"]
        listens = f":{ports.OUTBOUND} "
        return self.started(*command, "--use-dynamic-base-id", ready=lambda: listens in self.run("ss", "-6tln").stdout)


@pytest.fixture
def pods(tmp_path):
    """A client and a server, which reach each other by IPv6 alone."""
    client, server = Pod("c", tmp_path / "c"), Pod("s", tmp_path / "s")
    try:
        for pod in (client, server):
            subprocess.run(["ip", "netns", "add", pod.name], check=True)
            pod.run("ip", "link", "set", "lo", "up")
        client.run(*f"ip link add v0 type veth peer name v0 netns {server.name}".split())
        for pod, address, other in ((client, CLIENT, SERVER), (server, SERVER, CLIENT)):
            pod.run(*f"ip addr add {address}/64 dev v0 nodad".split())
            pod.run(*["ip", "link", "set", "v0", "up"])
            pod.run(*f"ip -6 route add default via {other}".split())
        yield client, server
    finally:
        for pod in (client, server):
            subprocess.run(["ip", "netns", "delete", pod.name], check=False)


@contextlib.contextmanager
def sidecars(client, server, mode="REDIRECT"):
    found, ca = objects(), certs.authority("mesh", times.now())
    about = {**mesh.AGENT, "INTERCEPTION_MODE": mode}
    prefix = ("setpriv", "--regid", str(ports.PROXY_UID), "--clear-groups") if mode == "TPROXY" else ()
    with contextlib.ExitStack() as stack:
        for pod, name, account, address in (
            (client, "productpage-v1", "sa-productpage", CLIENT),
            (server, "reviews-v1", "sa-reviews", SERVER),
        ):
            view = mesh.view(found, name, agent={**about, "INSTANCE_IPS": f"10.6.0.1,{address}"})
            pod.redirected("-m", mode)
            stack.enter_context(pod.proxied(view, account, ca, *prefix))
        yield


@contextlib.contextmanager
def application(server):
    python = [sys.executable, "-c", APPLICATION, str(HTTP), str(TCP), str(UNKNOWN)]
    with server.started(*python, ready=lambda: f":{UNKNOWN} " in server.run("ss", "-6tln").stdout):
        yield


def link_local(pod):
    (address,) = [w for w in pod.run("ip", "-6", "-o", "addr", "show", "dev", "v0").stdout.split() if "fe80" in w]
    return address.partition("/")[0]


def test_an_application_that_listens_on_ipv6_is_behind_its_sidecar(pods):
    client, server = pods
    direct = {"user": ()}  # as root, whom the client's rules let pass
    with application(server):
        assert client.asks(f"http://[{SERVER}]:{HTTP}/closed", **direct) == (200, f"{CLIENT} /closed")
        with sidecars(client, server):
            # Who has no certificate of the mesh gets no answer, at any of the pod's addresses and ports.
            for port in (HTTP, TCP, UNKNOWN):
                assert client.asks(f"http://[{SERVER}]:{port}/open", **direct) == (0, "")
            assert client.asks(f"http://[{link_local(server)}%25v0]:{HTTP}/open", **direct) == (0, "")
            # The Service's address leads there, with mutual TLS, and policies hold.
            by_name = ("-H", f"Host: reviews:{HTTP}")
            assert client.asks(f"http://[{VIP}]:{HTTP}/open", *by_name) == (200, f"{ports.GUARD_V6} /open")
            assert client.asks(f"http://[{VIP}]:{HTTP}/open") == (200, f"{ports.GUARD_V6} /open")
            assert client.asks(f"http://[{VIP}]:{HTTP}/closed", *by_name)[0] == 403
            assert client.asks(f"http://[{TCP_VIP}]:{TCP}/raw") == (200, f"{ports.GUARD_V6} /raw")
            # A pod reaches itself, and what is not in the mesh.
            assert server.asks(f"http://[::1]:{HTTP}/closed") == (200, "::1 /closed")
            assert server.asks(f"http://[{SERVER}]:{HTTP}/closed")[0] == 200


def test_by_tproxy_the_application_sees_the_clients_ipv6_address(pods):
    client, server = pods
    with application(server), sidecars(client, server, "TPROXY"):
        assert client.asks(f"http://[{VIP}]:{HTTP}/open", "-H", f"Host: reviews:{HTTP}") == (200, f"{CLIENT} /open")
        assert client.asks(f"http://[{VIP}]:{HTTP}/closed", "-H", f"Host: reviews:{HTTP}")[0] == 403


def test_a_cni_plugin_redirects_ipv6_from_outside_of_the_pod(pods):
    client, server = pods
    inside = ("nsenter", f"--net=/run/netns/{server.name}")
    assert capture.missing(inside) == "iptables, ip6tables"
    assert capture.write(capture.parse(["-u", "0"]), inside)[1] == ""
    assert capture.missing(inside) == ""
    with application(server):
        assert client.asks(f"http://[{SERVER}]:{HTTP}/open")[0] == 0
    # The pod's own check, which runs as the proxy's user.
    assert "works" in server.redirected("--run-validation", "--skip-rule-apply")
    server.run("ip6tables", "-t", "nat", "-F", "ISTIO_OUTPUT")
    failed = server.run(*AGENT, "istio-iptables", "-u", "0", "--run-validation", "--skip-rule-apply", ok=False)
    assert (failed.returncode, "is not redirected" in failed.stderr) == (1, True)
    server.run("ip6tables", "-t", "nat", "-F", "OUTPUT")
    assert capture.missing(inside) == "ip6tables"


def test_without_a_proxy_nobody_is_let_through(pods):
    """As when the sidecar comes later, or its image is older than the rules."""
    client, server = pods
    with application(server):
        assert "IPv6" not in server.redirected()
        assert client.asks(f"http://[{SERVER}]:{HTTP}/open")[0] == 0
        server.run(*AGENT, "istio-clean-iptables")
        assert client.asks(f"http://[{SERVER}]:{HTTP}/open") == (200, f"{CLIENT} /open")
        assert "::6" not in server.run("ip", "-6", "addr", "show", "dev", "lo").stdout


def test_a_pod_without_ipv6_is_redirected_as_ever(pods):
    _, server = pods
    for name in ("all", "lo", "v0"):
        server.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
    assert "IPv6 is not redirected: this network namespace has none" in server.redirected()
    assert "ISTIO_REDIRECT" in server.run("iptables-save", "-t", "nat").stdout
    assert "ISTIO" not in server.run("ip6tables-save").stdout
