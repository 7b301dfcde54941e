"""What the analysis says of routes of the Gateway API."""

from test_gateway_api import CLASS, PRODUCER, gateway, route, rule, to

from lateen.analysis import Snapshot, Source, analyze
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
