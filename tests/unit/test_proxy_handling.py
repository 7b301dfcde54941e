"""proxyHeaders and connectionSettings: of the mesh, and of one pod before it."""

from dataclasses import replace

import judge
import meshes as mesh
import pytest
from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.api import annotations, kinds
from lateen.api.mesh import effect
from lateen.api.mesh.reading import Invalid, mesh_config
from lateen.kit import yamldoc
from lateen.mesh import proxies
from lateen.mesh.configuration import settings
from lateen.wire import names

SIDECAR, INGRESS = ("default", "reviews-v1"), ("istio-system", "ingress")
EVERYTHING = """
proxyHeaders:
  forwardedClientCert: SANITIZE_SET
  setCurrentClientCertDetails: {subject: true, cert: true, chain: true, dns: false, uri: true}
  requestId: {disabled: true}
  server: {value: shop}
  envoyDebugHeaders: {disabled: true}
  xForwardedPort: {enabled: true}
connectionSettings:
  listenerPerConnectionBufferLimitBytes: 4096
  httpIdleTimeout: 1s
  httpMaxConnectionDuration: 2s
  httpDrainTimeout: 3s
  httpRequestTimeout: 4s
  httpRequestHeadersTimeout: 5s
  httpStreamIdleTimeout: 6s
  httpMaxStreamDuration: 7s
  httpMaxConcurrentStreams: 8
  http2InitialStreamWindowSize: 65535
  http2InitialConnectionWindowSize: 65536
  httpHeadersWithUnderscoresAction: HEADERS_WITH_UNDERSCORES_DROP_HEADER
  httpMergeSlashes: true
  httpPathWithEscapedSlashesAction: REJECT_REQUEST
"""


def view(pod, text="{}", annotation=""):
    config = settings(mesh_config(yamldoc.dump({"defaultConfig": yamldoc.load(text)})), "istio-system")
    found = mesh.objects(mesh.FRONT, config)
    own = replace(found.pods[pod], notes=((proxies.ANNOTATION, annotation),))
    return mesh.view(found.put(kinds.POD, pod, own), pod[1], pod[0])


def listeners(pod, text="{}", annotation=""):
    return judge.messages(view(pod, text, annotation))[names.LDS]


def managers(listener):
    for chain in listener.filter_chains:
        for f in chain.filters:
            if f.name == "envoy.filters.network.http_connection_manager":
                out = hcm.HttpConnectionManager()
                f.typed_config.Unpack(out)
                yield out


def server(pod, text="{}", annotation=""):
    """The connection manager that takes requests for the pod."""
    found = listeners(pod, text, annotation)
    return next(
        m for name, entry in found.items() if pod is INGRESS or name == names.VIRTUAL_INBOUND for m in managers(entry)
    )


def router(manager):
    out = router_pb2.Router()
    manager.http_filters[-1].typed_config.Unpack(out)
    return out


@pytest.mark.parametrize("pod", [SIDECAR, INGRESS], ids=lambda p: p[1])
def test_envoy_accepts_all_of_them_together(pod, tmp_path):
    judge.validate(view(pod, EVERYTHING), tmp_path)


@pytest.mark.parametrize("pod", [SIDECAR, INGRESS], ids=lambda p: p[1])
def test_headers_are_handled_as_the_mesh_says(pod):
    found = server(pod, EVERYTHING)
    assert (found.generate_request_id.value, found.server_name, found.append_x_forwarded_port) == (False, "shop", True)
    details = found.set_current_client_cert_details
    assert (details.subject.value, details.cert, details.chain, details.dns, details.uri) == (1, 1, 1, 0, 1)
    assert router(found).suppress_envoy_headers
    plain = server(pod)
    assert plain.server_name == "istio-envoy"
    assert not plain.HasField("generate_request_id")
    assert not router(plain).suppress_envoy_headers


def test_the_certificate_of_a_sidecars_client_is_forwarded_as_asked_and_a_gateways_by_its_topology():
    assert server(SIDECAR, EVERYTHING).forward_client_cert_details == hcm.HttpConnectionManager.SANITIZE_SET
    found = server(INGRESS, "proxyHeaders: {forwardedClientCert: ALWAYS_FORWARD_ONLY}")
    assert found.forward_client_cert_details == hcm.HttpConnectionManager.SANITIZE_SET


