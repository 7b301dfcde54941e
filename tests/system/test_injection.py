"""Injected pods in a real cluster: probes past the proxy, gateways by injection, the user's own proxy container."""

import json
import os

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
        mesh.remove("probed")


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


SEEN = """
apiVersion: v1
kind: Namespace
metadata: {name: seen, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: seen}
spec: {selector: {app: server}, ports: [{name: http, port: 8000}, {name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: server
  namespace: seen
  labels: {app: server}
  annotations: {sidecar.istio.io/interceptionMode: TPROXY}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: curlimages/curl
    command:
    - python3
    - -c
    - |
      import http.server, socketserver, threading
      class Page(http.server.BaseHTTPRequestHandler):
          protocol_version = "HTTP/1.1"
          def do_GET(self):
              said = f"{self.client_address[0]} {self.headers.get('x-forwarded-client-cert', '-')}".encode()
              self.send_response(200); self.send_header("content-length", str(len(said))); self.end_headers()
              self.wfile.write(said)
      class Line(socketserver.StreamRequestHandler):
          def handle(self):
              self.wfile.write(self.client_address[0].encode())
      tcp = socketserver.ThreadingTCPServer(("0.0.0.0", 9000), Line)
      threading.Thread(target=tcp.serve_forever, daemon=True).start()
      http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Page).serve_forever()
    readinessProbe: {httpGet: {path: /, port: 8000}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: seen, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: curlimages/curl, command: [sleep, infinity]}]
"""


def test_with_tproxy_an_application_sees_its_clients_addresses(mesh):
    """Over mutual TLS, for requests and for connections, and also when it calls itself."""
    mesh.apply(SEEN)
    try:
        mesh.kubectl("wait", "-n", "seen", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        addresses = {
            name: mesh.get("pod", name, "-n", "seen", "-o", "jsonpath={.status.podIP}") for name in ("client", "server")
        }
        init = mesh.kubectl("logs", "-n", "seen", "server", "-c", "istio-init").stdout
        if os.geteuid() != 0:
            assert "TPROXY is not possible here" in init
            return
        assert "by TPROXY" in init

        def asked(name, url, *more):
            return mesh.kubectl(
                "exec", "-n", "seen", name, "-c", "main", "--", "curl", "-sS", "-m", "5", *more, url, ok=False
            ).stdout.split(" ")

        seen = mesh.until(
            lambda: (a := asked("client", "http://server:8000/"))[0] == addresses["client"] and a, what="the address"
        )
        assert "spiffe://cluster.local/ns/seen/" in seen[1]
        assert asked("client", "telnet://server:9000")[0] == addresses["client"]
        assert asked("server", "http://server:8000/")[0] == addresses["server"]
        assert asked("server", f"http://{addresses['server']}:8000/")[0] == addresses["server"]
        assert asked("server", "http://127.0.0.1:8000/")[0] == "127.0.0.1"
    finally:
        mesh.kubectl("delete", "namespace", "seen", "--wait=false")


FREE = """
apiVersion: v1
kind: Namespace
metadata: {name: free, labels: {istio-injection: enabled}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: free}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: page, namespace: free}
spec: {selector: {app: page}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: free}
spec: {selector: {app: db}, ports: [{name: tcp, port: 3306, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: free}
spec: {selector: {app: db}, ports: [{name: http, port: 8000, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: no-ip-tables, namespace: free}
spec:
  workloadSelector: {labels: {app: page}}
  ingress:
  - port: {number: 9080, protocol: HTTP}
    defaultEndpoint: 127.0.0.1:8080
  egress:
  - port: {number: 3307, protocol: TCP}
    bind: 127.0.0.1
    hosts: [./db.free.svc.cluster.local]
  - port: {number: 8000, protocol: HTTP}
    hosts: [./api.free.svc.cluster.local]
  - port: {number: 15080, protocol: HTTP_PROXY}
    bind: 127.0.0.1
    hosts: ["./*"]
""" + "".join(
    f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: free, labels: {{app: {name}}}, annotations: {{{annotations}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {HTTPBIN}
    ports: [{{containerPort: 8080}}]
    readinessProbe: {{httpGet: {{path: /status/200, port: 8080}}, periodSeconds: 1}}
"""
    for name, annotations in (("page", "sidecar.istio.io/interceptionMode: NONE"), ("db", ""))
)


def test_without_interception_a_pod_serves_and_calls_through_the_ports_of_its_sidecar(mesh):
    """As in the example without IPtables of Istio's reference of Sidecar."""
    told = mesh.apply(FREE)
    assert "no traffic is redirected" in told.stderr
    try:
        mesh.kubectl("wait", "-n", "free", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        containers = mesh.get("pod", "page", "-n", "free", "-o", "jsonpath={.spec.initContainers[*].name}")
        assert "istio-init" not in containers

        def asked(name, url, *more):
            args = ("exec", "-n", "free", name, "-c", "main", "--", "curl", "-sS", "-m", "5", *more, url)
            return mesh.kubectl(*args, ok=False).stdout

        who = "spiffe://cluster.local/ns/free/sa/default"
        mesh.until(lambda: who in asked("db", "http://page:9080/headers"), what="mutual TLS to the ingress port")
        assert who in asked("page", "http://127.0.0.1:8000/headers", "-H", "Host: api.free")
        assert who in asked("page", "http://127.0.0.1:3307/headers"), "the service's only port"
        through = ("-x", "http://127.0.0.1:15080")
        assert who in asked("page", "http://api:8000/headers", *through), "the sidecar is an HTTP proxy there"
        assert not asked("page", "http://api:8000/headers"), "STRICT: only the proxy may call"
    finally:
        mesh.kubectl("delete", "namespace", "free", "--wait=false")
