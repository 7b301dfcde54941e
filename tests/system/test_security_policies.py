"""SecurityPolicies of Envoy Gateway at a service's sidecar and at a gateway: keys, passwords, other sites, logins."""

import base64
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import logins
import pytest
import tokens
from samples import NS, obj, tasks  # noqa: F401 - a fixture of this module

pytestmark = pytest.mark.system

KEYS = {"alice": "key-of-alice", "bob": "key-of-bob"}
SECRETS = {
    "clients": KEYS,
    "users": {".htpasswd": "alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"},  # password
    "shop": {"client-secret": "of-the-shop"},
}
RUN = json.dumps([sys.executable, "-c", logins.PROVIDER])
LOGIN = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: login}}
spec:
  selector: {{matchLabels: {{app: login}}}}
  template:
    metadata: {{labels: {{app: login, sidecar.istio.io/inject: "false"}}}}
    spec:
      containers:
      - {{name: login, image: docker.io/lateen/http-echo, command: {RUN}}}
---
apiVersion: v1
kind: Service
metadata: {{name: login}}
spec: {{selector: {{app: login}}, ports: [{{name: http, port: 80, targetPort: 8000}}]}}
"""
SERVICE = "[{group: '', kind: Service, name: httpbin}]"
ROUTED = "[{group: networking.istio.io, kind: Gateway, name: guarded, sectionName: guarded}]"
LISTENER = "[{group: gateway.networking.k8s.io, kind: Gateway, name: standard, sectionName: guarded}]"
RULE = "[{group: gateway.networking.k8s.io, kind: HTTPRoute, name: standard, sectionName: main}]"
PLACES = (SERVICE, ROUTED, LISTENER, RULE)
IDS = ("sidecar", "gateway", "listener", "rule")
HOSTS = {ROUTED: "guarded.test", LISTENER: "standard.test", RULE: "standard.test"}
STANDARD = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: standard}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: istio-ingressgateway.istio-system.svc.cluster.local}]
  listeners:
  - {name: guarded, hostname: standard.test, port: 80, protocol: HTTP}
  - {name: open, hostname: open.test, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: standard}
spec:
  parentRefs: [{name: standard}]
  hostnames: [standard.test, open.test]
  rules:
  - {name: other, matches: [{path: {value: /anything/other}}], backendRefs: [{name: httpbin, port: 8000}]}
  - {name: main, backendRefs: [{name: httpbin, port: 8000}]}
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: HOST}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, name: HOST, hosts: [HOST.test]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: HOST}
spec:
  hosts: [HOST.test]
  gateways: [HOST]
  http: [{route: [{destination: {host: SERVER, port: {number: PORT}}}]}]
"""


def policy(spec, targets, name="guard"):
    return obj("SecurityPolicy", name, f"{{targetRefs: {targets}, {spec}}}", "gateway.envoyproxy.io/v1alpha1")


