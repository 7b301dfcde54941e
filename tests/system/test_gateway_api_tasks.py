"""The tasks of Istio's documentation in the form of their second tab, "Gateway API", with manifests of our own.

https://istio.io/latest/docs/tasks/; docs/reference-gateway-api-tasks.md has the list.
"""

import json
import socket
import subprocess

import pytest
import tokens
from samples import NS, dr, obj, tasks, vs  # noqa: F401 - a fixture of this module
from world import SAMPLES, Secrets

from lateen.kit import certs, times

pytestmark = pytest.mark.system
V1 = "apiVersion: gateway.networking.k8s.io/v1"
FOLDER = SAMPLES / "gateway-api"
VERSIONS = tuple(
    f"apiVersion: v1\nkind: Service\nmetadata: {{name: {app}-{version}}}\n"
    f"spec: {{selector: {{app: {app}, version: {version}}}, ports: [{{name: {name}, port: {port}, targetPort: {target}}}]}}"
    for app, name, port, target in (("httpbin", "http", 8000, 8080), ("tcp-echo", "tcp", 9000, 9000))
    for version in ("v1", "v2")
)
GATEWAY = f"""
{V1}
kind: Gateway
metadata: {{name: front}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: http, port: 80, protocol: HTTP, hostname: "*.example.com"}}
  - {{name: tcp, port: 31400, protocol: TCP}}
  - name: https
    port: 443
    protocol: HTTPS
    hostname: simple.example.com
    tls: {{certificateRefs: [{{name: simple}}]}}
  - name: mutual
    port: 443
    protocol: HTTPS
    hostname: mutual.example.com
    tls: {{certificateRefs: [{{name: mutual}}], options: {{gateway.istio.io/tls-terminate-mode: MUTUAL}}}}
  - {{name: pass, port: 443, protocol: TLS, hostname: istiod.istio-system.svc, tls: {{mode: Passthrough}}}}
"""
OUTSIDE = (
    "{hosts: [httpbin.example.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http,"
    " protocol: HTTP, targetPort: 8000}], endpoints: [{address: httpbin.tasks-outside.svc.cluster.local}]}"
)
TO_OUTSIDE = "--connect-to httpbin.example.com:80:10.1.1.1:80"
SERVICE = '{group: "", kind: Service, name: httpbin, port: 8000}'
OF_GATEWAY = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]"
SECURITY = "security.istio.io/v1"


def api(kind, name, spec):
    return obj(kind, name, spec, "gateway.networking.k8s.io/v1")


def route(name, rules, parent="{name: front}", hosts="", kind="HTTPRoute"):
    hostnames = f", hostnames: [{hosts}]" if hosts else ""
    return api(kind, name, f"{{parentRefs: [{parent}]{hostnames}, rules: [{rules}]}}")


class Front:
    """The gateway that istiod deploys, asked from outside of the mesh at its own address."""

    def __init__(self, tasks, secrets):
        self.secrets = secrets
        found = ("gtw", "front", "-n", NS, "-o", "jsonpath={.status.addresses[0].value}")
        self.address = tasks.mesh.get(*found).strip()

    def ask(self, path, *more, host="a.example.com", scheme="http"):
        """(code, body); an error of the connection is 0."""
        port = 80 if scheme == "http" else 443
        argv = ["curl", "-s", "-m", "8", "-w", "\n%{http_code}", "--connect-to", f"{host}:{port}:{self.address}:{port}"]
        done = subprocess.run(
            [*argv, *more, f"{scheme}://{host}{path}"], capture_output=True, text=True, timeout=20, check=False
        )
        body, _, code = done.stdout.rpartition("\n")
        return int(code or 0), body


@pytest.fixture(scope="module")
def front(tasks, tmp_path_factory):
    directory = tmp_path_factory.mktemp("front")
    ca = certs.authority("example", times.now(), days=2)
    (directory / "ca.pem").write_text(ca.certificate)
    secrets = Secrets(tasks.mesh, ca, directory)
    for name in ("simple", "mutual"):
        crt, key = secrets.issue(name, f"{name}.example.com")
        tasks.mesh.kubectl(
            "create", "secret", "generic", name, "-n", NS,
            f"--from-file=tls.crt={crt}", f"--from-file=tls.key={key}", f"--from-file=ca.crt={directory / 'ca.pem'}",
        )  # fmt: skip
    with tasks.applied(*VERSIONS, GATEWAY):
        tasks.mesh.kubectl("wait", "--for=condition=Programmed", "--timeout=90s", "gtw/front", "-n", NS, timeout=120)
        yield Front(tasks, secrets)


