"""Random VirtualServices in a real Envoy: each request goes where a plain reading of the rules says."""

import contextlib
import http.client
import http.server
import json
import random
import re
import subprocess
import threading
import time

import judge
import meshes as mesh
import pytest

from lateen.api import kinds, validate
from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.cluster.kubelet.images import envoy_binary
from lateen.kit import yamldoc
from lateen.mesh.settings import MeshConfig, Trust
from lateen.wire import names
from lateen.xds.generate import generate

pytestmark = pytest.mark.system

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
        problems = validate.problems({"apiVersion": kinds.VIRTUAL_SERVICE.api_version, **document})
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
        ("ports", (str(PORT), "81")),
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
            ("destination.port", (str(PORT), "81")),
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
            and agrees(o, "ports", str(PORT))
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
            "destination.port": (str(PORT), same),
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
def test_requests_are_admitted_as_the_policies_say(seed, tmp_path):
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
            if not validate.problems({"apiVersion": kinds.AUTHORIZATION_POLICY.api_version, **document}):
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


# --- what is done with requests ----------------------------------------------------------------------------------

NAMES = ("a", "x-one", "x-two")


class Echo(http.server.BaseHTTPRequestHandler):
    """Says what has come, and answers with some headers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        found = {k.lower(): ",".join(self.headers.get_all(k)) for k in self.headers}
        body = json.dumps({"path": self.path, "host": found["host"], **{n: found.get(n) for n in NAMES}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("a", "server")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(handler):
    """Its port on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def echo():
    with serving(Echo) as port:
        yield port


def lead_to(found, port):
    """All clusters in plain text to a port of loopback."""
    for cluster in found[names.CDS].values():
        cluster.ClearField("transport_socket")
        cluster.ClearField("typed_extension_protocol_options")
        for group in found[names.EDS].get(cluster.name, cluster.load_assignment).endpoints:
            for e in group.lb_endpoints:
                e.endpoint.address.socket_address.address = "127.0.0.1"
                e.endpoint.address.socket_address.port_value = port


def operations(rng):
    out = {}
    for side in ("request", "response"):
        one = {k: v for k, v in (
            ("set", some(rng, NAMES, lambda: rng.choice(("s1", "s2")), 0.25)),
            ("add", some(rng, NAMES, lambda: rng.choice(("d1", "d2")), 0.2)),
            ("remove", [n for n in NAMES if rng.random() < 0.15]),
        ) if v}  # fmt: skip
        if side == "request" and rng.random() < 0.15:
            one.setdefault("set", {})[":authority"] = "set.example"
        if one:
            out[side] = one
    return out


def rewrite(rng):
    kind = rng.random()
    if kind < 0.3:
        return {"uri": rng.choice(("/new", "/", "/new/"))}
    if kind < 0.5:
        return {"uriRegexRewrite": {"match": "/(a)(.*)", "rewrite": rng.choice((r"/z/\1\2", "/y"))}}
    return {"authority": "new.example"} if kind < 0.8 else {"uri": "/n", "authority": "new.example"}


def redirect(rng):
    out = {rng.choice(("uri", "prefixRewrite")): "/moved"} if rng.random() < 0.7 else {"authority": "moved.example"}
    if rng.random() < 0.4:
        out["authority"] = "moved.example"
    out |= rng.choice(
        (
            {},
            {"port": 81},
            {"derivePort": "FROM_PROTOCOL_DEFAULT"},
            {"scheme": "https"},
            {"derivePort": "FROM_REQUEST_PORT"},
            {"derivePort": "FROM_REQUEST_PORT", "scheme": "https"},
        )
    )
    return out | rng.choice(({}, {"redirectCode": 308}))