@pytest.mark.parametrize(("pod", "cert"), [(SIDECAR, False), (INGRESS, True)], ids=["sidecar", "gateway"])
def test_details_of_the_clients_certificate_that_are_not_mentioned_are_as_without_settings(pod, cert):
    found = server(pod, "proxyHeaders: {setCurrentClientCertDetails: {chain: true}}").set_current_client_cert_details
    assert (found.subject.value, found.cert, found.chain, found.dns, found.uri) == (True, cert, True, True, True)
    own = "{proxyHeaders: {setCurrentClientCertDetails: {uri: false, cert: false}}}"
    found = server(pod, "proxyHeaders: {setCurrentClientCertDetails: {chain: true}}", own)
    found = found.set_current_client_cert_details
    assert (found.subject.value, found.cert, found.chain, found.dns, found.uri) == (True, False, True, True, False)


HIDDEN = """---
kind: AuthorizationPolicy
metadata: {name: hidden, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}
"""
LAX = "{httpMergeSlashes: false, httpPathWithEscapedSlashesAction: KEEP_UNCHANGED}"


@pytest.mark.parametrize("pod", [SIDECAR, INGRESS], ids=lambda p: p[1])
@pytest.mark.parametrize(
    ("text", "action"),
    [
        (LAX, "UNESCAPE_AND_FORWARD"),
        (LAX.replace("{", "{profile: EDGE, "), "UNESCAPE_AND_FORWARD"),
        ("{profile: EDGE}", "UNESCAPE_AND_REDIRECT"),
        ("{httpPathWithEscapedSlashesAction: REJECT_REQUEST}", "REJECT_REQUEST"),
    ],
)
def test_connection_settings_do_not_let_a_path_get_past_a_policy(pod, text, action):
    config = settings(mesh_config(f"defaultConfig: {{connectionSettings: {text}}}"), "istio-system")
    seen = mesh.view(mesh.objects(mesh.FRONT + HIDDEN, config), pod[1], pod[0])
    names_ = (names.VIRTUAL_INBOUND,) if pod is SIDECAR else ("0.0.0.0_8080",)
    found = [m for n in names_ for m in managers(judge.messages(seen)[names.LDS][n])]
    assert found
    for manager in found:
        assert manager.merge_slashes
        assert manager.path_with_escaped_slashes_action == manager.PathWithEscapedSlashesAction.Value(action)


def test_connection_settings_that_would_undo_the_normalization_of_paths_are_warned_about():
    said = effect.ineffective(yamldoc.load(f"defaultConfig: {{connectionSettings: {LAX}}}"))
    own = annotations.problems({proxies.ANNOTATION: f"connectionSettings: {LAX}"})
    assert not any(p.error for p in own)
    for first, second in (said, map(str, own)):
        assert "httpMergeSlashes: false does not undo path normalization" in first
        assert "httpPathWithEscapedSlashesAction: KEEP_UNCHANGED does not undo path normalization" in second
    assert effect.ineffective({"defaultConfig": {"connectionSettings": {"httpMergeSlashes": True}}}) == []


def test_the_applications_own_server_header_can_be_kept_everywhere_on_the_way():
    found = [
        m for entry in listeners(SIDECAR, "proxyHeaders: {server: {disabled: true}}").values() for m in managers(entry)
    ]
    assert len(found) > 2
    assert {m.server_header_transformation for m in found} == {hcm.HttpConnectionManager.PASS_THROUGH}


@pytest.mark.parametrize("pod", [SIDECAR, INGRESS], ids=lambda p: p[1])
def test_connections_are_limited_as_the_mesh_says(pod):
    found = server(pod, EVERYTHING)
    common, streams = found.common_http_protocol_options, found.http2_protocol_options
    times = (common.idle_timeout, common.max_connection_duration, found.drain_timeout, found.request_timeout)
    more = (found.request_headers_timeout, found.stream_idle_timeout, common.max_stream_duration)
    assert [t.seconds for t in (*times, *more)] == [1, 2, 3, 4, 5, 6, 7]
    assert streams.max_concurrent_streams.value == 8
    windows = (streams.initial_stream_window_size.value, streams.initial_connection_window_size.value)
    assert windows == (65535, 65536)
    assert common.headers_with_underscores_action == protocol_pb2.HttpProtocolOptions.DROP_HEADER
    assert found.merge_slashes
    assert found.path_with_escaped_slashes_action == hcm.HttpConnectionManager.REJECT_REQUEST
    buffers = {entry.per_connection_buffer_limit_bytes.value for entry in listeners(pod, EVERYTHING).values()}
    assert buffers == {4096}


