"""What istioctl asks of istiod, in its own protocol: xDS with a service account's token on port 15012."""

import contextlib
import json
import re
import subprocess

import grpc
import pytest
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


@contextlib.contextmanager
def forwarded(mesh, port):
    """A port of istiod's pod on this machine."""
    pod = mesh.pod("istiod", "istio-system")
    with subprocess.Popen(
        [mesh.kubectl_path, "port-forward", "-n", "istio-system", pod, f":{port}"],
        stdout=subprocess.PIPE,
        text=True,
        env=mesh.environment,
    ) as running:
        try:
            yield int(re.search(r"127\.0\.0\.1:(\d+)", running.stdout.readline())[1])
        finally:
            running.terminate()


def token(mesh, namespace="istio-system", account="default", audience="istio-ca"):
    return mesh.kubectl("create", "token", account, "-n", namespace, "--audience", audience).stdout.strip()


@pytest.fixture(scope="module")
def channel(mesh):
    root = mesh.get("configmap", "istio-ca-root-cert", "-o", "jsonpath={.data.root-cert\\.pem}")
    options = [("grpc.ssl_target_name_override", "istiod.istio-system.svc")]
    with forwarded(mesh, 15012) as port:
        yield grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(root.encode()), options)


def ask(channel, bearer, type_url, *names):
    request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names)
    request.node.id = "sidecar~127.0.0.1~test-1.istio-system~istio-system.svc.cluster.local"
    call = channel.stream_stream(
        METHOD,
        request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
        response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
    )
    metadata = [("authorization", f"Bearer {bearer}")] if bearer else []
    return next(call(iter([request]), metadata=metadata, timeout=20))


def code(channel, bearer, type_url, *names):
    with pytest.raises(grpc.RpcError) as failed:
        ask(channel, bearer, type_url, *names)
    return failed.value.code()


def test_istioctl_sees_whether_each_proxy_is_in_sync(mesh, channel):
    answer = ask(channel, token(mesh), "istio.io/debug/syncz")
    assert json.loads(answer.control_plane.identifier)["ID"] == mesh.pod("istiod", "istio-system")
    found = {c.node.id: c for c in (csds_pb2.ClientConfig.FromString(r.value) for r in answer.resources)}
    mine = found[f"{mesh.pod('productpage')}.default"]
    types = {c.type_url.rpartition(".")[2]: c.config_status for c in mine.generic_xds_configs}
    assert types["Cluster"] == types["Listener"] == types["RouteConfiguration"]
    assert mine.node.metadata.fields["NAMESPACE"].string_value == "default"


def test_istioctl_sees_what_a_proxy_was_sent_without_keys(mesh, channel):
    answer = ask(channel, token(mesh), "istio.io/debug/config_dump", f"{mesh.pod('productpage')}.default")
    routes = config_dump_shared_pb2.RoutesConfigDump()
    assert any(r.Unpack(routes) for r in answer.resources)
    assert "details.default.svc.cluster.local" in str(routes)
    assert "PRIVATE KEY" not in str(answer)


def test_debug_pages_over_xds_and_http_are_the_same(mesh, channel):
    bearer = token(mesh)
    names = json.loads(ask(channel, bearer, "istio.io/debug", "list").resources[0].value)
    assert {"syncz", "config_dump", "configz", "connections"} <= set(names)
    assert b"404 page not found" in ask(channel, bearer, "istio.io/debug", "nonsense").resources[0].value
    with forwarded(mesh, 15014) as port:
        listed = mesh.run("curl", "-sS", f"http://localhost:{port}/debug/list").stdout
        foreign = mesh.run("curl", "-sS", "-H", "Host: example.com", f"http://localhost:{port}/debug/list").stdout
    assert json.loads(listed) == names
    assert "token" in foreign


def test_pages_of_istio_show_what_there_is_or_say_why_there_is_nothing(mesh, channel):
    bearer, proxy = token(mesh), f"{mesh.pod('details')}.default"

    def page(name):
        return ask(channel, bearer, "istio.io/debug", name).resources[0].value

    leads = json.loads(page("instancesz"))[proxy]
    assert [(p["hostname"], p["targetPort"]) for p in leads] == [("details.default.svc.cluster.local", 9080)]
    assert "networking.istio.io/v1/VirtualService" in json.loads(page("resourcesz"))
    assert json.loads(page("telemetryz")) == []
    assert json.loads(page("endpointShardz")) == json.loads(page("endpointz"))
    assert json.loads(page("push_status"))["ProxyStatus"]["pilot_total_xds_rejects"] == []
    assert b"cachez is not available: there are no resource caches" in page("cachez")
    assert b"push is not available" in page("adsz?push=true")


def test_nobody_without_a_token_for_istiod_gets_debug_data(mesh, channel):
    assert code(channel, "", "istio.io/debug/syncz") == grpc.StatusCode.UNAUTHENTICATED
    assert code(channel, "nonsense", "istio.io/debug/syncz") == grpc.StatusCode.UNAUTHENTICATED
    other = token(mesh, audience="somebody-else")
    assert code(channel, other, "istio.io/debug/syncz") == grpc.StatusCode.UNAUTHENTICATED


def test_a_workload_sees_proxies_of_its_own_namespace_only(mesh, channel):
    mine = token(mesh, "default", "default")
    assert code(channel, mine, "istio.io/debug", "configz") == grpc.StatusCode.PERMISSION_DENIED
    seen = {
        csds_pb2.ClientConfig.FromString(r.value).node.id for r in ask(channel, mine, "istio.io/debug/syncz").resources
    }
    assert seen
    assert all(name.endswith(".default") for name in seen)
    gateway = f"{mesh.pod('istio-ingressgateway', 'istio-system')}.istio-system"
    assert not ask(channel, mine, "istio.io/debug/config_dump", gateway).resources


def test_a_token_is_no_way_to_the_configuration_of_a_proxy(mesh, channel):
    clusters = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    assert code(channel, token(mesh), clusters) == grpc.StatusCode.INVALID_ARGUMENT


def test_log_levels_change_over_controlz(mesh):
    with forwarded(mesh, 9876) as port:
        url = f"http://localhost:{port}/scopej/"
        change = '{"name": "ads", "output_level": "debug"}'
        mesh.run("curl", "-sSf", "-X", "PUT", "-d", change, f"{url}ads")
        try:
            levels = {s["name"]: s["output_level"] for s in json.loads(mesh.run("curl", "-sS", url).stdout)}
            assert levels["ads"] == "debug"
            assert levels["ca"] == "info"
            assert "unknown scope" in mesh.run("curl", "-sS", f"{url}nonsense").stdout
        finally:
            mesh.run("curl", "-sSf", "-X", "PUT", "-d", '{"output_level": "info"}', f"{url}ads")
        assert "localhost" in mesh.run("curl", "-sS", "-H", "Host: example.com", url).stdout
