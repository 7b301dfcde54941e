"""How Envoy tells the agent about requests."""

import json

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from reported import found_at, hcms, lines, of_metrics
from test_goldens import CONFIG
from xds.type.v3 import typed_struct_pb2

from lateen.mesh.model import Mesh
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import MeshConfig
from lateen.mesh.views import Views
from lateen.wire import connections, labels, names, requests
from lateen.xds.standard_metrics import GRPC_FILTER

OLDER = {connections.METADATA: "true", labels.METADATA: "true"}
"""An agent that does not count requests."""
IDENTITY = "%FILTER_STATE(lateen.identity:PLAIN)%"


def telemetry(*overrides):
    spec = {"metrics": [{"overrides": list(overrides)}]}
    return f"kind: Telemetry\nmetadata: {{name: mesh, namespace: istio-system}}\nspec: {json.dumps(spec)}\n"


def changed(metric, mode="CLIENT_AND_SERVER", **more):
    return {"match": {"metric": metric, "mode": mode}, **more}


def all_lines(text="", **more):
    return [lines(manager) for _, manager in hcms(found_at(text, **more))]


def test_all_metrics_of_a_request_are_one_line_with_its_labels_in_one():
    found = found_at("")
    for _, manager in hcms(found):
        assert [*lines(manager)] == [*requests.METRICS]
        assert len({json.dumps(of) for of in lines(manager).values()}) == 1
        assert sum(requests.PIPE in str(log) for log in manager.access_log) == 1 + counts_messages(manager)
        assert not any(log.name == "envoy.access_loggers.stats" for log in manager.access_log)


def test_an_older_agent_gets_the_metrics_from_envoy_itself():
    for _, manager in hcms(found_at("", agent=OLDER)):
        assert lines(manager) == {}
        config = of_metrics(manager)
        assert {s.stat.name for s in (*config.counters, *config.histograms)} == set(requests.METRICS)
        assert IDENTITY not in str(config)
    assert "lateen.caller" not in str(found_at("", agent=OLDER)[names.LDS])


def test_lean_telemetry_measures_less():
    for found in all_lines(config=MeshConfig(reporting=Reporting(lean=True))):
        assert [*found] == ["requests_total", "request_duration_milliseconds"]


def test_a_metric_that_is_disabled_on_one_side_stays_on_the_other():
    text = telemetry(
        changed("REQUEST_SIZE", "SERVER", disabled=True), changed("REQUEST_COUNT", "CLIENT", disabled=True)
    )
    for name, manager in hcms(found_at(text)):
        missing = "request_bytes" if name == "virtualInbound" else "requests_total"
        assert [*lines(manager)] == [m for m in requests.METRICS if m != missing]


def test_where_all_are_disabled_nothing_is_written():
    text = telemetry(changed("ALL_METRICS", disabled=True))
    for _, manager in hcms(found_at(text)):
        assert requests.PIPE not in str(manager)


def test_metrics_whose_labels_differ_have_lines_of_their_own():
    text = telemetry(changed("REQUEST_COUNT", tagOverrides={"method": {"value": "request.method"}}))
    for _, manager in hcms(found_at(text)):
        found = lines(manager)
        assert [*found["requests_total"]] == [labels.NAME, "method"]
        assert [*found["response_bytes"]] == [labels.NAME]
        assert sum(requests.PIPE in str(log) for log in manager.access_log) == 2 + counts_messages(manager)


def of_grpc(text="", agent=mesh.AGENT):
    """Of a mesh whose ports are gRPC's."""
    return hcms(judge.messages(mesh.view(mesh.objects(text, CONFIG, protocol="grpc"), agent=agent)))


def counts_messages(manager):
    return [f.name for f in manager.http_filters if f.name == GRPC_FILTER and f.disabled] == [GRPC_FILTER]


def test_messages_of_grpc_have_a_line_of_their_own_where_the_agent_takes_it():
    older = {key: value for key, value in mesh.AGENT.items() if key != requests.MESSAGES_METADATA}
    for agent, wanted in ((mesh.AGENT, [*requests.MESSAGES]), (older, [])):
        for _, manager in of_grpc(agent=agent):
            found = lines(manager, messages=True)
            assert [*found] == wanted
            assert all("|grpc|%RESPONSE_CODE%" in of[labels.NAME] for of in found.values()), "also without a status"
            assert counts_messages(manager) == bool(wanted)


def test_a_telemetry_changes_and_disables_metrics_of_messages():
    text = telemetry(
        changed("GRPC_REQUEST_MESSAGES", tagOverrides={"method": {"value": "request.method"}}),
        changed("GRPC_RESPONSE_MESSAGES", "SERVER", disabled=True),
    )
    for name, manager in of_grpc(text):
        found = lines(manager, messages=True)
        assert [*found["request_messages_total"]] == [labels.NAME, "method"]
        assert ("response_messages_total" in found) == (name != "virtualInbound")
    off = telemetry(*(changed(f"GRPC_{what}_MESSAGES", disabled=True) for what in ("REQUEST", "RESPONSE")))
    for _, manager in hcms(found_at(off)):
        assert lines(manager, messages=True) == {}
        assert not counts_messages(manager)


