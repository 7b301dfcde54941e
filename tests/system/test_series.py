"""Bookinfo's traffic asked for in PromQL, as Kiali and Istio's documents and dashboards ask."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from world import ROOT, free_port

import addons
from lateen.console.boards import BOARDS

pytestmark = pytest.mark.system

REQUESTS = 20
HELD = """
import socket, sys
connection = socket.create_connection(("tcp-echo", 9000))
connection.sendall(b"hello\\n")
print(connection.recv(99), flush=True)
sys.stdin.readline()
"""


STOP = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (process / "cmdline").read_bytes().split(b"\\0")
    except OSError:
        continue
    if b"lateen.console" in words and b"collector" in words:
        os.kill(int(process.name), signal.SIGTERM)
"""


class Prometheus:
    def __init__(self, address):
        self.address = address

    def api(self, path, **asked):
        form = urllib.parse.urlencode(asked, doseq=True)
        posted = path in ("query", "query_range")
        url = f"{self.address}/api/v1/{path}" + ("" if posted else f"?{form}")
        with urllib.request.urlopen(url, form.encode() if posted else None, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, query, *labels):
        """{the labels' values: the number}"""
        found = self.api("query", query=query)["result"]
        return {tuple(one["metric"].get(n, "") for n in labels): float(one["value"][1]) for one in found}

    def one(self, query):
        return self.values(query).get((), 0.0)


@pytest.fixture(scope="module")
def prometheus(mesh):
    """``lateen dashboard prometheus``, after some requests whose number is known."""
    mesh.lateen("addons", "apply", "prometheus")
    command = [sys.executable, "-m", "lateen", "dashboard", "prometheus", "--port", str(free_port()), "--browser=false"]
    forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=mesh.environment)
    found = Prometheus(forward.stdout.readline().strip())
    everywhere = 'istio_requests_total{reporter="destination", destination_app="productpage"}'
    assert mesh.page()[0] == 200
    mesh.until(lambda: found.one(f"sum({everywhere})"), what="the first request in the store")

    def steady():
        """All kinds of metrics have samples of what was before, the requests of other tests included, and the collector
        keeps up."""
        before = found.one(f"sum({everywhere})")
        time.sleep(8)
        behind_s = found.one(f"time() - min(timestamp({everywhere}))")
        return found.one(f"sum({everywhere})") == before and behind_s < 5

    mesh.until(steady, 120, "the end of other requests")
    page = f"{mesh.ingress()}/productpage"
    started = time.time()
    for _ in range(REQUESTS):
        with urllib.request.urlopen(page, timeout=30) as answer:
            assert answer.status == 200
    seen = f"sum({everywhere}) - sum({everywhere} @ {started:.3f})"
    mesh.until(lambda: found.one(seen) == REQUESTS, 120, "the requests in the store")
    found.started, found.ended = started, time.time() + 1
    time.sleep(6)
    yield found
    forward.send_signal(signal.SIGINT)
    assert forward.wait(10) == 0


def test_kialis_graph_query_has_every_edge(prometheus):
    query = (
        'sum(rate(istio_requests_total{reporter=~"source|waypoint", source_workload_namespace="default"}[2m])) '
        "by (source_workload, destination_service_name, response_code, connection_security_policy) > 0"
    )
    found = prometheus.values(query, "source_workload", "destination_service_name", "response_code")
    assert ("productpage-v1", "details", "200") in found
    assert ("productpage-v1", "reviews", "200") in found
    assert {k[2] for k in found} == {"200"}


def test_counts_are_right_on_both_sides_of_a_call(prometheus):
    for reporter in ("source", "destination"):
        series = (
            f'istio_requests_total{{reporter="{reporter}",destination_service="details.default.svc.cluster.local"}}'
        )
        query = f"sum({series} @ {prometheus.ended:.3f}) by (destination_workload)"
        query += f" - sum({series} @ {prometheus.started:.3f}) by (destination_workload)"
        counted = {k: v for k, v in prometheus.values(query, "destination_workload").items() if v}
        assert counted == {("details-v1",): REQUESTS}, reporter
        seconds = int(time.time() - prometheus.started) + 2
        assert prometheus.one(f"sum(increase({series}[{seconds}s]))") == pytest.approx(REQUESTS, rel=0.15)


