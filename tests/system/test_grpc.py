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


def counted(mesh, pods, metric):
    """By the sidecars of some pods."""
    curl = ("-c", "istio-proxy", "--", "curl", "-s", "localhost:15020/metrics")
    text = "".join(mesh.kubectl("exec", pod, *curl).stdout for pod in pods)
    return sum(int(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{metric}{{"))


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
        for what in ("request", "response"):  # of each call, one message
            mesh.until(lambda name=what: counted(mesh, pods, f"istio_{name}_messages_total") == 20, what="20 messages")
    finally:
        mesh.kubectl("delete", "--wait=false", "-f", "-", stdin=OBJECTS)
    mesh.until(lambda: "echo" not in mesh.get("pods"), 30, "the end of the echo pods")


SPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: rpc, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: client, namespace: rpc}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: rpc}
"""
SERVER = """
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: rpc}
spec: {selector: {app: NAME}, ports: [{name: grpc, port: 7070}]}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: rpc, labels: {app: NAME}, annotations: {ANNOTATIONS}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: lateen/grpc-echo, ports: [{containerPort: 7070}]}]
"""
CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: rpc, labels: {app: NAME}, annotations: {ANNOTATIONS}}
spec:
  terminationGracePeriodSeconds: 1
  serviceAccountName: ACCOUNT
  containers: [{name: main, image: lateen/proxyv2, command: [/bin/sleep, infinity]}]
"""
AGENT = "inject.istio.io/templates: grpc-agent"
PODS = "---".join(
    (
        SERVER.replace("NAME", "with-sidecar").replace("ANNOTATIONS", ""),
        SERVER.replace("NAME", "without").replace("ANNOTATIONS", AGENT),
        CLIENT.replace("NAME", "client").replace("ANNOTATIONS", AGENT).replace("ACCOUNT", "client"),
        CLIENT.replace("NAME", "stranger").replace("ANNOTATIONS", AGENT).replace("ACCOUNT", "stranger"),
        CLIENT.replace("NAME", "behind-sidecar").replace("ANNOTATIONS", "").replace("ACCOUNT", "client"),
    )
)
NAMES = ("with-sidecar", "without", "client", "stranger", "behind-sidecar")
MODE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: rpc}}
spec: {{mtls: {{mode: {}}}}}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: without, namespace: rpc}}
spec: {{host: without.rpc.svc.cluster.local, trafficPolicy: {{tls: {{mode: {}}}}}}}
"""
ALLOWED = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: clients, namespace: rpc}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/rpc/sa/client]}}]
    to: [{operation: {paths: ["/{*}/Who"]}}]
"""
EVERYTHING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everything, namespace: rpc}
spec:
  rules:
  - from:
    - source: {principals: ["*/sa/x", "cluster.local/*", "*"], notPrincipals: [x/y]}
    - source: {namespaces: ["r*"], notNamespaces: [kube-system], requestPrincipals: ["*"], notRequestPrincipals: [a/b]}
    - source: {ipBlocks: [10.9.0.0/16], notIpBlocks: [1.2.3.4], remoteIpBlocks: ["fd00::/8"]}
    to:
    - operation: {hosts: ["*.test", "a.test:80", "*"], notHosts: [b.test], ports: ["7070"]}
    - operation: {methods: [POST], notMethods: [GET], notPorts: ["1"]}
    - operation: {paths: ["/x*", "*/y", "/{*}/z", "/{**}", "*"], notPaths: ["/q*"]}
    when:
    - {key: "request.headers[x-a]", values: ["a*", "*b", "*"], notValues: [c]}
    - {key: "request.headers[grpc-timeout]", values: ["*"]}
    - {key: source.ip, values: [10.0.0.0/8]}
    - {key: remote.ip, notValues: [10.9.0.0/16]}
    - {key: source.namespace, values: [rpc]}
    - {key: source.principal, values: ["*"]}
    - {key: request.auth.principal, values: ["*"]}
    - {key: request.auth.audiences, values: [a]}
    - {key: "request.auth.claims[a][b]", values: [a], notValues: [b]}
    - {key: destination.ip, values: [10.0.0.0/8]}
    - {key: destination.port, values: ["7070"]}
    - {key: connection.sni, values: [a.test]}
    - {key: "experimental.envoy.filters.network.mysql_proxy[db.table]", values: ["[update]"]}
  - from: [{source: {serviceAccounts: [client]}}]
