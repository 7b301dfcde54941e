"""What is attached to a Gateway, and what a Gateway asks for itself: each policy by requests that it concerns, and by
requests to a Gateway beside it that it does not."""

import base64
import hashlib
import json
import subprocess
import sys

import modules
import pytest
import tokens

from lateen.control.settings import REGISTRIES

pytestmark = pytest.mark.system

NS, HERE, NOWHERE = "targets", "127.96.255.7", "192.0.2.1"
V1 = "apiVersion: gateway.networking.k8s.io/v1"
STAMP = modules.stamping()
LISTENERS = "listeners: [{name: http, port: 80, protocol: HTTP}]"
ONE = f"""
{V1}
kind: Gateway
metadata: {{name: one}}
spec:
  gatewayClassName: istio
  addresses: [{{type: IPAddress, value: {HERE}}}]
  infrastructure:
    labels: {{team: shop}}
    annotations: {{example.com/owner: shop}}
    parametersRef: {{group: "", kind: ConfigMap, name: options}}
  {LISTENERS}
"""
TWO = f"""
{V1}
kind: Gateway
metadata: {{name: two}}
spec: {{gatewayClassName: istio, addresses: [{{type: IPAddress}}], {LISTENERS}}}
"""
STRANGE = f"""
{V1}
kind: Gateway
metadata: {{name: badly}}
spec:
  gatewayClassName: istio
  infrastructure: {{parametersRef: {{group: "", kind: ConfigMap, name: none}}}}
  {LISTENERS}
---
{V1}
kind: Gateway
metadata: {{name: elsewhere}}
spec: {{gatewayClassName: istio, addresses: [{{type: IPAddress, value: {NOWHERE}}}], {LISTENERS}}}
---
{V1}
kind: Gateway
metadata: {{name: waypoint}}
spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}
"""
OPTIONS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: options}
data:
  service: "spec: {sessionAffinity: ClientIP}"
  deployment: |
    spec:
      template:
        spec:
          containers: [{name: istio-proxy, volumeMounts: [{name: files, mountPath: /plugins}]}]
          volumes: [{name: files, configMap: {name: files}}]
"""
ROUTE = f"""
{V1}
kind: HTTPRoute
metadata: {{name: both}}
spec:
  parentRefs: [{{name: one}}, {{name: two}}]
  rules:
  - {{name: main, backendRefs: [{{name: echo, port: 80}}]}}
"""
REGISTRY = """
import base64, hashlib, http.server, json, pathlib
code = pathlib.Path("/files/stamp").read_bytes()
digest = lambda content: "sha256:" + hashlib.sha256(content).hexdigest()
kind = "application/vnd.oci.image.manifest.v1+json"
layer = {"mediaType": "application/wasm", "digest": digest(code), "size": len(code)}
manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": layer, "layers": [layer]}).encode()
found = {"/stamp": (code, "application/wasm"), "/v2/stamp/blobs/" + digest(code): (code, "application/wasm")}
found |= {"/v2/stamp/manifests/" + name: (manifest, kind) for name in ("1", digest(manifest))}
class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body, kind = found.get(self.path, (b"", ""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8000), Registry).serve_forever()
"""
PODS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: echo, labels: {{app: echo}}}}
spec:
  containers: [{{name: echo, image: docker.io/lateen/http-echo, args: ["8080"], ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{selector: {{app: echo}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: registry, labels: {{app: registry}}}}
spec:
  containers:
  - name: registry
    image: docker.io/lateen/http-echo
    command: {json.dumps([sys.executable, "-c", REGISTRY])}
    volumeMounts: [{{name: files, mountPath: /files}}]
  volumes: [{{name: files, configMap: {{name: files}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: registry}}
spec: {{selector: {{app: registry}}, ports: [{{name: http, port: 80, targetPort: 8000}}]}}
"""
SITE = f"registry.{NS}.svc.cluster.local"
TARGETS = [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "one"}]
MANIFEST_KIND = "application/vnd.oci.image.manifest.v1+json"


