"""Settings of single proxies: defaultConfig, and the annotation proxy.istio.io/config before it."""

from dataclasses import replace

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.agent.envoy import updated
from lateen.api import kinds
from lateen.api.mesh.reading import mesh_config
from lateen.mesh import proxies
from lateen.mesh.configuration import settings
from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.xds.generate import generate

GATEWAY = """
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"""


def pod(annotation):
    return replace(mesh.pod("a", "10.0.0.1"), notes=((proxies.ANNOTATION, annotation),))


def defaults(text):
    return config(text).proxy


def config(text):
    return settings(mesh_config(f"defaultConfig: {text}"), "istio-system")


@pytest.mark.parametrize(
    ("mesh_wide", "annotation", "wanted"),
    [
        ("{}", "", (45, 5)),
        ("{drainDuration: 10s, terminationDrainDuration: 7s}", "", (10, 7)),
        ("{drainDuration: 10s, terminationDrainDuration: 7s}", "drainDuration: 3s", (3, 7)),
        ("{}", '{"terminationDrainDuration": "0s"}', (45, 0)),
    ],
)
def test_drain_times_come_from_the_annotation_then_from_the_mesh(mesh_wide, annotation, wanted):
    assert proxies.drain(defaults(mesh_wide), pod(annotation).notes) == wanted


def test_each_field_of_the_topology_is_overridden_by_itself():
    mesh_wide = defaults("{gatewayTopology: {numTrustedProxies: 2, proxyProtocol: {}}}")
    found = proxies.place(mesh_wide, pod("gatewayTopology: {forwardClientCertDetails: APPEND_FORWARD}"))
    assert found == proxies.Place(2, "APPEND_FORWARD", True)


def test_an_annotation_that_cannot_be_read_changes_nothing():
    assert proxies.place(defaults("{}"), pod("gatewayTopology: [")) == proxies.Place()


def gateway(annotation):
    found = mesh.objects(GATEWAY)
    ingress = replace(found.pods[("istio-system", "ingress")], notes=((proxies.ANNOTATION, annotation),))
    return mesh.view(found.put(kinds.POD, ("istio-system", "ingress"), ingress), "ingress", "istio-system")


def test_a_gateways_topology_comes_from_its_annotation(tmp_path):
    text = "gatewayTopology: {numTrustedProxies: 1, forwardClientCertDetails: SANITIZE, proxyProtocol: {}}"
    view = gateway(text)
    judge.validate(view, tmp_path)
    (listener,) = judge.messages(view)[names.LDS].values()
    manager = hcm.HttpConnectionManager()
    listener.filter_chains[0].filters[-1].typed_config.Unpack(manager)
    assert manager.xff_num_trusted_hops == 1
    assert manager.forward_client_cert_details == hcm.HttpConnectionManager.SANITIZE
    assert listener.listener_filters[0].name == "envoy.filters.listener.proxy_protocol"


@pytest.mark.parametrize(
    ("counters", "wanted"),
    [
        (b"cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_success: 2\n", True),
        (b"cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_success: 0\n", False),
        (b"cluster_manager.cds.update_success: 10\n", False),
        (b"", False),
    ],
)
def test_a_proxy_is_ready_once_it_has_taken_clusters_and_listeners(counters, wanted):
    assert updated(counters) is wanted


def made(kind, metadata=None, text="{}", documents=""):
    """Resources of a sidecar, decoded, by name; ``text`` is the mesh configuration."""
    found = mesh.objects(documents, config=settings(mesh_config(text), "istio-system"))
    sets = generate(Views(Mesh(found)).of(found.pods[("default", "reviews-v1")], "sidecar", metadata))
    return {n: judge.message(kind, r) for s in sets[getattr(names, kind)] for n, r in s.resources.items()}


