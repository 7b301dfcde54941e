"""Mistakes that Istio does not report, in the words of those who made them."""

import pytest

from lateen.analysis import Snapshot, Source, analyze, load
from lateen.api import validate

DOOR = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [%s]
---
"""
HTTP = '{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}'
PASS = '{port: {number: 443, name: tls, protocol: HTTPS}, hosts: ["*.apps.test"], tls: {mode: PASSTHROUGH}}'
ENDS = '{port: {number: 443, name: tls, protocol: TLS}, hosts: ["*.apps.test"], tls: {mode: SIMPLE, credentialName: x}}'
TCP = '{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ["*"]}'


def vs(name, host, routes, gateways="[door]", at=1, namespace="shop"):
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "2026-01-0{at}T00:00:00Z"}}
spec: {{hosts: ["{host}"], gateways: {gateways}, {routes}}}
---
"""


def said(text, code):
    docs = [Source(d.value) for d in load.yamldoc.documents(text)]
    found = analyze(Snapshot([*docs, *load.default_ingress()]))
    return [(m.source.name, m.text) for m in found if m.kind.code == code]


ROUTE = "http: [{route: [{destination: {host: web}}]}]"
NARROW = "http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: web}}]}]"


@pytest.mark.parametrize("gateways", ["[door]", "[mesh]", "[mesh, door]"])
def test_the_younger_of_two_virtual_services_for_one_host_is_reported_as_shadowed(gateways):
    text = DOOR % HTTP + vs("red", "lab.test", ROUTE, gateways) + vs("blue", "lab.test", ROUTE, gateways, 2)
    names = said(text, "LAT0101")
    assert {n for n, _ in names} == {"blue"}
    assert "it is shadowed by the older VirtualService shop/red" in names[0][1]


def test_a_rule_behind_one_with_a_condition_is_not_shadowed():
    assert said(DOOR % HTTP + vs("red", "lab.test", NARROW) + vs("blue", "lab.test", ROUTE, at=2), "LAT0101") == []


AFTER = "{match: [{uri: {prefix: /a}}], route: [{destination: {host: web}}]}"
ALL = "{match: [{uri: {prefix: /}}], route: [{destination: {host: web}}]}"
BOTH = "{match: [{uri: {prefix: /a}}, {uri: {prefix: /}}], route: [{destination: {host: web}}]}"


@pytest.mark.parametrize(("routes", "shadowed"), [(f"{ALL}, {AFTER}", True), (f"{AFTER}, {ALL}", False), (BOTH, False)])
def test_conditions_after_a_route_for_everything_do_not_save_a_rule_from_an_older_one(routes, shadowed):
    text = DOOR % HTTP + vs("red", "lab.test", ROUTE) + vs("blue", "lab.test", f"http: [{routes}]", at=2)
    assert bool(said(text, "LAT0101")) == shadowed


def test_two_virtual_services_on_one_tcp_port_of_a_gateway():
    tcp = "tcp: [{route: [{destination: {host: db}}]}]"
    text = DOOR % TCP + vs("a", "a.test", tcp) + vs("b", "b.test", tcp, at=2)
    assert [(n, "TCP port 31400" in t) for n, t in said(text, "LAT0101")] == [("b", True)]


@pytest.mark.parametrize(("port", "shadowed"), [(31400, ["b"]), (31401, [])])
def test_virtual_services_that_name_the_tcp_port_which_they_share(port, shadowed):
    tcp = "tcp: [{match: [{port: %d}], route: [{destination: {host: db}}]}]"
    text = DOOR % TCP + vs("a", "a.test", tcp % 31400) + vs("b", "b.test", tcp % port, at=2)
    assert [n for n, _ in said(text, "LAT0101")] == shadowed


def test_the_server_that_wrong_routes_were_meant_for_is_named():
    routes = "tls: [{match: [{sniHosts: [a.apps.test]}], route: [{destination: {host: web}}]}]"
    ((_, says),) = said(DOOR % f"{HTTP}, {ENDS}" + vs("one", "a.apps.test", routes), "LAT0103")
    assert "servers[1] (TLS" in says