def test_the_first_calls_of_a_caller_count(prometheus, mesh):
    """Which come together, before the collector has seen the caller at all."""
    between = 'source_workload="details-v1", destination_workload="ratings-v1"'
    first = f"sum(increase(istio_requests_total{{reporter='destination', {between}}}[1m]))"
    timed = f"sum(increase(istio_request_duration_milliseconds_count{{reporter='source', {between}}}[1m]))"
    assert prometheus.one(first) == 0
    done = mesh.inside("details", "curl", "-s", *["http://ratings:9080/ratings/0"] * 8)
    assert done.stdout.count("ratings") == 8
    for query in (first, timed):
        mesh.until(lambda q=query: 7 <= prometheus.one(q) <= 9, what="the first eight calls")


def test_the_success_rate_of_the_dashboards_is_one(prometheus):
    query = (
        'sum(irate(istio_requests_total{reporter="destination",destination_service=~"productpage.*",response_code!~"5.*"}[3m]))'
        ' / sum(irate(istio_requests_total{reporter="destination",destination_service=~"productpage.*"}[3m]))'
    )
    found = prometheus.values(query)
    assert all(v == 1 or v != v for v in found.values())  # 0 / 0 where the last two readings saw no request
    query = query.replace("irate", "rate")
    assert prometheus.one(query) == 1


def test_percentiles_come_from_the_histograms(prometheus):
    query = (
        "histogram_quantile({q}, sum(rate(istio_request_duration_milliseconds_bucket"
        '{{reporter="source",destination_app="reviews"}}[3m])) by (le))'
    )
    p50, p99 = (prometheus.one(query.format(q=q)) for q in (0.5, 0.99))
    assert 0 < p50 <= p99 < 60_000
    sizes = "sum(rate(istio_response_bytes_sum[3m])) / sum(rate(istio_response_bytes_count[3m]))"
    assert 100 < prometheus.one(sizes) < 100_000


def test_mutual_tls_is_seen_from_both_sides(prometheus):
    query = (
        'sum(increase(istio_requests_total{destination_app="details"}[3m])) by (reporter, connection_security_policy)'
    )
    found = prometheus.values(query, "reporter", "connection_security_policy")
    assert {k for k, v in found.items() if v} == {("source", "mutual_tls"), ("destination", "mutual_tls")}


def test_versions_share_the_traffic_of_reviews(prometheus):
    total = 'sum(increase(istio_requests_total{reporter="destination",destination_app="reviews"}[3m]))'
    shares = prometheus.values(
        f"{total} by (destination_version) / ignoring(destination_version) group_left {total}", "destination_version"
    )
    assert set(shares) <= {("v1",), ("v2",), ("v3",)}
    assert sum(shares.values()) == pytest.approx(1)


def test_policies_are_suggested_of_what_was_seen_and_let_the_traffic_through(prometheus, mesh):
    done = mesh.lateen("x", "authz", "suggest", "-n", "default")
    assert "ratings-callers" in done.stdout
    assert "cluster.local/ns/default/sa/bookinfo-productpage" in done.stdout
    judged = mesh.lateen("x", "authz", "test", "-n", "default", "-f", "-", stdin=done.stdout).stdout
    assert "ratings.default: would deny 0 of" in judged
    nobody = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody}\nspec: {}\n"
    judged = mesh.lateen("x", "authz", "test", "-n", "default", "-f", "-", stdin=nobody).stdout
    assert "from cluster.local/ns/default/sa/bookinfo-productpage" in judged
    try:
        mesh.apply(done.stdout)
        mesh.kubectl(
            "wait", "authorizationpolicy", "--all", "-n", "default", "--for=condition=Reconciled", "--timeout=20s"
        )
        assert mesh.page()[0] == 200
        asked = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://ratings:9080/ratings/0")
        assert mesh.inside("productpage", *asked).stdout == "403", "the product page has never called ratings"
    finally:
        mesh.kubectl("delete", "authorizationpolicy", "--all", "-n", "default")


def test_a_panel_over_time_starts_at_zero_and_ends_with_the_traffic(prometheus):
    query = 'round(sum(rate(istio_requests_total{reporter="destination",destination_app="productpage"}[30s])), 0.001)'
    start = prometheus.started - 20
    found = prometheus.api("query_range", query=query, start=start, end=start + 60, step=5)["result"][0]["values"]
    rates = [float(v) for _, v in found]
    assert max(rates) > 0.1
    assert [at for at, _ in found] == sorted({at for at, _ in found})