class Guarded:
    def __init__(self, tasks):  # noqa: F811
        self.tasks, self.mesh = tasks, tasks.mesh

    def ask(self, targets, *curl, path="/get"):
        """(status, answer with its headers) at the service or at the gateway."""
        if targets == SERVICE:
            return self.tasks.get(f"httpbin.{NS}:8000{path}", "-i", *(f"'{c}'" for c in curl))
        return self.mesh.page(path, "-i", "-H", f"Host: {HOSTS[targets]}", *curl)

    def status(self, targets, *curl, path="/get"):
        return self.ask(targets, *curl, path=path)[0]

    def apply(self, spec, targets):
        """Returns once proxies have the policy."""
        before = self.mesh.get("securitypolicy", "guard", "-n", NS, "-o", "yaml", "--ignore-not-found")
        named = targets.partition("kind: ")[2].partition("}")[0].split(",")
        if before and not all(part.strip() in before for part in ("kind: " + named[0], *named[1:])):
            self.mesh.kubectl("delete", "securitypolicy", "guard", "-n", NS)
        self.mesh.apply(policy(spec, targets).replace("metadata: {", f"metadata: {{namespace: {NS}, ", 1))

        def reconciled():
            got = json.loads(self.mesh.get("securitypolicy", "guard", "-n", NS, "-o", "json"))
            found = {c["type"]: c for c in got.get("status", {}).get("conditions", [])}
            mine = found.get("Reconciled", {})
            known = mine.get("observedGeneration") == got["metadata"]["generation"]
            return mine.get("status") == "True" and known and found

        return self.tasks.until(reconciled, what="the policy in the proxies")

    def becomes(self, wanted, targets, *curl, path="/get"):
        """On all connections: one from before a service's first policy serves another request before it ends."""

        def all_of_them():
            if targets == SERVICE:
                quoted = " ".join(f"'{c}'" for c in curl)
                asked = f"curl -s -o /dev/null -w '%{{http_code}} ' {quoted} 'httpbin.{NS}:8000{path}'"
                # Connections of their own, so that each worker of the proxy has some of them.
                found = self.tasks.sh(f"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do {asked}; done", ok=False)
                return set(found.split()) == {str(wanted)}
            return self.status(targets, *curl, path=path) == wanted

        self.tasks.until(all_of_them, what=f"status {wanted}")


@pytest.fixture(scope="module")
def guarded(tasks):  # noqa: F811
    mesh = tasks.mesh
    mesh.kubectl("apply", "-n", NS, "-f", "-", stdin=LOGIN)
    for host, server, port in (("guarded", "httpbin", 8000), ("login", "login", 80)):
        text = GATEWAY.replace("HOST", host).replace("SERVER", server).replace("PORT", str(port))
        mesh.kubectl("apply", "-n", NS, "-f", "-", stdin=text)
    mesh.kubectl("apply", "-n", NS, "-f", "-", stdin=STANDARD)
    for name, data in SECRETS.items():
        given = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NS}, "data": given}
        mesh.apply(json.dumps(secret))
    role = ("istiod-secrets", "-n", NS)
    mesh.kubectl("create", "role", *role, "--verb=get,list,watch", "--resource=secrets")
    mesh.kubectl("create", "rolebinding", *role, "--role=istiod-secrets", "--serviceaccount=istio-system:istiod")
    mesh.kubectl("wait", "-n", NS, "--for=condition=Available", "deploy/login", "--timeout=60s")
    out = Guarded(tasks)
    out.becomes(200, ROUTED)
    out.becomes(200, LISTENER)
    yield out
    mesh.kubectl("delete", "securitypolicy", "--all", "-n", NS)


@pytest.mark.parametrize("place", PLACES, ids=IDS)
def test_a_client_needs_a_key_and_the_server_learns_whose_it_is(guarded, place):
    auth = "credentialRefs: [{name: clients}], extractFrom: [{headers: [x-key], params: [key]}]"
    guarded.apply(f"apiKeyAuth: {{{auth}, forwardClientIDHeader: x-client, sanitize: true}}", place)
    guarded.becomes(401, place)
    assert guarded.status(place, "-H", "x-key: key-of-mallory") == 401
    assert guarded.status(place, path="/get?key=key-of-bob") == 200
    status, said = guarded.ask(place, "-H", "x-key: key-of-alice", "-H", "x-client: bob", path="/headers")
    assert status == 200
    assert "alice" in said
    assert "bob" not in said
    assert "key-of-alice" not in said