def test_request_routing_and_faults_with_bookinfo(mesh):
    """Faults stay VirtualServices: they are of ratings, which no route of the Gateway API has."""

    def stars(*curl):
        done = mesh.inside("productpage", "curl", "-s", "-w", "\n%{http_code}", *curl, "reviews:9080/reviews/0")
        return json.loads(done.stdout.rpartition("\n")[0])

    files = [FOLDER / "bookinfo-versions.yaml", FOLDER / "route-reviews-test-v2.yaml"]
    fault = vs(
        "ratings",
        "ratings",
        "[{match: [{headers: {end-user: {exact: jason}}}], fault: {abort: {percentage: {value: 100}, httpStatus: 500}},"
        " route: [{destination: {host: ratings}}]}, {route: [{destination: {host: ratings}}]}]",
    )
    for file in files:
        mesh.kubectl("apply", "-f", str(file))
    try:
        mesh.until(lambda: "reviews-v2" in stars("-H", "end-user: jason")["podname"], what="version 2 for jason")
        assert {stars()["podname"][:10] for _ in range(8)} == {"reviews-v1"}
        mesh.apply(fault)
        mesh.until(
            lambda: "unavailable" in str(stars("-H", "end-user: jason")["reviews"][0]["rating"]), what="the fault"
        )
        mesh.kubectl("apply", "-f", str(FOLDER / "route-reviews-50-v3.yaml"))
        mesh.until(lambda: len({stars()["podname"][:10] for _ in range(12)}) == 2, what="the shift of traffic")
    finally:
        mesh.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=fault)
        mesh.kubectl("delete", "-f", str(files[0]), "-f", str(files[1]))


def test_weights_timeouts_and_mirrors_of_requests(tasks, front):
    weights = "{backendRefs: [{name: httpbin-v1, port: 8000, weight: 80}, {name: httpbin-v2, port: 8000, weight: 20}]}"
    with tasks.applied(route("httpbin", weights, SERVICE)):
        tasks.until(lambda: len(tasks.versions("httpbin:8000/get", 50)) == 2, what="the weights")
        found = tasks.versions("httpbin:8000/get", 300)
        assert 212 <= found["v1"] <= 268, found  # 240 ± 4 standard deviations
        limited = "{timeouts: {request: 500ms}, backendRefs: [{name: httpbin-v1, port: 8000}]}"
        tasks.applied(route("httpbin", limited, SERVICE))
        tasks.until(lambda: tasks.get("httpbin:8000/delay/2")[0] == 504, what="the timeout")
        assert tasks.get("httpbin:8000/get")[0] == 200
        mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: httpbin-v2, port: 8000}}}"
        rule = f"{{filters: [{mirror}], backendRefs: [{{name: httpbin-v1, port: 8000}}]}}"
        tasks.applied(route("httpbin", rule, SERVICE))

        def mirrored():
            assert tasks.versions("httpbin:8000/get", 4) == {"v1": 4}
            stats = tasks.mesh.kubectl(
                "exec", tasks.mesh.pod("sleep", NS), "-n", NS, "-c", "istio-proxy", "--", "pilot-agent", "request",
                "GET", "clusters",
            ).stdout  # fmt: skip
            v2 = [ln for ln in stats.splitlines() if ln.startswith("outbound|8000||httpbin-v2.") and "rq_total" in ln]
            return sum(int(ln.rsplit("::", 1)[1]) for ln in v2) > 0

        tasks.until(mirrored, what="copies at the second version")


def test_circuit_breaking(tasks, front):
    pool = "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 1}}}"
    script = "for i in 1 2 3 4 5 6 7 8; do curl -s -m 9 -o /dev/null -w '%{http_code}\\n' httpbin-v1:8000/delay/0.3 & done; wait"

    def overflowed():
        found = tasks.sh(script).split()
        return found.count("503") >= 2 and found.count("200") >= 1

    with tasks.applied(dr("limited", "httpbin-v1", pool)):
        tasks.until(overflowed, what="refusals beside successes")


