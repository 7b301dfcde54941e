"""Rules for some clients only."""

import judge
import meshes as mesh
import pytest

from lateen.mesh.model import Mesh
from lateen.mesh.views import Views

RULE = """
kind: VirtualService
metadata: {name: r, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match: [{sourceLabels: {app: ratings}, uri: {prefix: /a}}, {sourceNamespace: other}]
    route: [{destination: {host: ratings}}]
  - route: [{destination: {host: productpage}}]
"""


def clusters(name):
    view = mesh.view(mesh.objects(RULE), name)
    host = judge.routes(judge.messages(view), "9080").virtual_hosts
    found = next(h for h in host if h.name.startswith("9080/reviews"))
    return [(r.match.prefix, r.route.cluster.split("|")[3].partition(".")[0]) for r in found.routes]


def test_a_match_applies_only_to_the_client_that_it_names():
    assert clusters("ratings-v1") == [("/a", "ratings"), ("/", "productpage")]
    assert clusters("productpage-v1") == [("/", "productpage")]


def test_clients_that_no_rule_distinguishes_share_their_view():
    found = mesh.objects(RULE)
    views = Views(Mesh(found))

    def outbound(name):
        return views.of(found.pods["default", name], "sidecar").outbound

    assert outbound("reviews-v1") is outbound("reviews-v2")
    assert outbound("reviews-v1") is not outbound("ratings-v1")


@pytest.mark.parametrize("pod", ["ratings-v1", "productpage-v1"])
def test_envoy_accepts_both(pod, tmp_path):
    judge.validate(mesh.view(mesh.objects(RULE), pod), tmp_path)


def test_a_gateway_is_a_client_too():
    text = """
kind: Gateway
metadata: {name: g, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: v, namespace: default}
spec:
  hosts: ["*"]
  gateways: [istio-system/g]
  http:
  - match: [{sourceLabels: {istio: ingressgateway}}]
    route: [{destination: {host: ratings}}]
  - match: [{sourceLabels: {istio: other}}]
    route: [{destination: {host: productpage}}]
"""
    view = mesh.view(mesh.objects(text), "ingress", "istio-system")
    host = judge.routes(judge.messages(view), "http.8080").virtual_hosts[0]
    assert [r.route.cluster for r in host.routes] == ["outbound|9080||ratings.default.svc.cluster.local"]


def test_an_http_match_with_gateways_holds_for_all_workloads_there():
    text = """
kind: VirtualService
metadata: {name: r, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match: [{gateways: [mesh], sourceLabels: {app: nobody}, sourceNamespace: none}]
    route: [{destination: {host: ratings}}]
"""
    host = judge.routes(judge.messages(mesh.view(mesh.objects(text), "productpage-v1")), "9080").virtual_hosts
    found = next(h for h in host if h.name.startswith("9080/reviews"))
    assert [r.route.cluster for r in found.routes] == ["outbound|9080||ratings.default.svc.cluster.local"]
