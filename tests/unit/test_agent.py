"""The agent over real sockets: the application's probes, orders from its own pod only, and what it is told."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from concurrent import futures
from dataclasses import replace
from types import SimpleNamespace

import grpc
import pytest

from lateen import __version__
from lateen.agent import bootstrap, envoy, grpc_health, health, options
from lateen.agent.exposition import IDLE
from lateen.agent.metrics import Metrics
from lateen.agent.own_metrics import MEASURES, Own
from lateen.agent.probing import Prober
from lateen.agent.requests import Requests
from lateen.agent.serving import Server
from lateen.agent.tap import Tap
from lateen.kit import http, log
from lateen.wire import requests
from lateen.wire.node import abilities


def ask(path, probers, headers=None):
    return asyncio.run(Prober(probers, "127.0.0.1").handle(path, headers or {}))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("status", [200, 204, 301, 404, 503])
def test_an_http_probe_answers_what_the_application_answers(status):
    seen = []

    async def application(request):
        seen.append(request)
        return http.Response(status, b"said")

    async def work():
        server = await http.serve(application, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        get = {"port": port, "path": "/ok?a=b", "httpHeaders": [{"name": "X-Mine", "value": "1"}]}
        found = await Prober({"/p": {"httpGet": get}}, "127.0.0.1").handle("/p", {"host": "x", "user-agent": "kube"})
        server.close()
        return found, port

    found, port = asyncio.run(work())
    assert found.status == status
    (request,) = seen
    assert (request.path, request.headers["x-mine"], request.headers["user-agent"]) == ("/ok?a=b", "1", "kube")
    assert request.headers["host"] == f"127.0.0.1:{port}"


def test_a_probe_can_set_the_host_header():
    seen = []

    async def work():
        async def application(request):
            seen.append(request.headers["host"])
            return http.Response(200)

        server = await http.serve(application, "127.0.0.1", 0)
        get = {"port": server.sockets[0].getsockname()[1], "httpHeaders": [{"name": "Host", "value": "shop.test"}]}
        await Prober({"/p": {"httpGet": get}}, "127.0.0.1").handle("/p", {})
        server.close()

    asyncio.run(work())
    assert seen == ["shop.test"]


@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket", "grpc"])
def test_a_port_where_nobody_listens_is_not_healthy(kind):
    assert ask("/p", {"/p": {kind: {"port": free_port()}}}).status == 500


def test_a_tcp_probe_sees_a_listener():
    with socket.create_server(("127.0.0.1", 0)) as s:
        assert ask("/p", {"/p": {"tcpSocket": {"port": s.getsockname()[1]}}}).status == 200


def test_an_unknown_probe_is_not_found():
    assert ask("/app-health/other/readyz", {}).status == 404


def test_an_application_that_does_not_answer_in_time_is_not_healthy():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        found = ask("/p", {"/p": {"httpGet": {"port": port}, "timeoutSeconds": 0.05}})
    assert (found.status, b"no answer within" in found.body) == (500, True)


class Health(grpc.GenericRpcHandler):
    """A real gRPC server's health service; ``answers``: service name -> status."""

    def __init__(self, answers):
        self.answers = answers

    def service(self, details):
        if details.method != "/grpc.health.v1.Health/Check":
            return None

        def check(raw, context):
            name = raw[3 if raw[1] & 0x80 else 2 :].decode() if raw else ""
            if name not in self.answers:
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return b"\x08" + bytes((self.answers[name],))

        return grpc.unary_unary_rpc_method_handler(check)


