"""What lateen x describe says of a service."""

from lateen.analysis.effective import PeerModes
from lateen.analysis.model import model
from lateen.analysis.snapshot import Snapshot, Source
from lateen.api import kinds
from lateen.cli import describe, describe_routes


def pod(name, **labels):
    return {"metadata": {"name": name, "namespace": "shop", "labels": {"app": "reviews", **labels}}, "spec": {}}


def obj(name, spec, namespace="shop"):
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


SERVICE = obj("reviews", {"selector": {"app": "reviews"}, "ports": [{"name": "http", "port": 9080}]})
SUBSETS = [{"name": v, "labels": {"version": v}} for v in ("v1", "v2", "v9")]
RULE = obj("reviews", {"host": "reviews", "subsets": SUBSETS})
PODS = [pod("a", version="v1"), pod("b", version="v2")]


def described(virtual_services=(), policies=(), behind=PODS):
    modes = PeerModes(policies, "istio-system")
    return "\n".join(
        describe.of_service(
            SERVICE, list(behind), describe.Found([], list(virtual_services), [RULE], [], modes, "cluster.local")
        )
    )


def test_a_subset_matches_where_any_of_the_services_pods_has_its_labels():
    text = described()
    assert "Matching subsets: v1,v2" in text
    assert "(Non-matching subsets v9)" in text
    assert "Matching subsets: v2\n" in described(behind=PODS[1:])


def test_routes_are_shown_with_weights_subsets_and_conditions():
    split = [
        {"destination": {"host": "reviews", "subset": "v1"}, "weight": 90},
        {"destination": {"host": "reviews", "subset": "v2", "port": {"number": 9080}}, "weight": 10},
    ]
    only = {"headers": {"end-user": {"exact": "jason"}}, "uri": {"prefix": "/a"}}
    http = [{"match": [only], "route": [{"destination": {"host": "reviews", "subset": "v2"}}]}, {"route": split}]
    text = described([obj("reviews", {"hosts": ["reviews"], "http": http})])
    assert "HTTP route 0: /a* and header end-user jason -> reviews subset v2" in text
    assert "HTTP route 1: /* -> reviews subset v1 90%, reviews:9080 subset v2 10%" in text


def test_a_route_of_another_namespaces_service_of_that_name_is_not_shown():
    other = obj("reviews", {"hosts": ["reviews"], "http": [{"route": []}]}, "elsewhere")
    assert "VirtualService" not in described([other])


