"""Random VirtualServices in a real Envoy: each request and response is changed as a plain reading of the rules says."""

import http.server
import json
import random
import re

import judge
import meshes as mesh
import pytest
from matching import GATEWAY, HOSTS, PATTERNS, connect, envoy, holds, lead_to, request, serving, some, text_match

from lateen.api import kinds, validate
from lateen.kit import yamldoc
from lateen.xds.generate import generate

pytestmark = pytest.mark.system

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


@pytest.fixture
def echo():
    with serving(Echo) as port:
        yield port


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
            "host": next((h for h in (given.get("authority"), *hosts) if h), host),
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
    with envoy({"127.79.0.1": found}, tmp_path):
        connection = connect("127.79.0.1")
        for host, routes in given.items():
            for _ in range(25):
                asked = ("GET", *request(rng, host)[1:])
                if (got := observed(connection, asked)) != (want := done(routes, asked)):
                    wrong.append((asked, want, got, routes))
    assert not wrong, f"{len(wrong)} requests were changed otherwise, the first: {wrong[0]}"