@pytest.mark.parametrize(
    ("handlers", "service", "status"),
    [
        ((Health({"": 1}),), "", 200),
        ((Health({"": 2}),), "", 500),
        ((Health({"a" * 200: 1}),), "a" * 200, 200),
        ((Health({"": 1}),), "other", 500),
        ((), "", 500),
    ],
)
def test_a_grpc_probe_asks_the_health_service(handlers, service, status):
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        probe = {"grpc": {"port": port, "service": service}, "timeoutSeconds": 5}
        found = ask("/p", {"/p": probe})
        assert found.status == status, found.body
        wrong = asyncio.run(health.once(probe))  # of a machine
        assert (wrong is None) == (status == 200), wrong
    finally:
        server.stop(0)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad\r\n\r\n", b"\xff" * 400, b"", b"\x00\x00\x00\x07\x00" + b"\x00" * 4]
)
def test_a_grpc_probe_of_something_else_is_not_healthy(answer):
    async def work():
        async def other(reader, writer):
            await reader.read(100)
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(other, "127.0.0.1", 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        try:
            return await asyncio.wait_for(grpc_health.check(sock, ""), 5)
        except ConnectionError as e:
            return str(e)
        finally:
            server.close()

    assert asyncio.run(work())


@pytest.mark.parametrize(("peer", "status"), [("127.0.0.1", 200), ("10.244.0.9", 403), ("127.0.0.6", 403)])
@pytest.mark.parametrize("path", ["/drain", "/quitquitquit"])
def test_only_its_own_pod_can_stop_a_proxy(peer, status, path):
    orders = []

    async def ready():
        return None

    async def drain():
        orders.append("/drain")

    server = Server(
        Metrics(options.Options()), Prober({}, "127.0.0.1"), Tap(), ready, drain, lambda: orders.append("/quitquitquit")
    )
    found = asyncio.run(server.handle(http.Request("POST", path, {}, b"", peer)))
    assert found.status == status
    assert orders == ([path] if status == 200 else [])


def test_a_server_knows_its_clients_address():
    async def work():
        async def say(request):
            return http.Response(200, request.peer.encode())

        server = await http.serve(say, "127.0.0.1", 0)
        found = await http.fetch("127.0.0.1", server.sockets[0].getsockname()[1], "/")
        server.close()
        return found.body

    assert asyncio.run(work()) == b"127.0.0.1"


def test_metrics_of_several_sources_are_one_response():
    async def work():
        async def application(request):
            return http.Response(200, b"# of " + request.path.encode())

        server = await http.serve(application, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        told = options.Options(scrape_targets=((port, "/a"), (free_port(), "/gone"), (port, "/b")))
        body = await Metrics(told).all()
        server.close()
        return body

    body = asyncio.run(work())
    assert b"# of /a\n# of /b\n" in body
    assert b"istio_agent_uptime_seconds" in body


def test_the_agent_tells_its_version_and_what_envoy_costs():
    """Without names beyond those that the reference documents."""
    metrics = Metrics(options.Options(kind="router"))
    metrics.own.envoy = os.getpid()
    metrics.own.certificates = SimpleNamespace(end=time.time() + 100)
    body = asyncio.run(metrics.all()).decode()
    assert f'istio_build{{component="proxy",tag="{__version__}"}} 1\n' in body
    assert 'istio_agent_cert_expiry_seconds{resource_name="default"} 100\n' in body
    found = dict(line.rsplit(" ", 1) for line in body.splitlines() if line and not line.startswith("#"))
    assert float(found['istio_agent_envoy_memory_bytes{type="router"}']) > 1_000_000
    cpu = 'istio_agent_envoy_cpu_seconds_total{type="router"}'
    before = float(found[cpu])
    assert before > 0
    assert {name.partition("{")[0] for name in found} == {m.name for m in MEASURES}
    metrics.own.ended()
    assert cpu not in metrics.own.text().decode(), "nobody asks a process that has ended"


@pytest.mark.parametrize(
    ("more", "override", "counts"),
    [
        ({}, "", "agent"),
        ({"stats_sinks": [{"name": "envoy.stat_sinks.statsd"}]}, "", "envoy"),
        ({}, "stats_sinks:\n- name: envoy.stat_sinks.statsd\n", "envoy"),
        ({"admin": {}}, '{"admin": {}}', "agent"),
    ],
)
def test_where_envoy_sends_its_statistics_it_counts_requests_itself(more, override, counts):
    given = options.Options()
    made = bootstrap.bootstrap(bootstrap.Proxy(given.node, given.metadata, "", ""))
    kept = dict(made["node"]["metadata"])
    found = envoy.complete({**made, **more}, override)
    assert abilities(found["node"]["metadata"]).requests == (counts == "agent")
    assert made["node"]["metadata"] == kept
    assert {**kept, requests.METADATA: ""} == {**found["node"]["metadata"], requests.METADATA: ""}


def test_the_cpu_of_envoy_does_not_shrink_when_it_is_started_again():
    own = Own("sidecar", Requests())
    done = subprocess.Popen([sys.executable, "-c", "sum(range(10**7))"])
    done.wait()
    own.ended()
    with subprocess.Popen(["sleep", "60"]) as again:
        own.envoy = again.pid
        line = next(one for one in own.text().splitlines() if one.startswith(b"istio_agent_envoy_cpu"))
        again.kill()
    assert float(line.rsplit(b" ", 1)[1]) >= 0.05


# --- what it is told -----------------------------------------------------------------------------------------------


def read(monkeypatch, tmp_path, arguments=(), annotations="", **env):
    for name in ("PROXY_CONFIG", "ISTIO_CPU_LIMIT", "ISTIO_PROMETHEUS_ANNOTATIONS", "ISTIO_KUBE_APP_PROBERS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "annotations").write_text(annotations)
    monkeypatch.setattr(options, "PODINFO", tmp_path)
    return options.read(list(arguments), None)


def test_arguments_go_to_envoy_and_to_the_log(monkeypatch, tmp_path):
    given = ["router", "--domain", "shop.svc.cluster.local", "--proxyLogLevel=debug", "--log_output_level=a:warn"]
    found, wanted = read(monkeypatch, tmp_path, [*given, "--proxyComponentLogLevel=http:trace", "--log_as_json"])
    assert (found.kind, found.log_level, found.component_log_level) == ("router", "debug", "http:trace")
    assert (wanted.levels, wanted.as_json) == ("a:warn", True)
    assert log.parse_levels("default:info,agent:debug").keys() == {"default", "agent"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["nothing"], "not a kind of proxy"), (["--nosuch=1"], "--nosuch"), (["--domain"], "a value")],
)
def test_an_argument_that_does_not_exist_is_named(monkeypatch, tmp_path, arguments, says):
    with pytest.raises(options.UsageError, match=says):
        read(monkeypatch, tmp_path, arguments)


@pytest.mark.parametrize(
    ("annotations", "config", "port"),
    [
        ("", "{}", 15020),
        ("", '{"statusPort": 15999}', 15999),
        ('status.sidecar.istio.io/port="16000"\n', '{"statusPort": 15999}', 16000),
        ('status.sidecar.istio.io/port="0"\n', "{}", 0),
    ],
)
def test_the_pods_annotation_says_where_the_agent_listens(monkeypatch, tmp_path, annotations, config, port):
    assert read(monkeypatch, tmp_path, annotations=annotations, PROXY_CONFIG=config)[0].status_port == port


def test_the_number_of_threads_is_configured_or_follows_the_cpu_limit(monkeypatch, tmp_path):
    assert read(monkeypatch, tmp_path, PROXY_CONFIG='{"concurrency": 7}')[0].concurrency == 7
    assert read(monkeypatch, tmp_path, ISTIO_CPU_LIMIT="1")[0].concurrency == 1
    assert read(monkeypatch, tmp_path, ["--concurrency", "5"], ISTIO_CPU_LIMIT="1")[0].concurrency == 5


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        ('{"scrape": "", "path": "", "port": "9000"}', ((9000, "/metrics"),)),
        ('{"scrape": "true", "path": "/m", "port": ""}', ((80, "/m"),)),
        ('{"targets": [{"port": "1", "path": "/a"}, {"port": "2", "path": "/b"}]}', ((1, "/a"), (2, "/b"))),
        ("{}", ()),
    ],
)
def test_the_applications_metrics_are_read_where_its_annotations_say(monkeypatch, tmp_path, given, targets):
    assert read(monkeypatch, tmp_path, ISTIO_PROMETHEUS_ANNOTATIONS=given)[0].scrape_targets == targets


