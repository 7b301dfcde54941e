"""A Sidecar's egress listener without an address of its own says what clients speak at a port, whatever the services
say that it imports."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2

from lateen.wire import names

REVIEWS = "reviews.default.svc.cluster.local"
EGRESS = """
kind: Sidecar
metadata: {name: s}
spec: {egress: [{port: {number: 9080, name: own, protocol: %s}, hosts: ["./reviews.default.svc.cluster.local"]}]}
"""
RULE = """---
kind: VirtualService
metadata: {name: bytes}
spec:
  hosts: [reviews]
  tcp: [{route: [{destination: {host: ratings}}]}]
  http: [{route: [{destination: {host: productpage}}]}]
"""
ORIGINATED = """---
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {tls: {mode: SIMPLE}}}
"""
TOLD = ["istio-peer-exchange,istio"]
AT_ADDRESS = "10.96.0.2_9080"
ANYWHERE = "0.0.0.0_9080"


def made(spoken, service, more=""):
    """What a client with the listener gets for a service."""
    return mesh.view(mesh.objects(EGRESS % spoken + more, protocol=service))


def listeners(view):
    return {n: li for n, li in judge.messages(view)[names.LDS].items() if n in (AT_ADDRESS, ANYWHERE)}


def marked(listener):
    """The ALPN with which connections announce themselves; empty if their cluster's own does."""
    chain = listener.filter_chains[0]
    found = [f for f in chain.filters if f.name == "envoy.filters.network.set_filter_state"]
    config = set_filter_state_pb2.Config()
    assert all(f.typed_config.Unpack(config) for f in found)
    return [v.format_string.text_format_source.inline_string for v in config.on_new_connection]


@pytest.mark.parametrize(
    ("spoken", "service", "place"),
    [
        ("TCP", "http", AT_ADDRESS),
        ("TCP", "grpc", AT_ADDRESS),
        ("TCP", "auto", AT_ADDRESS),
        ("HTTP", "auto", ANYWHERE),
        ("HTTP", "http", ANYWHERE),
        ("TCP", "tcp", AT_ADDRESS),
    ],
)
def test_the_listeners_protocol_precedes_the_services(spoken, service, place, tmp_path):
    view = made(spoken, service)
    judge.validate(view, tmp_path)
    assert list(listeners(view)) == [place]
    routed = [h for h in judge.messages(view)[names.VHDS] if REVIEWS in h]
    assert bool(routed) is (place == ANYWHERE)


def test_servers_are_told_of_bytes_for_a_port_of_http():
    """Its cluster announces a version of HTTP, which the bytes need not be; others announce none."""
    for service, wanted in (("http", TOLD), ("auto", []), ("tcp", [])):
        assert marked(listeners(made("TCP", service))[AT_ADDRESS]) == wanted
    assert marked(listeners(made("TCP", "http", ORIGINATED))[AT_ADDRESS]) == []


@pytest.mark.parametrize(("spoken", "target"), [("TCP", "ratings"), ("HTTP", "productpage")])
def test_rules_for_what_the_listener_speaks_apply(spoken, target):
    found = judge.messages(made(spoken, "http" if spoken == "TCP" else "auto", RULE))
    if spoken == "TCP":
        assert f"outbound|9080||{target}." in str(found[names.LDS][AT_ADDRESS])
    else:
        assert [h.routes[0].route.cluster for n, h in found[names.VHDS].items() if REVIEWS in n] == [
            f"outbound|9080||{target}.default.svc.cluster.local"
        ]


@pytest.mark.parametrize("listener", ["bind: 127.0.0.5, ", "captureMode: NONE, "])
def test_the_services_own_address_is_not_that_of_a_listener_with_another_one(listener):
    text = EGRESS.replace("{port:", f"{{{listener}port:") % "TCP"
    assert list(listeners(mesh.view(mesh.objects(text)))) == [ANYWHERE]


def test_requests_need_a_port_that_may_have_some():
    """Servers of other protocols would get requests of a version that their applications do not know."""
    assert list(listeners(made("HTTP", "tcp"))) == [AT_ADDRESS]


ROUTE = """
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.test]
  addresses: [10.9.0.1]
  ports: [{number: 7000, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.9.9.9}]
---
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db.test]
  gateways: [mesh, gw]
  tcp: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]
"""


@pytest.mark.parametrize(("service", "more", "wanted"), [("http", "", TOLD), ("tcp", "", []), ("http", ORIGINATED, [])])
def test_servers_are_told_of_bytes_that_a_rule_leads_to_a_port_of_http(service, more, wanted, tmp_path):
    """From sidecars and gateways."""
    found = mesh.objects(ROUTE + more, protocol=service)
    sidecar, gateway = mesh.view(found), mesh.view(found, "ingress", "istio-system")
    judge.validate(sidecar, tmp_path)
    assert marked(judge.messages(sidecar)[names.LDS]["10.9.0.1_7000"]) == wanted
    assert marked(judge.messages(gateway)[names.LDS]["0.0.0.0_31400"]) == wanted