def test_keys_are_in_no_dump_and_no_log(guarded):
    guarded.apply("apiKeyAuth: {credentialRefs: [{name: clients}], extractFrom: [{headers: [x-key]}]}", SERVICE)
    guarded.becomes(401, SERVICE)
    pod = guarded.mesh.pod("httpbin", NS)
    said = guarded.mesh.kubectl(
        "exec", pod, "-n", NS, "-c", "istio-proxy", "--", "curl", "-s", "localhost:15000/config_dump?include_eds"
    ).stdout
    assert "api_key_auth" in said
    said += guarded.mesh.lateen("x", "internal-debug", "config_dump?proxyID=" + f"{pod}.{NS}", ok=False).stdout
    said += guarded.mesh.kubectl("logs", "-n", "istio-system", "deploy/istiod").stdout
    said += guarded.mesh.kubectl("logs", pod, "-n", NS, "-c", "istio-proxy").stdout
    said += guarded.mesh.get("securitypolicy", "-n", NS, "-o", "yaml")
    assert not [k for k in (*KEYS.values(), "of-the-shop") if k in said]
    why = guarded.mesh.lateen("logs", pod, "-n", NS, "--status", "401", "--explain").stdout
    assert "refused by SecurityPolicy" in why


@pytest.mark.parametrize("place", PLACES, ids=IDS)
def test_a_user_needs_a_password_and_another_site_the_servers_consent(guarded, place):
    cors = "allowOrigins: ['https://*.shop.test'], allowMethods: [GET], allowHeaders: [x-id], maxAge: 1m"
    guarded.apply(f"basicAuth: {{users: {{name: users}}, forwardUsernameHeader: x-user}}, cors: {{{cors}}}", place)
    guarded.becomes(401, place)
    assert guarded.status(place, "-u", "alice:wrong") == 401
    allowed = ("-u", "alice:password", "-H", "Origin: https://a.shop.test")

    def consents():
        """Each worker of the proxy takes the new configuration at a moment of its own."""
        status, said = guarded.ask(place, *allowed, path="/headers")
        return status == 200 and "access-control-allow-origin: https://a.shop.test" in said.lower()

    guarded.tasks.until(lambda: all(consents() for _ in range(4)), what="the consent")
    asks = ("-X", "OPTIONS", "-H", "Access-Control-Request-Method: GET", "-H")
    _, said = guarded.ask(place, *asks, "Origin: https://a.shop.test")
    assert "access-control-allow-methods: get" in said.lower()
    _, said = guarded.ask(place, *asks, "Origin: https://evil.test")
    assert "access-control-allow-origin" not in said.lower()


@pytest.mark.parametrize("place", PLACES, ids=IDS)
def test_tokens_and_rules_decide_and_the_first_rule_that_matches_wins(guarded, place):
    keys = tokens.key_set("one").replace('"', '\\"')
    provider = f'{{name: one, issuer: tests.example, localJWKS: {{inline: "{keys}"}}}}'
    rules = (
        "[{name: odd, action: Deny, operation: {methods: [GET]},"
        " principal: {headers: [{name: x-odd, values: ['yes']}]}},"
        " {name: readers, action: Allow, principal: {jwt: {provider: one, claims: [{name: role, values: [reader]}]}}}]"
    )
    guarded.apply(f"jwt: {{providers: [{provider}]}}, authorization: {{rules: {rules}}}", place)
    guarded.becomes(401, place)

    def bearer(**claims):
        return ("-H", f"Authorization: Bearer {tokens.token('one', **claims)}")

    assert guarded.status(place, *bearer(role="reader")) == 200
    assert guarded.status(place, *bearer(role="writer")) == 403
    assert guarded.status(place, *bearer(role="reader"), "-H", "x-odd: yes") == 403
    assert guarded.status(place, *bearer(role="reader"), "-H", "x-odd: yes", "-X", "POST", path="/post") == 200
    _, said = guarded.ask(place, *bearer(role="writer"))
    assert "guard" not in said
    app = ("app=httpbin", "-n", NS) if place == SERVICE else ("app=istio-ingressgateway", "-n", "istio-system")
    guarded.tasks.until(
        lambda: (
            f"ns[{NS}]-policy[SecurityPolicy/guard]-rule[odd]"
            in guarded.mesh.kubectl("logs", "-l", *app, "-c", "istio-proxy", "--tail=50").stdout
        ),
        what="the rule in the access log",
    )


