"""Routes of the Gateway API, at gateways and in the mesh: by the words of its specification."""

import judge
import meshes as mesh
import pytest

from lateen.api import kinds
from lateen.api import objects as o
from lateen.mesh.model import Mesh
from lateen.wire import names

V1 = "apiVersion: gateway.networking.k8s.io/v1"
CLASS = f"""
{V1}
kind: GatewayClass
metadata: {{name: istio}}
spec: {{controllerName: istio.io/gateway-controller}}
"""
HOST = "istio-ingressgateway.istio-system.svc.cluster.local"
PLAIN = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}"


def gateway(*listeners, name="web", namespace="istio-system", klass="istio", host=HOST):
    return f"""
{V1}
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  gatewayClassName: {klass}
  addresses: [{{type: Hostname, value: {host}}}]
  listeners: [{", ".join(listeners or (PLAIN,))}]
"""


def listener(name, hostname="", port=80, protocol="HTTP", more=""):
    host = f', hostname: "{hostname}"' if hostname else ""
    common = f"name: {name}, port: {port}, protocol: {protocol}{host}{more}"
    return f"{{{common}, allowedRoutes: {{namespaces: {{from: All}}}}}}"


def route(
    *rules, name="r", hosts=(), parent="{name: web, namespace: istio-system}", namespace="default", kind="HTTPRoute"
):
    names = ", ".join(f'"{h}"' for h in hosts)
    return f"""
{V1}
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{parent}]
  hostnames: [{names}]
  rules: [{", ".join(rules)}]
"""


def to(service, port=9080, **more):
    extra = "".join(f", {k}: {v}" for k, v in more.items())
    return f"{{name: {service}, port: {port}{extra}}}"


def rule(*backends, matches="", filters="", more=""):
    parts = [
        f"matches: [{matches}]" if matches else "",
        f"filters: [{filters}]" if filters else "",
        f"backendRefs: [{', '.join(backends)}]" if backends else "",
        more,
    ]
    return f"{{{', '.join(p for p in parts if p)}}}"


def objects(*documents):
    return mesh.objects("---".join((CLASS, *documents)))


def configuration(*documents, name="http.8080"):
    found = mesh.view(objects(*documents), "ingress", "istio-system")
    return judge.routes(judge.messages(found), name)


def hosts(*documents, name="http.8080"):
    return {h.domains[0]: h for h in configuration(*documents, name=name).virtual_hosts}


def answers(host):
    """(path, answer) of each route, in order."""
    out = []
    for r in host.routes:
        m = r.match
        path = m.path or (m.path_separated_prefix and f"{m.path_separated_prefix}/...") or m.safe_regex.regex or "..."
        out.append((path, r.route.cluster.partition("||")[2].partition(".")[0] or r.direct_response.status))
    return out


def path(value, kind="PathPrefix"):
    return f"{{path: {{type: {kind}, value: {value}}}}}"


def standing(kind, name, namespace, *documents):
    return Mesh(objects(*documents)).standings()[kind.ref(namespace, name)]


def of(found):
    return {c.type: ("True" if c.true else "False", c.reason) for c in found}


def conditions(*documents):
    """Of the only parent of the route ``r``."""
    for kind in (kinds.HTTP_ROUTE, kinds.GRPC_ROUTE):
        for namespace in ("default", "istio-system"):
            found = Mesh(objects(*documents)).standings().get(kind.ref(namespace, "r"))
            if found is not None:
                return of(found.parents[0].conditions)
    raise AssertionError("no route")


def accepted(*documents):
    return conditions(*documents)["Accepted"]


def test_a_route_reaches_its_backend_through_the_gateway_that_names_the_service():
    found = hosts(gateway(), route(rule(to("reviews")), hosts=("web.example.com",)))
    assert answers(found["web.example.com"]) == [("...", "reviews")]


