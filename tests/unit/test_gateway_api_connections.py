"""TLSRoutes and TCPRoutes whose parent is a Service or a ServiceEntry: connections between pods."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from test_gateway_api import V1, standing

from lateen.api import kinds
from lateen.mesh.model import Mesh
from lateen.wire import names

ENTRY = """
kind: ServiceEntry
metadata: {name: ext}
spec:
  hosts: [ext.example.com]
  addresses: [10.2.2.2]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: http, protocol: HTTP}]
"""
GATE = """
apiVersion: v1
kind: Service
metadata: {name: gate, namespace: default}
spec: {clusterIP: 10.96.0.50, selector: {app: productpage}, ports: [{name: tls, port: 443}, {name: tcp, port: 9000}]}
"""
OF_ENTRY = "{group: networking.istio.io, kind: ServiceEntry, name: ext}"
OF_GATE = "{group: '', kind: Service, name: gate, namespace: default}"


def connected(kind, *backends, name="r", parent=OF_ENTRY, hosts="", namespace="default"):
    hostnames = f", hostnames: [{hosts}]" if hosts else ""
    return f"""
{V1}
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{parentRefs: [{parent}]{hostnames}, rules: [{{backendRefs: [{", ".join(backends)}]}}]}}
"""


TO_GATE = "{name: gate, namespace: default, port: 443}"
BY_NAME = connected("TLSRoute", TO_GATE, hosts="ext.example.com")


def chains(listener, *documents, namespace=""):
    """(server names, clusters) of a listener of productpage's sidecar, or of a client in another namespace."""
    found = mesh.objects("---".join((ENTRY, GATE, *documents)))
    if namespace:
        client = mesh.pod("client", "10.244.0.77", namespace, app="client")
        made = mesh.view(found.put(kinds.POD, (namespace, "client"), client), "client", namespace)
    else:
        made = mesh.view(found)
    out = judge.messages(made)[names.LDS][listener]
    rest = [out.default_filter_chain] if out.HasField("default_filter_chain") else []
    return [(tuple(c.filter_chain_match.server_names), clusters(c)) for c in (*out.filter_chains, *rest)]


def clusters(chain):
    proxy = tcp_proxy_pb2.TcpProxy()
    chain.filters[-1].typed_config.Unpack(proxy)
    weighted = [(c.name, c.weight) for c in proxy.weighted_clusters.clusters]
    return [(c.partition("||")[2].partition(".")[0], w) for c, w in weighted or [(proxy.cluster, 0)]]


def test_a_tls_route_of_a_service_entry_has_the_connections_that_ask_for_its_names():
    assert chains("10.2.2.2_443", BY_NAME) == [(("ext.example.com",), [("gate", 0)]), ((), [("ext", 0)])]
    assert chains("10.2.2.2_443") == [((), [("ext", 0)])]


def test_a_tcp_route_of_a_service_has_all_connections_of_its_port_by_weight():
    both = (
        "{name: gate, port: 443, weight: 3}",
        "{name: gate, port: 9000, weight: 1}",
        "{name: none, port: 1, weight: 4}",
    )
    one = connected("TCPRoute", *both, parent=OF_GATE.replace("}", ", port: 9000}"))
    (rest,) = chains("10.96.0.50_9000", one)
    assert rest == ((), [("gate", 3), ("gate", 1), ("", 4)]), "the share of what is missing is closed"
    assert chains("10.96.0.50_443", one) == [((), [("gate", 0)])]


def test_the_oldest_tcp_route_has_the_connections_that_no_tls_route_has():
    first = connected("TCPRoute", "{name: gate, port: 9000}", name="first")
    second = connected("TCPRoute", "{name: productpage, port: 9080}", name="second")
    found = chains("10.2.2.2_443", first, second, BY_NAME)
    assert found == [(("ext.example.com",), [("gate", 0)]), ((), [("gate", 0)])]


def test_a_consumers_route_of_connections_is_for_its_own_namespace():
    theirs = connected("TCPRoute", TO_GATE, parent=OF_GATE.replace("}", ", port: 9000}"), namespace="elsewhere")
    own = connected("TCPRoute", "{name: reviews, port: 9080}", parent=OF_GATE.replace("}", ", port: 9000}"), name="own")
    assert chains("10.96.0.50_9000", theirs, own, namespace="elsewhere") == [((), [("gate", 0)])]
    assert chains("10.96.0.50_9000", theirs, own) == [((), [("reviews", 0)])]