@pytest.mark.parametrize("place", PLACES, ids=IDS)
def test_another_server_decides(guarded, place):
    asked = "http: {backendRefs: [{name: login, port: 80}], path: /check, headersToBackend: [x-checked]}"
    guarded.apply(f"extAuth: {{{asked}, headersToExtAuth: [x-pass]}}", place)
    guarded.becomes(403, place)
    status, said = guarded.ask(place, "-H", "x-pass: yes", path="/headers")
    assert (status, "by-login" in said) == (200, True)
    guarded.apply("extAuth: {http: {backendRefs: [{name: nobody, port: 80}]}}", place)
    guarded.becomes(403, place, "-H", "x-pass: yes")


OIDC = """
oidc: {
  provider: {issuer: http://login.tasks.svc.cluster.local}, clientID: shop, clientSecret: {name: shop},
  forwardAccessToken: true, denyRedirect: {headers: [{name: x-ajax, value: "yes"}]}}
"""


def browse(guarded, place, url, jars):
    if place != SERVICE:
        here = ["127.0.0.1", guarded.mesh.host_port(80)]
        given = json.dumps([url, {HOSTS[place]: here, "login.test": here}, jars])
        found = subprocess.run(
            [sys.executable, "-c", logins.BROWSER], input=given, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    else:
        given = json.dumps([url, {"login.test": [f"login.{NS}", 80]}, jars])
        pod = guarded.mesh.pod("ratings")
        command = ("-i", pod, "-c", "ratings", "--", "python3", "-c", logins.BROWSER)
        found = guarded.mesh.kubectl("exec", *command, stdin=given).stdout
    return json.loads(found)


@pytest.mark.parametrize("place", PLACES, ids=IDS)
def test_a_browser_logs_in_with_a_provider_and_out_again(guarded, place):
    conditions = guarded.apply(OIDC, place)
    assert conditions["KeysFetched"]["status"] == "True"
    guarded.becomes(302, place)
    guarded.becomes(401, place, "-H", "x-ajax: yes")
    workload = (
        ("deploy/httpbin", "-n", NS) if place == SERVICE else ("deploy/istio-ingressgateway", "-n", "istio-system")
    )

    def explained():
        said = guarded.mesh.lateen("logs", "--explain", *workload).stdout
        named = said.count(f"refused by SecurityPolicy guard.{NS}") > 1
        return named and "it is not logged in (OIDC)" in said and "may not be sent to the provider" in said

    guarded.tasks.until(explained, what="the policy in the explained log")
    host = HOSTS.get(place) or f"httpbin.{NS}:8000"
    found = guarded.tasks.until(
        lambda: (f := browse(guarded, place, f"http://{host}/headers", {}))["steps"][-1][0] == 200 and f, what="a login"
    )
    assert [s for s, _ in found["steps"]] == [302, 302, 302, 200]
    assert found["steps"][1][1].startswith("http://login.test/authorize?")
    assert "Bearer token-of-alice" in found["body"]
    again = browse(guarded, place, f"http://{host}/headers", found["jars"])
    assert [s for s, _ in again["steps"]] == [200]
    forged = {name: dict.fromkeys(jar, "x") for name, jar in found["jars"].items()}
    assert browse(guarded, place, f"http://{host}/headers", forged)["steps"][0][0] == 302
    out = browse(guarded, place, f"http://{host}/logout", found["jars"])
    assert out["steps"][0][0] == 302
    assert out["steps"][2][1].startswith("http://login.test/authorize?")


def test_what_is_broken_lets_nobody_in_and_says_so(guarded):
    guarded.apply("basicAuth: {users: {name: shop}}", SERVICE)
    guarded.becomes(403, SERVICE, "-u", "alice:password")

    def said():
        found = guarded.mesh.lateen("analyze", "-n", NS, ok=False).stdout
        return "LAT0122" in found and "no users in .htpasswd" in found

    guarded.tasks.until(said, what="the finding")
    done = guarded.mesh.apply(policy("cors: {allowOrigins: ['*'], allowCredentials: true}", SERVICE), ok=False)
    assert "every site could act as the user" in done.stderr


def test_the_most_specific_policy_of_a_gateways_request_replaces_the_others(guarded):
    """As in Envoy Gateway: a rule's, its route's, a listener's, its Gateway's."""
    keys = "apiKeyAuth: {credentialRefs: [{name: clients}], extractFrom: [{headers: [x-key]}]}"
    key, password = ("-H", "x-key: key-of-alice"), ("-u", "alice:password")
    whole = LISTENER.replace(", sectionName: guarded", "")
    guarded.apply(keys, whole)
    guarded.becomes(401, LISTENER)
    assert guarded.mesh.page("/get", "-H", "Host: open.test")[0] == 401
    assert guarded.status(LISTENER, *key) == 200
    guarded.mesh.kubectl(
        "apply", "-n", NS, "-f", "-", stdin=policy("basicAuth: {users: {name: users}}", RULE, "of-the-rule")
    )
    guarded.becomes(200, RULE, *password)
    assert guarded.status(RULE, *key) == 401, "the password replaces the key"
    assert guarded.status(RULE, *key, path="/anything/other") == 200, "another rule of the route has the Gateway's"
    assert guarded.status(RULE, *password, path="/anything/other") == 401
    guarded.mesh.kubectl("delete", "securitypolicy", "of-the-rule", "-n", NS)
    guarded.apply(keys, LISTENER)
    guarded.becomes(401, LISTENER)
    guarded.tasks.until(
        lambda: guarded.mesh.page("/get", "-H", "Host: open.test")[0] == 200, what="the other listener without a policy"
    )
    guarded.mesh.kubectl("delete", "securitypolicy", "guard", "-n", NS)


def test_a_preflight_is_no_way_around_a_token(guarded):
    keys = tokens.key_set("one").replace('"', '\\"')
    jwt = f'jwt: {{providers: [{{name: one, issuer: tests.example, localJWKS: {{inline: "{keys}"}}}}]}}'
    asks = ("-X", "OPTIONS", "-H", "Access-Control-Request-Method: GET", "-H", "Origin: https://a.test")
    for place in (SERVICE, LISTENER):
        guarded.apply(jwt, place)
        guarded.becomes(401, place, *asks)


HELD = f"""
import http.client, time
held = [http.client.HTTPConnection("httpbin.{NS}", 8000, timeout=20) for _ in range(8)]
said = dict.fromkeys(held)
end = time.monotonic() + 60
while time.monotonic() < end and not all(s and s[0] == 401 for s in said.values()):
    for c in held:
        c.request("GET", "/get")
        answer = c.getresponse()
        answer.read()
        said[c] = (answer.status, answer.getheader("connection"))
    time.sleep(0.02)
print(sorted(set(said.values())))
"""


def test_the_first_policy_of_a_service_holds_on_open_connections_and_closes_none(guarded):
    """A connection whose listener drains is told so with its next answer, which the policy has not seen."""
    guarded.mesh.kubectl("delete", "securitypolicy", "--all", "-n", NS)
    guarded.becomes(200, SERVICE)
    command = ("exec", guarded.mesh.pod("login", NS), "-n", NS, "--", sys.executable, "-c", HELD)
    with ThreadPoolExecutor() as pool:
        held = pool.submit(guarded.mesh.kubectl, *command, timeout=90)
        guarded.apply("apiKeyAuth: {credentialRefs: [{name: clients}], extractFrom: [{headers: [x-key]}]}", SERVICE)
        assert held.result().stdout.strip() == "[(401, None)]"