def manifest():
    """As the registry has it."""
    layer = {"mediaType": "application/wasm", "digest": f"sha256:{digest(STAMP)}", "size": len(STAMP)}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_KIND, "config": layer, "layers": [layer]}).encode()


def digest(content):
    return hashlib.sha256(content).hexdigest()


class Answer:
    def __init__(self, code, headers):
        self.code, self.headers = code, headers

    def __repr__(self):
        return f"{self.code} {self.headers}"


class Fronts:
    def __init__(self, mesh):
        self.mesh, self.addresses = mesh, {}

    def ask(self, gateway, path="/", *curl, host="a.test"):
        words = ["curl", "-s", "-m", "8", "-D-", "-o", "/dev/null", "-H", f"Host: {host}", *curl]
        done = subprocess.run(
            [*words, f"http://{self.addresses[gateway]}{path}"], capture_output=True, text=True, timeout=20, check=False
        )
        lines = done.stdout.replace("\r", "").splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        return Answer(int(lines[0].split()[1]) if lines else 0, headers)

    def apply(self, kind, version, spec, name="it"):
        self.mesh.kubectl("apply", "-n", NS, "-f", "-", stdin=json.dumps(
            {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        ))  # fmt: skip

    def drop(self, kind, name="it"):
        self.mesh.kubectl("delete", kind, name, "-n", NS)

    def becomes(self, test, *curl, gateway="one", **more):
        return self.mesh.until(
            lambda: test(self.ask(gateway, "/", *curl, **more)), 25, f"an answer of Gateway {gateway}"
        )

    def conditions(self, *argv):
        found = json.loads(self.mesh.get(*argv, "-n", NS, "-o", "json")).get("status", {}).get("conditions", [])
        return {c["type"]: (c["status"], c["reason"], c["message"]) for c in found}


@pytest.fixture(scope="module")
def fronts(mesh):
    """istiod keeps what it is told of a registry: to start it again would make everybody wait once more."""
    mesh.kubectl("set", "env", "deploy/istiod", "-n", "istio-system", f"{REGISTRIES}={SITE}")
    mesh.kubectl("create", "namespace", NS)
    data = {"stamp": base64.b64encode(STAMP).decode()}
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "binaryData": data}
    documents = (PODS, OPTIONS, ONE, TWO, STRANGE, ROUTE, json.dumps(files))
    mesh.kubectl("rollout", "status", "deploy/istiod", "-n", "istio-system", "--timeout=60s")
    mesh.kubectl("apply", "-n", NS, "-f", "-", stdin="\n---\n".join(documents))
    out = Fronts(mesh)
    for name in ("one", "two"):
        mesh.kubectl("wait", "--for=condition=Programmed", f"gtw/{name}", "-n", NS, "--timeout=90s")
        found = mesh.get("gtw", name, "-n", NS, "-o", "jsonpath={.status.addresses[0].value}")
        out.addresses[name] = found.strip()
        out.becomes(lambda a: a.code == 200, gateway=name)
    yield out
    mesh.remove(NS)


def test_what_is_deployed_has_the_gateways_address_labels_and_parameters(fronts):
    mesh = fronts.mesh
    assert fronts.addresses["one"] == HERE
    assert fronts.addresses["two"] not in ("", HERE)
    service = json.loads(mesh.get("svc", "one-istio", "-n", NS, "-o", "json"))
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    assert service["metadata"]["labels"]["team"] == "shop"
    assert service["metadata"]["annotations"]["example.com/owner"] == "shop"
    assert json.loads(mesh.get("svc", "two-istio", "-n", NS, "-o", "json"))["spec"]["sessionAffinity"] == "None"