def test_shifting_of_connections(tasks, front):
    weights = (
        "{backendRefs: [{name: tcp-echo-v1, port: 9000, weight: 80}, {name: tcp-echo-v2, port: 9000, weight: 20}]}"
    )

    def words():
        out = []
        for _ in range(40):
            with socket.create_connection((front.address, 31400), 5) as s:
                s.sendall(b"x\n")
                out.append(s.recv(20).decode().partition(" ")[0])
        return {w: out.count(w) for w in set(out)}

    with tasks.applied(route("tcp", weights, "{name: front, sectionName: tcp}", kind="TCPRoute")):
        tasks.until(lambda: set(words()) == {"one", "two"}, what="the weights")
        found = words()
        assert 22 <= found.get("one", 0) <= 40, found  # 32 ± 4 standard deviations


def test_ingress_control_and_its_policies(tasks, front):
    rule = (
        "{matches: [{path: {value: /status}}, {path: {value: /headers}}], backendRefs: [{name: httpbin, port: 8000}]}"
    )
    with tasks.applied(route("in", rule, "{name: front, sectionName: http}", "a.example.com")):
        tasks.until(lambda: front.ask("/status/200")[0] == 200, what="the route")
        assert front.ask("/status/418")[0] == 418
        assert front.ask("/get")[0] == 404
        assert front.ask("/status/200", host="b.example.com")[0] == 404

        deny = f"{{{OF_GATEWAY}, action: DENY, rules: [{{to: [{{operation: {{paths: [/headers]}}}}]}}]}}"
        with tasks.applied(obj("AuthorizationPolicy", "deny", deny, SECURITY)):
            tasks.until(lambda: front.ask("/headers")[0] == 403, what="the denial")
            assert front.ask("/status/200")[0] == 200
        allow = f'{{{OF_GATEWAY}, rules: [{{from: [{{source: {{ipBlocks: ["192.0.2.0/24"]}}}}]}}]}}'
        with tasks.applied(obj("AuthorizationPolicy", "allow", allow, SECURITY)):
            tasks.until(lambda: front.ask("/status/200")[0] == 403, what="the addresses that are let in")

        keys = json.dumps(tokens.key_set("k"))
        users = f"{{{OF_GATEWAY}, jwtRules: [{{issuer: tests.example, jwks: {keys}}}]}}"
        named = f'{{{OF_GATEWAY}, action: DENY, rules: [{{from: [{{source: {{notRequestPrincipals: ["*"]}}}}]}}]}}'
        with tasks.applied(
            obj("RequestAuthentication", "users", users, SECURITY),
            obj("AuthorizationPolicy", "named", named, SECURITY),
        ):
            tasks.until(lambda: front.ask("/status/200")[0] == 403, what="no requests without a token")
            good = f"Authorization: Bearer {tokens.token('k')}"
            tasks.until(lambda: front.ask("/status/200", "-H", good)[0] == 200, what="a token's request")
            assert front.ask("/status/200", "-H", f"Authorization: Bearer {tokens.token('other')}")[0] == 401


def test_authorization_in_the_mesh(tasks, front):
    """HTTP, TCP, tokens and a trial run: policies of workloads are the same whatever routes requests."""

    def policy(name, spec, notes=""):
        made = obj("AuthorizationPolicy", name, spec, SECURITY)
        return made.replace(f"{{name: {name}}}", f"{{name: {name}{notes}}}")

    app = "selector: {matchLabels: {app: httpbin}}"
    rules = route("httpbin", "{backendRefs: [{name: httpbin, port: 8000}]}", SERVICE)
    with tasks.applied(rules):
        get = f"{{{app}, rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]}}"
        with tasks.applied(policy("get", get)):
            tasks.until(lambda: tasks.get("httpbin:8000/post", "-X POST")[0] == 403, what="methods")
            assert tasks.get("httpbin:8000/get")[0] == 200
        trial = f"{{{app}, action: DENY, rules: [{{}}]}}"
        with tasks.applied(policy("trial", trial, ', annotations: {istio.io/dry-run: "true"}')):
            pod = f"{tasks.mesh.pod('httpbin', NS)}.{NS}"

            def counted():
                assert tasks.get("httpbin:8000/get")[0] == 200
                return "istio_dry_run_deny_" in tasks.mesh.lateen("x", "envoy-stats", pod).stdout

            tasks.until(counted, what="the trial run")
        echo = (
            "{selector: {matchLabels: {app: tcp-echo}}, action: DENY, rules: [{to: [{operation: {ports: ['9000']}}]}]}"
        )
        reached = 'python3 -c \'import socket; s=socket.create_connection(("tcp-echo",9000),5); s.sendall(b"x\\n"); print(s.recv(9))\''
        assert "one" in (said := tasks.sh(reached)) or "two" in said
        with tasks.applied(policy("echo", echo)):
            tasks.until(lambda: "one" not in (said := tasks.sh(reached, ok=False)) and "two" not in said, what="TCP")


