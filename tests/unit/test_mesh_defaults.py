"""What the mesh configuration says for all services: keepalive, retries, TLS, statistics and detection of protocols."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from lateen.api.config import decode
from lateen.api.mesh import effect
from lateen.api.mesh.reading import mesh_config
from lateen.api.networking import DestinationRule
from lateen.api.validate.destination_rule import destination_rule
from lateen.kit import yamldoc
from lateen.mesh.configuration import settings
from lateen.wire import names

REVIEWS = "outbound|9080||reviews.default.svc.cluster.local"
GATEWAY = """
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [a.example.com]
    tls: {mode: SIMPLE, serverCertificate: /c.pem, privateKey: /k.pem%s}
---
kind: VirtualService
metadata: {name: web}
spec: {hosts: ["*"], gateways: [gw], http: [{route: [{destination: {host: reviews}}]}]}
"""


def messages(text, documents="", name="productpage-v1", namespace="default"):
    config = settings(mesh_config(text), "istio-system")
    return judge.messages(mesh.view(mesh.objects(documents, config), name, namespace))


def context(kind, socket):
    out = kind()
    assert socket.typed_config.Unpack(out)
    return out


EVERYTHING = """
tcpKeepalive: {probes: 3, time: 10s, interval: 2s}
defaultHttpRetryPolicy: {attempts: 4, retryOn: "5xx,409", perTryTimeout: 2s, retryRemoteLocalities: true}
protocolDetectionTimeout: 100ms
meshMTLS: {minProtocolVersion: TLSV1_3, cipherSuites: [ECDHE-RSA-AES256-GCM-SHA384]}
tlsDefaults: {minProtocolVersion: TLSV1_3, ecdhCurves: [P-384, nonsense], cipherSuites: [AES128-SHA, nonsense]}
outboundClusterStatName: "%SERVICE_FQDN%_%SERVICE_PORT%"
inboundClusterStatName: "in_%SERVICE%_%TARGET_PORT%"
"""


@pytest.mark.parametrize("pod", [("default", "productpage-v1"), ("istio-system", "ingress")], ids=lambda p: p[1])
@pytest.mark.parametrize("protocol", ["http", "auto-x"])
def test_envoy_accepts_all_of_them_together(pod, protocol, tmp_path):
    config = settings(mesh_config(EVERYTHING), "istio-system")
    found = mesh.objects(
        GATEWAY.replace(", serverCertificate: /c.pem, privateKey: /k.pem%s", ", credentialName: x"),
        config,
        protocol=protocol,
    )
    judge.validate(mesh.view(found, pod[1], pod[0]), tmp_path)


# --- keepalive ----------------------------------------------------------------------------------------------------


def test_connections_are_kept_alive_as_the_mesh_says_and_a_rule_overrides_single_fields():
    rule = """
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {time: 7s}}}}}
"""
    found = messages("tcpKeepalive: {probes: 3, time: 10s, interval: 2s}", rule)[names.CDS]
    kept = found[REVIEWS].upstream_connection_options.tcp_keepalive
    assert (kept.keepalive_probes.value, kept.keepalive_time.value, kept.keepalive_interval.value) == (3, 7, 2)
    other = found["outbound|9080||ratings.default.svc.cluster.local"].upstream_connection_options.tcp_keepalive
    assert (other.keepalive_probes.value, other.keepalive_time.value, other.keepalive_interval.value) == (3, 10, 2)
    assert not messages("{}")[names.CDS][REVIEWS].HasField("upstream_connection_options")


def test_a_rule_asks_for_no_more_than_linux_takes():
    rule = """
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {time: 12h, interval: 10h, probes: 300}}}}
"""
    kept = messages("{}", rule)[names.CDS][REVIEWS].upstream_connection_options.tcp_keepalive
    assert (kept.keepalive_probes.value, kept.keepalive_time.value, kept.keepalive_interval.value) == (
        127,
        32767,
        32767,
    )
    found = destination_rule(decode(DestinationRule, yamldoc.load(rule)["spec"]), {"namespace": "default"})
    assert [(f.path.rpartition(".")[2], f.warning) for f in found] == [
        ("time", True),
        ("interval", True),
        ("probes", True),
    ]


# --- retries ------------------------------------------------------------------------------------------------------


def retries(text, documents="", at=("productpage-v1", "default", "9080")):
    routes = judge.routes(messages(text, documents, *at[:2]), at[2])
    host = next(h for h in routes.virtual_hosts if "reviews" in h.name or at[2] != "9080")
    return host.routes[0].route


def test_the_meshs_retries_hold_where_no_rule_says_otherwise():
    found = retries('defaultHttpRetryPolicy: {attempts: 4, retryOn: "5xx,409"}').retry_policy
    assert found.num_retries.value == 4
    assert found.retry_on == "5xx,retriable-status-codes"
    assert list(found.retriable_status_codes) == [409]


def test_tries_have_no_timeout_of_the_meshs_policy_and_the_user_is_told():
    text = "defaultHttpRetryPolicy: {attempts: 4, perTryTimeout: 2s}"
    assert not retries(text).retry_policy.HasField("per_try_timeout")
    (said,) = effect.ineffective(yamldoc.load(text))
    assert "meshConfig.defaultHttpRetryPolicy.perTryTimeout has no effect" in said


def test_no_attempts_mean_that_nothing_is_repeated():
    assert not retries("defaultHttpRetryPolicy: {attempts: 0}").HasField("retry_policy")
    assert retries("{}").retry_policy.num_retries.value == 2


def test_a_virtual_services_retries_precede_the_meshs():
    rule = """
