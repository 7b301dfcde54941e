"""Calls in the console's graph: each counts once, whoever reports it."""

import json

import pytest

pytestmark = pytest.mark.system

PLAIN = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: in-plaintext, namespace: default}
spec: {host: details, trafficPolicy: {tls: {mode: DISABLE}}}
"""
QUIET = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: quiet, namespace: default}
spec:
  selector: {matchLabels: {app: quiet}}
  metrics: [{overrides: [{match: {metric: ALL_METRICS, mode: CLIENT}, disabled: true}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: quiet, namespace: default, labels: {app: quiet}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: quiet, image: lateen/sleep}]
"""
CALLS = 10


@pytest.fixture(scope="module")
def counted(mesh):
    """Ask for the requests of the last minutes between workloads: {(caller, called): count}."""
    mesh.lateen("addons", "apply", "prometheus", timeout=120)

    def ask():
        url = "http://prometheus.istio-system:9090/api/graph?kind=workload&window=900"
        graph = json.loads(mesh.inside("ratings", "curl", "-s", url).stdout)
        return {tuple(e[end].rpartition("/")[2] for end in ("source", "target")): e["requests"] for e in graph["edges"]}

    return ask


def by_server(mesh):
    """The calls of nobody it knows that the server's proxy has reported to the collector."""
    query = (
        'sum(istio_requests_total{reporter="destination",destination_workload="details-v1",source_workload="unknown"})'
    )
    url = "http://prometheus.istio-system:9090/api/v1/query"
    text = mesh.inside("ratings", "curl", "-s", "-G", url, "--data-urlencode", f"query={query}").stdout
    return sum(int(float(found["value"][1])) for found in json.loads(text)["data"]["result"])


def test_calls_of_the_mesh_in_plaintext_count_once_and_strangers_beside_them(mesh, counted):
    call = ("curl", "-s", "-o", "/dev/null", f"http://details:9080/details/0?[1-{CALLS}]")
    before, reported = counted(), by_server(mesh)

    def more(caller):
        return counted().get((caller, "details-v1"), 0) - before.get((caller, "details-v1"), 0)

    mesh.apply(PLAIN)
    try:
        mesh.lateen("x", "wait", "destinationrule", "in-plaintext")
        mesh.inside("ratings", *call)
        mesh.until(lambda: more("ratings-v1") == CALLS, what="the calls, as the client tells them")
        mesh.until(lambda: by_server(mesh) == reported + CALLS, what="the same calls, as the server tells them")
        assert more("unknown") == 0, "the server does not know its caller, but they are the same calls"
        address = json.loads(mesh.get("endpoints", "details", "-o", "json"))["subsets"][0]["addresses"][0]["ip"]
        istiod = mesh.pod("istiod", "istio-system")
        mesh.kubectl("exec", "-n", "istio-system", istiod, "--", *(c.replace("details:", f"{address}:") for c in call))
        mesh.until(lambda: more("unknown") == CALLS, what="the calls of a pod without a proxy")
        assert more("ratings-v1") == CALLS
    finally:
        mesh.kubectl("delete", "destinationrule", "in-plaintext")


def test_calls_of_a_workload_whose_proxy_reports_none_count_by_what_their_server_tells(mesh, counted):
    """As those of gRPC's own xDS clients with certificates of the mesh, which have no proxy."""
    mesh.apply(QUIET)
    try:
        mesh.kubectl("wait", "--for=condition=Ready", "pod/quiet", "--timeout=30s")
        call = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} ", f"http://details:9080/details/0?[1-{CALLS}]")
        answers = mesh.kubectl("exec", "quiet", "-c", "quiet", "--", *call).stdout.split()
        assert answers == ["200"] * CALLS
        mesh.until(lambda: counted().get(("quiet", "details-v1")) == CALLS, what="the calls")
    finally:
        mesh.kubectl("delete", "--wait=false", "-f", "-", stdin=QUIET)
    mesh.until(lambda: "quiet" not in mesh.get("pods"), 30, "the end of the pod")