def test_what_cannot_be_deployed_says_why(fronts):
    def said(name, kind):
        return fronts.conditions("gtw", name).get(kind, ("", "", ""))

    until = fronts.mesh.until
    until(lambda: said("badly", "Accepted")[:2] == ("False", "InvalidParameters"), what="the missing parameters")
    assert 'no ConfigMap "none"' in said("badly", "Accepted")[2]
    until(lambda: said("elsewhere", "Programmed")[:2] == ("False", "AddressNotUsable"), what="the unusable address")
    assert NOWHERE in said("elsewhere", "Programmed")[2]
    until(lambda: "not implemented" in said("waypoint", "Accepted")[2], what="the refusal of a waypoint")
    of_class = json.loads(fronts.mesh.get("gatewayclass", "istio-waypoint", "-o", "json"))
    (accepted,) = (c for c in of_class["status"]["conditions"] if c["type"] == "Accepted")
    assert accepted["status"] == "False"
    assert "not implemented" in accepted["message"]


LUA = "function envoy_on_response(handle) handle:headers():add('x-lua', 'yes') end"
MANAGER = {"filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}}}
FILTER = {
    "applyTo": "HTTP_FILTER",
    "match": {"context": "GATEWAY", "listener": MANAGER},
    "patch": {
        "operation": "INSERT_BEFORE",
        "value": {
            "name": "lua",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": LUA.replace("x-lua", "x-patched")},
            },
        },
    },
}
KEYS = tokens.key_set("k")
WRONG = ("-H", f"Authorization: Bearer {tokens.token('other')}")
LIMIT = {"requests": 3, "unit": "Hour"}
BY_TARGET = {
    "AuthorizationPolicy": ("security.istio.io/v1", {"action": "DENY", "rules": [{}]}, lambda a: a.code == 403),
    "RequestAuthentication": (
        "security.istio.io/v1",
        {"jwtRules": [{"issuer": "tests.example", "jwks": KEYS}]},
        lambda a: a.code == 401,
    ),
    "EnvoyFilter": ("networking.istio.io/v1alpha3", {"configPatches": [FILTER]}, lambda a: "x-patched" in a.headers),
    "TrafficExtension": ("extensions.istio.io/v1alpha1", {"lua": {"inlineCode": LUA}}, lambda a: "x-lua" in a.headers),
    "WasmPlugin": (
        "extensions.istio.io/v1alpha1",
        {"url": "file:///plugins/stamp", "pluginConfig": {"from": "file"}},
        lambda a: a.headers.get("x-wasm") == '{"from":"file"}',
    ),
    "BackendTrafficPolicy": (
        "gateway.envoyproxy.io/v1alpha1",
        {"rateLimit": {"type": "Local", "local": {"rules": [{"limit": LIMIT}]}}},
        lambda a: a.code == 429,
    ),
}


@pytest.mark.parametrize("kind", BY_TARGET)
def test_a_policy_is_for_the_requests_of_the_gateway_that_it_names(fronts, kind):
    version, spec, concerned = BY_TARGET[kind]
    fronts.apply(kind, version, {"targetRefs": TARGETS, **spec})
    try:
        fronts.becomes(concerned, *WRONG)
        for _ in range(4):
            beside = fronts.ask("two", "/", *WRONG)
            assert not concerned(beside)
            assert beside.code == 200
    finally:
        fronts.drop(kind)
    fronts.becomes(lambda a: a.code == 200 and not concerned(a), *WRONG)


def test_a_telemetry_is_for_the_metrics_of_the_gateway_that_it_names(fronts):
    tag = {"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {"place": {"value": "'front'"}}}
    fronts.apply("Telemetry", "telemetry.istio.io/v1", {
        "targetRefs": TARGETS, "metrics": [{"providers": [{"name": "prometheus"}], "overrides": [tag]}],
    })  # fmt: skip

    def tagged(gateway):
        fronts.ask(gateway)
        at = ("exec", f"deploy/{gateway}-istio", "-n", NS, "--", "pilot-agent", "request", "GET", "stats/prometheus")
        return 'place="front"' in fronts.mesh.kubectl(*at).stdout

    try:
        fronts.mesh.until(lambda: tagged("one"), what="the tag of the metric")
        assert not tagged("two")
    finally:
        fronts.drop("Telemetry")


def test_a_limit_is_for_the_requests_of_the_route_that_it_names(fronts):
    rule = [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "both"}]
    version, spec, limited = BY_TARGET["BackendTrafficPolicy"]
    fronts.apply("BackendTrafficPolicy", version, {"targetRefs": rule, **spec})
    try:
        for gateway in fronts.addresses:
            fronts.becomes(limited, gateway=gateway)
    finally:
        fronts.drop("BackendTrafficPolicy")
    fronts.becomes(lambda a: a.code == 200)