@pytest.mark.parametrize(("protocol", "counted"), [("grpc", True), ("http2", True), ("auto", True), ("http", False)])
def test_messages_are_counted_on_ports_that_may_have_some(protocol, counted):
    found = judge.messages(mesh.view(mesh.objects(protocol=protocol), "ratings-v1"))
    hosts = [h for n, h in found[names.VHDS].items() if "ratings" in n] + [
        h for n, r in found[names.RDS].items() if "ratings" in n for h in r.virtual_hosts
    ]
    assert hosts
    assert {GRPC_FILTER in h.typed_per_filter_config for h in hosts} == {counted}
    own = [m for _, m in hcms(found) if any(h.name.endswith("|9080") for h in m.route_config.virtual_hosts)]
    assert own
    for manager in own:
        assert (counts_messages(manager), bool(lines(manager, messages=True))) == (counted, counted)


def test_a_labels_name_is_spelt_as_prometheus_wants_it():
    text = telemetry(changed("REQUEST_COUNT", tagOverrides={"x-%=y": {"value": "request.method"}}))
    for found in all_lines(text):
        assert [*found["requests_total"]] == [labels.NAME, "x___y"]


def callers(found):
    """Of the chains of the inbound listener that route requests: (whether TLS of the mesh ends there, the filter)."""
    for chain in found[names.LDS]["virtualInbound"].filter_chains:
        if chain.filters[-1].name == "envoy.filters.network.http_connection_manager":
            yield "istio" in str(chain.transport_socket) or "h2" in str(chain.transport_socket), chain.filters[0]


def test_the_caller_is_read_from_the_certificate_once_for_each_connection():
    seen = set()
    for secure, first in callers(found_at("")):
        seen.add(secure)
        assert (first.name == "lateen.caller") == secure
        if secure:
            config = typed_struct_pb2.TypedStruct()
            assert first.typed_config.Unpack(config)
            assert config.type_url.endswith(set_filter_state_pb2.Config.DESCRIPTOR.full_name)
            state = config.value["on_downstream_tls_handshake"]
            formats = {s["object_key"]: s["format_string"]["text_format_source"]["inline_string"] for s in state}
            said = "%DOWNSTREAM_PEER_OTHERNAME_SAN%"
            assert formats == {"lateen.said": said, "lateen.identity": f"{said}|%DOWNSTREAM_PEER_URI_SAN%"}
    assert seen == {True, False}
    for name, manager in hcms(found_at("")):
        text = lines(manager)["requests_total"][labels.NAME]
        assert "OTHERNAME" not in text
        assert (IDENTITY in text) == (name != "virtualInbound" or text.endswith("mutual_tls"))


def test_labels_that_a_telemetry_changes_know_the_caller_too():
    text = telemetry(changed("REQUEST_COUNT", tagOverrides={"source_version": {"value": "request.method"}}))
    formats = [f["requests_total"] for f in all_lines(text)]
    secure = [f for f in formats if f["connection_security_policy"] == "mutual_tls"]
    assert secure
    for found in secure:
        assert found["source_workload"] == "%FILTER_STATE(lateen.said:PLAIN)%"
        assert found["source_version"] == "%CEL(request.method)%"
    assert not any("OTHERNAME" in str(f) for f in formats)


def test_gateways_tell_their_agents_too():
    text = """
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
"""
    objects = mesh.objects(text)
    for agent in (mesh.AGENT, OLDER):
        view = Views(Mesh(objects)).of(objects.pods["istio-system", "ingress"], "router", agent)
        found = [lines(manager) for _, manager in hcms(judge.messages(view))]
        assert found
        for of in found:
            assert [*of] == ([*requests.METRICS] if agent is mesh.AGENT else [])
            assert all(IDENTITY in formats[labels.NAME] for formats in of.values())


@pytest.mark.parametrize("agent", [mesh.AGENT, OLDER])
def test_labels_with_which_prometheus_would_refuse_all_metrics_are_left_out(agent):
    """Of objects that were stored before they were refused."""
    tags = {name: {"value": "request.method"} for name in ("1st", "le", "__name__", "good")}
    for _, manager in hcms(found_at(telemetry(changed("ALL_METRICS", tagOverrides=tags)), agent=agent)):
        if agent is mesh.AGENT:
            found = [*lines(manager)["requests_total"]]
        else:
            found = [tag.name for tag in of_metrics(manager).counters[0].stat.tags]
        assert "good" in found
        assert not {"1st", "le", "__name__"} & {*found}


@pytest.mark.parametrize("agent", [mesh.AGENT, OLDER])
def test_envoy_takes_both(agent, tmp_path):
    text = telemetry(changed("REQUEST_COUNT", tagOverrides={"a-b": {"value": "request.headers['x=|y']"}}))
    objects = mesh.objects(text, CONFIG)
    judge.validate(Views(Mesh(objects)).of(objects.pods["default", "reviews-v1"], "sidecar", agent), tmp_path)