def test_mutual_tls_is_asked_for(tasks, front):
    from_outside = (
        "exec",
        "deploy/front-istio",
        "-n",
        NS,
        "--",
        "curl",
        "-s",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    )
    pod = tasks.mesh.get("pod", "-n", NS, "-l", "app=httpbin,version=v1", "-o", "jsonpath={.items[0].status.podIP}")
    plain = (*from_outside, f"http://{pod}:8080/get")
    assert tasks.mesh.kubectl(*plain, ok=False).stdout == "200"
    with tasks.applied(obj("PeerAuthentication", "strict", "{mtls: {mode: STRICT}}", SECURITY)):
        tasks.until(lambda: tasks.mesh.kubectl(*plain, ok=False).stdout != "200", what="plain text refused")
        assert tasks.get("httpbin:8000/get")[0] == 200


def test_secure_ingress_and_passthrough(tasks, front):
    rule = "{backendRefs: [{name: httpbin, port: 8000}]}"
    parents = "{name: front, sectionName: https}, {name: front, sectionName: mutual}"
    grant = api(
        "ReferenceGrant",
        "tasks",
        f'{{from: [{{group: gateway.networking.k8s.io, kind: TLSRoute, namespace: {NS}}}], to: [{{group: "", kind: Service, name: istiod}}]}}',
    ).replace("{name: tasks}", "{name: tasks, namespace: istio-system}")
    passed = route(
        "pass",
        "{backendRefs: [{name: istiod, namespace: istio-system, port: 443}]}",
        "{name: front, sectionName: pass}",
        "istiod.istio-system.svc",
        "TLSRoute",
    )
    ca = ("--cacert", str(front.secrets.directory / "ca.pem"))
    with tasks.applied(route("secure", rule, parents), passed, grant):
        simple = {"host": "simple.example.com", "scheme": "https"}
        tasks.until(lambda: front.ask("/status/200", *ca, **simple)[0] == 200, what="TLS")
        mutual = {"host": "mutual.example.com", "scheme": "https"}
        assert front.ask("/status/200", *ca, **mutual)[0] == 0
        crt, key = front.secrets.issue("client", "client.example.com")
        own = ("--cert", str(crt), "--key", str(key))
        assert front.ask("/status/200", *ca, *own, **mutual)[0] == 200
        other = {"host": "istiod.istio-system.svc", "scheme": "https"}
        tasks.until(lambda: front.ask("/inject", "-k", **other)[0] == 405, what="istiod's own TLS")  # it wants a POST


def test_egress_gateway_and_tls_origination(tasks, front):
    gateway = api(
        "Gateway",
        "out",
        "{gatewayClassName: istio, infrastructure: {annotations: {networking.istio.io/service-type: ClusterIP}}, listeners:"
        " [{name: https, hostname: httpbin.example.com, port: 80, protocol: HTTPS, tls: {mode: Terminate, options:"
        " {gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}}}]}",
    )
    entry = obj("ServiceEntry", "ext", OUTSIDE)
    direct = route(
        "direct",
        "{backendRefs: [{name: out-istio, port: 80}]}",
        "{kind: ServiceEntry, group: networking.istio.io, name: ext}",
    )
    mark = "{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-egress, value: passed}]}}"
    onward = route(
        "onward",
        f"{{filters: [{mark}], backendRefs: [{{kind: Hostname, group: networking.istio.io, name: httpbin.example.com, port: 80}}]}}",
        "{name: out}",
        "httpbin.example.com",
    )
    tls = dr("out", f"out-istio.{NS}.svc.cluster.local", "{tls: {mode: ISTIO_MUTUAL, sni: httpbin.example.com}}")
    url = "http://httpbin.example.com/get"
    with tasks.applied(entry, gateway, direct, onward, tls):
        tasks.until(lambda: '"X-Egress"' in tasks.get(url, TO_OUTSIDE)[1], 40, "the way over the gateway")
    origin = (
        "{hosts: [istiod.istio-system.svc], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http,"
        " protocol: HTTP, targetPort: 443}], endpoints: [{address: istiod.istio-system.svc.cluster.local}]}"
    )
    way = "{backendRefs: [{kind: Hostname, group: networking.istio.io, name: istiod.istio-system.svc, port: 80}]}"
    root = "caCertificates: /var/run/secrets/istio/root-cert.pem"
    policy = f"{{tls: {{mode: SIMPLE, {root}, sni: istiod.istio-system.svc}}}}"
    with tasks.applied(
        obj("ServiceEntry", "origin", origin),
        route("origin", way, "{kind: ServiceEntry, group: networking.istio.io, name: origin}"),
        dr("origin", "istiod.istio-system.svc", policy),
    ):
        to = "--connect-to istiod.istio-system.svc:80:10.1.1.1:80"
        tasks.until(
            lambda: tasks.get("http://istiod.istio-system.svc/inject", to)[0] == 405, what="an answer through TLS"
        )


