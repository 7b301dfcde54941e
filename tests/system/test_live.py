"""Live traffic without a metrics store: tap, top, routes, stat, edges."""

import json
import signal
import subprocess
import sys

import pytest
from world import free_port

RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details-named, namespace: default}
spec:
  hosts: [details]
  http: [{name: by-name, route: [{destination: {host: details}}]}]
"""


def call(mesh, path, *curl):
    return mesh.inside("productpage", "curl", "-s", "-o", "/dev/null", *curl, f"http://details:9080{path}")


def runtime(mesh, app):
    return json.loads(mesh.inside(app, "pilot-agent", "request", "GET", "runtime", container="istio-proxy").stdout)


@pytest.fixture(scope="module")
def look(mesh):
    """Run a command that looks while ``path`` is requested (or ``ask`` called) again and again; its standard output."""

    def run(*argv, path="/details/0", curl=(), ask=None):
        command = [sys.executable, "-m", "lateen", "x", *argv]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=mesh.environment)

        def ended():
            ask() if ask else call(mesh, path, *curl)
            return process.poll() is not None

        try:
            mesh.until(ended, 40, f"the end of {argv}")
        finally:
            process.kill()
        out = process.communicate()[0]
        assert process.returncode == 0, out
        return out

    mesh.apply(RULE)
    mesh.kubectl("wait", "virtualservice/details-named", "--for=condition=Reconciled", "--timeout=30s")
    yield run
    mesh.kubectl("delete", "virtualservice/details-named")


def test_tap_shows_a_request_and_leaves_the_proxy_as_it_was(mesh, look):
    before = runtime(mesh, "productpage")
    out = look(
        *("tap", "deploy/productpage-v1", "--path", "/details/7", "--method", "get", "--status", "2xx"),
        *("--to", "svc/details", "--headers", "--count", "1", "-o", "json"),
        path="/details/7",
        curl=("-H", "authorization: Bearer secret", "-H", "x-colour: red"),
    )
    seen = json.loads(out)
    assert seen["direction"] == "outbound"
    assert (seen["source"]["workload"], seen["source"]["namespace"]) == ("productpage-v1", "default")
    assert seen["destination"]["workload"] == "details-v1"
    assert seen["destination"]["service"] == "details.default.svc.cluster.local"
    assert seen["destination"]["identity"].endswith("/ns/default/sa/bookinfo-details")
    assert (seen["method"], seen["path"], seen["authority"]) == ("GET", "/details/7", "details:9080")
    assert (seen["status"], seen["tls"], seen["route"]) == (200, "mutual_tls", "by-name")
    assert "VirtualService details-named.default" in seen["objects"]
    assert seen["milliseconds"] > 0
    assert seen["requestHeaders"]["x-colour"] == "red"
    assert seen["requestHeaders"]["authorization"] == "(redacted)"
    assert "secret" not in out
    mesh.until(lambda: runtime(mesh, "productpage") == before, 10, "the runtime as before")

    def left():
        file = ("stat", "-c", "%s %a", "/etc/istio/proxy/tap.log")
        return mesh.inside("productpage", *file, container="istio-proxy").stdout.split()

    mesh.until(lambda: left() == ["0", "600"], 10, "an empty file that others cannot read")


def test_routes_and_top_add_up_what_passes(look):
    out = json.loads(look("routes", "deploy/productpage-v1", "-t", "4s", "-o", "json"))
    (named,) = [r for r in out if r["route"] == "by-name"]
    assert named["object"].startswith("VirtualService details-named.default")
    assert named["service"] == "details.default.svc.cluster.local"
    assert named["count"] > 0
    assert named["success"] == 1
    assert 0 < named["latency_ms_p50"] <= named["latency_ms_p99"]
    rows = look("top", "deploy/productpage-v1", "deploy/details-v1", "-t", "4s", path="/details/8?q=1").splitlines()
    (row,) = [r for r in rows if "/details/8 " in r]
    assert row.split()[:4] == ["productpage-v1.default", "details-v1.default", "GET", "/details/8"]


def test_tap_shows_bodies_while_it_runs_and_leaves_the_pod_as_it_was(mesh, look):
    out = look(
        *("tap", "deploy/details-v1", "--path", "/details/8", "--bodies", "--count", "6", "-o", "json"),
        path="/details/8",
    )
    found = [json.loads(line) for line in out.splitlines()]
    assert all("responseBody" in seen for seen in found), "requests begin when the proxy shows bodies"
    assert found[0]["direction"] == "inbound"
    assert json.loads(found[0]["responseBody"]["text"])["id"] == 8
    mesh.until(lambda: "tap-bodies" not in mesh.get("pod", mesh.pod("details"), "-o", "yaml"), 10, "no annotation")


def test_tap_shows_bodies_at_a_gateway(mesh, look):
    command = ("tap", "deploy/istio-ingressgateway", "-n", "istio-system", "--path", "/productpage", "--count", "6")
    out = look(*command, "--bodies", "-o", "json", ask=mesh.page)
    found = [seen for line in out.splitlines() if "responseBody" in (seen := json.loads(line))]
    assert found, out
    assert found[-1]["direction"] == "outbound"
    assert "base64" in found[-1]["responseBody"] or "<" in found[-1]["responseBody"]["text"]


def test_stat_and_edges_read_the_proxies_counters(mesh, look):
    # Envoy merges its histograms every five seconds.
    out = json.loads(look("stat", "deploy/details-v1", "-t", "7s", "-o", "json"))
    (row,) = out
    assert (row["namespace"], row["name"], row["meshed"]) == ("default", "details-v1", "1/1")
    assert row["success"] == 1
    assert row["rps"] > 0
    assert row["latency_ms_p99"] > 0
    edges = mesh.lateen("x", "edges", "-n", "default").stdout.splitlines()
    assert edges[0].split() == ["SRC", "DST", "SRC_NS", "DST_NS", "SECURED"]
    assert ["productpage-v1", "details-v1", "default", "default", "√"] in [line.split() for line in edges]


def test_mistakes_are_named(mesh):
    bad = mesh.lateen("x", "tap", "--status", "six", ok=False)
    assert bad.returncode == 64
    assert '"six" is not a status' in bad.stderr
    never = mesh.lateen("x", "tap", "--status", "9xx", ok=False)
    assert never.returncode == 64
    assert 'no response has "9xx"' in never.stderr
    ours = mesh.lateen("x", "top", "--duration", "3s", ok=False)
    assert "istioctl" not in ours.stderr
    quiet = mesh.lateen("x", "tap", "deploy/ratings-v1", "--path", "/nobody-asks", "--duration", "1s")
    assert quiet.stderr.strip().startswith("no request has passed in 1s")
    nobody = mesh.lateen("x", "stat", "deploy/nobody", ok=False)
    assert nobody.stderr.strip() == 'Error: nothing named "deploy/nobody" has pods in namespace default'


BROKEN = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: to-nowhere, namespace: default}
spec:
  hosts: [ratings]
  http:
  - match: [{uri: {prefix: /gone}}]
    name: nowhere
    route: [{destination: {host: ratings, subset: not-there}}]
  - route: [{destination: {host: ratings}}]
"""


