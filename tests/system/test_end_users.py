"""End users' tokens: which ones a workload accepts, what their claims decide, and where their keys come from."""

import base64
import json
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokens

pytestmark = pytest.mark.system

NS = "users"
PODS = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo}}
spec:
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      containers: [{{name: echo, image: docker.io/lateen/http-echo, args: ["8080"], ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{selector: {{app: echo}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: issuer}}
spec:
  selector: {{matchLabels: {{app: issuer}}}}
  template:
    metadata: {{labels: {{app: issuer, sidecar.istio.io/inject: "false"}}}}
    spec:
      containers:
      - name: issuer
        image: docker.io/lateen/http-echo
        command: [{sys.executable}, -m, http.server, "8000", -d, /tmp]
---
apiVersion: v1
kind: Service
metadata: {{name: issuer}}
spec: {{selector: {{app: issuer}}, ports: [{{name: http, port: 80, targetPort: 8000}}]}}
"""
ISSUER = f"http://issuer.{NS}"
ASK = """
import http.client, json, sys
for path, headers in json.load(sys.stdin):
    c = http.client.HTTPConnection("echo.users", timeout=8)
    c.putrequest("GET", path)
    for name, value in headers:
        c.putheader(name, value)
    c.endheaders()
    r = c.getresponse()
    print(json.dumps([r.status, r.read().decode()]))
"""


class Users:
    def __init__(self, mesh):
        self.mesh = mesh

    def ask(self, *requests):
        """(status, body) of each (path, headers)."""
        cases = json.dumps([(path, list(headers)) for path, headers in requests])
        pod = self.mesh.pod("ratings")
        out = self.mesh.kubectl("exec", "-i", pod, "-c", "ratings", "--", "python3", "-c", ASK, stdin=cases).stdout
        return [tuple(json.loads(line)) for line in out.splitlines()]

    def status(self, *headers, path="/"):
        return self.ask((path, headers))[0][0]

    def becomes(self, wanted, *headers, path="/"):
        self.mesh.until(lambda: self.status(*headers, path=path) == wanted, 20, f"status {wanted}")

    def publish(self, page, text):
        script = f'mkdir -p "$(dirname /tmp/{page})" && cat > /tmp/{page}'
        self.mesh.kubectl("exec", "-i", "-n", NS, "deploy/issuer", "--", "sh", "-c", script, stdin=text)

    def authenticate(self, *rules, name="users", namespace=NS, selector="{}"):
        self.apply("RequestAuthentication", name, f"{{selector: {selector}, jwtRules: {json.dumps(rules)}}}", namespace)

    def apply(self, kind, name, spec, namespace=NS, group="security.istio.io"):
        where = f"{{name: {name}, namespace: {namespace}}}"
        self.mesh.apply(f"apiVersion: {group}/v1\nkind: {kind}\nmetadata: {where}\nspec: {spec}")

    def condition(self, name="users"):
        found = json.loads(self.mesh.get("requestauthentication", name, "-n", NS, "-o", "json")).get("status", {})
        return next((c for c in found.get("conditions", []) if c["type"] == "KeysFetched"), {})


@pytest.fixture(scope="module")
def users(mesh):
    mesh.kubectl("create", "namespace", NS)
    mesh.kubectl("label", "namespace", NS, "istio-injection=enabled")
    mesh.kubectl("apply", "-n", NS, "-f", "-", stdin=PODS)
    # Stays until the cluster goes: no other file has tokens, and istiod need not start again.
    mesh.kubectl("set", "env", "-n", "istio-system", "deploy/istiod", "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL=1s")
    mesh.kubectl("wait", "-n", NS, "--for=condition=Available", "deploy", "--all", "--timeout=60s")
    mesh.kubectl("rollout", "status", "-n", "istio-system", "deploy/istiod", "--timeout=60s")
    out = Users(mesh)
    out.publish("keys", tokens.key_set("old"))
    out.becomes(200)
    yield out
    mesh.kubectl("delete", "requestauthentication", "gateway", "-n", "istio-system", "--ignore-not-found")
    mesh.kubectl("delete", "namespace", NS, "--wait=false")


@pytest.fixture(autouse=True)
def clean(users):
    yield
    kinds = "requestauthentications,authorizationpolicies,virtualservices,gateways.networking.istio.io"
    users.mesh.kubectl("delete", kinds, "--all", "-n", NS)
    users.becomes(200, bearer("nonsense"))


def bearer(token):
    return "Authorization", f"Bearer {token}"


def nested(levels):
    out = []
    for _ in range(levels):
        out = [out]
    return out


def rule(**more):
    return {"issuer": "tests.example", "jwksUri": f"{ISSUER}/keys"} | more


def test_only_valid_tokens_pass_and_none_is_none(users):
    by_cookie = {"issuer": "cookies.example", "jwks": json.dumps({"keys": [tokens.ec_jwk("ec")]})}
    users.authenticate(
        rule(audiences=["books"], outputPayloadToHeader="x-payload"),
        by_cookie | {"fromCookies": ["session"], "fromHeaders": [{"name": "x-token", "prefix": "Token "}]},
    )
    good, now = tokens.token("old", aud="books"), int(time.time())
    users.becomes(200, bearer(good))
    users.becomes(401, bearer(tokens.token("new", aud="books")))
    of_cookie = tokens.ec_token("ec", iss="cookies.example")
    cases = {
        "nothing": (200, "/", []),
        "a valid one": (200, "/", [bearer(good)]),
        "a valid one as a parameter": (200, f"/?access_token={good}", []),
        "a valid one as a cookie": (200, "/", [("Cookie", f"a=b; session={of_cookie}")]),
        "a valid one in a header": (200, "/", [("X-Token", f"Token {of_cookie}")]),
        "of another scheme": (200, "/", [("Authorization", "Basic am9lOmpvZQ==")]),
        "no token at all": (401, "/", [bearer("nonsense")]),
        "without a signature": (401, "/", [bearer(tokens.unsigned(aud="books"))]),
        "with the public key as a secret": (401, "/", [bearer(tokens.swapped("old", aud="books"))]),
        "with a path as the key's name": (
            401,
            "/",
            [bearer(tokens.token("old", {"kid": "../../dev/null"}, aud="books"))],
        ),
        "with a key of its own": (
            401,
            "/",
            [bearer(tokens.token("other", {"kid": "other", "jwk": tokens.jwk("other")}, aud="books"))],
        ),
        "signed by somebody else": (401, "/", [bearer(tokens.token("other", {"kid": "old"}, aud="books"))]),
        "with an algorithm of other keys": (401, "/", [bearer(tokens.token("old", {"alg": "ES256"}, aud="books"))]),
        "with no algorithm": (401, "/", [bearer(tokens.token("old", {"alg": None}, aud="books"))]),
        "with an algorithm that is no text": (401, "/", [bearer(tokens.token("old", {"alg": ["RS256"]}, aud="books"))]),
        "cut off": (401, "/", [bearer(good[:-40])]),
        "of one part": (401, "/", [bearer(good.partition(".")[0])]),
        "of four parts": (401, "/", [bearer(f"{good}.{good}")]),
        "that is no Base64": (401, "/", [bearer(good.replace(".", ".!*", 1))]),
        "that is no JSON": (401, "/", [bearer(f"{tokens.text(b'{')}.{tokens.text(bytes(99))}.{tokens.text(b'a')}")]),
        "nested deeply": (401, "/", [bearer(tokens.token("old", aud="books", deep=nested(900)))]),
        "expired": (401, "/", [bearer(tokens.token("old", aud="books", exp=now - 600))]),
        "not valid yet": (401, "/", [bearer(tokens.token("old", aud="books", nbf=now + 600))]),
        "for somebody else": (403, "/", [bearer(tokens.token("old", aud="films"))]),
        "of an unknown issuer": (401, "/", [bearer(tokens.token("old", aud="books", iss="x"))]),
        "of the other place's issuer": (401, "/", [bearer(of_cookie)]),
        "60 KB": (200, "/", [bearer(tokens.token("old", aud="books", pad="x" * 44_000))]),
        "too long": (431, "/", [bearer(tokens.token("old", aud="books", pad="x" * 60_000))]),
        "two, one bad, as header and parameter": (401, f"/?access_token={tokens.unsigned()}", [bearer(good)]),
        "two, one bad, as parameter and header": (401, f"/?access_token={good}", [bearer(tokens.unsigned())]),
        "two headers": (401, "/", [bearer(good), bearer(tokens.unsigned())]),
        "two issuers, one bad": (401, "/", [bearer(good), ("Cookie", "session=bad")]),
        "two issuers, the other bad": (401, "/", [bearer("bad"), ("Cookie", f"session={of_cookie}")]),
        "two issuers, both good": (200, "/", [bearer(good), ("Cookie", f"session={of_cookie}")]),
    }
    answers = users.ask(*((path, headers) for _, path, headers in cases.values()))
    got = {name: status for name, (status, _) in zip(cases, answers, strict=True)}
    assert got == {name: wanted for name, (wanted, _, _) in cases.items()}


def test_the_application_sees_claims_and_no_forged_ones(users):
    claims = [{"header": "x-user", "claim": "sub"}, {"header": "x-team", "claim": "org.team"}]
    users.authenticate(rule(outputPayloadToHeader="x-payload", outputClaimToHeaders=claims))
    users.becomes(401, bearer("nonsense"))
    forged = [("X-Payload", "forged"), ("X-User", "admin"), ("X-Team", "admin")]
    good = bearer(tokens.token("old", org={"team": "blue"}))
    plain, with_token = (json.loads(body)["headers"] for _, body in users.ask(("/", forged), ("/", [*forged, good])))
    assert plain.keys().isdisjoint({"x-payload", "x-user", "x-team"})
    assert (with_token["x-user"], with_token["x-team"]) == ("joe", "blue")
    assert "authorization" not in with_token
    users.authenticate(rule(forwardOriginalToken=True))
    users.mesh.until(lambda: "authorization" in json.loads(users.ask(("/", [good]))[0][1])["headers"], what="forwarded")


def test_principals_and_claims_decide(users):
    users.authenticate(rule())
    rules = [
        {"from": [{"source": {"requestPrincipals": ["tests.example/joe"]}}], "to": [path("/joe")]},
        {"to": [path("/staff")], "when": [{"key": "request.auth.claims[realm][roles]", "values": ["staff", "lead-*"]}]},
        {"to": [path("/scoped")], "when": [{"key": "request.auth.claims[scope]", "values": ["read"]}]},
        {"to": [path("/books")], "when": [{"key": "request.auth.audiences", "values": ["books"]}]},
        {"to": [path("/app")], "when": [{"key": "request.auth.presenter", "values": ["app"]}]},
        {"to": [path("/eve")]},
    ]
    users.apply("AuthorizationPolicy", "allow", json.dumps({"rules": rules}))
    deny = [
        {"from": [{"source": {"requestPrincipals": ["*/eve"]}}]},
        {"from": [{"source": {"notRequestPrincipals": ["*"]}}], "to": [path("/eve")]},
    ]
    users.apply("AuthorizationPolicy", "deny", json.dumps({"action": "DENY", "rules": deny}))

    def with_claims(**claims):
        return [bearer(tokens.token("old", **claims))]

    users.becomes(200, *with_claims(), path="/joe")
    users.becomes(403, path="/eve")
    cases = [
        ("/joe", [], 403),
        ("/joe", with_claims(sub="ann"), 403),
        ("/joe", [bearer("nonsense")], 401),
        ("/staff", with_claims(realm={"roles": ["guest", "staff"]}), 200),
        ("/staff", with_claims(realm={"roles": "lead-books"}), 200),
        ("/staff", with_claims(realm={"roles": ["guest"]}), 403),
        ("/staff", with_claims(roles=["staff"]), 403),
        ("/scoped", with_claims(scope="write read"), 200),
        ("/scoped", with_claims(scope="write"), 403),
        ("/books", with_claims(aud=["films", "books"]), 200),
        ("/books", with_claims(aud="films"), 403),
        ("/app", with_claims(azp="app"), 200),
        ("/app", with_claims(), 403),
        ("/eve", with_claims(), 200),
        ("/eve", with_claims(sub="eve"), 403),
        ("/other", with_claims(), 403),
    ]
    got = [status for status, _ in users.ask(*((p, headers) for p, headers, _ in cases))]
    assert list(zip(cases, got, strict=True)) == [(c, c[2]) for c in cases]
    shown = users.mesh.lateen("x", "authz", "check", f"deploy/echo.{NS}").stdout
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["DENY", "deny.users", "2"],
        ["ALLOW", "allow.users", "6"],
    ]


LOAD = """
import http.client, json, os, sys, threading, time
users, stop = json.load(sys.stdin), sys.argv[1]
end, wrong, count = time.time() + 100, [], [0] * len(users)
def run(i, wanted, header):
    c = http.client.HTTPConnection("echo.users", timeout=8)
    while time.time() < end and not os.path.exists(stop):
        c.request("GET", "/", headers=dict([header]))
        r = c.getresponse(); r.read()
        count[i] += 1
        if r.status != wanted: wrong.append([i, r.status])
ts = [threading.Thread(target=run, args=(i, *user)) for i, user in enumerate(users)]
[t.start() for t in ts]; [t.join() for t in ts]
print(json.dumps([count, wrong[:20]]))
"""


def test_no_request_is_judged_without_the_claims_of_its_token(users):
    """Claims are stored before a policy reads them, and until it is gone: while policies about them come and go, those
    who may enter do, and those who may not never do."""
    users.authenticate(rule())
    joe, eve = bearer(tokens.token("old")), bearer(tokens.token("old", sub="eve"))
    keeps_out = {"action": "DENY", "rules": [{"from": [{"source": {"requestPrincipals": ["*/eve"]}}]}]}
    wants_some = {"action": "DENY", "rules": [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]}
    lets_in = {"rules": [{"from": [{"source": {"requestPrincipals": ["tests.example/*"]}}]}]}
    pod, stop = users.mesh.pod("ratings"), f"/tmp/stop-{time.monotonic_ns()}"

    def load(*cases):
        where = ("exec", "-i", pod, "-c", "ratings", "--")
        return users.mesh.kubectl(*where, "python3", "-c", LOAD, stop, stdin=json.dumps(cases), timeout=120).stdout

    users.becomes(401, bearer("nonsense"))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(load, (200, joe), (200, joe))
        for _ in range(8):
            for policy in (wants_some, lets_in):
                users.apply("AuthorizationPolicy", "who", json.dumps(policy))
                users.becomes(403)
                users.mesh.kubectl("delete", "authorizationpolicy", "who", "-n", NS)
                users.becomes(200)
        users.mesh.kubectl("exec", pod, "-c", "ratings", "--", "touch", stop)
        count, wrong = json.loads(found.result())
        assert wrong == []
        assert min(count) > 500

        users.apply("AuthorizationPolicy", "out", json.dumps(keeps_out))
        users.becomes(403, eve)
        stop += "again"
        found = pool.submit(load, (200, joe), (403, eve))
        for _ in range(8):
            users.apply("AuthorizationPolicy", "who", json.dumps(lets_in))
            users.becomes(403)
            users.mesh.kubectl("delete", "authorizationpolicy", "who", "-n", NS)
            users.becomes(200)
        users.mesh.kubectl("exec", pod, "-c", "ratings", "--", "touch", stop)
        count, wrong = json.loads(found.result())
        assert wrong == []
        assert min(count) > 500


def path(text):
    return {"operation": {"paths": [text]}}


def restarted(users):
    """Another istiod, which has told the proxies what it knows."""
    where = ("-n", "istio-system")

    def kept():
        text = users.mesh.get("secret", "lateen-jwks", *where, "-o", "jsonpath={.data.keys\\.json}")
        return all(
            f'"kid":"{k}"' in base64.b64decode(text).decode().replace("\\", "").replace(" ", "") for k in ("old", "new")
        )

    users.mesh.until(kept, 20, "the keys in their Secret")
    before = users.mesh.get("pod", *where, "-l", "app=istiod", "-o", "name")
    users.mesh.kubectl("delete", *where, before.strip())
    users.mesh.kubectl("rollout", "status", *where, "deploy/istiod", "--timeout=60s")
    pod = users.mesh.pod("echo", NS)
    users.mesh.until(
        lambda: before not in users.mesh.get("pod", *where, "-l", "app=istiod", "-o", "name"), 20, "the end"
    )
    users.mesh.until(lambda: pod in users.mesh.lateen("proxy-status").stdout, 30, "the proxy's new connection")


def test_new_keys_are_fetched_and_old_ones_stay_while_the_server_is_down(users):
    users.publish(".well-known/openid-configuration", json.dumps({"jwks_uri": f"{ISSUER}/keys"}))
    users.authenticate({"issuer": ISSUER})
    old, new = (bearer(tokens.token(kid, iss=ISSUER)) for kid in ("old", "new"))
    users.becomes(401, new)
    users.becomes(200, old)
    users.publish("keys", tokens.key_set("old", "new"))
    users.becomes(200, new)
    assert users.condition()["status"] == "True"
    users.publish("keys", "not now")
    users.mesh.until(lambda: "not a usable key set" in users.condition()["message"], 20, "the reason")
    assert "those fetched before stay in use" in users.condition()["message"]
    assert [status for status, _ in users.ask(("/", [old]), ("/", [new]))] == [200, 200]
    restarted(users)
    users.mesh.until(lambda: "those fetched before stay in use" in users.condition()["message"], 20, "the reason")
    assert [status for status, _ in users.ask(("/", [old]), ("/", [new]))] == [200, 200]
    users.publish("keys", tokens.key_set("new"))
    users.becomes(401, old)
    users.publish("keys", tokens.key_set("old"))


def test_tokens_without_keys_are_rejected_and_the_policy_says_why(users):
    users.authenticate(rule(jwksUri=f"http://nobody.{NS}/keys"), rule(issuer="b", jwksUri="http://169.254.169.254/"))
    users.becomes(401, bearer(tokens.token("old")))
    users.mesh.until(lambda: users.condition().get("status") == "False", 20, "the condition")
    assert "its tokens are rejected" in users.condition()["message"]
    assert "does not connect to 169.254.169.254: it is link-local" in users.condition()["message"]
    assert users.status() == 200
    found = users.mesh.lateen("analyze", "-n", NS, ok=False).stdout
    assert "LAT0111" in found
    assert "169.254.169.254" in found


def test_the_gateway_routes_by_claims(users):
    users.authenticate(
        rule(outputClaimToHeaders=[{"header": "x-level", "claim": "level"}]),
        name="gateway",
        namespace="istio-system",
        selector="{matchLabels: {istio: ingressgateway}}",
    )
    server = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [users.example]}"
    gateway = f"{{selector: {{istio: ingressgateway}}, servers: [{server}]}}"
    users.apply("Gateway", "web", gateway, group="networking.istio.io")
    to = {"route": [{"destination": {"host": f"echo.{NS}.svc.cluster.local"}}]}
    routes = [
        {
            "match": [{"headers": {"@request.auth.claims.group": {"exact": "admin"}}}],
            "rewrite": {"uri": "/admin"},
            **to,
        },
        {"match": [{"headers": {"@request.auth.claims[a][b]": {"prefix": "deep"}}}], "rewrite": {"uri": "/deep"}, **to},
        {"match": [{"headers": {"x-level": {"exact": "high"}}}], "rewrite": {"uri": "/high"}, **to},
        {"match": [{"withoutHeaders": {"@request.auth.claims.sub": {}}}], "rewrite": {"uri": "/nobody"}, **to},
        {"rewrite": {"uri": "/others"}, **to},
    ]
    spec = {"hosts": ["users.example"], "gateways": ["web"], "http": routes}
    users.apply("VirtualService", "web", json.dumps(spec), group="networking.istio.io")

    def where(*headers):
        asked = urllib.request.Request(f"{users.mesh.ingress()}/", headers={"Host": "users.example", **dict(headers)})
        try:
            with urllib.request.urlopen(asked, timeout=8) as answer:
                return json.loads(answer.read())["path"]
        except urllib.error.HTTPError as e:
            return e.code

    def with_claims(**claims):
        return bearer(tokens.token("old", **claims))

    users.mesh.until(lambda: where(with_claims(group=["users", "admin"])) == "/admin", 20, "the gateway's route")
    assert where() == "/nobody"
    assert where(with_claims(group="users")) == "/others"
    assert where(with_claims(a={"b": "deeper"})) == "/deep"
    assert where(bearer("nonsense")) == 401
    assert where(with_claims(level="high")) == "/high"
    assert where(("x-level", "high")) == "/nobody"
    assert where(with_claims(level="low"), ("x-level", "high")) == "/others"
