"""The Gateway API by real requests: through the ingress gateway that a Gateway names, and between pods of the mesh."""

import json
import subprocess

import pytest
from world import Secrets

from lateen.kit import certs, times

pytestmark = pytest.mark.system

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: books, namespace: istio-system}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: istio-ingressgateway.istio-system.svc.cluster.local}]
  listeners:
  - {name: http, port: 80, protocol: HTTP, hostname: "*.books.example", allowedRoutes: {namespaces: {from: All}}}
  - {name: alone, port: 80, protocol: HTTP, hostname: alone.books.example, allowedRoutes: {namespaces: {from: Same}}}
  - name: https
    port: 443
    protocol: HTTPS
    hostname: a.books.example
    allowedRoutes: {namespaces: {from: All}}
    tls: {certificateRefs: [{name: books-api}]}
  - name: https-other
    port: 443
    protocol: HTTPS
    hostname: b.books.example
    allowedRoutes: {namespaces: {from: All}}
    tls: {certificateRefs: [{name: books-api}]}
"""
ROUTES = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: books}
spec:
  parentRefs: [{name: books, namespace: istio-system}]
  hostnames: ["*.books.example"]
  rules:
  - matches: [{path: {value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301}
  - matches: [{path: {value: /shop}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-shop, value: "yes"}]}}
    backendRefs: [{name: productpage, port: 9080}]
  - matches: [{path: {value: /varied}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /health}}}]
    backendRefs:
    - {name: productpage, port: 9080, weight: 2}
    - name: productpage
      port: 9080
      filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /moved}}}]
    - name: productpage
      port: 9080
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /nowhere}}}]
  - matches: [{path: {value: /partly}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /health}}}]
    backendRefs: [{name: productpage, port: 9080}, {name: missing, port: 9080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: narrower}
spec:
  parentRefs: [{name: books, namespace: istio-system, sectionName: http}]
  hostnames: ["*.books.example"]
  rules:
  - matches: [{path: {type: Exact, value: /shop/health}, headers: [{name: x-who, value: me}]}]
    backendRefs: [{name: missing, port: 9080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: alone}
spec:
  parentRefs: [{name: books, namespace: istio-system, sectionName: alone}]
  rules: [{backendRefs: [{name: productpage, port: 9080}]}]
"""
KIND = "gateway.gateway.networking.k8s.io"


@pytest.fixture(scope="module")
def books(mesh, tmp_path_factory):
    directory = tmp_path_factory.mktemp("ca")
    ca = certs.authority("example", times.now(), days=2)
    (directory / "ca.pem").write_text(ca.certificate)
    secrets = Secrets(mesh, ca, directory)
    secrets.tls("books-api", "a.books.example", "b.books.example")
    mesh.apply(GATEWAY + "---" + ROUTES)
    yield secrets
    mesh.kubectl("delete", KIND, "books", "-n", "istio-system")
    mesh.kubectl("delete", "httproute", "books", "narrower", "alone")
    mesh.kubectl("delete", "secret", "books-api", "-n", "istio-system")


def conditions(mesh, *argv, at="status.conditions"):
    found = json.loads(mesh.get(*argv, "-o", "json"))
    for part in at.split("."):
        found = found[int(part)] if part.isdigit() else found.get(part, {})
    generation = json.loads(mesh.get(*argv, "-o", "json"))["metadata"]["generation"]
    return {c["type"]: (c["status"], c["reason"]) for c in found if c.get("observedGeneration") == generation}


def ask(mesh, path, *curl, host="a.books.example"):
    return mesh.page(path, "-H", f"Host: {host}", *curl)


def test_a_gateway_and_its_routes_say_what_has_become_of_them(mesh, books):
    mesh.kubectl("wait", "--for=condition=Programmed", "--timeout=60s", KIND, "books", "-n", "istio-system")
    assert mesh.get("gatewayclass", "istio", "-o", "jsonpath={.status.conditions[0].status}") == "True"
    mesh.until(lambda: "True" in mesh.get(KIND, "books", "-n", "istio-system"), what="the column Programmed")
    found = json.loads(mesh.get(KIND, "books", "-n", "istio-system", "-o", "json"))["status"]
    assert {li["name"]: li["attachedRoutes"] for li in found["listeners"]} == {
        "http": 2,
        "alone": 0,
        "https": 1,
        "https-other": 1,
    }
    assert found["addresses"]
    parent = "status.parents.0.conditions"
    good = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", "BackendNotFound")}
    assert conditions(mesh, "httproute", "books", at=parent) == good
    refused = conditions(mesh, "httproute", "alone", at=parent)
    assert refused["Accepted"] == ("False", "NotAllowedByListeners")