def test_matches_of_all_routes_are_ordered_by_how_narrow_they_are():
    found = hosts(
        gateway(),
        route(rule(to("reviews")), rule(to("ratings"), matches=path("/a")), name="first"),
        route(
            rule(to("productpage"), matches=path("/a/b")),
            rule(to("ratings"), matches=path("/a", "Exact")),
            rule(to("reviews"), matches="{path: {value: /a}, headers: [{name: X, value: y}]}"),
            rule(to("reviews"), matches="{path: {value: /a}, method: GET}"),
            name="second",
        ),
    )
    assert [p for p, _ in answers(found["*"])] == ["/a", "/a/b/...", "/a/...", "/a/...", "/a/...", "..."]
    middle = found["*"].routes[2:5]
    assert [[h.name for h in r.match.headers] for r in middle] == [[":method"], ["x"], []]


def test_a_prefix_is_taken_by_whole_elements_and_a_rule_without_matches_takes_all():
    found = hosts(gateway(), route(rule(to("reviews"), matches=path("/a/")), rule(to("ratings"))))
    assert answers(found["*"]) == [("/a/...", "reviews"), ("...", "ratings")]


def test_the_older_route_comes_first_among_equal_matches():
    documents = [
        gateway(),
        route(rule(to("ratings"), matches=path("/a")), name="z-older"),
        route(rule(to("reviews"), matches=path("/a")), name="a-newer"),
    ]
    assert [a for _, a in answers(hosts(*documents)["*"])] == ["ratings", "reviews"]


def test_hosts_are_where_the_hostnames_of_listener_and_route_meet():
    listeners = (listener("exact", "a.example.com"), listener("wild", "*.example.org"))
    found = hosts(gateway(*listeners), route(rule(to("reviews")), hosts=("a.example.com", "*.org", "x.example.org")))
    assert {h: len(v.routes) for h, v in found.items()} == {"a.example.com": 1, "*.example.org": 1, "x.example.org": 1}


def test_a_request_belongs_to_the_narrowest_listener_alone():
    listeners = (listener("all"), listener("wild", "*.example.com"), listener("one", "a.example.com"))
    only_all = "{name: web, namespace: istio-system, sectionName: all}"
    found = hosts(gateway(*listeners), route(rule(to("reviews")), hosts=("a.example.com", "b.org"), parent=only_all))
    assert {h: len(v.routes) for h, v in found.items()} == {"*": 0, "b.org": 1, "*.example.com": 0, "a.example.com": 0}


def test_a_reference_chooses_listeners_by_name_and_by_port():
    listeners = (listener("a", "a.example.com"), listener("b", "b.example.com"))
    by_name = route(rule(to("reviews")), parent="{name: web, namespace: istio-system, sectionName: b}")
    by_port = route(rule(to("reviews")), parent="{name: web, namespace: istio-system, port: 81}")
    assert {h: len(v.routes) for h, v in hosts(gateway(*listeners), by_name).items()} == {
        "a.example.com": 0,
        "b.example.com": 1,
    }
    assert accepted(gateway(*listeners), by_port) == ("False", "NoMatchingParent")


GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: default}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: istio-system}]
  to: [{group: "", kind: Service%s}]