def forwarding(rng):
    """One route with several matches that does something with the request."""
    out = {"match": [{"uri": text_match(rng, ("/a", "/ab", "/b"), PATTERNS)} for _ in range(rng.randint(1, 2))]}
    if rng.random() < 0.25:
        return out | {"redirect": redirect(rng)}
    destinations = rng.randint(1, 2)
    out["route"] = [{"destination": {"host": "reviews"}, "weight": 100 // destinations} for _ in range(destinations)]
    if destinations == 2:  # both do the same: which of them is chosen is not to be seen
        out["route"][1] = out["route"][0]
    if rng.random() < 0.5:
        out["rewrite"] = rewrite(rng)
    if rng.random() < 0.6 and (found := operations(rng)):
        out["headers"] = found
    if rng.random() < 0.4 and (found := operations(rng)):
        out["route"] = [{**r, "headers": found} for r in out["route"]]
    return out


def rewritten(given, m, path):
    if "uriRegexRewrite" in given:
        return re.sub(given["uriRegexRewrite"]["match"], given["uriRegexRewrite"]["rewrite"], path)
    if "uri" not in given:
        return path
    return given["uri"] + (path[len(m["uri"]["prefix"]) :] if "prefix" in m["uri"] else "")


def operated(headers, levels, side):
    """Each level takes off first, then sets, then adds, as Envoy does. Where there is one destination, its operations
    and the route's are one level; with several, the route's are the later one. Both are as in Istio."""
    out = dict(headers)
    for level in levels:
        for k in [k for ops in level for k in ops.get(side, {}).get("remove", [])]:
            out[k] = None
        for ops in level:
            out |= {k: v for k, v in ops.get(side, {}).get("set", {}).items() if k != ":authority"}
        for k, v in [pair for ops in level for pair in ops.get(side, {}).get("add", {}).items()]:
            out[k] = f"{out[k]},{v}" if out.get(k) else v
    return out


def done(routes, asked):
    _, host, path, query, headers = asked
    for route in routes:
        m = next((m for m in route["match"] if holds(m["uri"], path)), None)
        if m is None:
            continue
        if "redirect" in route:
            return moved(route["redirect"], m, asked)
        both = [route.get("headers", {}), route["route"][0].get("headers", {})]
        levels = [both] if len(route["route"]) == 1 else [[both[1]], [both[0]]]
        given = route.get("rewrite", {})
        hosts = [ops.get("request", {}).get("set", {}).get(":authority") for ops in both]
        seen = {
            # Python's server makes one of several slashes in front.
            "path": re.sub("^/+", "/", rewritten(given, m, path)) + (f"?{query}" if query else ""),
            "host": next((h for h in hosts if h), given.get("authority") or host),
            **operated({n: headers.get(n) for n in NAMES}, levels, "request"),
        }
        return seen, operated({"a": "server", "x-one": None, "x-two": None}, levels, "response")
    return None


def moved(given, m, asked):
    _, host, path, query, _ = asked
    scheme = given.get("scheme", "http")
    port = given.get("port") or (80 if given.get("derivePort") == "FROM_REQUEST_PORT" else None)
    if "uri" in given:
        path = given["uri"]
    elif "prefixRewrite" in given:
        path = rewritten({"uri": given["prefixRewrite"]}, m, path)
    at = given.get("authority", host) + (f":{port}" if port and port != {"http": 80, "https": 443}[scheme] else "")
    return given.get("redirectCode", 301), f"{scheme}://{at}{path}" + (f"?{query}" if query else "")


def observed(connection, asked):
    method, host, path, query, headers = asked
    connection.request(method, f"{path}?{query}" if query else path, headers={"Host": host, **headers})
    response = connection.getresponse()
    body = response.read()
    if response.status == 404:
        return None
    if response.status != 200:
        return response.status, response.getheader("location")
    return json.loads(body), {n: v and v.replace(", ", ",") for n in NAMES for v in [response.getheader(n)]}


@pytest.mark.parametrize("seed", range(3))
def test_requests_are_changed_as_the_rules_say(seed, echo, tmp_path):
    rng = random.Random(seed)
    objects, given = mesh.objects(GATEWAY), {}
    for n in range(HOSTS):
        host, http_routes = f"h{n}.example", [forwarding(rng) for _ in range(rng.randint(1, 3))]
        spec = {"hosts": [host], "gateways": ["g"], "http": http_routes}
        document = {"kind": "VirtualService", "metadata": {"name": f"v{n}"}, "spec": spec}
        if not validate.problems({"apiVersion": kinds.VIRTUAL_SERVICE.api_version, **document}):
            given[host] = http_routes
            objects = mesh.add(objects, yamldoc.load(yamldoc.dump(document)), n % 60)
    assert len(given) > HOSTS / 2
    found = judge.decoded(generate(mesh.view(objects, "ingress", "istio-system")))
    lead_to(found, echo)
    wrong = []
    with envoy({"127.77.0.1": found}, tmp_path):
        connection = connect("127.77.0.1")
        for host, routes in given.items():
            for _ in range(25):
                asked = ("GET", *request(rng, host)[1:])
                if (got := observed(connection, asked)) != (want := done(routes, asked)):
                    wrong.append((asked, want, got, routes))
    assert not wrong, f"{len(wrong)} requests were changed otherwise, the first: {wrong[0]}"


# --- external authorization --------------------------------------------------------------------------------------

ASKS = """
kind: AuthorizationPolicy
metadata: {name: a, namespace: istio-system}
spec: {action: CUSTOM, provider: {name: near}, rules: [{to: [{operation: {paths: ["/a*"]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: b, namespace: istio-system}
spec: {action: CUSTOM, provider: {name: far}, rules: [{to: [{operation: {paths: ["/ab*"]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: c, namespace: istio-system}
spec: {action: CUSTOM, provider: {name: unknown}, rules: [{to: [{operation: {paths: ["/x"]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: d, namespace: istio-system}
spec: {action: AUDIT, rules: [{}]}
"""


class Judge(http.server.BaseHTTPRequestHandler):
    """Two authorization services, told apart by the first part of the path: each lets in whoever has its header."""

    def do_GET(self):
        name = self.path.split("/")[1]
        self.send_response(200 if self.headers.get(f"x-{name}") else 403)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def provider(name):
    service = {"service": "reviews.default.svc.cluster.local", "port": 9080, "pathPrefix": f"/{name}"}
    passed = {"includeRequestHeadersInCheck": ["x-near", "x-far"]}
    return decode(ExtensionProvider, {"name": name, "envoyExtAuthzHttp": service | passed})


def test_each_provider_decides_about_what_its_policies_match(tmp_path):
    config = MeshConfig(trust=Trust(providers=(provider("near"), provider("far"))))
    objects = mesh.objects(f"{GATEWAY}---{OPEN}---{ASKS}", config)
    found = judge.decoded(generate(mesh.view(objects, "ingress", "istio-system")))
    cases = {
        ("/b", ()): "in",
        ("/a", ()): "403",
        ("/a", ("x-near",)): "in",
        ("/a", ("x-far",)): "403",
        ("/ab", ("x-near",)): "403",
        ("/ab", ("x-far",)): "403",
        ("/ab", ("x-near", "x-far")): "in",
        ("/x", ("x-near", "x-far")): "403",
    }
    with serving(Judge) as port:
        lead_to(found, port)
        with envoy({"127.77.0.1": found}, tmp_path):
            connection = connect("127.77.0.1")
            got = {
                (path, given): answered(connection, ("GET", "h1.example", path, "", dict.fromkeys(given, "1")))
                for path, given in cases
            }
    assert got == cases
