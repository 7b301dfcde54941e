"""Telemetry objects: what applies to a workload, and how Envoy is configured."""

import json

import judge
import meshes as mesh
import pytest
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from reported import found_at, hcms, lines, of_metrics
from test_goldens import CONFIG

from lateen.api import kinds, telemetry
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.api.mesh.reading import mesh_config
from lateen.mesh import configuration
from lateen.mesh.model import Mesh
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import MeshConfig
from lateen.mesh.telemetry import Reporter, observability
from lateen.mesh.views import Views
from lateen.wire import connections, labels, names
from lateen.xds.generate import generate
from lateen.xds.telemetry import MEANINGS

NOBODY = Reporter("a.default", (), (), "here")
FILES = tuple(decode(ExtensionProvider, {"name": n, "envoyFileAccessLog": {"path": f"/{n}"}}) for n in ("one", "two"))


def levels(*specs):
    found = [decode(telemetry.Telemetry, s) for s in specs]
    return [o.Resource(kinds.TELEMETRY.ref("default", f"t{i}"), "", "", "", s) for i, s in enumerate(found)]


def nowhere(_service, _port):
    """No proxy has a cluster for any service."""


def logs(*specs, defaults=()):
    """Side -> the names of the providers that are logged to."""
    reporting = Reporting("/dev/stdout", providers=FILES, default_logs=defaults)
    found = observability(reporting, levels(*specs), NOBODY, nowhere)
    return {side: [log.name for log in getattr(found, side).logs] for side in ("client", "server")}


ONE, TWO = {"providers": [{"name": "one"}]}, {"providers": [{"name": "two"}]}


@pytest.mark.parametrize(
    ("specs", "wanted"),
    [
        ([], {"client": [""], "server": [""]}),  # the mesh's accessLogFile
        ([{"accessLogging": [ONE]}], {"client": ["one"], "server": ["one"]}),
        ([{"accessLogging": [ONE]}, {"accessLogging": [TWO]}], {"client": ["two"], "server": ["two"]}),
        ([{"accessLogging": [ONE, TWO]}], {"client": ["one", "two"], "server": ["one", "two"]}),
        ([{"accessLogging": [ONE]}, {"accessLogging": [{"disabled": True}]}], {"client": [], "server": []}),
        (
            [{"accessLogging": [ONE]}, {"accessLogging": [{"match": {"mode": "SERVER"}, "disabled": True}]}],
            {"client": ["one"], "server": []},
        ),
        ([{"accessLogging": [{"disabled": True}]}, {"accessLogging": [ONE]}], {"client": ["one"], "server": ["one"]}),
        ([{"accessLogging": [{"providers": [{"name": "unknown"}]}]}], {"client": [], "server": []}),
        ([{"accessLogging": [{"providers": [{"name": "envoy"}]}]}], {"client": ["envoy"], "server": ["envoy"]}),
        (
            [{"accessLogging": [ONE]}, {"accessLogging": [{"providers": [{"name": "envoy"}], "disabled": True}]}],
            {"client": [], "server": []},
        ),
    ],
)
def test_the_lowest_level_that_names_providers_decides_who_gets_the_log(specs, wanted):
    assert logs(*specs) == wanted


def test_default_providers_log_where_no_telemetry_says_otherwise():
    assert logs(defaults=("two",))["client"] == ["two"]
    failed = {"accessLogging": [{"filter": {"expression": "response.code >= 500"}}]}
    assert logs(failed, defaults=("two",))["client"] == ["two"]


def metrics(*specs):
    found = observability(Reporting(), levels(*specs), NOBODY, nowhere)
    return found.client.metrics, found.server.metrics


def test_all_metrics_disabled_for_one_side_leave_the_other():
    off = {"match": {"metric": "ALL_METRICS", "mode": "CLIENT"}, "disabled": True}
    client, server = metrics({"metrics": [{"overrides": [off]}]})
    assert client is None
    assert server is not None
    assert server.rules == ()


def test_a_change_for_servers_does_not_turn_on_what_is_off_for_clients():
    off = {"match": {"metric": "ALL_METRICS", "mode": "CLIENT"}, "disabled": True}
    tag = {"match": {"metric": "REQUEST_COUNT", "mode": "SERVER"}, "tagOverrides": {"a": {"value": "request.host"}}}
    client, server = metrics({"metrics": [{"overrides": [off, tag]}]})
    assert client is None
    assert server.rule("REQUEST_COUNT").tags == (("a", "request.host"),)


def test_a_namespace_can_turn_on_what_the_mesh_turns_off():
    off = {"metrics": [{"overrides": [{"match": {"metric": "ALL_METRICS"}, "disabled": True}]}]}
    on = {"metrics": [{"overrides": [{"match": {"metric": "REQUEST_COUNT"}, "disabled": False}]}]}
    assert metrics(off) == (None, None)
    assert None not in metrics(off, on)


def test_a_provider_that_is_not_prometheus_collects_no_metrics():
    assert metrics({"metrics": [{"providers": [{"name": "stackdriver"}]}]}) == (None, None)