kind: VirtualService
metadata: {name: reviews}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]%s}]}
"""
    policy = "defaultHttpRetryPolicy: {attempts: 4}"
    assert retries(policy, rule % "").retry_policy.num_retries.value == 4
    assert retries(policy, rule % ", retries: {attempts: 1}").retry_policy.num_retries.value == 1
    assert not retries(policy, rule % ", retries: {attempts: 0}").HasField("retry_policy")


def test_gateways_repeat_requests_as_the_mesh_says():
    at = ("ingress", "istio-system", "http.8080")
    assert retries("defaultHttpRetryPolicy: {attempts: 4}", GATEWAY % "", at).retry_policy.num_retries.value == 4


# --- TLS ----------------------------------------------------------------------------------------------------------


def mutual(text):
    chains = messages(text)[names.LDS][names.VIRTUAL_INBOUND].filter_chains
    socket = next(c.transport_socket for c in chains if c.HasField("transport_socket"))
    return context(tls_pb2.DownstreamTlsContext, socket).common_tls_context.tls_params


def test_mutual_tls_has_the_lowest_version_and_the_ciphers_of_the_mesh():
    found = mutual("meshMTLS: {minProtocolVersion: TLSV1_3, cipherSuites: [ECDHE-RSA-AES256-GCM-SHA384]}")
    assert found.tls_minimum_protocol_version == found.TLSv1_3
    assert list(found.cipher_suites) == ["ECDHE-RSA-AES256-GCM-SHA384"]
    found = mutual("tlsDefaults: {minProtocolVersion: TLSV1_3, cipherSuites: [ECDHE-RSA-AES256-GCM-SHA384]}")
    assert found.tls_minimum_protocol_version == found.TLSv1_2, "these are not for mutual TLS"
    assert len(found.cipher_suites) > 1


def served(text, more=""):
    with_certificate = GATEWAY % more
    found = messages(text, with_certificate, "ingress", "istio-system")[names.LDS]
    listener = next(x for x in found.values() if x.address.socket_address.port_value == 443)
    return context(
        tls_pb2.DownstreamTlsContext, listener.filter_chains[0].transport_socket
    ).common_tls_context.tls_params


def test_servers_of_gateways_have_the_meshs_defaults_unless_they_say_otherwise():
    text = "tlsDefaults: {minProtocolVersion: TLSV1_3, ecdhCurves: [P-384], cipherSuites: [AES128-SHA]}"
    found = served(text)
    assert found.tls_minimum_protocol_version == found.TLSv1_3
    assert (list(found.ecdh_curves), list(found.cipher_suites)) == (["P-384"], ["AES128-SHA"])
    found = served(text, ", minProtocolVersion: TLSV1_2, cipherSuites: [AES256-SHA]")
    assert found.tls_minimum_protocol_version == found.TLSv1_2
    assert (list(found.ecdh_curves), list(found.cipher_suites)) == (["P-384"], ["AES256-SHA"])


def test_tls_origination_has_the_meshs_ciphers_and_curves_but_no_lowest_version():
    rule = """
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {tls: {mode: SIMPLE}}}
"""
    text = "tlsDefaults: {minProtocolVersion: TLSV1_3, ecdhCurves: [P-384], cipherSuites: [AES128-SHA]}"
    socket = messages(text, rule)[names.CDS][REVIEWS].transport_socket
    found = context(tls_pb2.UpstreamTlsContext, socket).common_tls_context.tls_params
    assert (list(found.ecdh_curves), list(found.cipher_suites)) == (["P-384"], ["AES128-SHA"])
    assert found.tls_minimum_protocol_version == found.TLSv1_2


def test_ciphers_and_curves_that_envoy_does_not_know_are_left_out_and_warned_about():
    text = "tlsDefaults: {ecdhCurves: [P-384, P-512], cipherSuites: [nonsense]}"
    found = settings(mesh_config(text), "istio-system").transport.tls
    assert (found.curves, found.ciphers) == (("P-384",), ())
    said = effect.ineffective(yamldoc.load(text))
    assert len(said) == 2
    assert any("meshConfig.tlsDefaults.ecdhCurves: Envoy does not know P-512" in s for s in said)


# --- detection of protocols, statistics ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ms"), [("{}", 5000), ("protocolDetectionTimeout: 100ms", 100), ("protocolDetectionTimeout: 0s", 0)]
)
def test_first_bytes_are_waited_for_as_long_as_the_mesh_says(text, ms):
    found = messages(text)[names.LDS]
    assert found[names.VIRTUAL_INBOUND].listener_filters_timeout.ToMilliseconds() == ms
    outbound = [
        x for x in found.values() if x.traffic_direction == 2 and len(x.listener_filters) == 1 and "9080" in x.name
    ]
    assert {x.listener_filters_timeout.ToMilliseconds() for x in outbound} == {ms}
    sidecar = """
