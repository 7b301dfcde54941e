"""Random VirtualServices in a real Envoy: each request goes where a plain reading of the rules says."""

import contextlib
import http.client
import random
import re
import subprocess
import time

import judge
import meshes as mesh
import pytest
from world import free_port

from lateen.api import validate
from lateen.cluster.kubelet.images import envoy_binary
from lateen.kit import yamldoc
from lateen.wire import names
from lateen.xds.generate import generate

pytestmark = pytest.mark.system

HOSTS = 80
WORDS = ("/", "/a", "/a/b", "/A", "/ab", "/b")
PATTERNS = ("/a.*", "/[ab]", "/a/?b?", "/.*b")
VALUES = ("1", "12", "x", "")
GATEWAY = """
kind: Gateway
metadata: {name: g}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
"""


def text_match(rng, words, patterns):
    kind = rng.choice(("exact", "prefix", "regex"))
    return {kind: rng.choice(patterns if kind == "regex" else [w for w in words if w])}


def some(rng, keys, make, chance=0.4):
    return {k: make() for k in keys if rng.random() < chance}


def condition(rng):
    def value():
        return rng.choice(({}, text_match(rng, VALUES, ("1.*", "x|1", "[0-9]"))))

    out = {}
    if rng.random() < 0.7:
        out["uri"] = text_match(rng, WORDS, PATTERNS)
        out |= {"ignoreUriCase": True} if rng.random() < 0.3 else {}
    if rng.random() < 0.2:
        out["method"] = text_match(rng, ("GET", "POST", "P"), ("G.*", "POST|PUT"))
    if rng.random() < 0.15:
        out["authority"] = text_match(rng, ("h1.example", "h"), (".*2.example", "h.*"))
    if rng.random() < 0.1:
        out["scheme"] = text_match(rng, ("http", "https"), ("http.*",))
    if rng.random() < 0.1:
        out["port"] = rng.choice((80, 81))
    for field, keys in (("headers", ("a", "b")), ("withoutHeaders", ("a", "c")), ("queryParams", ("q", "r"))):
        if found := some(rng, keys, value, 0.25):
            out[field] = found
    return out


def rules(rng):
    out = []
    for i in range(rng.randint(1, 6)):
        route = {"directResponse": {"status": 200, "body": {"string": str(i)}}}
        if i < 5 and rng.random() < 0.9:
            found = [c for c in (condition(rng) for _ in range(rng.randint(1, 3))) if c]
            route |= {"match": found} if found else {}
        out.append(route)
    return out


def request(rng, host):
    path = rng.choice((*WORDS, "/aa", "/a/B", "/c"))
    query = "&".join(f"{k}={v}" for k, v in some(rng, ("q", "r"), lambda: rng.choice(VALUES)).items())
    headers = some(rng, ("a", "b", "c"), lambda: rng.choice([v for v in VALUES if v]))
    return rng.choice(("GET", "POST", "PUT")), host, path, query, headers


# --- what the rules say ------------------------------------------------------------------------------------------


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
            return re.fullmatch(wanted, value, re.IGNORECASE if ignore_case else 0) is not None


def fits(match, asked):
    method, host, path, query, headers = asked
    params = dict(p.split("=") for p in query.split("&") if p)
    return (
        holds(match.get("uri", {}), path, match.get("ignoreUriCase", False))
        and holds(match.get("method", {}), method)
        and holds(match.get("authority", {}), host)
        and holds(match.get("scheme", {}), "http")
        and match.get("port", 80) == 80
        and all(holds(m, headers.get(k)) for k, m in match.get("headers", {}).items())
        # One that is missing counts as empty there, as in Istio, except where only its presence is asked for.
        and not any(holds(m, headers.get(k, "" if m else None)) for k, m in match.get("withoutHeaders", {}).items())
        and all(holds(m, params.get(k)) for k, m in match.get("queryParams", {}).items())
    )


def expected(routes, asked):
    for i, route in enumerate(routes):
        if not route.get("match") or any(fits(m, asked) for m in route["match"]):
            return str(i)
    return "404"


# --- what Envoy does ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def envoy(found, directory, port):
    """With the gateway's listener of requests on loopback."""

    def change(out):
        out.ClearField("admin")
        kept = [c for c in out.static_resources.listeners if c.name.endswith("_8080")]
        del out.static_resources.listeners[:]
        for c in kept:
            c.address.socket_address.address, c.address.socket_address.port_value = "127.0.0.1", port
            c.ClearField("access_log")
            out.static_resources.listeners.append(c)

    path = judge.bootstrap(found, directory, change=change)
    command = [envoy_binary(), "-c", str(path), "--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id"]
    with (directory / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline
                try:
                    http.client.HTTPConnection("127.0.0.1", port, timeout=5).connect()
                    break
                except OSError:
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)


def answered(connection, asked):
    method, host, path, query, headers = asked
    connection.request(method, f"{path}?{query}" if query else path, headers={"Host": host, **headers})
    response = connection.getresponse()
    body = response.read().decode()
    return body if response.status == 200 else str(response.status)


@pytest.mark.parametrize("seed", range(3))
def test_requests_go_where_the_rules_say(seed, tmp_path):
    rng = random.Random(seed)
    objects = mesh.objects(GATEWAY)
    given = {}
    for n in range(HOSTS):
        host = f"h{n}.example"
        given[host] = rules(rng)
        spec = {"hosts": [host], "gateways": ["g"], "http": given[host]}
        document = {"kind": "VirtualService", "metadata": {"name": f"v{n}"}, "spec": spec}
        problems = validate.problems({"apiVersion": mesh.api_version("VirtualService"), **document})
        if problems:
            del given[host]
        else:
            objects = mesh.add(objects, yamldoc.load(yamldoc.dump(document)), n % 60)
    assert len(given) > HOSTS / 2
    found = judge.decoded(generate(mesh.view(objects, "ingress", "istio-system")))
    assert names.RDS in found
    port = free_port()
    wrong = []
    with envoy(found, tmp_path, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        for host, routes in given.items():
            for _ in range(40):
                asked = request(rng, host)
                if (got := answered(connection, asked)) != (want := expected(routes, asked)):
                    wrong.append((asked, want, got, routes))
    assert not wrong, f"{len(wrong)} requests went elsewhere, the first: {wrong[0]}"
