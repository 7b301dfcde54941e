"""Injected pods in a real cluster: probes past the proxy, gateways by injection, the user's own proxy container."""

import json

import pytest

pytestmark = pytest.mark.system

SPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: probed, labels: {istio-injection: enabled}}
"""
CLOSED = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: probed}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: probed}
spec: {}
"""
HTTPBIN = "docker.io/mccutchen/go-httpbin:v2.15.0"
PODS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: probed, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {HTTPBIN}
    ports: [{{containerPort: 8080, name: http}}]
    startupProbe: {{httpGet: {{path: /status/200, port: http}}, periodSeconds: 1}}
    livenessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1, failureThreshold: 2}}
    readinessProbe:
      httpGet: {{path: /headers, port: 8080, httpHeaders: [{{name: X-Mine, value: "1"}}]}}
      periodSeconds: 1
---
apiVersion: v1
kind: Pod
metadata: {{name: rpc, namespace: probed, labels: {{app: rpc}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: lateen/grpc-echo
    startupProbe: {{grpc: {{port: 7070}}, periodSeconds: 1}}
    livenessProbe: {{grpc: {{port: 7070}}, periodSeconds: 1, failureThreshold: 3}}
    readinessProbe: {{grpc: {{port: 7070}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: dead, namespace: probed, labels: {{app: dead}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {HTTPBIN}
    readinessProbe: {{tcpSocket: {{port: 9999}}, periodSeconds: 1}}
  - name: missing
    image: lateen/sleep
    readinessProbe: {{grpc: {{port: 7071}}, periodSeconds: 1}}
"""


@pytest.fixture(scope="module")
def probed(mesh):
    mesh.apply(SPACE)
    mesh.apply(CLOSED)
    try:
        yield mesh
    finally:
        mesh.kubectl("delete", "ns", "probed", "--timeout=60s")


def ready(mesh, pod):
    found = json.loads(mesh.get("pod", pod, "-n", "probed", "-o", "json"))
    return {c["name"]: (c["ready"], c["restartCount"]) for c in found["status"].get("containerStatuses", [])}


def test_probes_of_all_kinds_pass_under_strict_and_a_policy_that_allows_nothing(probed):
    probed.apply(PODS)
    probed.kubectl("wait", "--for=condition=Ready", "pod/web", "pod/rpc", "-n", "probed", "--timeout=60s")
    for pod in ("web", "rpc"):
        assert ready(probed, pod)["main"] == (True, 0)


def test_a_probe_of_a_port_where_nobody_listens_fails_behind_the_redirection(probed):
    def told():
        events = probed.get("events", "-n", "probed")
        return "pod/dead" in events and "statuscode: 500" in events

    probed.until(told, 30, "an event of a failed probe")
    state = ready(probed, "dead")
    assert not state["main"][0]
    assert not state["missing"][0]


def test_only_the_pod_itself_can_stop_its_proxy(probed):
    address = probed.get("pod", "web", "-n", "probed", "-o", "jsonpath={.status.podIP}").strip()
    ask = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"]
    for path in ("quitquitquit", "drain"):
        done = probed.kubectl(
            "exec", "rpc", "-n", "probed", "-c", "istio-proxy", "--", *ask, f"http://{address}:15020/{path}"
        )
        assert done.stdout == "403"
    assert ready(probed, "web")["istio-proxy"] == (True, 0)


def test_an_annotation_that_cannot_be_used_refuses_the_pod_by_its_name(probed):
    name = "traffic.sidecar.istio.io/excludeOutboundPorts"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bad", "namespace": "probed", "annotations": {name: "abc"}},
        "spec": {"containers": [{"name": "main", "image": HTTPBIN}]},
    }
    done = probed.apply(json.dumps(pod), ok=False)
    assert done.returncode != 0
    assert name in done.stderr
    assert '"abc" is not a port' in done.stderr


def test_a_customized_proxy_container_keeps_what_the_user_wrote(probed):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "own",
            "namespace": "probed",
            "annotations": {"status.sidecar.istio.io/port": "15999", "sidecar.istio.io/statsCompression": "true"},
        },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "main",
                    "image": HTTPBIN,
                    "readinessProbe": {"httpGet": {"path": "/status/200", "port": 8080}},
                },
                {
                    "name": "istio-proxy",
                    "image": "auto",
                    "env": [{"name": "MINE", "value": "there"}],
                    "resources": {"requests": {"cpu": "3m"}},
                },
            ],
        },
    }
    done = probed.apply(json.dumps(pod))
    assert "sidecar.istio.io/statsCompression" in done.stderr
    probed.kubectl("wait", "--for=condition=Ready", "pod/own", "-n", "probed", "--timeout=60s")
    found = json.loads(probed.get("pod", "own", "-n", "probed", "-o", "json"))
    proxy = next(c for c in found["spec"]["containers"] if c["name"] == "istio-proxy")
    assert proxy["resources"]["requests"] == {"cpu": "3m", "memory": proxy["resources"]["requests"]["memory"]}
    said = probed.kubectl("exec", "own", "-n", "probed", "-c", "istio-proxy", "--", "env").stdout
    assert "MINE=there" in said
    probe = next(c for c in found["spec"]["containers"] if c["name"] == "main")["readinessProbe"]
    assert probe["httpGet"]["port"] == 15999


GATEWAY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, namespace: probed}
spec:
  selector: {matchLabels: {istio: edge}}
  template:
    metadata:
      labels: {istio: edge, sidecar.istio.io/inject: "true"}
      annotations: {inject.istio.io/templates: gateway}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: istio-proxy, image: auto}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: probed}
spec: {selector: {istio: edge}, servers: [{port: {number: 8081, name: http, protocol: HTTP}, hosts: [edge.test]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: probed}
spec:
  hosts: [edge.test]
  gateways: [edge]
  http: [{match: [{uri: {prefix: /teapot}}], directResponse: {status: 418, body: {string: short}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: edge, namespace: probed}
spec: {selector: {matchLabels: {istio: edge}}, rules: [{}]}
"""


def test_an_injected_gateway_serves_traffic(probed):
    probed.apply(GATEWAY)
    probed.kubectl("rollout", "status", "deploy/edge", "-n", "probed", "--timeout=60s")
    jsonpath = "jsonpath={.items[0].status.podIP}"
    address = probed.get("pod", "-n", "probed", "-l", "istio=edge", "-o", jsonpath).strip()
    ask = ["curl", "-s", "-m", "5", "-H", "Host: edge.test", "-w", " %{http_code}", f"http://{address}:8081/teapot"]

    def answer():
        return probed.kubectl("exec", "rpc", "-n", "probed", "-c", "istio-proxy", "--", *ask, ok=False).stdout

    probed.until(lambda: answer() == "short 418", 30, "the gateway's answer")


NATIVE = f"""
apiVersion: v1
kind: Pod
metadata:
  name: native
  namespace: probed
  annotations: {{sidecar.istio.io/nativeSidecar: "true"}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: early
    image: {HTTPBIN}
    command: [curl, -sf, "http://127.0.0.1:15020/healthz/ready"]
  containers: [{{name: main, image: {HTTPBIN}}}]
"""


def test_a_native_sidecar_is_ready_before_the_users_init_containers_run(probed):
    probed.apply(NATIVE)
    probed.kubectl("wait", "--for=condition=Ready", "pod/native", "-n", "probed", "--timeout=60s")
    found = json.loads(probed.get("pod", "native", "-n", "probed", "-o", "json"))
    assert [c["name"] for c in found["spec"]["initContainers"]] == ["istio-init", "istio-proxy", "early"]
    assert [c["name"] for c in found["spec"]["containers"]] == ["main"]
