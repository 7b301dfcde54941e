"""Which of several rules holds, and what they make of clusters and connections: what Istio's source decides where users
have written more than one thing."""

import judge
from meshes import objects, view

from lateen.wire import names

REVIEWS = "reviews.default.svc.cluster.local"


def clusters(found, name="productpage-v1", namespace="default"):
    return judge.messages(view(found, name, namespace))[names.CDS]


RULE = """
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{host: "{host}", {rest}}}
"""


def rule(name, rest, host="reviews", namespace="default"):
    return RULE.format(name=name, rest=rest, host=host, namespace=namespace)


def timeouts(found, *subsets, name="productpage-v1", namespace="default"):
    made = clusters(found, name, namespace)
    return [made[f"outbound|9080|{s}|{REVIEWS}"].connect_timeout.seconds for s in subsets]


def within(seconds):
    return f"trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {seconds}s}}}}}}"


def test_the_older_of_two_destination_rules_has_the_settings_and_both_have_subsets():
    older = rule("old", f"{within(1)}, subsets: [{{name: v1, labels: {{version: v1}}}}]")
    newer = rule("new", f"{within(2)}, subsets: [{{name: v2, labels: {{version: v2}}}}]")
    assert timeouts(objects("---".join([older, newer])), "", "v1", "v2") == [1, 1, 1]


def test_a_later_destination_rule_does_not_override_a_subset_of_an_earlier_one():
    older = rule("old", f"subsets: [{{name: v1, labels: {{version: v1}}, {within(3)}}}]")
    newer = rule("new", f"{within(2)}, subsets: [{{name: v1, labels: {{version: v2}}, {within(4)}}}]")
    assert timeouts(objects("---".join([older, newer])), "", "v1") == [2, 3]


def test_a_rule_for_the_whole_mesh_does_not_hide_a_services_subsets_from_the_gateway_beside_it():
    """The ingress gateway is in istio-system, where rules such as *.local are, too."""
    whole = rule("default", within(7), "*.local", "istio-system")
    own = rule("reviews", f"{within(1)}, subsets: [{{name: v1, labels: {{version: v1}}}}]")
    route = """
kind: Gateway
metadata: {name: web, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews.example.com]
  gateways: [istio-system/web]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
"""
    found = objects("---".join([whole, own, route]))
    assert timeouts(found, "v1", name="ingress", namespace="istio-system") == [1]
    assert clusters(found)["outbound|9080||ratings.default.svc.cluster.local"].connect_timeout.seconds == 7


def test_a_rule_that_the_root_namespace_keeps_to_itself_is_for_its_own_gateway():
    own = rule("mine", f"{within(5)}, exportTo: ['.']", REVIEWS, "istio-system")
    found = objects("---".join([own, rule("reviews", within(1))]))
    other = objects(rule("reviews", within(1)))
    assert timeouts(found, "") == timeouts(other, "") == [1]
