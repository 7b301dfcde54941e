"""Telemetry objects: what applies to a workload, and how Envoy is configured."""

import json

import judge
import meshes as mesh
import pytest
from envoy.config.accesslog.v3 import accesslog_pb2 as accesslog_pb2_config
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import json_format
from test_goldens import CONFIG

from lateen.api import cel, kinds, telemetry, validate
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.api.mesh.reading import Invalid, mesh_config
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


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("response.code >= 400 && !has(request.referer)", None),
        ("request.headers['x-user'] in ['a', 'b'] ? 'x' : 'y'", None),
        ("request.path.startsWith('/a') || size(request.id) > 3", None),
        ("response.code >", "must be a valid CEL expression"),
        ("request.path == '.map(' || request.path == r\"a.exists(\"", None),
        ("double(response.code) / 100.0 > 4.0 && bool('true')", None),
        ("['a'].exists(x, x == request.path)", "Envoy does not evaluate exists()"),
        ("request.headers.map(k, k) == []", "Envoy does not evaluate map()"),
        ("lower(request.path)", "Envoy has no function lower"),
        ("string(response.code)", "Envoy has no function string"),
        ("upstream_peer.labels['app'].value", "upstream_peer exists only in Istio's build of Envoy"),
        ("has(request.headers['x'])", "must be a valid CEL expression"),
        ("request.path.matches('[')", '"[" is not a valid RE2 regular expression'),
        ("matches(request.path + ')', r\"\\1\")", '"\\1" is not a valid RE2 regular expression'),
        ("!request.path.matches(('(?=a)')) // )", '"(?=a)" is not a valid RE2 regular expression'),
        ("request.path.matches('(a{1000}){1000}')", '"(a{1000}){1000}" is not a valid RE2 regular expression'),
        (f"request.path.matches('{'a' * 97}')", f'"{"a" * 80}" is too large a regular expression for CEL in Envoy'),
        ("request.path.matches(r'\\\\') || request.path.matches('''\"(''')", '""(" is not a valid RE2'),
    ],
)
def test_expressions_are_judged_as_envoy_judges_them(expression, says):
    found = cel.problem(expression)
    assert (found or "").startswith(says or "")
    assert (found is None) == (says is None)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("string(destination.port)", "destination.port"),
        (" string( request.headers['a)'] ) ", " request.headers['a)'] "),
        ("string(1) == string(2)", "string(1) == string(2)"),
        ("request.host", "request.host"),
    ],
)
def test_a_label_needs_no_conversion_to_text(value, wanted):
    """https://istio.io/latest/docs/tasks/observability/metrics/customize-metrics/ has the first one."""
    assert cel.text_of(value) == wanted
    assert (cel.problem(value, formatted=True) is None) == ("==" not in value)


def hcms(found):
    for listener in found[names.LDS].values():
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            for f in chain.filters:
                if f.name == "envoy.filters.network.http_connection_manager":
                    out = hcm.HttpConnectionManager()
                    f.typed_config.Unpack(out)
                    yield listener.name, out


def of_metrics(manager):
    log = next(a for a in manager.access_log if a.name == "envoy.access_loggers.stats")
    config = stats_pb2.Config()
    assert log.typed_config.Unpack(config)
    return config


def found_at(text, pod=("default", "productpage-v1"), config=CONFIG, agent=mesh.AGENT):
    objects = mesh.objects(text, config)
    return judge.messages(Views(Mesh(objects)).of(objects.pods[pod], "sidecar", agent))


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
        config = of_metrics(manager)
        by_name[listener] = {t.name: t.value_format for c in config.counters for t in c.stat.tags}
    client, server = by_name["0.0.0.0_9080"], by_name["virtualInbound"]
    assert client["method"] == "%CEL(request.method)%"
    assert client["reporter"] == "%CEL('me')%"
    assert "source_app" not in client
    assert list(server) == [labels.NAME], "a side that nothing changes has its labels in one"
    assert "method" not in server


def tcp_proxies(found):
    for listener in found[names.LDS].values():
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            for f in chain.filters:
                if f.name == "envoy.filters.network.tcp_proxy":
                    out = tcp_proxy_pb2.TcpProxy()
                    f.typed_config.Unpack(out)
                    yield out


def made(log):
    config = stats_pb2.Config()
    log.typed_config.Unpack(config)
    return config.counters


def counters(log):
    return {c.stat.name for c in made(log)}


def moments(log):
    """When a logger writes: the types of log entries that its filter lets pass."""

    def types(f):
        kind = f.WhichOneof("filter_specifier")
        if kind in ("and_filter", "or_filter"):
            return [t for inner in getattr(f, kind).filters for t in types(inner)]
        return list(f.log_type_filter.types)

    return types(log.filter)