"""


def test_a_backend_of_another_namespace_needs_a_grant_there():
    away = route(rule("{name: reviews, namespace: default, port: 9080}"), namespace="istio-system")
    assert answers(hosts(gateway(), away)["*"]) == [("...", 500)]
    assert conditions(gateway(), away)["ResolvedRefs"] == ("False", "RefNotPermitted")
    for to_, works in (("", True), (", name: reviews", True), (", name: ratings", False)):
        found = hosts(gateway(), away, GRANT % to_)
        assert (answers(found["*"]) == [("...", "reviews")]) == works


def test_a_broken_backend_answers_500_for_its_share():
    broken = route(rule(to("reviews", weight=1), to("missing", weight=3)))
    first, second = hosts(gateway(), broken)["*"].routes
    share = first.match.runtime_fraction.default_value
    assert (first.direct_response.status, share.numerator) == (500, 75 * 10_000)
    assert second.route.cluster == "outbound|9080||reviews.default.svc.cluster.local"
    assert conditions(gateway(), broken)["ResolvedRefs"] == ("False", "BackendNotFound")


def test_a_rule_without_backends_or_with_weights_of_zero_alone_answers_500():
    for backends in ((), (to("reviews", weight=0),)):
        assert answers(hosts(gateway(), route(rule(*backends)))["*"]) == [("...", 500)]


def test_a_port_that_a_service_does_not_have_and_a_kind_that_is_no_backend_are_named():
    for backend, reason in ((to("reviews", 81), "BackendNotFound"), ("{kind: Pod, name: p, port: 1}", "InvalidKind")):
        assert conditions(gateway(), route(rule(backend)))["ResolvedRefs"] == ("False", reason)


def redirect(inner):
    return f"{{type: RequestRedirect, requestRedirect: {{{inner}}}}}"


def test_a_redirect_keeps_the_listeners_port_unless_it_has_a_scheme_or_a_port():
    for inner, port in (("hostname: b.org", 8000), ("scheme: https", 0), ("port: 8443", 8443)):
        gw = gateway(listener("http", port=8000))
        (found,) = hosts(gw, route(rule(filters=redirect(inner))), FRONT, name="http.8000")["*"].routes
        assert (found.redirect.port_redirect, found.redirect.response_code) == (port, found.redirect.FOUND)


def rewrite(inner):
    return f"{{type: URLRewrite, urlRewrite: {{path: {{{inner}}}}}}}"


def test_a_prefix_is_replaced_by_whole_elements():
    new = "type: ReplacePrefixMatch, replacePrefixMatch: "
    for old, wanted, prefix, regex in (
        ("/a", "/b", "/b", ""),
        ("/a/", "/b/", "/b", ""),
        ("/a", "/", "", "^/a/*"),
        ("/", "/b", "/b/", ""),
    ):
        one = rule(to("reviews"), matches=path(old), filters=rewrite(f"{new}{wanted}"))
        (found,) = hosts(gateway(), route(one))["*"].routes
        assert (found.route.prefix_rewrite, found.route.regex_rewrite.pattern.regex) == (prefix, regex), old


def test_the_time_limit_of_one_attempt_holds_without_retries_too():
    one = rule(to("reviews"), more="timeouts: {request: 10s, backendRequest: 2s}")
    (found,) = hosts(gateway(), route(one))["*"].routes
    assert (found.route.timeout.seconds, found.route.retry_policy.per_try_timeout.seconds) == (10, 2)


def test_a_grpc_method_is_a_path():
    methods = ("{method: {service: a.B, method: C}}", "{method: {service: a.B}}", "{method: {method: C}}")
    one = route(rule(to("reviews"), matches=", ".join(reversed(methods))), kind="GRPCRoute")
    found = hosts(gateway(), one)["*"]
    assert [(r.match.path or r.match.prefix or r.match.safe_regex.regex) for r in found.routes] == [
        "/a.B/C",
        "/a.B/",
        "/[^/]+/C",
    ]


FRONT = """
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec:
  clusterIP: 10.96.0.99
  selector: {istio: ingressgateway}
  ports: [{port: 80, targetPort: 8080}, {port: 443, targetPort: 8443}, {port: 8000, targetPort: 8000}]