ELSEWHERE = "http: [{match: [{%s}], route: [{destination: {host: web}}]}]"


@pytest.mark.parametrize(
    ("condition", "there"),
    [
        ("port: 8443", False),
        ("gateways: [mesh]", False),
        ("sourceNamespace: other", False),
        ("port: 80, uri: {prefix: /a}", True),
        ("gateways: [shop/door], uri: {prefix: /a}", True),
        ("sourceNamespace: istio-system, uri: {prefix: /a}", True),
    ],
)
def test_a_rule_that_routes_nothing_at_a_gateway_neither_hides_nor_is_shadowed_there(condition, there):
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: istio-system, labels: {istio: ingressgateway}}
---
"""
    narrow = ELSEWHERE % condition
    hides = pod + DOOR % HTTP + vs("one", "a.shop.test", narrow, "[door, mesh]") + vs("all", "*.shop.test", ROUTE)
    assert [n for n, _ in said(hides, "LAT0102")] == (["one"] if there else [])
    hidden = DOOR % HTTP + vs("all", "*.shop.test", ELSEWHERE % "gateways: [mesh]", "[door, mesh]")
    assert said(hidden + vs("one", "a.shop.test", NARROW), "LAT0102") == []


@pytest.mark.parametrize(("port", "shadowed"), [("{port: 80, gateways: [door]}", True), ("{port: 8443}", False)])
def test_a_rule_without_a_port_at_a_gateway_is_not_said_to_be_shadowed_there(port, shadowed):
    younger = f"http: [{{match: [{port}], route: [{{destination: {{host: web}}}}]}}]"
    text = DOOR % HTTP + vs("red", "lab.test", ROUTE) + vs("blue", "lab.test", younger, at=2)
    assert bool(said(text, "LAT0101")) == shadowed


def test_an_exact_host_shadows_a_wildcard():
    text = DOOR % HTTP + vs("one", "a.shop.test", NARROW) + vs("all", "*.shop.test", ROUTE)
    assert [n for n, _ in said(text, "LAT0102")] == ["one"]
    assert said(DOOR % HTTP + vs("one", "a.shop.test", ROUTE) + vs("all", "*.shop.test", ROUTE), "LAT0102") == []


@pytest.mark.parametrize(
    ("server", "routes", "kind"),
    [
        (PASS, ROUTE, "http"),
        (ENDS, "tls: [{match: [{sniHosts: [a.apps.test]}], route: [{destination: {host: web}}]}]", "tls"),
        (PASS, "tls: [{match: [{sniHosts: [a.apps.test]}], route: [{destination: {host: web}}]}]", None),
        (ENDS, "tcp: [{route: [{destination: {host: web}}]}]", None),
        (f"{HTTP}, {PASS}", ROUTE, None),
    ],
)
def test_routes_of_the_wrong_kind_for_their_server_are_reported(server, routes, kind):
    found = said(DOOR % server + vs("one", "a.apps.test", routes), "LAT0103")
    assert [t.startswith(f"The {kind} routes are not used") for _, t in found] == ([True] if kind else [])


def test_a_server_on_a_port_that_an_older_gateway_uses_differently_is_reported():
    dated = 'name: {}, creationTimestamp: "2026-0{}-01T00:00:00Z"'
    first = DOOR.replace("name: door", dated.format("door", 1)) % HTTP
    other = DOOR.replace("name: door", dated.format("other", 2)) % TCP.replace("31400", "80")
    (told,) = said(first + other, "LAT0109")
    assert told[0] == "other"
    assert "port 80 is already HTTP because of the older Gateway shop/door" in told[1]


ROOT = "http: [{match: [{uri: {prefix: /a}}], delegate: {name: part}}]"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("http: [{route: [{destination: {host: web}}]}]", None),
        ("hosts: [x.test], http: [{route: [{destination: {host: web}}]}]", "has hosts of its own"),
        ("http: [{match: [{uri: {prefix: /b}}], route: [{destination: {host: web}}]}]", "spec.http[0] exclude"),
        ("http: [{delegate: {name: other}}]", "delegates again"),
        ('exportTo: ["elsewhere"], http: [{route: [{destination: {host: web}}]}]', "not exported to namespace shop"),
    ],
)
def test_a_delegate_that_does_not_fit_is_reported(spec, why):
    part = f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: part, namespace: shop}}
spec: {{{spec}}}
"""
    found = [t for n, t in said(DOOR % HTTP + vs("root", "lab.test", ROOT) + part, "LAT0104") if n == "root"]
    assert [why in t for t in found] == ([True] if why else [])