def test_with_tproxy_the_inbound_listener_is_transparent():
    plain = made("LDS")[names.VIRTUAL_INBOUND]
    assert not plain.HasField("transparent")
    found = made("LDS", {"INTERCEPTION_MODE": "TPROXY"})[names.VIRTUAL_INBOUND]
    assert found.transparent.value
    filters = [f.name.rpartition(".")[2] for f in found.listener_filters]
    assert filters.index("original_src") == filters.index("original_dst") + 1
    assert len(filters) == len(plain.listener_filters) + 1


FREE = """
kind: Sidecar
metadata: {name: s}
spec:
  ingress: [{port: {number: 9080, protocol: HTTP}, defaultEndpoint: "127.0.0.1:8080"}]
  egress:
  - {port: {number: 9090, protocol: TCP}, hosts: [./ratings.default.svc.cluster.local]}
  - {port: {number: 0, protocol: TCP}, bind: "unix:///run/ratings", hosts: [./ratings.default.svc.cluster.local]}
  - {hosts: ["./*"]}
"""


def test_without_interception_the_proxy_listens_at_ports_of_services_and_where_a_sidecar_says():
    assert set(made("LDS", {"INTERCEPTION_MODE": "NONE"})) == {"127.0.0.1_80"}, "9080 is the application's"
    found = made("LDS", {"INTERCEPTION_MODE": "NONE"}, documents=FREE)
    assert set(found) == {"10.244.0.3_9080", "127.0.0.1_9080", "127.0.0.1_9090", "unix:///run/ratings_0"}
    for listener in found.values():
        assert not listener.HasField("bind_to_port") or listener.bind_to_port.value
    for name in ("127.0.0.1_9090", "unix:///run/ratings_0"):
        (chain,) = found[name].filter_chains
        to = chain.filters[-1].typed_config.value
        assert b"outbound|9080||ratings.default.svc.cluster.local" in to, "the service's only port"


def test_a_unix_socket_is_never_captured():
    assert made("LDS", documents=FREE)["unix:///run/ratings_0"].bind_to_port.value


def test_requests_to_a_unix_socket_name_a_service_and_perhaps_its_port():
    text = FREE.replace("{port: {number: 0, protocol: TCP}", "{port: {number: 0, protocol: HTTP}")
    found = made("RDS", documents=text)["unix:///run/ratings"]
    host, rest = found.virtual_hosts
    assert {"ratings", "ratings:9080", "ratings.default.svc.cluster.local:9080"} <= set(host.domains)
    assert host.routes[0].route.cluster == "outbound|9080||ratings.default.svc.cluster.local"
    assert list(rest.domains) == ["*"]


def test_requests_to_an_http_proxy_name_a_service_and_its_port():
    text = """
kind: Sidecar
metadata: {name: s}
spec: {egress: [{port: {number: 15080, protocol: HTTP_PROXY}, bind: 127.0.0.1, hosts: ["./*"]}]}
"""
    for variables in ({}, {"INTERCEPTION_MODE": "NONE"}):
        listener = made("LDS", variables, documents=text)["127.0.0.1_15080"]
        (chain,) = listener.filter_chains
        assert chain.filters[-1].name == "envoy.filters.network.http_connection_manager"
        hosts = made("RDS", variables, documents=text)["127.0.0.1_15080"].virtual_hosts
        (ratings,) = [h for h in hosts if "ratings:9080" in h.domains]
        assert ratings.routes[0].route.cluster == "outbound|9080||ratings.default.svc.cluster.local"
        assert "outbound|9080||ratings.default.svc.cluster.local" in made("CDS", variables, documents=text)


def test_inbound_requests_go_to_localhost_where_the_mesh_says_so():
    cluster = made("CDS", text="inboundTrafficPolicy: {mode: LOCALHOST}")["inbound|9080||"]
    address = cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    assert (address.address, address.port_value) == ("127.0.0.1", 9080)
    assert not cluster.HasField("upstream_bind_config"), "connections to 127.0.0.1 are not captured"
    assert made("CDS", text="inboundTrafficPolicy: {mode: PASSTHROUGH}")["inbound|9080||"].upstream_bind_config
