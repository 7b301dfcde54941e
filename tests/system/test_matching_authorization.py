"""Random AuthorizationPolicies in a real Envoy: each request is admitted as a plain reading of the policies says."""

import http.server
import random
import re
import socket

import judge
import meshes as mesh
import pytest
from matching import GATEWAY, OPEN, PORT, answered, connect, envoy, lead_to, request, serving

from lateen.api import kinds, validate
from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.kit import yamldoc
from lateen.mesh.settings import MeshConfig, Trust
from lateen.xds.generate import generate

pytestmark = pytest.mark.system

MESHES = 40
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
        sets[f"127.78.0.{n + 1}"] = found, mine
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


KEPT_OUT = """
kind: AuthorizationPolicy
metadata: {name: a, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/users/{*}/keys", "/files/{**}"]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: b, namespace: istio-system}
spec:
  action: DENY
  rules:
  - when: [{key: "request.headers[:authority]", values: [admin.test]}]
  - when: [{key: "request.headers[:path]", values: [/admin]}]
"""


def test_what_is_kept_out_is_so_whatever_characters_stand_for_the_stars(tmp_path):
    asked = [
        *((b"/users/a%cb/keys" % byte, b"x.test") for byte in (*range(0x21, 0x7F), *range(0x80, 0x100))),
        *((b"/files/a/%cb" % byte, b"x.test") for byte in (*range(0x21, 0x7F), *range(0x80, 0x100))),
        *((b"/b", host) for host in (b"admin.test", b"Admin.test.:80", b"x@admin.test", b"%61dmin.test")),
        *((path, b"x.test") for path in (b"/admin", b"/admin?", b"/admin?x")),
    ]
    left = {b"/users/a%cb/keys" % c for c in b"/\\?#"}  # other paths
    found = judge.decoded(
        generate(mesh.view(mesh.objects(f"{GATEWAY}---{OPEN}---{KEPT_OUT}"), "ingress", "istio-system"))
    )
    with envoy({"127.78.0.1": found}, tmp_path):
        status = {}
        for path, host in asked:
            with socket.create_connection(("127.78.0.1", PORT), 5) as s:
                s.sendall(b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path, host))
                status[path, host] = s.makefile("rb").readline().split()[1]
    assert {path for (path, _), code in status.items() if code == b"200"} <= left
    assert set(status.values()) <= {b"200", b"403", b"400"}
    assert sum(code == b"403" for code in status.values()) > 180


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
        with envoy({"127.78.0.1": found}, tmp_path):
            connection = connect("127.78.0.1")
            got = {
                (path, given): answered(connection, ("GET", "h1.example", path, "", dict.fromkeys(given, "1")))
                for path, given in cases
            }
    assert got == cases
