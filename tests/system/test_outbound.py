"""A way out of the machine: off unless it is asked for, and then for what is outside, not for the machine itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from world import Mesh

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not shutil.which("slirp4netns"), reason="no slirp4netns (apt-get install slirp4netns)"),
]

ADDRESS, SECRETS, NAME = "192.0.2.1", "169.254.169.254", "shop.example"
"""Of the machine that the test makes: its own address, where clouds answer with credentials, its name in DNS."""
SERVER = f"""
import http.server, socketserver, sys, threading
from dnslib import A, RCODE, RR
from dnslib.server import BaseResolver, DNSServer

class Names(BaseResolver):
    def resolve(self, request, handler):
        reply = request.reply()
        if str(request.q.qname) == "{NAME}.":
            if request.q.qtype == 1: reply.add_answer(RR(request.q.qname, rdata=A("{ADDRESS}"), ttl=1))
        else:
            reply.header.rcode = RCODE.NXDOMAIN
        return reply

class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"outside")

for address in ("{ADDRESS}", "{SECRETS}", "127.0.0.1"):
    server = http.server.ThreadingHTTPServer((address, 8000), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
for stream in (False, True):
    DNSServer(Names(), address="{ADDRESS}", port=53, tcp=stream).start_thread()
print("ready", flush=True)
threading.Event().wait()
"""
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "client", "labels": {"app": "client"}},
    "spec": {
        "containers": [{"name": "main", "image": "lateen/sleep", "command": ["sleep", "1000"]}],
        "terminationGracePeriodSeconds": 0,
    },
}


class Machine(Mesh):
    """A cluster on a machine of its own: a network namespace, in which nothing leads further."""

    def __init__(self, tmp):
        super().__init__(tmp / "home", tmp)
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        (tmp / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
        setup = f"""mount --bind {tmp}/resolv.conf /etc/resolv.conf && ip link set lo up &&
            ip addr add {ADDRESS}/32 dev lo && ip addr add {SECRETS}/32 dev lo && exec {sys.executable} -c '{SERVER}'"""
        self._server = subprocess.Popen(
            ["unshare", *user, "--net", "--mount", "sh", "-c", setup], stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout.readline() == "ready\n"
        self._enter = ["nsenter", "-t", str(self._server.pid), *(["-U", "--preserve-credentials"] if user else [])]

    def run(self, *argv, **more):
        return super().run(*self._enter, "--net", "--mount", *argv, **more)

    def end(self):
        self.lateen("cluster", "delete", ok=False)
        self._server.kill()
        self._server.wait()

    def asks(self, url):
        command = f"curl -s --connect-timeout 5 -m 8 {url}"
        return self.kubectl("exec", "client", "--", "sh", "-c", command, ok=False).stdout == "outside"

    def relay(self):
        """The program that holds the way open, which the portal has started."""
        portal = (self.home / "cluster.pid").read_text().split()[0]
        tasks = Path(f"/proc/{portal}/task").glob("*/children")
        children = [pid for t in tasks for pid in t.read_text().split()]
        return [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "slirp4netns\n"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    made = Machine(tmp_path_factory.mktemp("machine"))
    try:
        made.lateen("cluster", "start", "--outbound")
        external = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"}}
        external["spec"] = {"type": "ExternalName", "externalName": NAME}
        made.apply(yaml.safe_dump_all([POD, external]))
        made.kubectl("wait", "pod", "client", "--for=condition=Ready", "--timeout=60s")
        yield made
    finally:
        made.end()


def test_pods_reach_what_is_outside_by_address_and_by_name(machine):
    assert "pods reach addresses outside" in machine.lateen("cluster", "status").stdout
    assert machine.asks(f"http://{ADDRESS}:8000")
    assert machine.asks(f"http://{NAME}:8000")
    assert machine.asks("http://shop:8000")  # a Service of type ExternalName
    assert not machine.asks(f"http://nobody.{NAME}:8000")
    assert not machine.asks(f"http://{ADDRESS}:8001")


def test_pods_reach_neither_the_machines_loopback_nor_the_credentials_of_clouds(machine):
    assert not machine.asks("http://198.18.0.2:8000")  # where slirp4netns would answer for 127.0.0.1
    assert not machine.asks(f"http://{SECRETS}:8000")
    assert machine.run("curl", "-s", f"http://{SECRETS}:8000").stdout == "outside"


def test_network_policies_hold_for_what_is_outside(machine):
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]}
    meta = {"name": "closed"}
    machine.apply(
        json.dumps({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})
    )
    machine.until(lambda: not machine.asks(f"http://{ADDRESS}:8000"), what="the policy")
    spec["egress"][0]["to"][0]["ipBlock"]["cidr"] = f"{ADDRESS}/32"
    machine.apply(
        json.dumps({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})
    )
    machine.until(lambda: machine.asks(f"http://{ADDRESS}:8000"), what="the policy")
    machine.kubectl("delete", "networkpolicy", "closed")


def test_a_way_that_has_closed_is_opened_again(machine):
    (before,) = machine.relay()
    os.kill(before, signal.SIGKILL)
    machine.until(lambda: machine.asks(f"http://{ADDRESS}:8000"), what="a new way")
    assert machine.relay() != [before]


def test_without_leave_there_is_no_way_out(machine):
    assert "it is running" in machine.lateen("cluster", "start", "--no-outbound", ok=False).stderr.replace(
        "the cluster", "it"
    )
    (relay,) = machine.relay()
    machine.lateen("cluster", "stop")

    def ended():
        try:
            return Path(f"/proc/{relay}/comm").read_text() != "slirp4netns\n"
        except FileNotFoundError:
            return True

    machine.until(ended, what="the end of the way out")
    machine.lateen("cluster", "start", "--no-outbound")
    machine.kubectl("wait", "pod", "client", "--for=condition=Ready", "--timeout=60s")
    machine.until(lambda: machine.kubectl("exec", "client", "--", "true", ok=False).returncode == 0, what="the pod")
    assert machine.relay() == []
    assert not machine.asks(f"http://{ADDRESS}:8000")
    assert not machine.asks(f"http://{NAME}:8000")