def test_a_variable_that_cannot_be_read_is_named(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="PROXY_CONFIG"):
        read(monkeypatch, tmp_path, PROXY_CONFIG="{")


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("{}", "productpage.shop"),
        ('{"tracingServiceName": "CANONICAL_NAME_AND_NAMESPACE"}', "page.shop"),
        ('{"tracingServiceName": "CANONICAL_NAME_ONLY"}', "page"),
    ],
)
def test_spans_name_the_workload_as_tracing_service_name_says(monkeypatch, tmp_path, config, wanted):
    found = read(monkeypatch, tmp_path, PROXY_CONFIG=config, POD_NAMESPACE="shop")[0]
    labels = {"app": "productpage", "service.istio.io/canonical-name": "page"}
    assert replace(found, labels=labels).service_cluster == wanted


STATS = {
    "proxyStatsMatcher": {
        "inclusionPrefixes": ["cluster.outbound", "http.{pod_ip}_"],
        "inclusionRegexps": [".*circuit.*"],
    }
}


def started(monkeypatch, tmp_path, annotations="", **config):
    """The bootstrap of Envoy."""
    given = read(
        monkeypatch, tmp_path, annotations=annotations, PROXY_CONFIG=json.dumps(config), INSTANCE_IP="10.0.0.7"
    )[0]
    proxy = bootstrap.Proxy(given.node, {}, "", "", statistics=given.statistics, runtime=given.runtime)
    return bootstrap.bootstrap(proxy)


