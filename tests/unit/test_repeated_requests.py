"""Where a request is repeated: at another endpoint, or, with a consistent hash, at its own."""

import judge
import pytest
from meshes import AGENT, FRONT, objects, pod, view

from lateen.api import kinds
from lateen.mesh.model import Mesh
from lateen.mesh.views import Views

HASH = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}"
RULE = """
kind: DestinationRule
metadata: {{name: reviews, namespace: {namespace}}}
spec: {{host: reviews.default.svc.cluster.local, {rest}}}
---
"""
ROUTE = """
kind: VirtualService
metadata: {{name: {host}}}
spec: {{hosts: [{host}], http: [{{route: [{route}], retries: {{attempts: 3{more}}}}}]}}
---
"""
OF_SERVICE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ratings}
spec: {parentRefs: [{kind: Service, group: "", name: ratings}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}
---
"""
REVIEWS, RATINGS = "reviews.default.svc.cluster.local:9080", "ratings.default.svc.cluster.local:9080"


def hashed(namespace="default", rest=f"trafficPolicy: {{{HASH}}}"):
    return RULE.format(namespace=namespace, rest=rest)


def elsewhere(text, host=REVIEWS, client=("productpage-v1", "default"), port="9080"):
    return avoids(view(objects(text), *client), host, port)


def avoids(found, host, port="9080"):
    """Whether repeated requests avoid the endpoint that they have failed at."""
    routes = judge.routes(judge.messages(found), port)
    (found,) = [h for h in routes.virtual_hosts if host in h.name]
    policy = found.routes[0].route.retry_policy
    assert policy.num_retries.value
    return [p.name for p in policy.retry_host_predicate] == ["envoy.retry_host_predicates.previous_hosts"]


def test_a_repeated_request_goes_to_another_endpoint():
    assert elsewhere(hashed(rest="trafficPolicy: {loadBalancer: {simple: RANDOM}}"))


def test_with_a_consistent_hash_a_repeated_request_stays_where_its_key_leads():
    assert not elsewhere(hashed())


def test_the_same_on_a_virtual_services_route():
    assert not elsewhere(hashed() + ROUTE.format(host="reviews", route="{destination: {host: reviews}}", more=""))
    assert elsewhere(ROUTE.format(host="reviews", route="{destination: {host: reviews}}", more=""))


@pytest.mark.parametrize(("wish", "away"), [("true", True), ("false", False)])
def test_retry_ignore_previous_hosts_precedes_the_hash(wish, away):
    more = f", retryIgnorePreviousHosts: {wish}"
    assert elsewhere(hashed() + ROUTE.format(host="reviews", route="{destination: {host: reviews}}", more=more)) is away


def test_one_hashed_destination_of_several_is_enough():
    subsets = f"subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {{{HASH}}}}}, {{name: v2}}]"
    of = "{{destination: {{host: reviews, subset: {}}}, weight: 50}}".format
    both = f"{of('v1')}, {of('v2')}"
    assert not elsewhere(hashed(rest=subsets) + ROUTE.format(host="reviews", route=both, more=""))
    assert elsewhere(hashed(rest=subsets) + ROUTE.format(host="reviews", route=of("v2"), more=""))


def test_a_hash_of_one_port_is_only_for_its_requests():
    other = f"trafficPolicy: {{portLevelSettings: [{{port: {{number: 9090}}, {HASH}}}]}}"
    assert elsewhere(hashed(rest=other))
    assert not elsewhere(hashed(rest=other.replace("9090", "9080")))


def test_a_hash_without_a_key_sends_requests_anywhere():
    assert elsewhere(hashed(rest="trafficPolicy: {loadBalancer: {consistentHash: {maglev: {tableSize: 251}}}}"))


def test_gateways_do_the_same():
    client = ("ingress", "istio-system")
    assert elsewhere(FRONT, "*:80", client, "http.8080")
    assert not elsewhere(FRONT + "---" + hashed(), "*:80", client, "http.8080")


@pytest.mark.parametrize(
    ("route", "host", "port"),
    [
        ("", REVIEWS, "9080"),
        (ROUTE.format(host="ratings", route="{destination: {host: reviews}}", more=""), RATINGS, "9080"),
        (OF_SERVICE, RATINGS, RATINGS),
    ],
)
def test_a_rule_for_clients_of_one_namespace_is_only_for_their_requests(route, host, port):
    """Also where the host that they call is another one than the rule's."""
    found = objects(hashed("theirs").replace("spec: {", "spec: {exportTo: ['.'], ") + route)
    client = pod("client", "10.244.0.98", "theirs", app="client")
    views = Views(Mesh(found.put(kinds.POD, ("theirs", "client"), client)))
    ours = found.pods["default", "productpage-v1"]
    assert [avoids(views.of(p, "sidecar", AGENT), host, port) for p in (ours, client, ours)] == [True, False, True]
