"""EnvoyFilter: every kind of patch on real resources, each result judged by the real Envoy."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.xds.generate import generate
from lateen.xds.patches import values
from lateen.xds.patches.apply import apply
from lateen.xds.patches.check import verdict

LUA = """{name: lua, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua,
  default_source_code: {inline_string: "function envoy_on_request(h) end"}}}"""


def filters(*patches, selector=""):
    body = "".join(f"  - {p}\n" for p in patches)
    return f"kind: EnvoyFilter\nmetadata: {{name: f}}\nspec:\n{selector}  configPatches:\n{body}"


def patched(text, name="productpage-v1", namespace="default", more="", metadata=None, **options):
    objects = mesh.objects(f"{text}\n---\n{more}" if more else text, **options)
    kind = "router" if name == "ingress" else "sidecar"
    view = Views(Mesh(objects)).of(objects.pods[(namespace, name)], kind, metadata)
    found = apply(generate(view), view.patches, kind == "router")
    return found, judge.decoded(found.sets), judge


def manager(chain):
    out = hcm.HttpConnectionManager()
    next(f for f in chain.filters if f.name.endswith("http_connection_manager")).typed_config.Unpack(out)
    return out


HTTP = "listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager%s}}}"


@pytest.mark.parametrize(
    ("operation", "sub", "at"),
    [
        ("INSERT_FIRST", "", 0),
        ("INSERT_BEFORE", ", subFilter: {name: envoy.filters.http.router}", -2),
        ("INSERT_AFTER", ", subFilter: {name: envoy.filters.http.fault}", 2),
        ("ADD", "", -2),
    ],
)
def test_an_http_filter_is_inserted_where_the_patch_says(operation, sub, at, tmp_path):
    text = filters(
        f"{{applyTo: HTTP_FILTER, match: {{context: SIDECAR_OUTBOUND, {HTTP % sub}}},"
        f" patch: {{operation: {operation}, value: {LUA}}}}}"
    )
    _, found, _ = patched(text)
    chain = found[names.LDS]["0.0.0.0_9080"].filter_chains[0]
    assert manager(chain).http_filters[at].name == "lua"
    inbound = [c for c in found[names.LDS]["virtualInbound"].filter_chains if c.name == "0.0.0.0_9080"]
    assert "lua" not in [f.name for f in manager(inbound[0]).http_filters]
    judge.validate_messages(found, tmp_path)


def test_an_inbound_port_is_patched_alone(tmp_path):
    text = filters(
        "{applyTo: HTTP_FILTER, match: {context: SIDECAR_INBOUND, listener: {portNumber: 9080}},"
        f" patch: {{operation: INSERT_FIRST, value: {LUA}}}}}"
    )
    _, found, _ = patched(text)
    for c in found[names.LDS]["virtualInbound"].filter_chains:
        if any(f.name.endswith("http_connection_manager") for f in c.filters):
            has = manager(c).http_filters[0].name == "lua"
            assert has == (c.filter_chain_match.destination_port.value == 9080)
    judge.validate_messages(found, tmp_path)


def test_merges_reach_into_typed_configuration(tmp_path):
    text = filters(
        f"""{{applyTo: NETWORK_FILTER, match: {{context: SIDECAR_OUTBOUND, {HTTP % ""}}},
     patch: {{operation: MERGE, value: {{name: envoy.filters.network.http_connection_manager, typed_config: {{
       "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
       xff_num_trusted_hops: 2, stream_idle_timeout: 7s}}}}}}}}"""
    )
    _, found, _ = patched(text)
    got = manager(found[names.LDS]["0.0.0.0_9080"].filter_chains[0])
    assert (got.xff_num_trusted_hops, got.stream_idle_timeout.seconds) == (2, 7)
    assert got.http_filters  # the rest is as it was
    judge.validate_messages(found, tmp_path)


def test_clusters(tmp_path):
    text = filters(
        "{applyTo: CLUSTER, match: {cluster: {service: reviews.default.svc.cluster.local}},"
        " patch: {operation: MERGE, value: {dns_lookup_family: V6_ONLY, connect_timeout: 3s}}}",
        "{applyTo: CLUSTER, match: {cluster: {name: outbound|9080||ratings.default.svc.cluster.local}},"
        " patch: {operation: REMOVE}}",
        "{applyTo: CLUSTER, match: {context: SIDECAR_OUTBOUND}, patch: {operation: ADD,"
        " value: {name: mine, type: STATIC, connect_timeout: 1s}}}",
        "{applyTo: CLUSTER, match: {context: GATEWAY}, patch: {operation: ADD, value: {name: theirs}}}",
    )
    result, found, _ = patched(text)
    clusters = found[names.CDS]
    assert clusters["outbound|9080||reviews.default.svc.cluster.local"].connect_timeout.seconds == 3
    assert "outbound|9080||ratings.default.svc.cluster.local" not in clusters
    assert "mine" in clusters
    assert "theirs" not in clusters
    assert {p.index for p in result.matched()} == {0, 1, 2}
    judge.validate_messages(found, tmp_path)


def test_routes_and_virtual_hosts(tmp_path):
    host = "reviews.default.svc.cluster.local:9080"
    text = filters(
        f'{{applyTo: VIRTUAL_HOST, match: {{routeConfiguration: {{vhost: {{name: "{host}"}}}}}},'
        " patch: {operation: MERGE, value: {response_headers_to_add: [{header: {key: x, value: y}}]}}}",
        f'{{applyTo: HTTP_ROUTE, match: {{routeConfiguration: {{vhost: {{name: "{host}"}}}}}},'
        " patch: {operation: INSERT_FIRST, value: {match: {path: /own}, direct_response: {status: 418}}}}",
        '{applyTo: ROUTE_CONFIGURATION, match: {context: SIDECAR_OUTBOUND, routeConfiguration: {name: "9080"}},'
        " patch: {operation: MERGE, value: {response_headers_to_remove: [server]}}}",
        '{applyTo: VIRTUAL_HOST, match: {routeConfiguration: {name: "9080"}}, patch: {operation: ADD, value: {name: v,'
        " domains: [v.example.com], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}}}",
        "{applyTo: HTTP_ROUTE, match: {context: SIDECAR_INBOUND}, patch: {operation: MERGE,"
        " value: {route: {max_stream_duration: {max_stream_duration: 5s}}}}}",
    )
    result, found, _ = patched(text)
    got = found[names.VHDS][f"9080/{host}"]
    assert got.response_headers_to_add[0].header.key == "x"
    assert got.routes[0].direct_response.status == 418
    assert found[names.RDS]["9080"].response_headers_to_remove == ["server"]
    assert "v" in [h.name for h in found[names.RDS]["9080"].virtual_hosts]
    assert not found[names.VHDS]["9080/ratings.default.svc.cluster.local:9080"].response_headers_to_add
    assert {p.index for p in result.matched()} == {0, 1, 2, 3, 4}
    judge.validate_messages(found, tmp_path)


def test_listeners_and_chains(tmp_path):
    kind = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
    inspector = f"{{name: pp, typed_config: {{'@type': {kind}}}}}"
    text = filters(
        "{applyTo: LISTENER, match: {context: SIDECAR_INBOUND}, patch: {operation: MERGE,"
        " value: {per_connection_buffer_limit_bytes: 4096}}}",
        "{applyTo: LISTENER_FILTER, match: {context: SIDECAR_INBOUND}, patch: {operation: INSERT_FIRST,"
        f" value: {inspector}}}}}",
        "{applyTo: FILTER_CHAIN, match: {context: SIDECAR_INBOUND, listener: {filterChain: {name: virtualInbound}}},"
        " patch: {operation: MERGE, value: {transport_socket_connect_timeout: 4s}}}",
        "{applyTo: LISTENER, match: {context: ANY}, patch: {operation: ADD, value: {name: extra,"
        " address: {socket_address: {address: 127.0.0.1, port_value: 7777}}, filter_chains: [{filters: [{name: e,"
        " typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}]}}}",
    )
    result, found, _ = patched(text)
    inbound = found[names.LDS]["virtualInbound"]
    assert inbound.per_connection_buffer_limit_bytes.value == 4096
    assert inbound.listener_filters[0].name == "pp"
    named = [c for c in inbound.filter_chains if c.name == "virtualInbound"]
    assert named
    assert all(c.transport_socket_connect_timeout.seconds == 4 for c in named)
    assert "extra" in found[names.LDS]
    assert {p.index for p in result.matched()} == {0, 1, 2, 3}
    judge.validate_messages(found, tmp_path)


def test_an_extension_configuration_is_a_resource(tmp_path):
    discovery = (
        "{name: mine, config_discovery: {config_source: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3},"
        " type_urls: [type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua]}}"
    )
    text = filters(
        f"{{applyTo: HTTP_FILTER, match: {{context: SIDECAR_OUTBOUND, {HTTP % ''}}},"
        f" patch: {{operation: INSERT_FIRST, value: {discovery}}}}}",
        "{applyTo: EXTENSION_CONFIG, patch: {operation: ADD, value: " + LUA.replace("name: lua", "name: mine") + "}}",
    )
    _, found, _ = patched(text)
    assert "mine" in found[names.ECDS]


def test_only_the_chosen_workloads_and_proxies():
    patch = "{applyTo: CLUSTER, match: {%s}, patch: {operation: MERGE, value: {connect_timeout: 3s}}}"
    text = filters(patch % "", selector="  workloadSelector: {labels: {app: reviews}}\n")
    assert not patched(text)[0].touched
    assert patched(text, "reviews-v1")[0].touched
    old = filters(patch % "proxy: {proxyVersion: '^1[.]4.*'}")
    assert not patched(old, metadata={"ISTIO_VERSION": "1.32.0"})[0].touched
    assert patched(old, metadata={"ISTIO_VERSION": "1.4.2"})[0].touched
    own = filters(patch % "proxy: {metadata: {color: red}}")
    assert not patched(own, metadata={"color": "blue"})[0].touched
    assert patched(own, metadata={"color": "red"})[0].touched


def test_a_version_that_is_too_long_to_be_compared_is_ignored():
    operation = "patch: {operation: MERGE, value: {connect_timeout: 3s}}"
    for version, touched in (("(" * 500 + "a" + ")*" * 500, True), ("a" * 1000, False)):
        text = filters(f"{{applyTo: CLUSTER, match: {{proxy: {{proxyVersion: '{version}'}}}}, {operation}}}")
        assert bool(patched(text, metadata={"ISTIO_VERSION": "1.32.0"})[0].touched) is touched


def test_priority_and_the_root_namespace_decide_the_order():
    patch = "{applyTo: CLUSTER, patch: {operation: MERGE, value: {alt_stat_name: %s}}}"
    root = filters(patch % "root").replace("{name: f}", "{name: r, namespace: istio-system}")
    late = filters(patch % "late").replace("{name: f}", "{name: g}").replace("spec:\n", "spec:\n  priority: 5\n")
    _, found, _ = patched(f"{late}\n---\n{filters(patch % 'own')}\n---\n{root}")
    assert found[names.CDS]["outbound|9080||reviews.default.svc.cluster.local"].alt_stat_name == "late"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"transport_socket": {"typed_config": {"@type": "type.googleapis.com/envoy.no.such.Type"}}}, "is unknown"),
        ({"connect_timeout": 7}, "Duration"),
    ],
)
def test_a_value_that_is_not_a_message_is_refused_in_one_sentence(value, says):
    with pytest.raises(ValueError, match=says) as e:
        values.message("CLUSTER", value)
    assert "\n" not in str(e.value)


def envoy_filter(value):
    patch = {"applyTo": "CLUSTER", "patch": {"operation": "MERGE", "value": value}}
    api = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter"}
    return {**api, "metadata": {"name": "a", "namespace": "b"}, "spec": {"configPatches": [patch]}}


def test_a_field_that_this_envoy_does_not_have_is_warned_about_and_the_rest_counts():
    (found,) = verdict(envoy_filter({"no_such_field": 1, "alt_stat_name": "a"}))
    assert (found.path, found.warning) == ("spec.configPatches[0].patch.value", True)
    assert "no_such_field" in found.says
    assert values.message("CLUSTER", {"no_such_field": 1, "alt_stat_name": "a"}).alt_stat_name == "a"


def test_a_value_of_the_wrong_shape_is_refused_where_it_is_applied():
    (found,) = verdict(envoy_filter({"connect_timeout": 7}))
    assert (found.path, found.warning) == ("spec.configPatches[0].patch.value", False)
    assert verdict(envoy_filter({"connect_timeout": "7s"})) == []


def test_resources_that_no_patch_changes_keep_their_bytes():
    text = filters(
        "{applyTo: CLUSTER, match: {cluster: {service: reviews.default.svc.cluster.local}},"
        " patch: {operation: MERGE, value: {connect_timeout: 3s}}}"
    )
    found, _, _ = patched(text)
    plain = generate(Views(Mesh(mesh.objects(""))).of(mesh.objects("").pods[("default", "productpage-v1")], "sidecar"))
    name = "outbound|9080||ratings.default.svc.cluster.local"
    mine = next(s.resources[name] for s in found.sets[names.CDS] if name in s.resources)
    assert mine == next(s.resources[name] for s in plain[names.CDS] if name in s.resources)