def test_labels_of_the_target_tell_the_pod(prometheus, mesh):
    found = prometheus.values('up{job="kubernetes-pods"} == 1', "namespace", "app")
    assert ("default", "details") in found
    assert ("istio-system", "istiod") in found
    by_pod = prometheus.values('count(istio_requests_total{namespace="default"}) by (pod)', "pod")
    assert (mesh.pod("details"),) in by_pod


def test_the_control_plane_has_its_metrics(prometheus, mesh):
    assert prometheus.one("sum(pilot_xds)") >= 7
    assert prometheus.values("pilot_info", "version")
    assert prometheus.one('sum(pilot_xds_pushes{type="cds"})') > 0
    name = {"metadata": {"name": "counted", "namespace": "default"}}
    entry = {"hosts": ["counted.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}
    kind = {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry"}
    mesh.apply(json.dumps({**kind, **name, "spec": {**entry, "resolution": "DNS"}}))
    added = 'sum(pilot_k8s_cfg_events{type="ServiceEntry",event="add"})'
    mesh.until(lambda: prometheus.one(added) >= 1, 15, "the event of the ServiceEntry")
    assert prometheus.one('sum(pilot_push_triggers{type="config"})') >= 1
    mesh.kubectl("delete", "serviceentry", "counted")
    seconds = "histogram_quantile(0.99, sum by (le) (pilot_proxy_convergence_time_bucket))"
    mesh.until(lambda: 0 < prometheus.one(seconds) <= 5, 15, "how long proxies wait for a change")
    for name in ("xds_push_time", "xds_send_time", "xds_config_size_bytes", "proxy_queue_time", "debounce_time"):
        assert prometheus.one(f"sum(pilot_{name}_count)") > 0, name
    assert prometheus.one('sum(galley_validation_passed{resource="serviceentries"})') >= 1
    mesh.kubectl("run", "counted", "-n", "default", "--image=curlimages/curl", "--dry-run=server")
    mesh.until(lambda: prometheus.one("sum(sidecar_injection_success_total)") >= 1, 15, "the injection")
    assert prometheus.values(
        "citadel_server_success_cert_issuance_count", "job"
    )  # istiod may be newer than the proxies
    assert prometheus.one("min(citadel_server_root_cert_expiry_seconds)") > 86_400
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService"}
    spec = {"hosts": ["twice.example.com"], "http": [{"route": [{"destination": {"host": "details"}}]}]}
    for name in ("twice", "once-more"):
        mesh.apply(json.dumps({**rule, "metadata": {"name": name, "namespace": "default"}, "spec": spec}))
    mesh.until(lambda: prometheus.one("sum(pilot_vservice_dup_domain)") == 1, 20, "the VirtualService without effect")
    mesh.kubectl("delete", "virtualservice", "twice", "once-more")


def test_grafana_can_fill_its_variables(prometheus):
    assert "istio_requests_total" in prometheus.api("label/__name__/values")
    services = prometheus.api("label/destination_service/values", **{"match[]": "istio_requests_total"})
    assert "reviews.default.svc.cluster.local" in services
    series = prometheus.api("series", **{"match[]": 'istio_requests_total{destination_app="details"}'})
    assert {s["reporter"] for s in series} == {"source", "destination"}
    assert prometheus.api("metadata")["istio_requests_total"][0]["type"] == "counter"
    assert all(t["health"] == "up" for t in prometheus.api("targets")["activeTargets"])


def test_a_wrong_query_is_refused_with_a_sentence(prometheus):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        prometheus.api("query", query="sum(rate(istio_requests_total[5m])")
    assert refusal.value.code == 400
    assert "parse error" in json.load(refusal.value)["error"]


ECHO = 'destination_service_name="tcp-echo",destination_service_namespace="default"'


def test_a_connection_counts_while_it_is_open(prometheus, mesh):
    mesh.kubectl("apply", "-f", str(ROOT / "samples" / "tcp-echo" / "tcp-echo-services.yaml"))
    mesh.kubectl("rollout", "status", "deployment/tcp-echo-v1", "--timeout=60s")
    command = [mesh.kubectl_path, "exec", "-i", mesh.pod("ratings"), "-c", "ratings", "--", "python3", "-c", HELD]
    held = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=mesh.environment)
    assert re.search("one hello|two hello", held.stdout.readline())
    query = f"sum(istio_tcp_connections_{{}}_total{{{{{ECHO}}}}}) by (reporter)"
    both = {("source",): 1, ("destination",): 1}

    def counted(what):
        return prometheus.values(query.format(what), "reporter")

    mesh.until(lambda: counted("opened") == both, 15, "the open connection")
    assert counted("closed") == {}
    held.communicate("\n", timeout=10)
    mesh.until(lambda: counted("closed") == both, 15, "the end of the connection")
    assert counted("opened") == both
    caller = prometheus.values(
        f'istio_tcp_connections_closed_total{{reporter="destination",{ECHO}}}',
        "source_workload_namespace",
    )
    assert caller == {("default",): 1}
    received = f"istio_tcp_received_bytes_total{{{ECHO}}}"
    mesh.until(lambda: prometheus.values(received, "reporter") == dict.fromkeys(both, 6), 15, "its bytes")
    mesh.kubectl("delete", "-f", str(ROOT / "samples" / "tcp-echo" / "tcp-echo-services.yaml"))


CHANGED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shown, namespace: default}
spec: {hosts: [details], http: [{route: [{destination: {host: details}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: shown-dry, namespace: default, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: shown-audited, namespace: default}
spec: {action: AUDIT, rules: [{}]}
"""


def test_every_panel_of_every_dashboard_shows_data(mesh, prometheus):
    """In the console and in the files for Grafana, of Bookinfo's productpage: under requests, after a change, with
    policies that match without a consequence."""
    mesh.apply(CHANGED)
    chosen = {"service": "productpage.default.svc.cluster.local", "namespace": "default", "workload": "productpage-v1"}

    def filled(text):
        for name, value in {"window": "1m", **chosen}.items():
            text = text.replace(f"${name}", value)
        return text

    for board in BOARDS:
        for v in board.variables:
            matched = {"match[]": filled(v.metric)}
            assert chosen[v.name] in prometheus.api(f"label/{v.label}/values", **matched), (board.name, v.name)
    shown = {(b.name, p.title, q.legend): q.expr for b in BOARDS for p in b.panels for q in p.queries}
    for file in sorted((ROOT / "samples" / "grafana").glob("*.json")):
        told = json.loads(file.read_text())
        for v in told["templating"]["list"]:
            if v["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", v["query"]["query"]).groups()
                assert chosen[v["name"]] in prometheus.api(f"label/{label}/values", **{"match[]": filled(metric)})
        for panel in told["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", "1m")
                shown[file.name, panel["title"], target["legendFormat"]] = expr
    assert not [expr for expr in map(filled, shown.values()) if "$" in expr], "a variable that nobody fills in"
    left = []

    def full():
        assert mesh.page()[0] == 200
        end = time.time()
        asked = {"start": end - 60, "end": end, "step": 5}
        left[:] = [
            where
            for where, expr in shown.items()
            if where[1] != "Days until certificates of servers expire"  # none is ordered
            if not any(
                value != "NaN"
                for series in prometheus.api("query_range", query=filled(expr), **asked)["result"]
                for _, value in series["values"]
            )
        ]
        return not left

    try:
        with contextlib.suppress(AssertionError):
            mesh.until(full, 60)
        assert left == []
    finally:
        mesh.kubectl("delete", "-f", "-", stdin=CHANGED)


@pytest.fixture(scope="module")
def real(mesh, prometheus):
    """The real Prometheus, from the sample's manifest, asked in its pod: query -> {labels: value}."""
    if shutil.which("prometheus") is None:
        pytest.skip("the real Prometheus is not installed here (apt-get install prometheus)")
    manifest = ROOT / "samples" / "prometheus" / "prometheus.yaml"
    before = mesh.get("service", "prometheus", "-n", "istio-system", "-o", "jsonpath={.spec.selector}")
    mesh.kubectl("apply", "-f", str(manifest))
    mesh.kubectl("rollout", "status", "deployment/prometheus-server", "-n", "istio-system", "--timeout=60s")

    def ask(query):
        curl = ("curl", "-s", "http://prometheus.istio-system:9090/api/v1/query", "--data-urlencode", f"query={query}")
        answer = json.loads(mesh.kubectl("exec", "-n", "istio-system", "deploy/prometheus-server", "--", *curl).stdout)
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in answer["data"]["result"]}

    mesh.until(lambda: ask('up{namespace="default"} == 1'), 30, "the first targets of Prometheus")
    yield ask
    mesh.kubectl("delete", "-f", str(manifest))
    mesh.lateen("addons", "apply", "prometheus")
    assert mesh.get("service", "prometheus", "-n", "istio-system", "-o", "jsonpath={.spec.selector}") == before


def test_the_real_prometheus_says_the_same(prometheus, real, mesh):
    def ours(query):
        found = prometheus.api("query", query=query)["result"]
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in found}

    for _ in range(5):
        mesh.page()
    exact = (
        'istio_requests_total{namespace="default"}',
        "sum(istio_requests_total) by (source_workload, destination_service_name, reporter, response_code)",
        'sum by (le) (istio_request_duration_milliseconds_bucket{destination_app="details"})',
        'count by (reporter) (istio_response_bytes_count{namespace=~"default|istio-system"})',
        'topk(100, sum by (destination_app) (istio_requests_total{reporter="source"})) + 1',
        'histogram_quantile(0.9, sum by (le) (istio_request_bytes_bucket{destination_app="reviews"}))',
        'label_replace(sum by (app) (istio_requests_total), "short", "$1", "app", "(..).*")',
        'sum(istio_requests_total{response_code!~"5.."}) / ignoring(x) sum(istio_requests_total)',
        'count(up{job="kubernetes-pods"} == 1) by (namespace, app)',
    )
    for query in exact:
        mesh.until(lambda q=query: ours(q) == real(q) != {}, 30, f"the same answer to {query}")


def test_a_restart_of_the_container_loses_nothing(prometheus, mesh):
    query = 'sum(istio_requests_total{reporter="destination",destination_app="productpage"})'
    before = prometheus.api("query", query=query, time=prometheus.ended)["result"]
    assert before
    mesh.kubectl("exec", "-n", "istio-system", mesh.pod("prometheus", "istio-system"), "--", "python3", "-c", STOP)

    def again():
        try:
            return prometheus.api("query", query=query, time=prometheus.ended)["result"] == before
        except (OSError, ValueError):
            return False

    mesh.until(again, 30, "the same answer after the restart")


def test_metrics_outlive_their_pod(prometheus, mesh):
    query = 'sum(istio_requests_total{reporter="destination",destination_app="productpage"})'
    before = prometheus.api("query", query=query, time=prometheus.ended)["result"]
    assert before
    mesh.kubectl("delete", "pod", "-n", "istio-system", mesh.pod("prometheus", "istio-system"))
    mesh.kubectl("rollout", "status", "deployment/prometheus", "-n", "istio-system", "--timeout=60s")
    asked = urllib.parse.urlencode({"query": query, "time": prometheus.ended})
    curl = ("curl", "-s", f"http://localhost:9090/api/v1/query?{asked}")
    answer = json.loads(mesh.kubectl("exec", "-n", "istio-system", "deploy/prometheus", "--", *curl).stdout)
    assert answer["data"]["result"] == before


def test_istios_own_addons_apply_over_ours_and_run(mesh, prometheus):
    mesh.lateen("addons", "apply", "jaeger", "kiali")
    try:
        for found in (addons.prometheus(), addons.jaeger(), addons.kiali(), addons.grafana(), addons.zipkin()):
            mesh.apply(addons.manifest(found))
        for name in ("prometheus", "jaeger", "zipkin"):
            mesh.kubectl("rollout", "status", f"deployment/{name}", "-n", "istio-system", "--timeout=60s")

        def answer(url):
            return json.loads(mesh.inside("ratings", "curl", "-s", f"http://{url}").stdout or "null")

        assert mesh.page()[0] == 200
        query = "prometheus.istio-system:9090/api/v1/query?query=count(istio_requests_total)"
        mesh.until(
            lambda: answer(query)["data"]["result"], 30, "Istio's requests in the Prometheus of Istio's manifest"
        )
        graph = "collector.istio-system:9090/api/graph?kind=workload"
        mesh.until(lambda: answer(graph)["edges"], 15, "the console's graph beside it")
        spans = "kiali.istio-system:20001/kiali/api/tracing/services"
        mesh.until(
            lambda: mesh.page()[0] == 200 and answer(spans)["data"], 30, "spans in the Zipkin of Istio's manifest"
        )
        says = mesh.get("events", "-n", "istio-system", "-o", "jsonpath={.items[*].message}")
        assert "lateen dashboard grafana" in says
        assert "lateen addons apply kiali" in says
        mesh.lateen("addons", "apply")  # and back again
    finally:
        for found in (addons.zipkin(), addons.grafana(), addons.kiali()):
            mesh.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=addons.manifest(found))
        mesh.lateen("addons", "delete", "jaeger", "kiali")