"""
CLIENT_ID = "spiffe://cluster.local/ns/rpc/sa/client"


@pytest.fixture(scope="module")
def rpc(mesh):
    mesh.apply(SPACE)
    try:
        mesh.apply(PODS)
        mesh.kubectl("wait", "-n", "rpc", "--for=condition=Ready", *(f"pod/{n}" for n in NAMES), "--timeout=90s")
        yield mesh
    finally:
        mesh.remove("rpc")


def asked(mesh, client, target, what="who"):
    return mesh.kubectl(
        *("exec", "-n", "rpc", client, "-c", "main", "--", sys.executable, "-m", "lateen.samples.bookinfo.grpc_echo"),
        *(what, target),
        ok=False,
        timeout=60,
    )


def seen(mesh, client, server, scheme="xds:///"):
    """The identity of a client that a server sees; None if the call fails."""
    done = asked(mesh, client, f"{scheme}{server}.rpc.svc.cluster.local:7070")
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT", "DISABLE"])
def test_a_sidecar_knows_grpcs_own_client_by_its_certificate(rpc, mode):
    rpc.apply(MODE.format(mode))
    expected = "" if mode == "DISABLE" else CLIENT_ID

    def known():
        found = seen(rpc, "client", "with-sidecar")
        return found is not None and (expected in found if expected else not found)

    rpc.until(known, 60, f"a call whose caller is {expected or 'nobody'}")


@pytest.mark.parametrize("mode", ["STRICT", "DISABLE"])
@pytest.mark.parametrize("client", ["client", "behind-sidecar"])
def test_grpcs_own_server_takes_what_policies_and_rules_say(rpc, mode, client):
    rpc.apply(MODE.format(mode))
    rpc.apply(RULE.format("ISTIO_MUTUAL" if mode == "STRICT" else "DISABLE"))
    expected = CLIENT_ID if mode == "STRICT" else ""
    scheme = "xds:///" if client == "client" else ""
    rpc.until(lambda: seen(rpc, client, "without", scheme) == expected, 60, f"a call whose caller is {expected}")


def test_a_strict_server_refuses_plain_text(rpc):
    rpc.apply(MODE.format("STRICT"))
    rpc.apply(RULE.format("ISTIO_MUTUAL"))
    rpc.until(lambda: seen(rpc, "client", "without") == CLIENT_ID, 60, "mutual TLS")
    assert seen(rpc, "client", "without", scheme="") is None


def test_grpcs_own_server_lets_in_whom_policies_name(rpc):
    rpc.apply(MODE.format("STRICT"))
    rpc.apply(RULE.format("ISTIO_MUTUAL"))
    rpc.until(lambda: seen(rpc, "client", "without") == CLIENT_ID, 60, "mutual TLS")
    rpc.until(lambda: seen(rpc, "stranger", "without"), 60, "a call of a stranger")
    rpc.apply(ALLOWED)
    try:
        rpc.until(lambda: seen(rpc, "stranger", "without") is None, 60, "the refusal of a stranger")
        assert seen(rpc, "client", "without") == CLIENT_ID
        denied = asked(rpc, "client", "xds:///without.rpc.svc.cluster.local:7070", "call")
        assert "PERMISSION_DENIED" in denied.stderr
    finally:
        rpc.kubectl("delete", "-f", "-", stdin=ALLOWED)


def test_grpcs_own_server_takes_every_condition_that_policies_have(rpc):
    """It refuses a listener with one that it does not know, and goes on with the one before."""
    rpc.apply(MODE.format("STRICT"))
    rpc.apply(RULE.format("ISTIO_MUTUAL"))
    rpc.until(lambda: seen(rpc, "stranger", "without"), 60, "a call of a stranger")
    rpc.apply(EVERYTHING)
    try:
        rpc.until(lambda: seen(rpc, "stranger", "without") is None, 60, "the refusal of a stranger")
        assert seen(rpc, "client", "without") == CLIENT_ID
    finally:
        rpc.kubectl("delete", "-f", "-", stdin=EVERYTHING)


def test_calls_of_grpcs_own_client_are_seen_with_its_name(rpc):
    rpc.apply(MODE.format("STRICT"))
    rpc.until(lambda: CLIENT_ID in (seen(rpc, "client", "with-sidecar") or ""), 60, "mutual TLS")
    edges = rpc.lateen("x", "edges", "-n", "rpc").stdout
    (edge,) = (line.split() for line in edges.splitlines() if line.split()[:2] == ["client", "with-sidecar"])
    assert edge[-1] != "0%", edges