kind: ServiceEntry
metadata: {name: out}
spec:
  hosts: [a.example.com, b.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
kind: Sidecar
metadata: {name: s}
spec: {egress: [{port: {number: 443, protocol: TLS}, bind: 127.0.0.1, hosts: ["./*.example.com"]}]}
"""
    own = messages(text, sidecar)[names.LDS]["127.0.0.1_443"]
    assert (len(own.listener_filters), own.continue_on_listener_filters_timeout) == (1, True)
    assert own.listener_filters_timeout.ToMilliseconds() == ms


def test_clusters_have_the_names_of_the_meshs_patterns_in_statistics():
    text = """
outboundClusterStatName: "%SERVICE%_%SERVICE_NAME%_%SERVICE_PORT%_%SERVICE_PORT_NAME%_%SUBSET_NAME%"
inboundClusterStatName: "%SERVICE_FQDN%_%SERVICE_PORT%_%TARGET_PORT%"
"""
    rule = """
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
kind: ServiceEntry
metadata: {name: out}
spec: {hosts: [api.example.com], ports: [{number: 80, name: web, protocol: HTTP}], resolution: DNS}
"""
    found = messages(text, rule)[names.CDS]
    assert (
        found["outbound|9080|v1|reviews.default.svc.cluster.local"].alt_stat_name
        == "reviews.default_reviews_9080_http_v1"
    )
    assert found["outbound|80||api.example.com"].alt_stat_name == "api.example.com_api.example.com_80_web_"
    assert found["inbound|9080||"].alt_stat_name == "productpage.default.svc.cluster.local_9080_9080"
    assert not messages("{}")[names.CDS][REVIEWS].alt_stat_name