def test_requests_are_routed_changed_and_refused_as_routes_say(mesh, books):
    mesh.until(lambda: ask(mesh, "/shop/health")[0] == 200, what="the route")
    assert "x-shop: yes" in ask(mesh, "/shop/health", "-i")[1]
    assert "/new/item" in ask(mesh, "/old/item", "-i")[1]
    assert ask(mesh, "/old/item")[0] == 301
    assert ask(mesh, "/older")[0] == 404
    assert ask(mesh, "/shop/health", "-H", "X-Who: me")[0] == 500
    assert ask(mesh, "/shop/health", host="alone.books.example")[0] == 404
    codes = [ask(mesh, "/partly")[0] for _ in range(40)]
    assert {200, 500} == set(codes)


def test_a_backend_has_filters_of_its_own(mesh, books):
    mesh.until(lambda: ask(mesh, "/varied")[0] in (200, 302, 404), what="the route")
    codes = [ask(mesh, "/varied")[0] for _ in range(80)]
    assert set(codes) == {200, 302, 404}
    assert 20 <= codes.count(200) <= 60  # a half, give or take 4.5 standard deviations
    assert 4 <= codes.count(302) <= 37
    assert 4 <= codes.count(404) <= 37


def test_a_connection_for_another_host_is_misdirected(mesh, books):
    port = mesh.host_port(443)

    def code(host):
        return subprocess.run(
            [
                "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--http2",
                "--resolve", f"a.books.example:{port}:127.0.0.1", "--cacert", str(books.directory / "ca.pem"),
                "-H", f"Host: {host}", f"https://a.books.example:{port}/shop/health",
            ],
            capture_output=True, text=True, timeout=10, check=False,
        ).stdout  # fmt: skip

    mesh.until(lambda: code("a.books.example") == "200 2", what="HTTPS")
    assert code("b.books.example") == "421 2"
    assert code("c.books.example") == "404 2"


