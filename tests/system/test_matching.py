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


def listener(found, directory, address):
    """A gateway's listener of requests, with its routes, at an address of loopback."""
    out = []

    def change(bootstrap):
        (made,) = [c for c in bootstrap.static_resources.listeners if c.name.endswith("_8080")]
        made.address.socket_address.address, made.name = address, address
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
    return http.client.HTTPConnection(address, 8080, timeout=5)


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
    wrong = []
    with envoy({"127.77.0.1": found}, tmp_path):
        connection = connect("127.77.0.1")
        for host, routes in given.items():
            for _ in range(40):
                asked = request(rng, host)
                if (got := answered(connection, asked)) != (want := expected(routes, asked)):
                    wrong.append((asked, want, got, routes))
    assert not wrong, f"{len(wrong)} requests went elsewhere, the first: {wrong[0]}"


# --- authorization -----------------------------------------------------------------------------------------------

MESHES = 40
OPEN = """
kind: VirtualService
metadata: {name: all}
spec: {hosts: ['*'], gateways: [g], http: [{directResponse: {status: 200, body: {string: in}}}]}
"""
PATHS = ("/", "/a", "/a*", "*b", "/a/b", "*", "/a/{*}", "/a/{**}", "/{*}/b")


def operation(rng):
    out = {}
    for field, words in (
        ("paths", PATHS),
        ("methods", ("GET", "POST", "*", "P*", "*T")),
        ("hosts", ("h1.example", "H2.example", "*.example", "h1*", "*")),
        ("ports", ("8080", "81")),
    ):
        for name in (field, f"not{field.capitalize()}"):
            if rng.random() < (0.35 if name == field else 0.12):
                out[name] = rng.sample([w for w in words if name == field or w != "*"], rng.randint(1, 2))
    return out or {"paths": [rng.choice(PATHS)]}


def source(rng):
    out = {}
    for field, words in (
        ("ipBlocks", ("127.0.0.0/8", "10.0.0.0/8", "127.0.0.1")),
        ("remoteIpBlocks", ("127.0.0.1/32", "10.0.0.1")),
        ("principals", ("*", "cluster.local/ns/a/sa/b")),
        ("namespaces", ("a",)),
    ):
        for name in (field, f"not{field[0].upper()}{field[1:]}"):
            if rng.random() < 0.25:
                out[name] = [rng.choice(words)]
    return out or {"ipBlocks": ["127.0.0.1"]}


def when(rng):
    key, words = rng.choice(
        (
            ("request.headers[a]", ("1", "1*", "*x", "*")),
            ("source.ip", ("127.0.0.1", "10.1.0.0/16")),
            ("remote.ip", ("127.0.0.1", "10.1.0.0/16")),
            ("destination.port", ("8080", "81")),
            ("source.namespace", ("a",)),
        )
    )
    return {"key": key, rng.choice(("values", "values", "notValues")): [rng.choice(words)]}


def policy(rng):
    found = []
    for _ in range(rng.randint(0, 3)):
        one = {}
        if rng.random() < 0.7:
            one["to"] = [{"operation": operation(rng)} for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.3:
            one["from"] = [{"source": source(rng)} for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.35:
            one["when"] = [when(rng) for _ in range(rng.randint(1, 2))]
        found.append(one)
    return {"action": rng.choice(("ALLOW", "DENY")), **({"rules": found} if found else {})}


def same(pattern, value, ignore_case=False):
    if ignore_case:
        pattern, value = pattern.lower(), value.lower()
    if pattern == "*":
        return value != ""
    if "{" in pattern:
        parts = [re.escape(p) for p in re.split(r"\{\*{1,2}\}", pattern)]
        wild = re.findall(r"\{\*{1,2}\}", pattern)
        made = parts[0] + "".join((".*" if w == "{**}" else "[^/]+") + p for w, p in zip(wild, parts[1:], strict=True))
        return re.fullmatch(made, value) is not None
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value == pattern


def in_block(pattern, _):
    return pattern.startswith("127.")


def agrees(given, field, value, equal=same):
    """A field and its negation; the client has no certificate, so nothing is known of who it is (None)."""
    negated = f"not{field[0].upper()}{field[1:]}"

    def found(name):
        return value is not None and any(equal(p, value) for p in given[name])

    return (field not in given or found(field)) and (negated not in given or not found(negated))


def allowed_by(rule, asked):
    method, host, path, _, headers = asked

    def operated(o):
        return (
            agrees(o, "paths", path)
            and agrees(o, "methods", method)
            and agrees(o, "hosts", host, lambda p, v: same(p, v, ignore_case=True))
            and agrees(o, "ports", "8080")
        )

    def sourced(s):
        return (
            agrees(s, "ipBlocks", "", in_block)
            and agrees(s, "remoteIpBlocks", "", in_block)
            and agrees(s, "principals", None)
            and agrees(s, "namespaces", None)
        )

    def met(c):
        value, equal = {
            "request.headers[a]": (headers.get("a"), same),
            "source.ip": ("", in_block),
            "remote.ip": ("", in_block),
            "destination.port": ("8080", same),
            "source.namespace": (None, same),
        }[c["key"]]
        return agrees(c, "values", value, equal)

    return (
        ("to" not in rule or any(operated(t["operation"]) for t in rule["to"]))
        and ("from" not in rule or any(sourced(f["source"]) for f in rule["from"]))
        and all(met(c) for c in rule.get("when", []))
    )


def decided(policies, asked):
    def hit(action):
        return any(allowed_by(r, asked) for p in policies if p["action"] == action for r in p.get("rules", []))

    if hit("DENY"):
        return "403"
    return "in" if hit("ALLOW") or not any(p["action"] == "ALLOW" for p in policies) else "403"


@pytest.mark.parametrize("seed", range(2))
def test_requests_are_let_in_as_the_policies_say(seed, tmp_path):
    rng = random.Random(seed)
    sets = {}
    for n in range(MESHES):
        objects, mine = mesh.objects(GATEWAY + "---" + OPEN), []
        for i in range(rng.randint(1, 3)):
            spec = policy(rng)
            document = {
                "kind": "AuthorizationPolicy",
                "metadata": {"name": f"p{i}", "namespace": "istio-system"},
                "spec": spec,
            }
            if not validate.problems({"apiVersion": mesh.api_version("AuthorizationPolicy"), **document}):
                mine.append(spec)
                objects = mesh.add(objects, yamldoc.load(yamldoc.dump(document)), i)
        found = judge.decoded(generate(mesh.view(objects, "ingress", "istio-system")))
        sets[f"127.77.0.{n + 1}"] = found, mine
    assert sum(len(mine) for _, mine in sets.values()) > MESHES
    wrong = []
    with envoy({address: found for address, (found, _) in sets.items()}, tmp_path):
        for address, (_, mine) in sets.items():
            connection = connect(address)
            for _ in range(40):
                asked = request(rng, rng.choice(("h1.example", "h2.example", "h1.other", "other")))
                if (got := answered(connection, asked)) != (want := decided(mine, asked)):
                    wrong.append((asked, want, got, mine))
    assert not wrong, f"{len(wrong)} requests were judged otherwise, the first: {wrong[0]}"
