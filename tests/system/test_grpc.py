"""gRPC's own xDS client calls a meshed service through our control plane."""

import sys

import pytest

pytestmark = pytest.mark.system

OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: grpc, port: 7070}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: echo, image: lateen/grpc-echo, ports: [{containerPort: 7070}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: caller, labels: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: caller
    image: lateen/proxyv2
    command: [/bin/sleep, infinity]
    env:
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: INSTANCE_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    volumeMounts:
    - {name: token, mountPath: /var/run/secrets/tokens}
    - {name: root, mountPath: /var/run/secrets/istio}
    - {name: proxy, mountPath: /etc/istio/proxy}
  volumes:
  - {name: proxy, emptyDir: {}}
  - {name: root, configMap: {name: istio-ca-root-cert}}
  - name: token
    projected: {sources: [{serviceAccountToken: {path: istio-token, audience: istio-ca, expirationSeconds: 3600}}]}
"""


def test_grpcs_own_client_finds_and_calls_a_meshed_service(mesh):
    mesh.apply(OBJECTS)
    try:
        mesh.kubectl("wait", "--for=condition=Available", "deploy/echo", "--timeout=60s")
        mesh.kubectl("wait", "--for=condition=Ready", "pod/caller", "--timeout=30s")
        path = mesh.kubectl("exec", "caller", "--", "pilot-agent", "grpc-bootstrap").stdout.strip()
        done = mesh.kubectl(
            "exec",
            "caller",
            "--",
            "env",
            f"GRPC_XDS_BOOTSTRAP={path}",
            sys.executable,
            "-m",
            "lateen.samples.bookinfo.grpc_echo",
            "call",
            "xds:///echo.default.svc.cluster.local:7070",
            "20",
            timeout=60,
        )
        pods = {line.rpartition(" ")[2] for line in done.stdout.splitlines()}
        assert len(done.stdout.splitlines()) == 20
        assert len(pods) == 2, done.stdout
    finally:
        mesh.kubectl("delete", "--wait=false", "-f", "-", stdin=OBJECTS)
    mesh.until(lambda: "echo" not in mesh.get("pods"), 30, "the end of the echo pods")