def test_a_delegate_that_is_missing_is_not_found():
    assert ("root", 'Referenced delegate not found: "shop/part"') in said(vs("root", "lab.test", ROOT), "IST0101")


def entry(name, more="", at=1):
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {name}, creationTimestamp: "2026-01-0{at}T00:00:00Z"}}
spec: {{hosts: [{name}.test], ports: [{{number: 3306, name: db, protocol: MYSQL}}], resolution: STATIC, {more}}}
---
"""


def test_two_service_entries_on_one_port_without_addresses_are_both_named():
    found = said(entry("a") + entry("b", at=2), "LAT0106")
    assert [n for n, _ in found] == ["b"]
    assert "go to the older ServiceEntry a/a" in found[0][1]
    assert said(entry("a") + entry("b", "addresses: [240.0.0.2]", 2), "LAT0106") == []


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 8000, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, ports: [{containerPort: 8080}]}, {name: istio-proxy}]}
---
"""


def rule(namespace):
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: {namespace}}}
spec: {{host: web.shop.svc.cluster.local}}
"""


@pytest.mark.parametrize(("namespace", "count"), [("conf", 1), ("shop", 0), ("istio-system", 0)])
def test_a_destination_rule_in_a_third_namespace_is_reported_as_ineffective(namespace, count):
    assert len(said(SERVICE + rule(namespace), "LAT0105")) == count


@pytest.mark.parametrize(("port", "count"), [(8000, 1), (8080, 0)])
def test_port_level_mtls_with_the_services_port_is_reported(port, count):
    policy = f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: web, namespace: shop}}
spec: {{selector: {{matchLabels: {{app: web}}}}, portLevelMtls: {{"{port}": {{mode: STRICT}}}}}}
"""
    found = said(SERVICE + policy, "LAT0107")
    assert [f"{port} is the Service's port, and leads to 8080" in t for _, t in found] == [True] * count


def bound(spec):
    return (
        SERVICE
        + f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: shop}}
spec: {{hosts: [web], {spec}}}
"""
    )


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("http: [{match: [{port: 8080}], route: [{destination: {host: web}}]}]", True),
        ("http: [{match: [{port: 8000}], route: [{destination: {host: web}}]}]", False),
        ("tcp: [{match: [{port: 9}], route: [{destination: {host: web}}]}]", True),
        ("gateways: [mesh, door], http: [{match: [{port: 80}], route: [{destination: {host: web}}]}]", False),
        (
            "gateways: [mesh, door], tcp: [{match: [{port: 80, gateways: [mesh]}], route: [{destination: {host: a}}]}]",
            True,
        ),
    ],
)
def test_a_match_of_a_port_that_the_service_does_not_have_is_reported(spec, found):
    told = said(bound(spec), "LAT0126")
    assert bool(told) is found
    assert not told or "Service shop/web" in told[0][1]
    assert not told or "are: 8000" in told[0][1]


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api-%d, namespace: %s}
spec: {hosts: [api.test], ports: [{number: %d, name: http-%d, protocol: HTTP}], resolution: DNS, exportTo: %s}
---
"""


def of_api(port):
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api.test]
  http: [{{match: [{{port: {port}}}], route: [{{destination: {{host: api.test, port: {{number: {port}}}}}}}]}}]
