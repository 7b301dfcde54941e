"""What the analysis says of routes of the Gateway API."""

import pytest
from test_gateway_api import CLASS, PRODUCER, gateway, listener, path, route, rule, to

from lateen.analysis import Snapshot, Source, analyze
from lateen.analysis.attached import places
from lateen.kit import yamldoc

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.96.0.2, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: default}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}
"""


def said(*documents):
    sources = [Source(d) for d in yamldoc.objects("---".join((CLASS, SERVICES, *documents)))]
    found = analyze(Snapshot(sources), ["routes.StandingAnalyzer", "routes.OutcomeAnalyzer"])
    return [(m.kind.code, m.source.ref, m.text) for m in found]


def test_a_route_that_works_has_no_findings():
    assert said(gateway(), route(rule(to("reviews")))) == []


def test_a_backend_that_is_not_there_is_named():
    ((code, ref, text),) = said(gateway(), route(rule(to("missing"))))
    assert (code, ref) == ("LAT0113", "HTTPRoute default/r")
    assert "there is no Service default/missing" in text


def test_a_route_that_no_listener_takes_is_named():
    ((code, _, text),) = said(gateway("{name: http, port: 80, protocol: HTTP}"), route(rule(to("reviews"))))
    assert (code, "NotAllowedByListeners" in text) == ("LAT0113", True)


def test_a_virtual_service_whose_requests_a_route_has_is_named():
    assert said(RULE) == []
    ((code, ref, text),) = said(RULE, route(rule(to("reviews")), parent=PRODUCER))
    assert (code, ref) == ("LAT0112", "VirtualService default/vs")
    assert "HTTPRoute default/r" in text


def shadowed(*documents):
    sources = [Source(d) for d in yamldoc.objects("---".join((CLASS, SERVICES, *documents)))]
    return [(m.source.ref, m.text, m.path) for m in analyze(Snapshot(sources), ["routes.ShadowAnalyzer"])]


def test_a_rule_that_another_one_has_already_is_named():
    one, two = rule(to("reviews"), matches=path("/a")), rule(to("reviews"), matches=path("/b"))
    assert shadowed(gateway(), route(one, two)) == []
    ((ref, text, at),) = shadowed(gateway(), route(one, two, one))
    assert (ref, at) == ("HTTPRoute default/r", ("spec", "rules", 2, "matches", 0))
    assert "rule 3" in text
    assert "HTTPRoute r.default rule 1" in text
    younger = route(two, name="younger")
    assert [ref for ref, *_ in shadowed(gateway(), route(one, two), younger)] == ["HTTPRoute default/younger"]
    assert shadowed(gateway(), route(one, hosts=("a.example",)), route(one, name="x", hosts=("b.example",))) == []
    assert len(shadowed(route(rule(to("reviews")), rule(to("reviews")), parent=PRODUCER))) == 1


def test_shares_of_a_rule_are_no_shadows():
    mirror = "[{type: RequestMirror, requestMirror: {backendRef: {name: reviews, port: 9080}}}]"
    assert shadowed(gateway(), route(rule(to("reviews", filters=mirror), to("reviews")))) == []


def test_listeners_and_policies_that_are_not_as_they_ask_are_named():
    tls = ", tls: {certificateRefs: [{name: cert, namespace: default}]}"
    ((code, ref, text),) = said(gateway(listener("https", "a.example", 443, "HTTPS", tls)))
    assert (code, ref) == ("LAT0116", "Gateway.gateway.networking.k8s.io istio-system/web")
    assert "listener https: condition ResolvedRefs says RefNotPermitted" in text
    policy = """
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: %s, namespace: default, creationTimestamp: "2026-01-0%sT00:00:00Z"}
spec: {targetRefs: [{group: "", kind: Service, name: %s}]}
"""
    ((code, _, text),) = said(policy % ("p", 1, "missing"))
    assert (code, "TargetNotFound" in text) == ("LAT0116", True)
    ((_, ref, text),) = said(policy % ("a", 1, "reviews"), policy % ("b", 2, "reviews"))
    assert (ref, "Conflicted" in text) == ("XBackendTrafficPolicy default/b", True)


def test_where_listener_sets_and_policies_of_backends_are_attached():
    def where(name, *documents):
        sources = [Source(d) for d in yamldoc.objects("---".join((CLASS, SERVICES, *documents)))]
        source = next(s for s in sources if s.name == name)
        return [(p.kind, p.name, p.missing) for p in places(Snapshot(sources), source)]

    extra = """
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: extra, namespace: istio-system}
spec: {parentRef: {name: web}, listeners: [{name: more, port: 81, protocol: HTTP}]}
"""
    found = where("extra", gateway(), extra)
    assert found[0][:2] == ("Gateway.gateway.networking.k8s.io", "istio-system/web")
    assert "does not admit" in found[0][2]
    policy = """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls, namespace: default}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}, {group: "", kind: Service, name: gone}]
  validation: {hostname: a.example, wellKnownCACertificates: System}
"""
    assert where("tls", gateway(), route(rule(to("reviews"))), policy) == [
        ("Service", "default/reviews", ""),
        ("Service", "default/gone", "it does not exist"),
        ("Gateway.gateway.networking.k8s.io", "istio-system/web", ""),
    ]


FRONT = """
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec:
  clusterIP: 10.96.0.3
  selector: {istio: ingressgateway}
  ports: [{name: http, port: 80}, {name: https, port: 443}]
"""


def dated(document, day):
    return document.replace("metadata: {", f'metadata: {{creationTimestamp: "2026-01-0{day}T00:00:00Z", ')


def intruders(*documents):
    aged = [dated(d, i + 1) for i, d in enumerate(documents)]
    sources = [Source(d) for d in yamldoc.objects("---".join((CLASS, FRONT, *aged)))]
    found = analyze(Snapshot(sources), ["gateway.NamespaceAnalyzer"])
    return [(m.source.ref.split(" ")[1], m.path, m.text) for m in found]


@pytest.mark.parametrize(
    ("older", "younger", "told"),
    [
        ("a.example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("a.example.com", "*.example.com", True),
        ("a.example.com", "", True),
        ("", "a.example.com", True),
        ("a.example.com", "b.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.a.example.com", "*.b.example.com", False),
    ],
)
def test_a_gateway_that_takes_a_host_of_another_namespace_at_the_same_proxies_is_named(older, younger, told):
    first = gateway(listener("x", older), namespace="bank")
    found = intruders(first, gateway(listener("x", younger), namespace="other"))
    assert [(ref, at) for ref, at, _ in found] == ([("other/web", ("spec", "listeners", 0))] if told else [])
    if told:
        assert "the older Gateway.gateway.networking.k8s.io bank/web" in found[0][2]
    assert intruders(first, gateway(listener("x", younger), namespace="bank", name="second")) == []


def test_other_ports_and_other_proxies_are_no_intrusion():
    first = gateway(listener("x", "a.example.com"), namespace="bank")
    assert intruders(first, gateway(listener("x", "a.example.com", 443), namespace="other")) == []
    elsewhere = "istio-egressgateway.istio-system.svc.cluster.local"
    assert intruders(first, gateway(listener("x", "a.example.com"), namespace="other", host=elsewhere)) == []