def test_an_ingress_that_leads_to_the_service_is_shown_with_its_paths():
    backend = {"service": {"name": "reviews", "port": {"number": 9080}}}
    rule = {"host": "a.test", "http": {"paths": [{"path": "/r", "pathType": "Prefix", "backend": backend}]}}
    spec = {"ingressClassName": "istio", "rules": [rule], "defaultBackend": backend}
    found = Source({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", **obj("web", spec)})
    other = Source({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", **obj("far", spec, "elsewhere")})
    ingresses = model(Snapshot([found, other])).ingresses()
    modes = PeerModes([], "istio-system")
    text = "\n".join(
        describe.of_service(SERVICE, [], describe.Found([], [], [], [], modes, "cluster.local", ingresses))
    )
    assert "Ingress: web\n   a.test/r -> reviews:9080\n   requests that match no rule -> reviews:9080" in text
    assert "Ingress: far" not in text


def test_the_mode_is_the_mesh_s_own_reading_with_ports_and_the_policy_that_decides():
    mine = {"selector": {"matchLabels": {"version": "v1"}}, "portLevelMtls": {"9080": {"mode": "DISABLE"}}}
    policies = [obj("all", {"mtls": {"mode": "STRICT"}}, "istio-system"), obj("v1", mine)]
    text = described(policies=policies)
    assert "Workload mTLS mode: STRICT (PeerAuthentication istio-system/all)" in text
    assert "port 9080: DISABLE" in text
    unset = [obj("default", {"mtls": {"mode": "UNSET"}}), policies[0]]
    assert PeerModes(unset, "istio-system").of("shop", {})[0] == "STRICT"


def route(kind, name, spec, namespace="shop", parents=()):
    status = {"parents": [{"parentRef": p, "conditions": [c]} for p, c in parents]}
    return kinds.find(kinds.GATEWAY_API, kind), obj(name, spec, namespace) | {"status": status}


def routed(*routes):
    web = obj("web", {}, "edge") | {"status": {"addresses": [{"value": "127.96.0.7"}]}}
    found = describe_routes.Routed(routes, [web])
    return "\n".join([*describe_routes.of_callers(SERVICE, found), *describe_routes.exposed(SERVICE, found)])


TO_REVIEWS = {"backendRefs": [{"name": "reviews", "port": 9080}]}
AT_WEB = {"name": "web", "namespace": "edge"}


def test_the_gateway_apis_routes_of_a_services_callers_are_shown_with_rules_and_shares():
    here = {"group": "", "kind": "Service", "name": "reviews"}
    backends = [{"name": "reviews-v1", "port": 9080, "weight": 3}, {"name": "reviews-v2", "port": 9080}]
    matches = [{"path": {"type": "PathPrefix", "value": "/a"}, "headers": [{"name": "x", "value": "y"}]}]
    rules = [{"name": "some", "matches": matches, "backendRefs": backends}, TO_REVIEWS]
    away = {**here, "namespace": "shop", "port": 9080}
    text = routed(
        route("HTTPRoute", "r", {"parentRefs": [here], "rules": rules}),
        route("GRPCRoute", "g", {"parentRefs": [away], "rules": [{"matches": [{"method": {"service": "S"}}]}]}, "me"),
        route("HTTPRoute", "other", {"parentRefs": [{**here, "name": "ratings"}], "rules": []}),
        route("HTTPRoute", "far", {"parentRefs": [here], "rules": []}, "elsewhere"),
    )
    assert text.splitlines() == [
        "HTTPRoute: r.shop",
        '   rule "some": /a/* and header x y -> reviews-v1:9080 75%, reviews-v2:9080 25%',
        "   rule 2: /* -> reviews:9080",
        "GRPCRoute: g.me (for clients in me) (port 9080)",
        "   rule 1: gRPC S/* -> nothing",
    ]


def test_gateways_that_a_service_is_exposed_on_are_shown_with_their_addresses_and_routes():
    text = routed(
        route("TCPRoute", "t", {"parentRefs": [{**AT_WEB, "sectionName": "tcp"}], "rules": [TO_REVIEWS]}),
        route("TLSRoute", "s", {"parentRefs": [AT_WEB], "hostnames": ["a.test"], "rules": [TO_REVIEWS]}),
        route("HTTPRoute", "h", {"parentRefs": [{"name": "gone"}], "hostnames": ["b.test"], "rules": [TO_REVIEWS]}),
    )
    line = "--------------------"
    assert text.splitlines() == [
        *(line, "Exposed on Gateway web.edge at 127.96.0.7"),
        *("TCPRoute: t.shop (listener tcp)", "   rule 1: every connection -> reviews:9080"),
        *("TLSRoute: s.shop", "   rule 1: SNI a.test -> reviews:9080"),
        *(line, "Exposed on Gateway gone.shop", "HTTPRoute: h.shop", "   rule 1: /* for b.test -> reviews:9080"),
    ]


def test_what_a_routes_status_says_against_it_is_a_warning():
    refused = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "not from here"}
    spec = {"parentRefs": [AT_WEB], "rules": [TO_REVIEWS]}
    assert "   WARNING: Accepted is False: not from here" in routed(
        route("UDPRoute", "u", spec, parents=[(AT_WEB, refused)])
    )
    assert "WARNING" not in routed(route("UDPRoute", "u", spec, parents=[({"name": "other"}, refused)]))