"""


@pytest.mark.parametrize(("port", "wrong"), [(80, 0), (8443, 0), (9000, 1), (7, 1)])
def test_several_service_entries_of_one_name_make_one_host_with_all_their_ports(port, wrong):
    entries = [(80, "shop", "['*']"), (8443, "shop", "['*']"), (9000, "lab", "['.']")]
    text = "".join(ENTRY % (n, space, n, n, to) for n, space, to in entries) + of_api(port)
    assert [len(said(text, code)) for code in ("LAT0126", "IST0101")] == [wrong, wrong]


@pytest.mark.parametrize(("port", "count"), [(8000, 0), (8080, 2)])
def test_settings_of_a_port_that_the_service_does_not_have_are_reported(port, count):
    settings = f"trafficPolicy: {{portLevelSettings: [{{port: {{number: {port}}}, tls: {{mode: DISABLE}}}}]}}"
    text = f"{rule('shop').rstrip()[:-1]}, {settings}, subsets: [{{name: v1, {settings}}}]}}\n"
    assert len(said(SERVICE + text.replace("host: web.shop.svc.cluster.local,", "host: web,"), "LAT0126")) == min(
        count, 1
    )


@pytest.mark.parametrize(
    ("gateways", "match", "words"),
    [
        (["mesh"], ["door"], "only mesh"),
        ([], ["door"], "only mesh"),
        (["door"], ["mesh"], "only shop/door"),
        (["shop/door", "mesh"], ["door"], None),
        (["door"], ["shop/door", "other"], None),
    ],
)
def test_a_match_of_gateways_that_the_rule_is_not_bound_to_is_warned_about(gateways, match, words):
    routes = [{"match": [{"gateways": match}], "route": [{"destination": {"host": "web"}}]}]
    spec = {"hosts": ["web.test"], "gateways": gateways, "http": routes}
    meta = {"name": "web", "namespace": "shop"}
    obj = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}
    told = [text for _, text in validate.warnings(obj)]
    assert any(words in t for t in told) if words else told == []


def policy(action="DENY", **rule):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"action": action, "rules": [rule]},
    }


def to(**operation):
    return {"to": [{"operation": {**operation, "ports": ["80"]}}]}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (to(paths=["/a/*health"]), "taken literally"),
        (to(notPaths=["/a/*health"]), "taken literally"),
        (to(paths=["/a/*"]), None),
        (to(paths=["*/a"]), None),
        (to(hosts=["admin.shop.test"]), None),
        (to(paths=["/admin"]), "list /admin* as well"),
        ({"from": [{"source": {"principals": ["cluster.local/ns/*/sa/x"]}}]}, "taken literally"),
        ({"from": [{"source": {"principals": ["spiffe://cluster.local/ns/a/sa/x"]}}]}, "without spiffe://"),
        ({"from": [{"source": {"principals": ["sleep"]}}]}, "TRUST-DOMAIN/ns/NAMESPACE/sa/sleep"),
        ({"from": [{"source": {"notPrincipals": ["spiffe://cluster.local/ns/a/sa/x"]}}]}, "without spiffe://"),
        ({"when": [{"key": "source.principal", "values": ["spiffe://cluster.local/ns/a/sa/x"]}]}, "without spiffe://"),
        ({"when": [{"key": "source.principal", "notValues": ["cluster.local/ns/*/sa/x"]}]}, "taken literally"),
        ({"when": [{"key": "connection.sni", "values": ["https://a.test"]}]}, "write a.test"),
        (to(hosts=["http://admin.test/x"]), "write admin.test"),
        (to(methods=["get"]), "write GET"),
        (to(notMethods=["Post"]), "write POST"),
        (to(methods=["PROPFIND", "GET*"]), None),
        (to(notPaths=["admin"]), "write /admin"),
        (to(paths=["/admin?x=1"]), "write /admin"),
        (to(paths=["{*}/x", "*"]), None),
    ],
)
def test_policy_patterns_that_match_nothing_are_warned_about_at_apply(rule, words):
    said = [text for _, text in validate.warnings(policy(**rule))]
    assert any(words in t for t in said) if words else said == []


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ({"uri": {"prefix": "api"}}, "write /api"),
        ({"uri": {"prefix": "/api/*"}}, "write prefix: /api/"),
        ({"uri": {"exact": "/*/list"}}, "write a regex"),
        ({"uri": {"exact": "/search?q=1"}}, "without its query"),
        ({"uri": {"prefix": "/search?q="}}, None),
        ({"uri": {"regex": "/a.*"}, "method": {"exact": "GET"}, "authority": {"prefix": "a.test:"}}, None),
        ({"authority": {"exact": "https://a.test"}}, "write a.test"),
        ({"authority": {"exact": "*.a.test"}}, "knows no wildcard"),
        ({"method": {"exact": "get"}}, "write GET"),
    ],
)
def test_matches_of_routes_that_match_nothing_are_warned_about_at_apply(match, words):
    web = {"route": [{"destination": {"host": "web"}}]}
    spec = {"hosts": ["web"], "http": [{"match": [match], **web}]}
    meta = {"name": "web", "namespace": "shop"}
    obj = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}
    assert validate.problems(obj) == []
    said = [text for _, text in validate.warnings(obj)]
    assert any(words in t for t in said) if words else said == []


@pytest.mark.parametrize("path", ["/x/{**}/", "/x/{**}/y", "/x/{*}/y/{**}", "/{**}/a/b"])
def test_plain_text_may_follow_the_template_for_any_segments(path):
    assert validate.problems(policy(**to(paths=[path]))) == []


@pytest.mark.parametrize("path", ["/x/{**}/{**}", "/x/{**}/{*}", "/x/{**}y", "/{*}/*"])
def test_a_template_after_the_one_for_any_segments_is_refused(path):
    assert validate.problems(policy(**to(paths=[path])))


def test_the_secret_of_a_gateway_without_a_selector_is_looked_up_beside_gateways():
    text = """
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: a}
spec: {containers: [{name: app}]}
---
apiVersion: v1
kind: Pod
metadata: {name: door, namespace: doors}
spec: {containers: [{name: istio-proxy, args: [proxy, router]}]}
---
apiVersion: v1
kind: Secret
metadata: {name: x, namespace: NAMESPACE}
---
"""
    text += (DOOR % ENDS).replace("selector: {istio: ingressgateway}", "selector: {}")
    assert [t for _, t in said(text.replace("NAMESPACE", "doors"), "IST0101") if "credentialName" in t] == []
    assert [n for n, t in said(text.replace("NAMESPACE", "a"), "IST0101") if "credentialName" in t] == ["door"]


WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [%s]}
---
"""
REQUESTS, SECURE, FREE = "{name: http, port: 80}", "{name: https, port: 443}", "{name: web, port: 8080}"
BYTES = "tcp: [{route: [{destination: {host: web}}]}]"


@pytest.mark.parametrize(
    ("ports", "routes", "says"),
    [
        (SECURE, ROUTE, ["http[0] has no effect at sidecars: port 443 (https) of the host uses tls and tcp routes."]),
        (REQUESTS, BYTES, ["tcp[0] has no effect at sidecars: port 80 (http) of the host uses http routes."]),
        (f"{REQUESTS}, {SECURE}", ROUTE, []),
        (f"{REQUESTS}, {SECURE}", BYTES, []),
        (FREE, ROUTE, []),
        (FREE, BYTES, []),
        (
            f"{REQUESTS}, {SECURE}",
            "http: [{match: [{port: 443}], route: [{destination: {host: web}}]}]",
            ["http[0] has no effect at sidecars: port 443 (https) of the host uses tls and tcp routes."],
        ),
    ],
)
def test_routes_of_a_kind_that_no_port_of_the_service_uses_are_reported(ports, routes, says):
    text = WEB % ports + vs("one", "web", routes, "[mesh]")
    assert [text for _, text in said(text, "LAT0127")] == says


def test_routes_of_a_gateway_may_be_of_any_kind():
    assert said(WEB % SECURE + vs("one", "web", ROUTE, "[mesh, door]"), "LAT0127") == []