def test_a_503_is_explained_with_the_users_object(mesh):
    mesh.apply(BROKEN)
    try:
        mesh.kubectl("wait", "virtualservice/to-nowhere", "--for=condition=Reconciled", "--timeout=30s")
        ask = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://ratings:9080/gone")
        mesh.until(lambda: mesh.inside("productpage", *ask).stdout == "503", what="the 503")
        filters = ("--status", "5xx", "--path", "/gone", "--peer", "productpage-v1")

        def explained():
            return mesh.lateen("logs", "deploy/productpage-v1", *filters, "--explain").stdout

        out = mesh.until(explained, what="the line in the log")
        assert "the route leads to a cluster that the proxy does not have" in out
        assert "routed by VirtualService to-nowhere.default" in out
        assert all("/gone" in line for line in out.splitlines() if not line.startswith("    "))
        assert not mesh.lateen("logs", "deploy/productpage-v1", *filters, "--status", "2xx").stdout
        for _ in range(3):
            call(mesh, "/details/later")

        def one_of_the_past():
            return mesh.lateen("logs", "deploy/productpage-v1", *filters, "--tail", "1").stdout

        assert one_of_the_past().count("/gone") == 1, "lines that do not match are none of the wanted ones"
    finally:
        mesh.kubectl("delete", "virtualservice/to-nowhere")


def test_logs_are_those_of_proxy_and_application_together(mesh):
    out = mesh.lateen("logs", "deploy/productpage-v1", "-o", "json").stdout
    found = [json.loads(line) for line in out.splitlines()]
    assert {f["container"] for f in found} == {"istio-proxy", "productpage"}
    assert [f["time"] for f in found] == sorted(f["time"] for f in found)


@pytest.fixture(scope="module")
def traces(mesh):
    """Ask the add-on's APIs from inside the cluster."""
    mesh.lateen("addons", "apply", "jaeger")

    def ask(path, service="tracing.istio-system"):
        return json.loads(mesh.inside("ratings", "curl", "-s", f"http://{service}{path}").stdout or "null")

    yield ask
    mesh.lateen("addons", "delete", "jaeger")


def test_dashboard_zipkin_opens_the_consoles_page_of_traces(mesh, traces):
    assert traces("/api/services", "tracing.istio-system") is not None
    mesh.lateen("addons", "apply", "kiali")
    command = [sys.executable, "-m", "lateen", "dashboard", "zipkin", "--port", str(free_port()), "--browser=false"]
    forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=mesh.environment)
    try:
        assert forward.stdout.readline().strip().endswith("/kiali#/traces")
    finally:
        forward.send_signal(signal.SIGINT)
        assert forward.wait(10) == 0
        mesh.lateen("addons", "delete", "kiali")


GATEWAY = "istio-ingressgateway.istio-system"
BOOKINFO = {f"{name}.default" for name in ("productpage", "details", "reviews", "ratings")} | {GATEWAY}


def through_all(trace):
    """Spans come one after the other: whether all of them are there."""
    ids = {s["spanID"] for s in trace["spans"]}
    parents = {r["spanID"] for s in trace["spans"] for r in s["references"]}
    return parents <= ids and {p["serviceName"] for p in trace["processes"].values()} >= BOOKINFO


def test_both_apis_find_a_trace_of_bookinfo_with_all_its_spans(mesh, traces):
    def whole():
        assert mesh.page()[0] == 200
        found = traces("/jaeger/api/traces?service=productpage.default&lookback=1h&limit=20")["data"]
        return next((t for t in found if through_all(t)), None)

    trace = mesh.until(whole, 40, "a trace through all of Bookinfo")
    names = {number: p["serviceName"] for number, p in trace["processes"].items()}
    ids = {s["spanID"] for s in trace["spans"]}
    roots = [s for s in trace["spans"] if not s["references"]]
    assert [names[s["processID"]] for s in roots] == [GATEWAY]
    assert all(r["spanID"] in ids for s in trace["spans"] for r in s["references"])
    zipkin = traces(f"/api/v2/trace/{trace['traceID']}", "zipkin.istio-system:9411")
    assert {s["id"] for s in zipkin} >= ids
    calls = {(d["parent"], d["child"]) for d in traces("/api/dependencies?lookback=3600000")["data"]}
    assert ("reviews.default", "ratings.default") in calls
    assert traces("/api/dropped-headers")["data"] == []
