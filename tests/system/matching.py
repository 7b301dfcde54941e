"""What tests with random rules share: words to make rules and requests of, and a real Envoy that is gateways.

Each test file has its own addresses of loopback, since files run at the same time.
"""

import contextlib
import http.client
import http.server
import re
import subprocess
import threading
import time

import judge

from lateen.cluster.kubelet.images import envoy_binary
from lateen.wire import names

HOSTS = 80
PORT = 28077
WORDS = ("/", "/a", "/a/b", "/A", "/ab", "/b")
PATTERNS = ("/a.*", "/[ab]", "/a/?b?", "/.*b")
VALUES = ("1", "12", "x", "")
GATEWAY = """
kind: Gateway
metadata: {name: g}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
"""
OPEN = """
kind: VirtualService
metadata: {name: all}
spec: {hosts: ['*'], gateways: [g], http: [{directResponse: {status: 200, body: {string: in}}}]}
"""


def text_match(rng, words, patterns):
    kind = rng.choice(("exact", "prefix", "regex"))
    return {kind: rng.choice(patterns if kind == "regex" else [w for w in words if w])}


def some(rng, keys, make, chance=0.4):
    return {k: make() for k in keys if rng.random() < chance}


def request(rng, host):
    path = rng.choice((*WORDS, "/aa", "/a/B", "/c"))
    query = "&".join(f"{k}={v}" for k, v in some(rng, ("q", "r"), lambda: rng.choice(VALUES)).items())
    headers = some(rng, ("a", "b", "c"), lambda: rng.choice([v for v in VALUES if v]))
    return rng.choice(("GET", "POST", "PUT")), host, path, query, headers


def holds(match, value, ignore_case=False):
    """Whether a text is there and as a StringMatch says; one without any says only that it is there."""
    if value is None:
        return False
    given = next(iter(match.items()), None)
    if given is None:
        return True
    kind, wanted = given
    if ignore_case and kind != "regex":
        value, wanted = value.lower(), wanted.lower()
    match kind:
        case "exact":
            return value == wanted
        case "prefix":
            return value.startswith(wanted)
        case _:
            return re.fullmatch(wanted, value) is not None


def listener(found, directory, address):
    """A gateway's listener of requests, with its routes, at an address of loopback."""
    out = []

    def change(bootstrap):
        (made,) = [c for c in bootstrap.static_resources.listeners if c.name.endswith("_8080")]
        made.address.socket_address.address, made.name = address, address
        made.address.socket_address.port_value = PORT
        made.ClearField("access_log")
        out.append(made)

    judge.bootstrap(found, directory, change=change)
    return out[0]


@contextlib.contextmanager
def envoy(gateways, directory):
    """One that is all these gateways: address -> resources."""
    listeners = [listener(found, directory, address) for address, found in gateways.items()]

    def change(bootstrap):
        bootstrap.ClearField("admin")
        del bootstrap.static_resources.listeners[:]
        bootstrap.static_resources.listeners.extend(listeners)

    path = judge.bootstrap(next(iter(gateways.values())), directory, change=change)
    command = [envoy_binary(), "-c", str(path), "--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id"]
    with (directory / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, "Envoy does not listen"
                try:
                    connect(listeners[-1].name).connect()
                    break
                except OSError:
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)


def connect(address):
    return http.client.HTTPConnection(address, PORT, timeout=5)


def answered(connection, asked):
    method, host, path, query, headers = asked
    connection.request(method, f"{path}?{query}" if query else path, headers={"Host": host, **headers})
    response = connection.getresponse()
    body = response.read().decode()
    return body if response.status == 200 else str(response.status)


@contextlib.contextmanager
def serving(handler):
    """Its port on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def lead_to(found, port):
    """All clusters in plain text to a port of loopback."""
    for cluster in found[names.CDS].values():
        cluster.ClearField("transport_socket")
        cluster.ClearField("typed_extension_protocol_options")
        for group in found[names.EDS].get(cluster.name, cluster.load_assignment).endpoints:
            for e in group.lb_endpoints:
                e.endpoint.address.socket_address.address = "127.0.0.1"
                e.endpoint.address.socket_address.port_value = port
