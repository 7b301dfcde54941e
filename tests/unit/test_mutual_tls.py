"""Mutual TLS between the mesh's proxies."""

from dataclasses import replace

import judge
import meshes as mesh
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from lateen.api import kinds
from lateen.mesh.settings import MeshConfig, Transport
from lateen.wire import names
from lateen.xds import tls

CLUSTER = "outbound|9080|%s|reviews.default.svc.cluster.local"
RULE = """
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: plain
    labels: {version: v1}
  - name: named
    labels: {version: v1}
    trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: partner.example, subjectAltNames: ["spiffe://else/ns/a/sa/b"]}}
  - name: port
    labels: {version: v1}
    trafficPolicy: {portLevelSettings: [{port: {number: 9080}, tls: {mode: ISTIO_MUTUAL, sni: port.example}}]}
"""


def upstream(documents="", subset=""):
    found = judge.messages(mesh.view(mesh.objects(documents)))[names.CDS][CLUSTER % subset]
    out = tls_pb2.UpstreamTlsContext()
    assert found.transport_socket.typed_config.Unpack(out)
    return out


def accepted(context):
    combined = context.common_tls_context.combined_validation_context
    return [m.matcher.exact for m in combined.default_validation_context.match_typed_subject_alt_names]


def test_clients_speak_tls_13():
    params = upstream().common_tls_context.tls_params
    assert params.TlsProtocol.Name(params.tls_maximum_protocol_version) == "TLSv1_3"
    assert params.TlsProtocol.Name(params.tls_minimum_protocol_version) == "TLSv1_2"


def test_servers_accept_istios_list_of_ciphers_only():
    listeners = judge.messages(mesh.view(mesh.objects()))[names.LDS]
    sockets = [c.transport_socket for c in listeners["virtualInbound"].filter_chains if c.HasField("transport_socket")]
    assert sockets
    for socket in sockets:
        context = tls_pb2.DownstreamTlsContext()
        socket.typed_config.Unpack(context)
        assert "ECDHE-ECDSA-AES256-GCM-SHA384" in context.common_tls_context.tls_params.cipher_suites
        assert not [c for c in context.common_tls_context.tls_params.cipher_suites if "GCM" not in c]


def test_the_rules_sni_is_sent():
    assert upstream(RULE, "named").sni == "partner.example"
    assert upstream(RULE, "port").sni == "port.example"
    assert upstream(RULE, "plain").sni == "outbound_.9080_.plain_.reviews.default.svc.cluster.local"


def test_the_rules_subject_alt_names_replace_the_services_accounts():
    assert accepted(upstream(RULE, "named")) == ["spiffe://else/ns/a/sa/b"]
    assert accepted(upstream(RULE, "port")) == ["spiffe://cluster.local/ns/default/sa/sa-reviews"]


def test_the_names_of_a_service_entry_are_accepted_beside_its_workloads_accounts():
    entry = """
kind: ServiceEntry
metadata: {name: vm}
spec:
  hosts: [vm.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  subjectAltNames: ["spiffe://partner.example/ns/a/sa/vm"]
  endpoints: [{address: 192.0.2.1, labels: {security.istio.io/tlsMode: istio}%s}]
"""
    for account, name in (("", "default"), (", serviceAccount: own", "own")):
        found = judge.messages(mesh.view(mesh.objects(entry % account)))[names.CDS]["outbound|80||vm.test"]
        out = tls_pb2.UpstreamTlsContext()
        assert found.transport_socket.typed_config.Unpack(out)
        assert accepted(out) == [f"spiffe://cluster.local/ns/default/sa/{name}", "spiffe://partner.example/ns/a/sa/vm"]


ALIASED = MeshConfig(transport=Transport("new.example", aliases=("old.example",)))


def server(config):
    listeners = judge.messages(mesh.view(mesh.objects(config=config)))[names.LDS]
    for chain in listeners["virtualInbound"].filter_chains:
        if chain.HasField("transport_socket"):
            context = tls_pb2.DownstreamTlsContext()
            chain.transport_socket.typed_config.Unpack(context)
            combined = context.common_tls_context.combined_validation_context
            yield [m.matcher.prefix for m in combined.default_validation_context.match_typed_subject_alt_names]


