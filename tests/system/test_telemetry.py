"""Telemetry objects, seen in the log, the metrics and the spans of real proxies."""

import json
import re
import time

import pytest
from talkers import COLLECTOR, TALK

from lateen.kit import yamldoc

PODS = f"""
apiVersion: v1
kind: Service
metadata: {{name: spans, namespace: default}}
spec: {{selector: {{app: spans}}, ports: [{{name: http, port: 9411}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: spans, namespace: default, labels: {{app: spans, sidecar.istio.io/inject: "false"}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: spans, image: lateen/sleep, command: [python3, -c, {json.dumps(COLLECTOR)}]}}]
"""
PROVIDERS = """
extensionProviders:
- {name: spans, zipkin: {service: spans.default.svc.cluster.local, port: 9411}}
- {name: short, envoyFileAccessLog: {path: /dev/stdout, logFormat: {labels: {short: "%REQ(:PATH)%"}}}}
"""
TELEMETRY = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: page, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  accessLogging:
  - providers: [{name: short}]
    match: {mode: CLIENT}
    filter: {expression: "request.path.contains('logged')"}
  metrics:
  - overrides:
    - match: {metric: REQUEST_COUNT, mode: CLIENT}
      tagOverrides:
        method: {value: request.method}
        route: {value: xds.route_name}
        source_version: {operation: REMOVE}
  tracing:
  - providers: [{name: spans}]
    randomSamplingPercentage: 100
    customTags: {colour: {literal: {value: blue}}}
"""


@pytest.fixture(scope="module")
def reports(mesh):
    before = json.loads(mesh.get("configmap", "istio", "-n", "istio-system", "-o", "json"))["data"]["mesh"]
    mesh.apply(PODS)
    mesh.kubectl("wait", "--for=condition=Ready", "pod/spans", "--timeout=60s")
    config = yamldoc.load(before)
    config["extensionProviders"] = [
        *config.get("extensionProviders", []),
        *yamldoc.load(PROVIDERS)["extensionProviders"],
    ]
    patch = {"data": {"mesh": yamldoc.dump(config)}}
    mesh.kubectl("patch", "configmap", "istio", "-n", "istio-system", "-p", json.dumps(patch))
    mesh.apply(TELEMETRY)
    yield mesh
    mesh.kubectl("delete", "telemetry/page", "service/spans", "pod/spans", "--ignore-not-found")
    mesh.kubectl("patch", "configmap", "istio", "-n", "istio-system", "-p", json.dumps({"data": {"mesh": before}}))


def call(mesh, path):
    return mesh.inside("productpage", "curl", "-s", "-o", "/dev/null", f"http://details:9080/details/0?{path}")


def lines(mesh):
    return mesh.kubectl("logs", mesh.pod("productpage"), "-c", "istio-proxy").stdout.splitlines()


def test_only_what_the_filter_lets_through_is_logged_in_the_providers_format(reports):
    def logged():
        name = f"logged-{time.time_ns()}"
        call(reports, name.replace("logged", "quiet"))
        call(reports, name)
        return [n for n in names(reports) if n.startswith("/details/0?logged")] and name

    def names(mesh):
        found = [line for line in lines(mesh) if line.startswith('{"short"')]
        return [json.loads(line)["short"] for line in found]

    reports.until(logged, what="the log line")
    assert not [n for n in names(reports) if "quiet" in n]


def test_a_label_is_added_and_another_taken_away(reports):
    def count():
        call(reports, "metric")
        text = reports.inside("productpage", "curl", "-s", "localhost:15020/stats/prometheus").stdout
        found = [
            line for line in text.splitlines() if line.startswith("istio_requests_total") and 'method="GET"' in line
        ]
        return found and found[0]

    line = reports.until(count, what="a series with the new label")
    assert 'reporter="source"' in line
    assert "source_version" not in line
    assert 'destination_app="details"' in line


def test_requests_are_counted_by_route(reports):
    routes = [{"name": "first", "match": [{"uri": {"prefix": "/details/1"}}]}, {}]
    spec = {"hosts": ["details"], "http": [{**r, "route": [{"destination": {"host": "details"}}]} for r in routes]}
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService"}
    reports.apply(json.dumps({**rule, "metadata": {"name": "by-route", "namespace": "default"}, "spec": spec}))

    def seen():
        for path in ("0", "1"):
            reports.inside("productpage", "curl", "-s", "-o", "/dev/null", f"http://details:9080/details/{path}")
        text = reports.inside("productpage", "curl", "-s", "localhost:15020/stats/prometheus").stdout
        lines = [line for line in text.splitlines() if line.startswith("istio_requests_total")]
        return {"first", "default"} <= {m[1] for line in lines if (m := re.search(r'[{,]route="([^"]*)"', line))}

    try:
        reports.until(seen, what="a series for each route")
    finally:
        reports.kubectl("delete", "virtualservice", "by-route")


def test_spans_reach_the_collector_with_their_tags(reports):
    def spans():
        call(reports, "span")
        text = reports.kubectl("logs", "spans").stdout
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [s for s in found if s["tags"].get("colour") == "blue"]

    (span, *_) = reports.until(spans, what="a span")
    assert span["service"] == "productpage.default"
    assert span["tags"]["istio.canonical_service"] == "productpage"
    assert span["tags"]["istio.cluster_id"]


def test_an_open_connection_is_counted_while_it_is_open_by_both_sides_which_know_each_other(mesh):
    mesh.apply(TALK)
    mesh.kubectl("wait", "--for=condition=Ready", "pod/lines", "pod/talker", "--timeout=60s")

    def counted(pod, what):
        """The labels and the value of the connection between the two, as the proxy of one of them counts it."""
        text = mesh.kubectl("exec", pod, "-c", "istio-proxy", "--", "curl", "-s", "localhost:15020/metrics").stdout
        for line in text.splitlines():
            if line.startswith(f"istio_tcp_{what}_total{{") and 'destination_workload="lines"' in line:
                return dict(re.findall(r'(\w+)="([^"]*)"', line)), int(line.rpartition(" ")[2])
        return {}, 0

    def both(what):
        return [counted(pod, what) for pod in ("talker", "lines")]

    def grows():
        now = both("sent_bytes")
        return all(value > former > 0 for (_, value), (_, former) in zip(now, before, strict=True)) and now

    try:
        before = mesh.until(
            lambda: (f := both("sent_bytes")) and all(v for _, v in f) and f, what="bytes on both sides"
        )
        after = mesh.until(grows, what="more bytes on both sides")
        opened, closed = both("connections_opened"), both("connections_closed")
    finally:
        mesh.kubectl("delete", "service/lines", "pod/lines", "pod/talker", "--wait=false")
    assert [value for _, value in closed] == [0, 0], "all that is one connection"
    account = "spiffe://cluster.local/ns/default/sa/default"
    for labels, _ in (*after, *opened):
        found = {key: labels[key] for key in labels if key.startswith(("source_", "destination_w"))}
        assert found == {
            "source_workload": "talker", "source_canonical_service": "talker", "source_canonical_revision": "v7",
            "source_workload_namespace": "default", "source_principal": account, "source_app": "talker",
            "source_version": "v7", "source_cluster": labels["source_cluster"],
            "destination_workload": "lines", "destination_workload_namespace": "default",
        }  # fmt: skip
        assert labels["destination_principal"] == account
        assert labels["destination_version"] == "v2"
        assert labels["connection_security_policy"] == "mutual_tls"
    assert [labels["reporter"] for labels, _ in after] == ["source", "destination"]
