"""The real Jaeger receives the mesh's spans over OTLP and shows them by its API: ``make test-observability``."""

import json
from pathlib import Path

import binaries
import pytest

from lateen.kit import yamldoc

pytestmark = pytest.mark.system

IMAGE = "example.com/real-jaeger"
OBJECTS = f"""
apiVersion: v1
kind: Service
metadata: {{name: real-jaeger, namespace: observed}}
spec:
  selector: {{app: real-jaeger}}
  ports: [{{name: grpc-otlp, port: 4317}}, {{name: http-query, port: 16686}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: real-jaeger, namespace: observed, labels: {{app: real-jaeger}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: jaeger
    image: {IMAGE}
    env: [{{name: JAEGER_LISTEN_HOST, value: 0.0.0.0}}]
    readinessProbe: {{httpGet: {{path: /api/services, port: 16686}}, periodSeconds: 1}}
"""
PROVIDER = {"name": "real", "opentelemetry": {"service": "real-jaeger.observed.svc.cluster.local", "port": 4317}}
TELEMETRY = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: real-jaeger, namespace: istio-system}
spec:
  tracing:
  - providers: [{name: real}]
    randomSamplingPercentage: 100
"""


@pytest.fixture(scope="module")
def jaeger(mesh):
    """Ask Jaeger's API for a path, from inside of the cluster."""
    program = Path(binaries.needed("jaeger"))
    mesh.lateen("image", "add", "--mount", str(program), IMAGE, "--", str(program))
    mesh.kubectl("create", "namespace", "observed")
    mesh.apply(OBJECTS)
    mesh.kubectl("wait", "-n", "observed", "--for=condition=Ready", "pod/real-jaeger", "--timeout=60s")
    before = json.loads(mesh.get("configmap", "istio", "-n", "istio-system", "-o", "json"))["data"]["mesh"]
    config = yamldoc.load(before)
    config["extensionProviders"] = [*config.get("extensionProviders", []), PROVIDER]
    patch = {"data": {"mesh": yamldoc.dump(config)}}
    mesh.kubectl("patch", "configmap", "istio", "-n", "istio-system", "-p", json.dumps(patch))
    mesh.apply(TELEMETRY)

    def ask(path):
        return json.loads(mesh.inside("ratings", "curl", "-s", f"http://real-jaeger.observed:16686{path}").stdout)

    return ask


def test_jaeger_shows_a_request_as_one_trace_with_all_its_services(mesh, jaeger):
    expected = {"istio-ingressgateway.istio-system", *(f"{n}.default" for n in ("productpage", "details", "reviews"))}

    def whole():
        assert mesh.page()[0] == 200
        found = jaeger("/api/traces?service=istio-ingressgateway.istio-system&limit=20")["data"] or []
        return [t for t in found if expected <= {p["serviceName"] for p in t["processes"].values()} and complete(t)]

    def complete(trace):
        """Each proxy sends its spans at moments of its own: until all have, some parents are missing."""
        spans = {s["spanID"]: s for s in trace["spans"]}
        parents = [r["spanID"] for s in spans.values() for r in s["references"]]
        return len(parents) >= len(spans) - 1 and set(parents) <= spans.keys()

    (trace, *_) = mesh.until(whole, 60, "a trace with all services, and every parent in it")
    spans = {s["spanID"]: s for s in trace["spans"]}
    tags = {(t["key"], str(t["value"])) for s in spans.values() for t in s["tags"]}
    assert ("http.status_code", "200") in tags or ("http.response.status_code", "200") in tags
    assert {"client", "server"} <= {value for key, value in tags if key == "span.kind"}


def test_jaeger_knows_who_calls_whom(mesh, jaeger):
    assert mesh.page()[0] == 200
    services = mesh.until(lambda: jaeger("/api/services")["data"], 30, "services")
    assert {"productpage.default", "details.default"} <= set(services)