STRICT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: strict, namespace: istio-system}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: istio-ingressgateway.istio-system.svc.cluster.local}]
  allowedListeners: {namespaces: {from: Same}}
  tls:
    frontend: {default: {validation: {caCertificateRefs: [{group: "", kind: ConfigMap, name: partners}]}}}
  listeners:
  - name: https
    port: 443
    protocol: HTTPS
    hostname: strict.example
    allowedRoutes: {namespaces: {from: All}}
    tls: {certificateRefs: [{name: strict-api}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: strict}
spec:
  parentRefs: [{name: strict, namespace: istio-system}]
  rules: [{backendRefs: [{name: productpage, port: 9080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: istio-system}
spec:
  parentRef: {name: strict}
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: set.example}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: set, namespace: istio-system}
spec:
  parentRefs: [{kind: ListenerSet, name: more}]
  rules: [{backendRefs: [{name: istiod, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: istiod, namespace: istio-system}
spec:
  targetRefs: [{group: "", kind: Service, name: istiod, sectionName: https-webhook}]
  validation:
    hostname: istiod.istio-system.svc
    caCertificateRefs: [{group: "", kind: ConfigMap, name: mesh-root}]
"""


@pytest.fixture(scope="module")
def strict(mesh, books):
    """istiod is the backend that has TLS of its own."""
    books.tls("strict-api", "strict.example")
    root = mesh.get("configmap", "istio-ca-root-cert", "-n", "istio-system", "-o", "jsonpath={.data.root-cert\\.pem}")
    for name, text in (("mesh-root", root), ("partners", (books.directory / "ca.pem").read_text())):
        made = {"kind": "ConfigMap", "metadata": {"name": name, "namespace": "istio-system"}, "data": {"ca.crt": text}}
        mesh.apply(json.dumps({"apiVersion": "v1", **made}))
    mesh.apply(STRICT)
    yield books
    of_mesh = ("listenerset/more", "httproute/set", "backendtlspolicy/istiod", "secret/strict-api", f"{KIND}/strict")
    mesh.kubectl("delete", "-n", "istio-system", *of_mesh, "configmap/mesh-root", "configmap/partners")
    mesh.kubectl("delete", "httproute", "strict")


def test_a_listener_set_adds_a_host_whose_backend_is_verified(mesh, strict):
    mesh.until(lambda: ask(mesh, "/inject", host="set.example")[0] == 405, what="an answer of istiod through TLS")
    at = ("listenerset", "more", "-n", "istio-system")
    mesh.until(lambda: conditions(mesh, *at).get("Programmed") == ("True", "Programmed"), what="the ListenerSet")
    found = conditions(mesh, "backendtlspolicy", "istiod", "-n", "istio-system", at="status.ancestors.0.conditions")
    assert found == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    assert ask(mesh, "/inject", host="other.example")[0] == 404
    wrong = '[{"op": "replace", "path": "/spec/validation/hostname", "value": "somebody.else"}]'
    mesh.kubectl("patch", "backendtlspolicy", "istiod", "-n", "istio-system", "--type=json", "-p", wrong)
    mesh.until(lambda: ask(mesh, "/inject", host="set.example")[0] == 503, what="the refusal of another name")


def test_clients_of_a_gateway_show_a_certificate(mesh, strict):
    others = Secrets(mesh, certs.authority("others", times.now(), days=2), strict.directory)

    def code(*pair):
        return strict.curl("strict.example", *(("--cert", str(pair[0]), "--key", str(pair[1])) if pair else ()))

    partner = strict.issue("partner", "partner.example")
    mesh.until(lambda: code(*partner).startswith("200"), what="an answer to a client with a certificate")
    assert code().startswith("000")
    assert code(*others.issue("stranger", "stranger.example")).startswith("000")


LUA = """
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: stamp}
spec:
  selector: {matchLabels: {app: productpage}}
  lua: {inlineCode: "function envoy_on_response(handle) handle:headers():add('x-stamp', 'yes') end"}
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: broken}
spec:
  selector: {matchLabels: {app: productpage}}
  lua: {inlineCode: "function function"}
"""
LATE = """
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: late}
spec:
  selector: {matchLabels: {app: productpage}}
  lua: {inlineCode: "function envoy_on_response(handle) handle:headers():add('x-late', 'yes') end"}
"""


def test_lua_of_traffic_extensions_runs_and_a_broken_script_stops_nothing(mesh, books):
    mesh.apply(LUA)
    try:
        mesh.until(lambda: "x-stamp: yes" in ask(mesh, "/shop/health", "-i")[1], what="the script's header")
        refused = ("trafficextension", "broken", "-o", "jsonpath={.status.conditions[*].message}")
        mesh.until(lambda: "script load error" in mesh.get(*refused), what="what Envoy says of the broken script")
        assert ask(mesh, "/shop/health")[0] == 200
        mesh.apply(LATE)
        mesh.until(lambda: "x-late: yes" in ask(mesh, "/shop/health", "-i")[1], what="a change of the listener")
        assert "script load error" in mesh.get(*refused), "it is still told"
    finally:
        mesh.kubectl("delete", "--ignore-not-found", "trafficextension", "stamp", "broken", "late")
    mesh.until(lambda: "x-stamp" not in ask(mesh, "/shop/health", "-i")[1], what="the end of the script")


VERSION = """
apiVersion: v1
kind: Service
metadata: {name: reviews-v3}
spec: {selector: {app: reviews, version: v3}, ports: [{name: http, port: 9080}]}
"""
PRODUCER = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 9080}]
  rules:
  - matches: [{headers: [{name: end-user, value: jason}]}]
    backendRefs: [{name: reviews-v3, port: 9080}]
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: plain}]}}]
    backendRefs: [{name: reviews, port: 9080}]
"""


def test_a_route_of_a_service_routes_requests_between_pods(mesh):
    def head(*curl):
        return mesh.inside("productpage", "curl", "-s", "-D-", *curl, "reviews:9080/reviews/0").stdout

    mesh.apply(VERSION + "---" + PRODUCER)
    try:
        mesh.until(lambda: "x-route: plain" in head(), what="the route of the mesh")
        other = mesh.inside("productpage", "curl", "-s", "-D-", "-H", "Host: ratings:9080", "reviews:9080/reviews/0")
        assert "x-route: plain" in other.stdout
        for _ in range(8):
            assert "reviews-v3" in head("-H", "end-user: jason")
        at = "status.parents.0.conditions"
        assert conditions(mesh, "httproute", "reviews", at=at)["Accepted"] == ("True", "Accepted")
    finally:
        mesh.kubectl("delete", "httproute/reviews", "service/reviews-v3")
    mesh.until(lambda: "x-route" not in head(), what="the end of the route")