def test_the_expression_that_envoy_would_refuse_never_reaches_it():
    bad = {"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {"a": {"value": "lower(request.path)"}}}
    client, _ = metrics({"metrics": [{"overrides": [bad]}]})
    assert client.rules == ()
    assert logs({"accessLogging": [{**ONE, "filter": {"expression": "response.code >"}}]})["client"] == []


def test_a_log_goes_where_its_provider_says_if_its_filter_lets_it():
    found = found_at(
        """
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  accessLogging:
  - providers: [{name: json}]
    filter: {expression: "response.code >= 400"}
"""
    )
    _, manager = next(hcms(found))
    log = next(a for a in manager.access_log if a.name == "envoy.access_loggers.file")
    file, expression = file_pb2.FileAccessLog(), cel_pb2.ExpressionFilter()
    log.typed_config.Unpack(file)
    log.filter.extension_filter.typed_config.Unpack(expression)
    assert expression.expression == "response.code >= 400"
    assert file.path == "/dev/stdout"
    assert dict(file.log_format.json_format)["id"] == "%REQ(X-REQUEST-ID)%"


def test_a_tag_is_added_changed_and_taken_away():
    found = found_at(
        """
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  metrics:
  - overrides:
    - match: {metric: REQUEST_COUNT, mode: CLIENT}
      tagOverrides: {method: {value: request.method}, source_app: {operation: REMOVE}, reporter: {value: "'me'"}}
"""
    )
    by_name = {}
    for listener, manager in hcms(found):
        by_name[listener] = lines(manager)["requests_total"]
    client, server = by_name["0.0.0.0_9080"], by_name["virtualInbound"]
    assert client["method"] == "%CEL(request.method)%"
    assert client["reporter"] == "%CEL('me')%"
    assert "source_app" not in client
    assert list(server) == [labels.NAME], "a side that nothing changes has its labels in one"
    assert "method" not in server


def test_a_telemetry_for_one_workload_concerns_its_listeners_alone():
    text = """
kind: Telemetry
metadata: {name: page, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  accessLogging: [{disabled: true}]
"""
    objects = mesh.objects("", CONFIG)
    views = Views(Mesh(objects))
    pods = [objects.pods[("default", n)] for n in ("productpage-v1", "reviews-v1")]
    before = [generate(views.of(p, "sidecar")) for p in pods]
    views.advance(mesh.add(objects, next(mesh.yamldoc.objects(text)), 0))
    after = [generate(views.of(p, "sidecar")) for p in pods]
    differ = [
        {t for t in a for x, y in zip(b[t], a[t], strict=True) if x is not y}
        for b, a in zip(before, after, strict=True)
    ]
    assert differ == [{names.LDS}, set()]


@pytest.mark.parametrize(("added", "single"), [("method", False), ("source_app", True)])
def test_a_tag_that_is_added_leaves_istios_labels_joined(added, single):
    override = {"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {added: {"value": "request.method"}}}
    found = found_at(
        "kind: Telemetry\nmetadata: {name: mesh, namespace: istio-system}\n"
        f"spec: {{metrics: [{{overrides: [{json.dumps(override)}]}}]}}"
    )
    for _, manager in hcms(found):
        count, size = (lines(manager)[name] for name in ("requests_total", "request_bytes"))
        assert [*count] == ([*MEANINGS] if single else [labels.NAME, added])
        assert [*size] == [labels.NAME]


def test_an_agent_that_takes_no_labels_apart_gets_them_one_by_one():
    objects = mesh.objects("", CONFIG)
    old = Views(Mesh(objects)).of(objects.pods[("default", "reviews-v1")], "sidecar", {connections.METADATA: "true"})
    for _, manager in hcms(judge.messages(old)):
        config = of_metrics(manager)
        for stat in (found.stat for found in (*config.counters, *config.histograms)):
            assert [t.name for t in stat.tags] == list(MEANINGS)


def test_the_application_gets_no_headers_about_the_peer():
    found = found_at("")
    for kind in (names.RDS, names.VHDS):
        assert "x-lateen" not in str(found.get(kind))


def test_spans_go_to_a_collector_that_the_proxy_can_reach():
    text = """
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  tracing: [{providers: [{name: otel}], randomSamplingPercentage: 20}]
"""
    _, manager = next(hcms(found_at(text)))
    assert manager.tracing.random_sampling.value == 20
    assert {t.tag: t.literal.value for t in manager.tracing.custom_tags}["istio.canonical_service"] == "productpage"
    hidden = """
kind: Sidecar
metadata: {name: default}
spec: {egress: [{hosts: ["./details.default.svc.cluster.local"]}]}
"""
    _, manager = next(hcms(found_at(f"{text}---{hidden}")))
    assert not manager.HasField("tracing")  # Envoy refuses a listener whose tracer has no cluster


def test_a_trace_can_end_with_the_proxy():
    text = """
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  tracing: [{providers: [{name: otel}], match: {mode: SERVER}, disableContextPropagation: true}]
"""
    found = {name: manager.tracing.SerializeToString() for name, manager in hcms(found_at(text))}
    ends = b"\x68\x01"  # field 13, a bool: no_context_propagation
    assert {name for name, tracing in found.items() if ends in tracing} == {"virtualInbound"}


def test_tracing_as_in_the_days_before_telemetry():
    text = """
enableTracing: true
defaultConfig: {tracing: {sampling: 50, zipkin: {address: "ratings.default:9080"}}}
"""
    config = configuration.settings(mesh_config(text), "istio-system")
    assert isinstance(config, MeshConfig)
    _, manager = next(hcms(found_at("", config=config)))
    assert manager.tracing.random_sampling.value == 50
    assert manager.tracing.provider.name == "envoy.tracers.zipkin"


def test_the_access_log_can_be_json():
    config = configuration.settings(
        mesh_config("{accessLogFile: /dev/stdout, accessLogEncoding: JSON}"), "istio-system"
    )
    _, manager = next(hcms(found_at("", config=config)))
    file = file_pb2.FileAccessLog()
    manager.access_log[0].typed_config.Unpack(file)
    assert file.log_format.json_format["response_code"] == "%RESPONSE_CODE%"