OTHER = "0" * 64
SOURCES = {
    "HTTP": ({"url": f"http://{SITE}/stamp"}, digest(STAMP)),
    "image": ({"url": f"oci://{SITE}/stamp:1"}, digest(manifest())),
    "image by digest": ({"url": f"{SITE}/stamp@sha256:{digest(manifest())}"}, digest(manifest())),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_module_runs_if_it_has_the_checksum_that_is_asked_for(fronts, source):
    where, good = SOURCES[source]
    version, config = "extensions.istio.io/v1alpha1", {"pluginConfig": {"from": source}}
    fronts.apply("TrafficExtension", version, {"targetRefs": TARGETS, "wasm": {**where, "sha256": OTHER, **config}})
    try:
        fronts.becomes(lambda a: a.code == 403)
        fronts.mesh.until(
            lambda: "another checksum" in fronts.conditions("trafficextension", "it").get("ModuleFetched", [""])[-1],
            what="the condition of the module",
        )
        fronts.apply("TrafficExtension", version, {"targetRefs": TARGETS, "wasm": {**where, "sha256": good, **config}})
        fronts.becomes(
            lambda a: a.headers.get("x-wasm", "") == json.dumps({"from": source.lower()}, separators=(",", ":"))
        )
    finally:
        fronts.drop("TrafficExtension")
    fronts.becomes(lambda a: a.code == 200 and "x-wasm" not in a.headers)


VIRTUAL = f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: younger, namespace: {NS}}}
spec:
  selector: {{gateway.networking.k8s.io/gateway-name: two}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [both.test]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: younger, namespace: {NS}}}
spec: {{hosts: [both.test], gateways: [younger], http: [{{directResponse: {{status: 418}}}}]}}
---
{V1}
kind: HTTPRoute
metadata: {{name: part, namespace: {NS}}}
spec:
  parentRefs: [{{name: two}}]
  hostnames: [both.test]
  rules: [{{matches: [{{path: {{value: /part}}}}], backendRefs: [{{name: echo, port: 80}}]}}]
"""


def test_the_older_gateways_routes_of_a_host_are_tried_first_and_then_the_others(fronts):
    fronts.mesh.apply(VIRTUAL)
    try:
        fronts.mesh.until(lambda: fronts.ask("two", "/rest", host="both.test").code == 418, what="the VirtualService")
        fronts.mesh.until(lambda: fronts.ask("two", "/part", host="both.test").code == 200, what="the HTTPRoute")
    finally:
        fronts.mesh.kubectl("delete", "-f", "-", stdin=VIRTUAL)


SHARED = f"""
{V1}
kind: HTTPRoute
metadata: {{name: details, namespace: default}}
spec:
  parentRefs: [{{group: "", kind: Service, name: details}}]
  rules:
  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-route, value: taken}}]}}}}]
    backendRefs: [{{name: details, port: 9080}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: details, namespace: default}}
spec: {{hosts: [details], http: [{{directResponse: {{status: 418}}}}]}}
"""


def test_a_route_of_a_service_wins_over_a_virtual_service_which_is_named(fronts):
    mesh = fronts.mesh

    def head():
        return mesh.inside("productpage", "curl", "-s", "-D-", "details:9080/details/0").stdout

    mesh.apply(SHARED)
    try:
        mesh.until(lambda: "x-route: taken" in head(), what="the route")
        said = mesh.lateen("analyze", "-n", "default", ok=False)
        assert "LAT0112" in said.stdout + said.stderr
        mesh.kubectl("delete", "httproute", "details")
        mesh.until(lambda: " 418 " in head().splitlines()[0] + " ", what="the VirtualService")
    finally:
        mesh.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=SHARED)
    mesh.until(lambda: " 200 " in head().splitlines()[0], what="details")