"""
TLS = ", tls: {certificateRefs: [{name: cert}]}"


def secured(*documents):
    found = objects(FRONT, *documents)
    pem = judge.certificates()
    cert = o.Credential("istio-system", "cert", pem["cert"], pem["key"])
    return found.put(kinds.SECRET, ("istio-system", "cert"), cert)


def test_a_request_on_the_connection_of_another_listener_is_misdirected():
    listeners = [
        listener(name, hostname, 443, "HTTPS", TLS)
        for name, hostname in (("one", "a.example.com"), ("wild", "*.example.com"), ("all", ""))
    ]
    found = judge.messages(
        mesh.view(secured(gateway(*listeners), route(rule(to("reviews")))), "ingress", "istio-system")
    )

    def at(name):
        of = f"https.443.default.web-istio-autogenerated-k8s-gateway-{name}.istio-system"
        return {
            h.domains[0]: h.routes[0].direct_response.status or h.routes[0].route.cluster.split("||")[1].split(".")[0]
            for h in judge.routes(found, of).virtual_hosts
        }

    assert at("one") == {"a.example.com": "reviews", "*.example.com": 421, "*": 421}
    assert at("wild") == {"*.example.com": "reviews", "a.example.com": 421, "*": 421}
    assert at("all") == {"*": "reviews", "a.example.com": 421, "*.example.com": 421}


def test_a_gateway_that_is_deployed_is_served_by_the_pods_with_its_name():
    own = f"""
{V1}
kind: Gateway
metadata: {{name: own, namespace: default}}
spec: {{gatewayClassName: istio, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}
"""
    found = objects(own, route(rule(to("reviews")), parent="{name: own}"))
    label = {"gateway.networking.k8s.io/gateway-name": "own"}
    pod = mesh.pod("ingress", "10.244.0.50", **label)
    found = found.put(kinds.POD, ("default", "ingress"), pod)
    made = judge.messages(mesh.view(found, "ingress", "default"))
    assert answers(judge.routes(made, "http.80").virtual_hosts[0]) == [("...", "reviews")]
    assert judge.messages(mesh.view(found, "ingress", "istio-system"))[names.RDS] == {}


# --- in the mesh -----------------------------------------------------------------------------------------------

PRODUCER = "{group: '', kind: Service, name: reviews}"
CONSUMER = "{group: '', kind: Service, name: reviews, namespace: default}"


def in_mesh(found, viewer="default"):
    """Where requests to reviews go for clients of a namespace."""
    client = mesh.pod("client", "10.244.0.70", viewer, app="client")
    made = judge.messages(mesh.view(found.put(kinds.POD, (viewer, "client"), client), "client", viewer))
    shared = made[names.VHDS].get("9080/reviews.default.svc.cluster.local:9080")
    return answers(shared or made[names.RDS]["reviews.default.svc.cluster.local:9080"].virtual_hosts[0])


def test_a_route_of_a_service_is_for_all_its_clients():
    found = objects(route(rule(to("ratings"), matches=path("/a")), parent=PRODUCER))
    assert in_mesh(found) == in_mesh(found, "elsewhere") == [("/a/...", "ratings")]


def test_a_consumers_route_is_for_its_own_namespace_and_replaces_the_producers():
    consumer = route(
        rule("{name: productpage, namespace: default, port: 9080}"), parent=CONSUMER, namespace="elsewhere"
    )
    found = objects(route(rule(to("ratings")), parent=PRODUCER), consumer)
    assert in_mesh(found) == [("...", "ratings")]
    assert in_mesh(found, "elsewhere") == [("...", "productpage")]
    assert in_mesh(found, "third") == [("...", "ratings")]


def test_a_route_of_one_port_leaves_the_others():
    found = objects(route(rule(to("ratings")), parent="{group: '', kind: Service, name: reviews, port: 9081}"))
    assert in_mesh(found) == [("...", "reviews")]


def test_a_service_with_routes_is_told_by_its_address_whatever_host_requests_name():
    found = judge.messages(mesh.view(objects(route(rule(to("ratings")), parent=PRODUCER))))
    (chain,) = found[names.LDS]["10.96.0.2_9080"].filter_chains
    manager = judge.http_connection_manager_pb2.HttpConnectionManager()
    chain.filters[-1].typed_config.Unpack(manager)
    own = found[names.RDS][manager.rds.route_config_name].virtual_hosts[0]
    assert (list(own.domains), answers(own)) == (["*"], [("...", "ratings")])
    others = [h for h in found[names.VHDS] if h.startswith("9080/")]
    assert others
    assert not [h for h in others if "reviews" in h]
    assert judge.waited_for(found) == set()


SIDECAR = """
kind: Sidecar
metadata: {name: s}
spec: {egress: [{port: {number: 9080, protocol: HTTP, name: http}, bind: 127.0.0.1, captureMode: NONE, hosts: ["./*"]}]}
"""


def test_behind_an_address_of_a_sidecar_the_named_host_tells_who_is_meant():
    found = judge.messages(mesh.view(objects(SIDECAR, route(rule(to("ratings")), parent=PRODUCER))))
    assert answers(found[names.VHDS]["9080/reviews.default.svc.cluster.local:9080"]) == [("...", "ratings")]


VIRTUAL_SERVICE = """
kind: VirtualService
metadata: {name: vs}
spec: {hosts: [reviews], http: [{route: [{destination: {host: productpage}}]}]}
"""


def test_routes_of_the_gateway_api_precede_virtual_services():
    assert in_mesh(objects(VIRTUAL_SERVICE)) == [("...", "productpage")]
    found = objects(VIRTUAL_SERVICE, route(rule(to("ratings")), parent=PRODUCER))
    assert in_mesh(found) == [("...", "ratings")]


def test_a_change_of_one_route_makes_no_other_route_again():
    before = objects(
        gateway(), route(rule(to("reviews")), name="a"), route(rule(to("ratings")), name="b", hosts=("b.org",))
    )
    views = mesh.Views(Mesh(before))
    pod = before.pods["istio-system", "ingress"]
    old = views.of(pod, "router").gateway.servers[0].requests
    found = mesh.add(before, next(iter(mesh.yamldoc.objects(route(rule(to("ratings")), name="a")))), 9)
    views.advance(found)
    new = views.of(pod, "router").gateway.servers[0].requests
    by_host = [{h.host: h for h in some} for some in (old, new)]
    assert by_host[0]["b.org"] is by_host[1]["b.org"]
    assert by_host[0]["*"] != by_host[1]["*"]


def test_a_backend_with_filters_of_its_own_has_its_share_of_the_requests():
    """Envoy asks all routes of a request with one random number, so the shares add up."""
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: productpage, port: 9080}}}"
    rewrite = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}"
    redirect = "{type: RequestRedirect, requestRedirect: {hostname: new.example.com}}"
    found = hosts(
        gateway(),
        route(
            rule(
                to("reviews", weight=2, filters=f"[{mirror}]"),
                to("reviews", weight=3),
                to("ratings", filters=f"[{rewrite}]"),
                to("ratings", filters=f"[{redirect}]"),
                to("missing", weight=1),
                to("ratings", weight=2),
                matches=path("/old"),
                filters="{type: URLRewrite, urlRewrite: {hostname: rule.example.com}}",
            ),
            hosts=("a.example.com",),
        ),
    )["a.example.com"].routes
    shares = [r.match.runtime_fraction.default_value.numerator for r in found]
    assert shares == [200_000, 300_000, 400_000, 500_000, 0]
    mirrored, rewritten, redirected, broken, rest = found
    assert [m.cluster.split("|")[3].split(".")[0] for m in mirrored.route.request_mirror_policies] == ["productpage"]
    assert mirrored.route.host_rewrite_literal == rest.route.host_rewrite_literal == "rule.example.com"
    assert rewritten.route.prefix_rewrite == "/new"
    assert redirected.redirect.host_redirect == "new.example.com"
    assert broken.direct_response.status == 500
    assert [c.weight.value for c in rest.route.weighted_clusters.clusters] == [3, 2]
    assert not rest.route.request_mirror_policies


LIMIT = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: %s, namespace: %s}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: %s, name: %s}]
  rateLimit: {type: Local, local: {rules: [{limit: {requests: 2, unit: Minute}}]}}
"""


@pytest.mark.parametrize(
    ("target", "limited"),
    [
        (("istio-system", "Gateway", "web"), {"a.example.com", "b.example.com"}),
        (("default", "HTTPRoute", "one"), {"a.example.com"}),
        (("default", "HTTPRoute", "gone"), set()),
    ],
)
def test_envoy_gateways_policies_attach_to_gateways_and_routes(target, limited):
    namespace, kind, name = target
    found = hosts(
        gateway(),
        route(rule(to("reviews")), name="one", hosts=("a.example.com",)),
        route(rule(to("reviews")), name="two", hosts=("b.example.com",)),
        LIMIT % ("limit", namespace, kind, name),
    )
    has = {host for host, made in found.items() if any("lateen.rate_limit" in f for f in made.typed_per_filter_config)}
    assert has == limited