SIDECAR = """
kind: Sidecar
metadata: {name: default}
spec: {egress: [{hosts: [./gate.default.svc.cluster.local]}]}
"""


def test_a_sidecar_that_imports_a_service_has_what_its_routes_lead_to():
    documents = (ENTRY, GATE, SIDECAR)
    alone = judge.messages(mesh.view(mesh.objects("---".join(documents))))[names.CDS]
    assert not [c for c in alone if "ratings" in c or "reviews" in c]
    there = "{name: %s, port: 9080}"
    routes = (
        connected("TCPRoute", there % "reviews", parent=OF_GATE.replace("}", ", port: 9000}")),
        connected("HTTPRoute", there % "ratings", parent=OF_GATE.replace("}", ", port: 9000}")),
    )
    for text, host in zip(routes, ("reviews", "ratings"), strict=True):
        found = judge.messages(mesh.view(mesh.objects("---".join((*documents, text)))))
        assert f"outbound|9080||{host}.default.svc.cluster.local" in found[names.CDS]
        assert judge.waited_for(found) == set()


def test_a_sidecar_has_nothing_of_the_routes_that_other_namespaces_have_for_a_service_that_it_imports():
    theirs = connected(
        "TCPRoute", "{name: reviews, namespace: default, port: 9080}", parent=OF_GATE, namespace="elsewhere"
    )
    found = judge.messages(mesh.view(mesh.objects(f"{ENTRY}---{GATE}---{SIDECAR}---{theirs}")))
    assert not [c for c in found[names.CDS] if "reviews" in c]


VIRTUAL_SERVICE = """
kind: VirtualService
metadata: {name: vs}
spec:
  hosts: [ext.example.com]
  tls: [{match: [{sniHosts: [ext.example.com]}], route: [{destination: {host: reviews, port: {number: 9080}}}]}]
  http: [{fault: {abort: {percentage: {value: 100}, httpStatus: 418}}, route: [{destination: {host: ext.example.com}}]}]
"""


def test_routes_of_connections_replace_those_of_a_virtual_service_which_is_told():
    assert (("ext.example.com",), [("reviews", 0)]) in chains("10.2.2.2_443", VIRTUAL_SERVICE)
    found = chains("10.2.2.2_443", VIRTUAL_SERVICE, BY_NAME)
    assert found == [(("ext.example.com",), [("gate", 0)]), ((), [("ext", 0)])]


def test_a_virtual_service_that_has_lost_its_connections_is_named():
    vs = VIRTUAL_SERVICE.replace("ext.example.com", "gate")
    theirs = connected("TLSRoute", TO_GATE, parent=OF_GATE, hosts="a.example.com")
    (outcome,) = Mesh(mesh.objects(f"{GATE}---{vs}---{theirs}")).overridden()
    assert {p.about for p in outcome.problems} == {"TLSRoute default/r"}


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (BY_NAME, "Accepted"),
        (connected("TCPRoute", TO_GATE, parent=OF_GATE), "Accepted"),
        (connected("TCPRoute", TO_GATE, parent=OF_ENTRY.replace("}", ", port: 80}")), "UnsupportedValue"),
        (connected("TLSRoute", TO_GATE, parent=OF_ENTRY.replace("}", ", port: 1}"), hosts="a.b"), "NoMatchingParent"),
    ],
)
def test_a_route_of_connections_is_told_whether_its_service_takes_it(one, reason):
    kind = kinds.TLS_ROUTE if "kind: TLSRoute" in one else kinds.TCP_ROUTE
    (parent,) = standing(kind, "r", "default", ENTRY, GATE, one).parents
    assert {c.type: c.reason for c in parent.conditions} == {"Accepted": reason, "ResolvedRefs": "ResolvedRefs"}


def test_a_destination_rule_of_a_clients_namespace_is_in_effect_where_its_connections_are_routed():
    rule = """
kind: DestinationRule
metadata: {name: dr, namespace: elsewhere}
spec: {host: gate.default.svc.cluster.local, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 7s}}}}
"""
    found = mesh.objects(f"{ENTRY}---{GATE}---{BY_NAME}---{rule}")
    client = mesh.pod("client", "10.244.0.77", "elsewhere", app="client")
    there = mesh.view(found.put(kinds.POD, ("elsewhere", "client"), client), "client", "elsewhere")
    hosts = {h.host: h.onward for view in (there, mesh.view(found)) for h in view.outbound.hosts if h.onward}
    assert [host for host, *_ in hosts["ext.example.com"]] == ["gate.default.svc.cluster.local"]