CONNECTED, PERIODIC, END = map(
    accesslog_pb2.AccessLogType.Value, ("TcpUpstreamConnected", "TcpPeriodic", "TcpConnectionEnd")
)


def told(proxy):
    """The logger that writes to the agent; None without one."""
    for log in proxy.access_log:
        config = file_pb2.FileAccessLog()
        if log.typed_config.Unpack(config) and config.path == connections.PIPE:
            return log, json_format.MessageToDict(config.log_format.json_format)
    return None, None


def test_a_connection_counts_as_opened_at_its_start_and_its_log_entry_comes_at_its_end():
    for proxy in tcp_proxies(found_at("")):
        assert proxy.access_log_options.flush_access_log_on_connected
        stats = [log for log in proxy.access_log if log.name == "envoy.access_loggers.stats"]
        others = [log for log in proxy.access_log if log not in stats and log != told(proxy)[0]]
        started, failed, ended, short = stats
        assert counters(started) == counters(failed) == {"tcp_connections_opened_total"}
        assert counters(ended) == {"tcp_connections_closed_total"}
        assert counters(short) == {"tcp_sent_bytes_total", "tcp_received_bytes_total"}
        assert [moments(log) for log in stats] == [[CONNECTED], [END], [END], [END]]
        assert others
        assert all(moments(log) == [END] for log in others)


def test_connections_that_nothing_takes_are_in_the_log():
    """Such as plain text where mutual TLS is STRICT: no filter chain, so none of their loggers, sees them."""
    (log,) = found_at("")[names.LDS]["virtualInbound"].access_log
    assert log.filter.response_flag_filter.flags == ["NR"]


def test_bytes_are_counted_by_envoy_where_a_connection_ends_soon_and_by_the_agent_where_it_stays():
    for proxy in tcp_proxies(found_at("")):
        (short,) = (log for log in proxy.access_log if "tcp_sent_bytes_total" in counters(log))
        log, line = told(proxy)
        assert moments(log) == [PERIODIC, END]
        below = short.filter.and_filter.filters[1].duration_filter.comparison
        above = log.filter.or_filter.filters[1].and_filter.filters[1].duration_filter.comparison
        names = accesslog_pb2_config.ComparisonFilter.Op.Name
        assert (names(below.op), names(above.op)) == ("LE", "GE")
        assert below.value.default_value + 1 == above.value.default_value, "each connection is counted once"
        interval = proxy.access_log_options.access_log_flush_interval.ToMilliseconds()
        assert above.value.default_value < interval == 5000, "a line comes of those alone that the agent counts"
        assert [name for name, *_ in line[connections.COUNTS]] == ["tcp_sent_bytes_total", "tcp_received_bytes_total"]
        labels = {counter.stat.name: [[t.name, t.value_format] for t in counter.stat.tags] for counter in made(short)}
        assert {name: told for name, _, told in line[connections.COUNTS]} == labels


def test_where_the_agent_takes_no_reports_envoy_counts_every_connection_at_its_end():
    proxies = [*tcp_proxies(found_at("", agent={}))]
    assert proxies
    for proxy in proxies:
        assert told(proxy) == (None, None), "Envoy would make a file of it that grows for ever"
        assert not proxy.access_log_options.HasField("access_log_flush_interval")
        (log,) = (log for log in proxy.access_log if "tcp_sent_bytes_total" in counters(log))
        assert log.filter.WhichOneof("filter_specifier") == "log_type_filter", "however long it lasted"
        assert moments(log) == [END]
        assert "OTHERNAME" not in str(proxy), "nor does such an agent know what a certificate says"


def test_gateways_have_an_agent_that_takes_reports_or_none_as_well():
    objects = mesh.objects(PASSTHROUGH)
    for agent in (mesh.AGENT, {}):
        view = Views(Mesh(objects)).of(objects.pods["istio-system", "ingress"], "router", agent)
        proxies = [*tcp_proxies(judge.messages(view))]
        assert proxies
        assert all((told(proxy)[0] is not None) == bool(agent) for proxy in proxies)


PASSTHROUGH = """
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: door}
spec:
  hosts: ["*"]
  gateways: [door]
  tcp: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]
"""


INTERVAL = """
kind: Telemetry
metadata: {name: often, namespace: istio-system}
spec: {metrics: [{reportingInterval: %s%s}]}
"""


@pytest.mark.parametrize(("asked", "seconds"), [("12s", 12), ("100ms", 1)])
def test_a_telemetry_says_how_often_open_connections_report(asked, seconds):
    for proxy in tcp_proxies(found_at(INTERVAL % (asked, ""))):
        assert proxy.access_log_options.access_log_flush_interval.ToSeconds() == seconds