def test_the_profile_for_the_edge_has_defaults_which_single_settings_override():
    found = server(INGRESS, "{}", "connectionSettings: {profile: EDGE, httpMaxConcurrentStreams: 200}")
    assert found.http2_protocol_options.max_concurrent_streams.value == 200
    assert found.http2_protocol_options.initial_stream_window_size.value == 65536
    assert found.request_timeout.seconds == 300
    action = found.common_http_protocol_options.headers_with_underscores_action
    assert action == protocol_pb2.HttpProtocolOptions.REJECT_REQUEST
    assert not server(INGRESS).HasField("request_timeout")


def test_a_pods_own_settings_override_single_ones_of_the_mesh():
    found = server(SIDECAR, EVERYTHING, "{proxyHeaders: {requestId: {disabled: false}}}")
    assert (found.HasField("generate_request_id"), found.server_name) == (False, "shop")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{connectionSettings: {httpMaxConcurrentStreams: 0}}", "connectionSettings.httpMaxConcurrentStreams"),
        (
            "{connectionSettings: {http2InitialStreamWindowSize: 100}}",
            "connectionSettings.http2InitialStreamWindowSize",
        ),
        ("{connectionSettings: {httpIdleTimeout: -1s}}", "connectionSettings.httpIdleTimeout"),
        ("{connectionSettings: {listenerPerConnectionBufferLimitBytes: -1}}", "PerConnectionBufferLimitBytes"),
        ('{proxyHeaders: {server: {value: "a\\nb"}}}', "proxyHeaders.server.value"),
    ],
)
def test_what_envoy_would_refuse_is_refused_with_its_field(text, field):
    with pytest.raises(Invalid, match=field):
        mesh_config(f"defaultConfig: {text}")


def accepts_http_10(view):
    """Of each connection manager: whether it accepts HTTP/1.0."""
    found = [m for entry in judge.messages(view)[names.LDS].values() for m in managers(entry)]
    assert found
    return {m.http_protocol_options.accept_http_10 for m in found}


def plain_http(view):
    """What plain connections to auto-detected ports announce to be routed as requests."""
    chains = [c for name, entry in judge.messages(view)[names.LDS].items() if name.startswith("0.0.0.0_")
              for c in entry.filter_chains]  # fmt: skip
    return {tuple(c.filter_chain_match.application_protocols) for c in chains
            if "h2c" in c.filter_chain_match.application_protocols}  # fmt: skip


@pytest.mark.parametrize("pod", [SIDECAR, INGRESS], ids=lambda p: p[1])
def test_http_1_0_is_accepted_where_the_mesh_or_the_pod_says_so(pod, tmp_path):
    plain = mesh.objects(mesh.FRONT)
    everywhere = mesh.objects(mesh.FRONT, replace(plain.config, cluster=replace(plain.config.cluster, http10=True)))
    assert accepts_http_10(mesh.view(plain, pod[1], pod[0])) == {False}
    assert accepts_http_10(mesh.view(everywhere, pod[1], pod[0])) == {True}
    judge.validate(mesh.view(everywhere, pod[1], pod[0]), tmp_path)
    own = mesh.view(plain, pod[1], pod[0], {**mesh.AGENT, "HTTP10": "1"})
    assert accepts_http_10(own) == {True}
    assert accepts_http_10(mesh.view(plain, pod[1], pod[0], {**mesh.AGENT, "HTTP10": "0"})) == {False}


def test_clients_of_http_1_0_are_routed_on_auto_detected_ports():
    found = mesh.objects(protocol="")
    assert plain_http(mesh.view(found)) == {("http/1.1", "h2c")}
    assert plain_http(mesh.view(found, agent={**mesh.AGENT, "HTTP10": "1"})) == {("http/1.0", "http/1.1", "h2c")}
