"""Mutual TLS between the mesh's proxies."""

import judge
import meshes as mesh
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from lateen.wire import names

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