def test_nothing_is_written_of_connections_whose_bytes_nobody_wants():
    off = ", overrides: [" + ", ".join(
        f"{{match: {{metric: {m}}}, disabled: true}}" for m in ("TCP_SENT_BYTES", "TCP_RECEIVED_BYTES")
    )
    for proxy in tcp_proxies(found_at(INTERVAL % ("5s", off + "]"))):
        assert told(proxy) == (None, None)
        assert not proxy.access_log_options.HasField("access_log_flush_interval")


def test_the_servers_proxy_knows_the_client_of_a_connection_by_its_certificate():
    texts = [str(told(proxy)[1]) for proxy in tcp_proxies(found_at(""))]
    mutual = [t for t in texts if "'destination|" in t and "|mutual_tls'" in t]
    assert mutual
    assert all(t.count("%DOWNSTREAM_PEER_OTHERNAME_SAN%") == 2 for t in mutual), "once for each counter"
    assert not any("OTHERNAME" in t for t in texts if t not in mutual), "only where there is a certificate of the mesh"


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


@pytest.mark.parametrize(("added", "single"), [("method", False), (labels.NAME, True)])
def test_a_tag_that_is_added_leaves_istios_labels_joined(added, single):
    override = {"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {added: {"value": "request.method"}}}
    found = found_at(
        "kind: Telemetry\nmetadata: {name: mesh, namespace: istio-system}\n"
        f"spec: {{metrics: [{{overrides: [{json.dumps(override)}]}}]}}"
    )
    for _, manager in hcms(found):
        (count,) = of_metrics(manager).counters
        assert [t.name for t in count.stat.tags] == ([*MEANINGS, added] if single else [labels.NAME, added])


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


def test_apply_says_what_envoy_would_refuse():
    spec = {"accessLogging": [{"filter": {"expression": "nosuch(1)"}}]}
    obj = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "a"}, "spec": spec}
    assert validate.problems(obj) == [("spec.accessLogging[0].filter.expression", "Envoy has no function nosuch")]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{accessLogEncoding: JSON, accessLogFormat: '%PROTOCOL%'}", "accessLogFormat"),
        (
            "extensionProviders: [{name: a, zipkin: {service: s, port: 1, headers: [{name: ''}]}}]",
            "extensionProviders[0].zipkin.headers[0].name",
        ),
        (
            "extensionProviders: [{name: a, zipkin: {service: s, port: 1, headers: [{name: h, envName: 'A)'}]}}]",
            "extensionProviders[0].zipkin.headers[0].envName",
        ),
        (
            "extensionProviders: [{name: a, envoyFileAccessLog: {logFormat: {text: '%NOSUCH%'}}}]",
            "extensionProviders[0].envoyFileAccessLog.logFormat",
        ),
        (
            "extensionProviders: [{name: a, envoyFileAccessLog: {logFormat: {labels: {a: {b: '%NOSUCH%'}}}}}]",
            "extensionProviders[0].envoyFileAccessLog.logFormat",
        ),
    ],
)
def test_a_format_that_envoy_would_refuse_is_refused_where_it_is_written(text, where):
    with pytest.raises(Invalid) as e:
        mesh_config(text)
    assert [p.path for p in e.value.problems] == [where]


GOOD = (
    "response.code >= 400 && !has(request.referer)",
    "request.headers['x-user'] in ['a', 'b'] || 'x' in request.headers",
    "double(response.code) / 100.0 > 4.0 && bool('true') && int('5') < 6 && uint(5) > uint(4)",
    "timestamp('2026-01-01T00:00:00Z') < request.time && request.time.getHours() < 24",
    "duration('5s') < request.duration",
    "matches(request.path, request.host) || request.path.matches('[' + 'a') || '(['.startsWith(request.path)",
    f"request.path.matches('{'a' * 96}') && request.path.matches(r'a\\.b') && matches(request.path + ')', ('[,)]'))",
    "size(request.path) > 3 && request.path.matches('^/a') && -response.code < 0 && response.code % 2 == 1",
)


def test_envoy_takes_every_expression_that_is_taken_here(tmp_path):
    entries = [{"providers": [{"name": f"f{i}"}], "filter": {"expression": e}} for i, e in enumerate(GOOD)]
    assert [cel.problem(e) for e in GOOD] == [None] * len(GOOD)
    files = [decode(ExtensionProvider, {"name": f"f{i}", "envoyFileAccessLog": {}}) for i in range(len(GOOD))]
    objects = mesh.objects("", MeshConfig(reporting=Reporting(providers=tuple(files))))
    doc = {
        "kind": "Telemetry",
        "metadata": {"name": "a", "namespace": "istio-system"},
        "spec": {"accessLogging": entries},
    }
    objects = mesh.add(objects, doc, 0)
    view = Views(Mesh(objects)).of(objects.pods[("default", "productpage-v1")], "sidecar")
    assert len({a.filter.SerializeToString() for _, m in hcms(judge.messages(view)) for a in m.access_log}) >= len(GOOD)
    judge.validate(view, tmp_path)