def test_a_time_limit_of_requests_to_the_outside(tasks, front):
    rule = (
        "{timeouts: {request: 500ms}, backendRefs:"
        " [{kind: Hostname, group: networking.istio.io, name: httpbin.example.com, port: 80}]}"
    )
    parent = "{kind: ServiceEntry, group: networking.istio.io, name: ext}"
    with tasks.applied(obj("ServiceEntry", "ext", OUTSIDE), route("ext", rule, parent)):
        url = "http://httpbin.example.com"
        tasks.until(lambda: tasks.get(f"{url}/delay/2", TO_OUTSIDE)[0] == 504, what="the timeout")
        assert tasks.get(f"{url}/get", TO_OUTSIDE)[0] == 200


def test_tls_of_an_application_passes_the_egress_gateway(tasks, front):
    """istiod is the server outside; its TLS is not the mesh's."""
    host = "secure.example.com"
    entry = (
        f"{{hosts: [{host}], location: MESH_EXTERNAL, resolution: DNS, ports: [{{number: 443, name: tls, protocol: TLS}}],"
        " endpoints: [{address: istiod.istio-system.svc.cluster.local}]}"
    )
    gateway = api(
        "Gateway",
        "passing",
        "{gatewayClassName: istio, infrastructure: {annotations: {networking.istio.io/service-type: ClusterIP}}, listeners:"
        f" [{{name: tls, hostname: {host}, port: 443, protocol: TLS, tls: {{mode: Passthrough}}}}]}}",
    )
    parent = "{kind: ServiceEntry, group: networking.istio.io, name: secure}"
    direct = route("direct", "{backendRefs: [{name: passing-istio, port: 443}]}", parent, host, "TLSRoute")
    out = f"{{backendRefs: [{{kind: Hostname, group: networking.istio.io, name: {host}, port: 443}}]}}"

    def code():
        return tasks.get(f"https://{host}/inject", "-k", f"--connect-to {host}:443:10.1.1.1:443")[0]

    with tasks.applied(obj("ServiceEntry", "secure", entry), gateway):
        tasks.until(lambda: code() == 405, what="the server outside")  # it wants a POST
        with tasks.applied(direct):
            tasks.until(lambda: code() == 0, what="the way to a gateway that leads nowhere yet")
            with tasks.applied(route("onward", out, "{name: passing}", host, "TLSRoute")):
                tasks.until(lambda: code() == 405, 40, "the way over the gateway")
                said = tasks.mesh.get("tlsroute", "direct", "-n", NS, "-o", "jsonpath={.status.parents[0].conditions}")
                assert said.count('"status":"True"') >= 2


def test_telemetry_of_a_gateway(tasks, front):
    spec = f"{{{OF_GATEWAY}, metrics: [{{providers: [{{name: prometheus}}], overrides: [{{match: {{metric: REQUEST_COUNT}}, tagOverrides: {{task: {{value: \"'tab'\"}}}}}}]}}]}}"
    with tasks.applied(
        route("in", "{backendRefs: [{name: httpbin, port: 8000}]}", "{name: front, sectionName: http}"),
        obj("Telemetry", "front", spec, "telemetry.istio.io/v1"),
    ):

        def tagged():
            front.ask("/status/200")
            stats = tasks.mesh.kubectl(
                "exec", "deploy/front-istio", "-n", NS, "--", "pilot-agent", "request", "GET", "stats/prometheus"
            ).stdout
            return 'task="tab"' in stats

        tasks.until(tagged, what="the tag of the metric")