def test_statistics_are_kept_that_the_proxys_configuration_names(monkeypatch, tmp_path):
    kept = started(monkeypatch, tmp_path, **STATS)["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    assert {"prefix": "cluster.outbound"} in kept
    assert {"prefix": "http.10.0.0.7_"} in kept
    assert {"safe_regex": {"regex": ".*circuit.*"}} in kept
    assert {"prefix": "istio"} in kept, "those that the product needs stay"


def test_an_annotation_takes_the_place_of_its_list_of_statistics(monkeypatch, tmp_path):
    notes = (
        'sidecar.istio.io/statsInclusionPrefixes="a,b"\nsidecar.istio.io/statsFlushInterval="1m"\n'
        'sidecar.istio.io/statsHistogramBuckets="{\\"istio\\":[1,5]}"\n'
    )
    made = started(monkeypatch, tmp_path, notes, **STATS)
    kept = made["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    assert [p for p in kept if p in ({"prefix": "a"}, {"prefix": "b"}, {"prefix": "cluster.outbound"})] == [
        {"prefix": "a"},
        {"prefix": "b"},
    ]
    assert {"safe_regex": {"regex": ".*circuit.*"}} in kept
    assert made["stats_flush_interval"] == "60s"
    assert made["stats_config"]["histogram_bucket_settings"] == [{"match": {"prefix": "istio"}, "buckets": [1, 5]}]


def test_runtime_values_are_envoys_and_the_limit_of_connections_is_its_own(monkeypatch, tmp_path):
    given = {"overload.global_downstream_max_connections": "77", "a.b": "true", "re2.max_program_size.error_level": ""}
    made = started(monkeypatch, tmp_path, runtimeValues=given)
    static = made["layered_runtime"]["layers"][0]["static_layer"]
    assert static == {"envoy.reloadable_features.http_reject_path_with_fragment": False, "a.b": True}
    assert made["overload_manager"]["resource_monitors"][0]["typed_config"]["max_active_downstream_connections"] == 77


def test_an_envoy_that_cannot_follow_its_files_is_explained():
    assert "fs.inotify.max_user_instances is" in envoy.no_watches(lambda: -1)
    with socket.socket() as ours:
        assert envoy.no_watches(ours.detach) == ""


@pytest.mark.parametrize(("body", "status"), [(b"", 200), (b"envoy_server_live{} 1\n", 200), (None, 503)])
def test_a_filter_that_no_metric_meets_is_an_answer_and_silence_is_none(monkeypatch, body, status):
    async def get(*_):
        return body

    async def never():
        raise AssertionError

    monkeypatch.setattr("lateen.agent.metrics._get", get)
    server = Server(Metrics(options.Options()), Prober({}, "127.0.0.1"), Tap(), never, never, lambda: None)
    request = http.Request("GET", "/stats/envoy?filter=none", {}, b"", "10.0.0.1")
    found = asyncio.run(server.handle(request))
    assert found.status == status
    assert body is None or body.strip() in found.body


def test_the_collector_gets_what_is_left_out_where_it_asks_for_it(monkeypatch):
    async def get(*_):
        return b""

    async def never():
        raise AssertionError

    monkeypatch.setattr("lateen.agent.metrics._get", get)
    server = Server(Metrics(options.Options()), Prober({}, "127.0.0.1"), Tap(), never, never, lambda: None)

    def told(query):
        path = f"/stats/prometheus?only={query}"
        return asyncio.run(server.handle(http.Request("GET", path, {}, b"", "10.0.0.1"))).body

    assert told("standard&idle=all").endswith(IDLE + b"\n")
    assert b"istio_agent_uptime_seconds" in told("standard&idle=all")
    assert IDLE not in told("standard")
    assert told("istio&idle=all").endswith(IDLE + b"\n")
    assert IDLE not in told("istio")


def test_each_prometheus_at_each_port_is_told_what_series_were_before(monkeypatch):
    """Port 15090 is Envoy's, which asks the agent from the same address for all of them."""
    counted = [b""]

    async def get(_host, port, _path):
        return counted[0] if port == 15000 else b""

    async def never():
        raise AssertionError

    monkeypatch.setattr("lateen.agent.metrics._get", get)
    server = Server(Metrics(options.Options()), Prober({}, "127.0.0.1"), Tap(), never, never, lambda: None)
    scrapes = {"x-prometheus-scrape-timeout-seconds": "10"}
    behind = [("127.0.0.1", "/stats/envoy?usedonly", {"x-lateen-peer": f"10.0.0.{i}"}) for i in (1, 2)]
    both = [*behind, ("10.0.0.1", "/stats/prometheus", {"x-lateen-peer": "10.0.0.9"})]

    def scraped():
        for peer, path, said in both:
            found = asyncio.run(server.handle(http.Request("GET", path, {**scrapes, **said}, b"", peer)))
            yield next((line for line in found.body.decode().splitlines() if line.startswith("istio_requests_tot")), "")

    assert list(scraped()) == ["", "", ""]
    name = "envoy_istio_requests_total"
    counted[0] = f'# TYPE {name} counter\n{name}{{a="b"}} 1\n'.encode()
    assert list(scraped()) == ['istio_requests_total{a="b"} 0'] * 3
    assert list(scraped()) == ['istio_requests_total{a="b"} 1'] * 3
