"""The real Kiali asks the mesh for what its pages show: ``make test-observability``."""

import contextlib
import http.client
import json
import time
import urllib.parse
from pathlib import Path

import binaries
import pytest
from world import ROOT

from lateen.kube.kubeconfig import from_file

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

IMAGE = "quay.io/kiali/kiali:v1.89.0"
MANIFEST = ROOT / "samples" / "kiali" / "kiali.yaml"
OBJECTS = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: elsewhere, namespace: default}
spec:
  hosts: [elsewhere.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: elsewhere, namespace: default}
spec: {host: elsewhere.example.com, trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {nobody: {exact: sends-this}}}]
    route: [{destination: {host: nobody}}]
  - name: everything
    route: [{destination: {host: reviews}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
"""
APPS = {"productpage", "details", "reviews", "ratings"}
APPENDERS = "deadNode,serviceEntry,meshCheck,workloadEntry,health,idleNode,istio,responseTime,securityPolicy,throughput"
OUR_FAULTS = ("ERR", "Unable", "Error getting Prometheus", "Cannot", "not healthy")
"""In lines of Kiali's log."""


class Kiali:
    def __init__(self, mesh):
        self.mesh = mesh

    def ask(self, path, **asked):
        """The answer to ``/api/PATH``, through the API server."""
        api = from_file(Path(self.mesh.environment["KUBECONFIG"]))
        query = f"?{urllib.parse.urlencode(asked, doseq=True)}" if asked else ""
        connection = http.client.HTTPSConnection(str(api.url.host), api.url.port, context=api.context, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/namespaces/kiali/services/kiali:20001/proxy/kiali/api/{path}{query}")
            answer = connection.getresponse()
            text = answer.read()
        assert answer.status == 200, (path, answer.status, text[:2000])
        return json.loads(text)

    def until(self, test, what, limit_s=60):
        """What ``test`` returns once it is true, under traffic; Kiali caches answers for some seconds."""

        def tried():
            assert self.mesh.page()[0] == 200
            return test()

        return self.mesh.until(tried, limit_s, what)


@pytest.fixture(scope="module")
def kiali(mesh, tmp_path_factory):
    program = binaries.needed("kiali")
    page = tmp_path_factory.mktemp("console")
    (page / "index.html").write_text('<base href="/">')
    folders = ("--mount", f"{page}:/opt/kiali/console", "--workdir", "/opt/kiali", "--mount", program)
    mesh.lateen("image", "add", *folders, IMAGE, "--", program)
    mesh.lateen("addons", "apply")
    mesh.apply(OBJECTS)
    assert mesh.page()[0] == 200
    mesh.kubectl("apply", "-f", str(MANIFEST))
    mesh.kubectl("rollout", "status", "-n", "kiali", "deployment/kiali", "--timeout=120s")
    yield Kiali(mesh)
    mesh.kubectl("delete", "--ignore-not-found", "-f", str(MANIFEST), timeout=120)
    mesh.kubectl("delete", "-f", "-", stdin=OBJECTS)
    mesh.lateen("addons", "delete")


def test_every_part_of_the_installation_is_healthy(kiali):
    parts = {"istiod", "istio=ingressgateway", "istio=egressgateway", "tracing", "prometheus", "custom dashboards"}

    def found():
        there = {one["name"]: one["status"] for one in kiali.ask("istio/status")}
        return there if set(there.values()) == {"Healthy"} else None

    assert parts <= set(kiali.until(found, "a healthy installation"))
    services = {one["name"]: one.get("version") for one in kiali.ask("status")["externalServices"]}
    assert services["Prometheus"]
    nodes = [n["data"] for n in kiali.ask("mesh/graph", includeGateways="true")["elements"]["nodes"]]
    told = {n["infraType"]: n.get("healthData") for n in nodes}
    assert {told[part] for part in ("cluster", "istiod", "metricStore", "traceStore")} == {"Healthy"}
    assert next(n["version"] for n in nodes if n["infraType"] == "istiod")
    assert kiali.ask("tracing")["enabled"] is True


@pytest.mark.parametrize("kind", ["versionedApp", "app", "workload", "service"])
def test_the_graph_has_rates_response_times_and_mutual_tls(kiali, kind):
    asked = {
        "graphType": kind,
        "namespaces": "default,istio-system",
        "duration": "60s",
        "appenders": APPENDERS,
        "responseTime": "95",
        "throughputType": "response",
        "injectServiceNodes": "true",
        "boxBy": "namespace",
    }

    def drawn():
        elements = kiali.ask("namespaces/graph", **asked)["elements"]
        nodes = {n["data"]["id"]: n["data"] for n in elements["nodes"]}
        edges = [e["data"] for e in elements["edges"]]
        called = {(nodes[e["target"]].get("app") or nodes[e["target"]].get("service"), e.get("isMTLS")) for e in edges}
        timed = [e for e in edges if float(e.get("responseTime", 0)) > 0 and float(e.get("throughput", 0)) > 0]
        timed = (
            timed or kind == "service"
        )  # Kiali drops the edges between a service and its workloads, which have these
        rated = [e for e in edges if float(e["traffic"]["rates"]["http"]) > 0]
        return edges if {(app, "100") for app in APPS} <= called and timed and len(rated) == len(edges) else None

    edges = kiali.until(drawn, f"the graph of type {kind}", 90)
    assert all(e["traffic"]["responses"]["200"]["hosts"] for e in edges)


@pytest.mark.parametrize(("kind", "key"), [("app", "namespaceAppHealth"), ("workload", "namespaceWorkloadHealth")])
def test_health_counts_requests_and_proxies_in_sync(kiali, kind, key):
    def healthy():
        found = kiali.ask("clusters/health", namespaces="default", type=kind, rateInterval="60s")[key]["default"]
        served = {
            n.partition("-")[0] for n, one in found.items() if one["requests"]["inbound"].get("http", {}).get("200")
        }
        states = [s for one in found.values() for s in one.get("workloadStatuses") or [one["workloadStatus"]]]
        return served if served >= APPS and all(s["syncedProxies"] == 1 for s in states) else None

    kiali.until(healthy, "health from requests")


def test_the_lists_have_everything_with_sidecars(kiali):
    apps = kiali.ask("clusters/apps", namespaces="default", health="true", istioResources="true")
    assert {a["name"] for a in apps["applications"] if a["istioSidecar"]} >= APPS
    workloads = kiali.ask("clusters/workloads", namespaces="default", health="true", istioResources="true")
    assert {w["name"] for w in workloads["workloads"] if w["istioSidecar"]} >= {f"{a}-v1" for a in APPS}

    def hosts():
        services = kiali.ask("clusters/services", namespaces="default", health="true", istioResources="true")[
            "services"
        ]
        return {s["name"]: s["serviceRegistry"] for s in services}

    found = kiali.until(lambda: h if "elsewhere.example.com" in (h := hosts()) else None, "the external host", 90)
    assert (found["reviews"], found["elsewhere.example.com"]) == ("Kubernetes", "External")


def test_details_show_configuration_and_mutual_tls(kiali):
    asked = {"validate": "true", "health": "true", "rateInterval": "60s"}
    service = kiali.ask("namespaces/default/services/reviews", **asked)
    assert {e["port"] for part in service["endpoints"] for e in part["ports"]} == {9080}
    assert [v["metadata"]["name"] for v in service["virtualServices"]] == ["reviews"]
    assert service["istioPermissions"] == {"create": True, "update": True, "delete": True}
    workload = kiali.ask("namespaces/default/workloads/reviews-v1", **asked)
    assert set(workload["pods"][0]["proxyStatus"].values()) == {"Synced"}
    assert kiali.ask("namespaces/default/tls")["status"] == "MTLS_ENABLED"
    assert kiali.ask("mesh/tls")["autoMTLSEnabled"] is True


def test_validations_know_which_hosts_exist(kiali):
    def told():
        found = kiali.ask("istio/config", namespaces="default", validate="true")["validations"]
        checks = {
            f"{kind} {name}": {c["code"] for c in one["checks"] or []}
            for kind in ("destinationrule", "virtualservice", "gateway")
            for name, one in found[kind].items()
        }
        return checks if not checks["destinationrule elsewhere.default"] else None

    checks = kiali.until(told, "the external host in the registry", 90)
    assert checks["virtualservice reviews.default"] == {"KIA1101"}  # the host does not exist
    assert checks["gateway bookinfo-gateway.default"] == set()


def test_charts_have_data(kiali):
    asked = {"duration": "60", "step": "5", "rateInterval": "60s"}

    def drawn(path, **more):
        charts = kiali.ask(path, **asked, **more)["charts"]
        return {c["name"] for c in charts if any(m["datapoints"] for m in c["metrics"] or [])}

    wanted = {"Request volume", "Request duration", "Request size", "Response size", "Response throughput"}
    for path, direction in (
        ("workloads/reviews-v1", "inbound"),
        ("services/reviews", "inbound"),
        ("apps/productpage", "outbound"),
    ):
        where = f"namespaces/default/{path}/dashboard"
        kiali.until(lambda w=where, d=direction: wanted <= drawn(w, direction=d), where)
    istiod = kiali.ask("namespaces/istio-system/metrics", **asked, direction="inbound")
    assert all(
        istiod[name]
        for name in ("pilot_proxy_convergence_time", "process_cpu_seconds_total", "process_resident_memory_bytes")
    )
    pushes = drawn("namespaces/istio-system/customdashboard/istiod", labelsFilters="app:istiod")
    assert {"CPU Usage", "Pilot Pushes", "XDS Active Connections", "Known Services"} <= pushes


def test_traces_of_a_workload_are_found_by_grpc(kiali):
    since = int(time.time() - 600) * 1_000_000

    def spans(**more):
        asked = {"startMicros": since, "limit": 50, **more}
        return kiali.ask("namespaces/default/workloads/productpage-v1/spans", **asked)

    found = kiali.until(lambda: spans(clusterName="Kubernetes"), "spans of the workload")
    assert all("productpage-v1" in t["value"] for s in found for t in s["tags"] if t["key"] == "node_id")
    traces = kiali.ask("namespaces/default/apps/productpage/traces", startMicros=since, limit=5)["data"]
    assert {p["serviceName"] for t in traces for p in t["processes"].values()} >= {"productpage.default"}
    one = kiali.ask(f"traces/{traces[0]['traceID']}")["data"]
    assert len(one["spans"]) == len(traces[0]["spans"])


def test_the_configuration_of_a_proxy_and_its_log_are_read(kiali):
    pod = kiali.mesh.pod("productpage")
    where = f"namespaces/default/pods/{pod}"
    routes = kiali.ask(f"{where}/config_dump/routes")["routes"]
    assert "reviews.default" in {r["virtual_service"] for r in routes}
    clusters = kiali.ask(f"{where}/config_dump/clusters")["clusters"]
    assert {"reviews", "ratings"} <= {c["service_fqdn"]["service"] for c in clusters}
    assert kiali.ask(f"{where}/config_dump/listeners")["listeners"]
    assert kiali.ask(f"{where}/config_dump/bootstrap")["bootstrap"]
    asked = {"container": "istio-proxy", "logType": "proxy", "maxLines": 50, "sinceTime": int(time.time()) - 600}
    lines = [e["accessLog"] for e in kiali.ask(f"{where}/logs", **asked)["entries"] if e.get("accessLog")]
    assert {("200", "GET")} <= {(line["status_code"], line["method"]) for line in lines}


def test_kiali_complains_of_nothing(kiali):
    log = kiali.mesh.kubectl("logs", "-n", "kiali", "deployment/kiali").stdout
    assert [line for line in log.splitlines() if any(fault in line for fault in OUR_FAULTS)] == []
