"""Rules that route nothing for some clients, or nothing at some gateway: their hosts are as if there were no rule."""

import judge
import meshes as mesh
import pytest

from lateen.wire import names

RULE = """
kind: VirtualService
metadata: {name: rule}
spec: {hosts: [HOST], http: [{match: [MATCH], route: [{destination: {host: ratings}}]}]}
---
kind: Service
metadata: {name: critics, namespace: default}
spec: {type: ExternalName, externalName: reviews.default.svc.cluster.local}
"""


def called(text, host, port="9080"):
    """The cluster of the first route for a host that productpage calls at a port; empty if the rest's applies."""
    found = judge.routes(judge.messages(mesh.view(mesh.objects(text))), port).virtual_hosts
    mine = [h for h in found if host in h.domains]
    assert len(mine) <= 1
    return [r.route.cluster for h in mine for r in h.routes][:1]


OTHERS = ["{sourceLabels: {app: other}}", "{port: 1}", "{sourceNamespace: other}", "{gateways: [other/gw]}"]
RATINGS = ["outbound|9080||ratings.default.svc.cluster.local"]
REVIEWS = ["outbound|9080||reviews.default.svc.cluster.local"]


@pytest.mark.parametrize("match", OTHERS)
def test_a_host_outside_is_passed_through_for_clients_that_its_rule_is_not_for(match):
    text = RULE.replace("[HOST]", "[api.test, reviews]")
    assert called(text.replace("MATCH", match), "api.test") == []
    assert called(text.replace("MATCH", "{sourceLabels: {app: productpage}}"), "api.test") == RATINGS


@pytest.mark.parametrize("match", OTHERS)
def test_an_alias_leads_to_its_service_for_clients_that_its_rule_is_not_for(match):
    text = RULE.replace("HOST", "critics")
    assert called(text.replace("MATCH", match), "critics") == REVIEWS
    assert called(text.replace("MATCH", "{uri: {prefix: /}}"), "critics") == RATINGS


TWO_PORTS = """
kind: Service
metadata: {name: shop, namespace: default}
spec: {clusterIP: 10.96.0.50, ports: [{name: http, port: 9080}, {name: http-more, port: 9081}]}
---
kind: Service
metadata: {name: critics, namespace: default}
spec: {type: ExternalName, externalName: shop.default.svc.cluster.local}
---
kind: VirtualService
metadata: {name: rule}
spec: {hosts: [critics], http: [{match: [{port: 9080}], route: [{destination: {host: ratings}}]}]}
"""


def test_an_alias_with_a_rule_for_one_port_leads_to_its_service_at_the_others():
    assert called(TWO_PORTS, "critics") == RATINGS
    assert called(TWO_PORTS, "critics", "9081") == ["outbound|9081||shop.default.svc.cluster.local"]
    own = (
        TWO_PORTS
        + """
---
kind: VirtualService
metadata: {name: own}
spec: {hosts: [shop], http: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]}
"""
    )
    assert called(own, "critics") == RATINGS
    assert called(own, "critics", "9081") == REVIEWS


def test_an_alias_follows_its_service_under_a_wildcard():
    text = RULE.replace("HOST", "'*.default.svc.cluster.local'").replace("MATCH", "{uri: {prefix: /}}")
    assert called(text, "critics.default.svc.cluster.local") == RATINGS


def test_requests_are_passed_through_where_a_rule_is_for_connections_only():
    text = """
    kind: VirtualService
    metadata: {name: rule}
    spec:
      hosts: [api.test, reviews]
      tls: [{match: [{sniHosts: [api.test]}], route: [{destination: {host: ratings}}]}]
    """
    assert called(text, "api.test") == []


AT_GATEWAY = """
kind: Gateway
metadata: {name: gw}
spec: {selector: SELECTOR, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
kind: VirtualService
metadata: {name: narrow}
spec: {hosts: [HOST], gateways: [gw, mesh], http: [{match: [MATCH], directResponse: {status: 200}}]}
---
kind: VirtualService
metadata: {name: wide}
spec: {hosts: [WIDE], gateways: [gw], http: [{directResponse: {status: 201}}]}
"""


def served(text):
    """Domain -> statuses of its routes, at the gateway's port 80."""
    found = judge.messages(mesh.view(mesh.objects(text), "ingress", "istio-system"))
    if "http.8080" not in found.get(names.RDS, {}):
        return {}
    hosts = judge.routes(found, "http.8080").virtual_hosts
    return {d: [r.direct_response.status for r in h.routes] for h in hosts for d in h.domains}


def at_gateway(host="a.test", match="{uri: {prefix: /a}}", wide="'*'", selector="{istio: ingressgateway}"):
    text = AT_GATEWAY.replace("HOST", host).replace("MATCH", match)
    return served(text.replace("WIDE", wide).replace("SELECTOR", selector))


@pytest.mark.parametrize("match", ["{port: 8080}", "{gateways: [mesh]}", "{sourceNamespace: other}"])
def test_a_gateway_leaves_a_host_to_a_wildcard_if_its_rule_routes_nothing_there(match):
    assert at_gateway(match=match) == {"*": [201]}
    assert at_gateway() == {"*": [201], "a.test": [200]}


def test_hosts_that_differ_in_case_are_one_host():
    assert at_gateway(host="A.Test", wide="a.test") == {"a.test": [200, 201]}


IN_CAPITALS = """
kind: ServiceEntry
metadata: {name: upper}
spec: {hosts: [API.Test], resolution: DNS, ports: [{number: 9080, name: http, protocol: HTTP}]}
---
kind: ServiceEntry
metadata: {name: lower, namespace: other}
spec: {hosts: [api.test], resolution: DNS, ports: [{number: 9080, name: http, protocol: HTTP}]}
---
kind: DestinationRule
metadata: {name: subsets}
spec: {host: aPI.test, subsets: [{name: v1}]}
---
kind: VirtualService
metadata: {name: rule}
spec: {hosts: [Api.Test, Only.Rule], http: [{route: [{destination: {host: api.TEST, subset: v1}}]}]}
---
kind: VirtualService
metadata: {name: again}
spec: {hosts: [only.rule], http: [{route: [{destination: {host: ratings}}]}]}
---
kind: Service
metadata: {name: critics, namespace: default}
spec: {type: ExternalName, externalName: Reviews.Default.svc.cluster.local}
"""


def test_in_the_mesh_hosts_that_differ_in_case_are_one_host():
    """Envoy compares hosts without regard to case, and refuses to have one twice."""
    found = judge.messages(mesh.view(mesh.objects(IN_CAPITALS)))
    hosts = judge.routes(found, "9080").virtual_hosts
    domains = [d.lower() for h in hosts for d in h.domains]
    assert len(domains) == len(set(domains))
    assert called(IN_CAPITALS, "api.test") == ["outbound|9080|v1|api.test"]
    assert called(IN_CAPITALS, "only.rule") == ["outbound|9080|v1|api.test"]
    assert called(IN_CAPITALS, "critics") == REVIEWS
    assert "outbound|9080|v1|api.test" in found[names.CDS]
    assert not [name for name in found[names.CDS] if name != name.lower() and "Cluster" not in name]


def test_a_gateway_without_a_selector_is_for_all_gateways():
    assert at_gateway(selector="{}") == at_gateway()
    assert at_gateway(selector="{istio: other}") == {}