def test_identities_of_an_alias_are_those_of_the_trust_domain_on_both_sides():
    """So that a trust domain can be renamed while certificates have the former name."""
    for found in server(ALIASED):
        assert found == ["spiffe://new.example/", "spiffe://old.example/"]
    made = judge.messages(mesh.view(mesh.objects(config=ALIASED)))[names.CDS][CLUSTER % ""]
    context = tls_pb2.UpstreamTlsContext()
    made.transport_socket.typed_config.Unpack(context)
    names_ = accepted(context)
    assert names_
    assert {n.partition("/ns/")[0] for n in names_} == {"spiffe://new.example", "spiffe://old.example"}
    assert {n.replace("old.example", "new.example") for n in names_} == {n for n in names_ if "new." in n}


def test_without_an_alias_other_trust_domains_are_refused():
    assert all(found == ["spiffe://cluster.local/"] for found in server(MeshConfig()))
    assert tls.in_all(("a", "b"), ("spiffe://c/ns/x/sa/y", "spiffe://b/ns/x/sa/y", "dns.example")) == (
        "spiffe://c/ns/x/sa/y", "spiffe://b/ns/x/sa/y", "spiffe://a/ns/x/sa/y", "dns.example",
    )  # fmt: skip


# --- servers of which only some take mutual TLS --------------------------------------------------------------------


def taking(documents="", change=lambda objects: objects):
    """Addresses of the endpoints of reviews that are spoken to by mutual TLS, and of all; the cluster's sockets."""
    found = judge.messages(mesh.view(change(mesh.objects(documents))))
    name = CLUSTER % ""
    endpoints = [e for group in found[names.EDS][name].endpoints for e in group.lb_endpoints]
    marked = [
        e.endpoint.address.socket_address.address
        for e in endpoints
        if "envoy.transport_socket_match" in e.metadata.filter_metadata
    ]
    return marked, len(endpoints), [m.name for m in found[names.CDS][name].transport_socket_matches]


BOTH = ["tlsMode-istio", "tlsMode-disabled"]


def test_one_workload_that_disables_mutual_tls_is_spoken_to_in_plain_text_among_others_that_do_not():
    policy = """
kind: PeerAuthentication
metadata: {name: v1}
spec: {selector: {matchLabels: {app: reviews, version: v1}}, mtls: {mode: DISABLE}}
"""
    marked, count, sockets = taking(policy)
    assert (len(marked), count, sockets) == (2, 3, BOTH)


def unredirected(*names_):
    """Pods to which nothing is redirected."""

    def change(objects):
        for name in names_:
            key = ("default", name)
            pod = replace(objects.pods[key], notes=(("sidecar.istio.io/interceptionMode", "NONE"),))
            objects = objects.put(kinds.POD, key, pod)
        return objects

    return change


INGRESS = """
kind: Sidecar
metadata: {name: reviews}
spec:
  workloadSelector: {labels: {app: reviews}}
  ingress: [{port: {number: %d, name: http, protocol: HTTP}, defaultEndpoint: 127.0.0.1:8080}]
"""


def test_ports_that_no_proxy_has_are_spoken_to_in_plain_text_where_nothing_is_redirected():
    marked, count, sockets = taking("", unredirected("reviews-v2"))
    assert (len(marked), count, sockets) == (2, 3, BOTH)
    everywhere = unredirected("reviews-v1", "reviews-v2", "reviews-v3")
    assert taking("", everywhere)[2] == []
    assert taking(INGRESS % 7777, everywhere)[2] == [], "the listener is at another port"


def test_a_sidecars_ingress_listener_takes_mutual_tls_where_nothing_is_redirected():
    found = judge.messages(
        mesh.view(unredirected("reviews-v1", "reviews-v2", "reviews-v3")(mesh.objects(INGRESS % 9080)))
    )
    assert found[names.CDS][CLUSTER % ""].HasField("transport_socket")
