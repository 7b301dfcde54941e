"""Bookinfo in the mesh, from the article's manifests, seen through the real kubectl and curl."""

import json
import re
import shutil
import subprocess
from datetime import timedelta

import pytest
from world import ROOT, SAMPLES, kubectls

from lateen.kit import times

pytestmark = pytest.mark.system


MANIFESTS = [SAMPLES / "platform/kube/bookinfo.yaml", SAMPLES / "networking/bookinfo-gateway.yaml"]


@pytest.mark.parametrize("binary", kubectls())
def test_the_manifests_are_applied_unchanged_by_every_kubectl(mesh, binary):
    for path in MANIFESTS:
        mesh.kubectl("apply", "-f", str(path), binary=binary)
        assert "unchanged" in mesh.kubectl("apply", "-f", str(path), binary=binary).stdout
    mesh.until(lambda: pods_ready(mesh, binary), 60, "2/2 everywhere")


def pods_ready(mesh, binary=None):
    lines = mesh.kubectl("get", "pods", "--no-headers", binary=binary).stdout.splitlines()
    return len(lines) == 6 and all(re.search(r"\s2/2\s+Running", line) for line in lines)


def test_the_operator_file_installs_over_what_is_there(mesh):
    path = ROOT / "samples" / "operator" / "demo.yaml"
    done = mesh.lateen("install", "-f", str(path), "-y")
    for line in (
        "Istio core installed",
        "Istiod installed",
        "Egress gateways installed",
        "Ingress gateways installed",
        "Installation complete",
    ):
        assert f"✔ {line}" in done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning")]
    assert [w for w in warnings if "PILOT_TRACE_SAMPLING" not in w] == []
    ports = mesh.get("svc", "istio-ingressgateway", "-n", "istio-system", "-o", "jsonpath={.spec.ports[*].name}")
    assert ports == "status-port http2 https tcp tls"
    requests = mesh.get(
        "deploy",
        "istiod",
        "-n",
        "istio-system",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].resources.requests}",
    )
    assert '"cpu":"10m"' in requests
    mesh.reinstall()


def test_the_page_comes_through_the_ingress_gateway(mesh):
    code, body = mesh.page()
    assert code == 200
    assert "<title>Simple Bookstore App</title>" in body
    assert mesh.page("/not-routed")[0] == 404


@pytest.mark.parametrize("binary", kubectls())
def test_a_command_inside_a_pod_reaches_another_service(mesh, binary):
    pod = mesh.pod("ratings")
    done = mesh.kubectl("exec", pod, "-c", "ratings", "--", "curl", "-s", "productpage:9080/productpage", binary=binary)
    assert "<title>Simple Bookstore App</title>" in done.stdout
    assert mesh.kubectl("exec", pod, "--", "sh", "-c", "exit 7", ok=False, binary=binary).returncode == 7
    assert mesh.kubectl("exec", "-i", pod, "--", "cat", stdin="through stdin", binary=binary).stdout == "through stdin"


def test_every_spelling_of_a_service_name_is_in_dns(mesh):
    for host in ("reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"):
        assert mesh.inside("ratings", "curl", "-s", f"http://{host}:9080/health").stdout.startswith('{"status"')


def test_what_was_injected_is_what_the_article_shows(mesh):
    text = mesh.kubectl("describe", "pod", mesh.pod("details")).stdout
    for part in (
        "istio-init:",
        "istio-iptables",
        "15090,15021,15020",
        "istio-proxy:",
        "Reason:       Completed",
        "CA_ADDR:",
        "istiod.istio-system.svc:15012",
        "/var/run/secrets/tokens from istio-token",
        "http-get http://:15021/healthz/ready delay=0s timeout=3s period=15s #success=1 #failure=4",
        "security.istio.io/tlsMode=istio",
        "Successfully assigned default/details",
    ):
        assert part in text, part


def test_the_access_log_has_istios_format(mesh):
    mesh.page()
    pattern = r'\[\S+Z\] "GET /details/0 HTTP/\S+" 200 - \S+ - "-" 0 \d+ \d+ \d+ "-" "\S+" "\S+" "details:9080"'

    def logged():
        return re.search(pattern, mesh.kubectl("logs", "deploy/productpage-v1", "-c", "istio-proxy").stdout)

    mesh.until(logged, 10, "the log line")


def metrics(mesh, app):
    return mesh.inside(app, "curl", "-s", "localhost:15020/stats/prometheus").stdout


def test_standard_metrics_have_istios_names_and_labels(mesh):
    for _ in range(6):
        mesh.page()
    text = metrics(mesh, "details")
    line = next(
        x
        for x in text.splitlines()
        if x.startswith("istio_requests_total{") and 'reporter="destination"' in x and "productpage-v1" in x
    )
    for label in (
        'source_workload="productpage-v1"',
        'destination_service="details.default.svc.cluster.local"',
        'connection_security_policy="mutual_tls"',
        'response_code="200"',
        'request_protocol="http"',
        'source_principal="spiffe://cluster.local/ns/default/sa/bookinfo-productpage"',
    ):
        assert label in line, label
    assert "istio_request_duration_milliseconds_bucket" in text
    line = next(
        x
        for x in metrics(mesh, "productpage").splitlines()
        if x.startswith("istio_requests_total{") and 'reporter="source"' in x and "details" in x
    )
    for label in (
        'source_workload="productpage-v1"',
        'source_canonical_revision="v1"',
        'source_app="productpage"',
        'source_principal="spiffe://cluster.local/ns/default/sa/bookinfo-productpage"',
        'source_cluster="Kubernetes"',
        'destination_workload="details-v1"',
        'destination_principal="spiffe://cluster.local/ns/default/sa/bookinfo-details"',
    ):
        assert label in line, label


def test_requests_between_sidecars_are_mutual_tls_by_envoys_own_count(mesh):
    def handshakes():
        found = mesh.inside("ratings", "pilot-agent", "request", "GET", "stats", container="istio-proxy").stdout
        return int(re.search(r"listener\.0\.0\.0\.0_15006\.ssl\.handshake: (\d+)", found)[1])

    for _ in range(6):
        mesh.page()
    mesh.until(handshakes, 10, "a handshake")


CAPTURE = """
import select, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
seen = b""
print("listening", flush=True)
while True:  # until the input is closed and nothing is left
    ready = select.select([s, sys.stdin], [], [])[0]
    if s not in ready:
        break
    seen += s.recv(65536)
for secret in sys.argv[1:]:
    print(secret, secret.encode() in seen)
"""


def test_a_capture_between_pods_shows_no_plain_text(mesh):
    """The same capture sees the request that an unmeshed pod sends, so it would see the others too."""
    pid = str(mesh.outside())
    enter = ["nsenter", "--target", pid, "--net", *(["--user", "--preserve-credentials"] if not is_root() else [])]
    sniffer = subprocess.Popen(
        [*enter, "python3", "-c", CAPTURE, "meshed-secret", "plain-secret"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sniffer.stdout.readline() == "listening\n"
    mesh.inside("productpage", "curl", "-s", "http://details:9080/details/0?meshed-secret")
    plain_pod(mesh)
    mesh.kubectl(
        "exec", "-n", "outside", "plain", "--", "curl", "-s", "http://details.default:9080/details/0?plain-secret"
    )
    out = sniffer.communicate(timeout=20)[0]
    assert "meshed-secret False" in out
    assert "plain-secret True" in out


def is_root():
    import os

    return os.geteuid() == 0


def plain_pod(mesh):
    """A pod without a sidecar."""
    mesh.apply("""
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: outside}
""")
    mesh.apply("""
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: outside}
spec: {containers: [{name: sleep, image: lateen/sleep}], terminationGracePeriodSeconds: 1}
""")
    mesh.kubectl("wait", "-n", "outside", "--for=condition=Ready", "pod/plain", "--timeout=30s")


def test_strict_rejects_plain_text_and_permissive_accepts_it(mesh):
    plain_pod(mesh)
    ask = ("exec", "-n", "outside", "plain", "--", "curl", "-s", "-m", "5", "http://details.default:9080/details/0")
    assert "William" in mesh.kubectl(*ask).stdout
    mesh.apply("""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
""")
    try:
        mesh.until(lambda: mesh.kubectl(*ask, ok=False).returncode != 0, 15, "the refusal")
        assert mesh.page()[0] == 200
    finally:
        mesh.kubectl("delete", "peerauthentication", "default")
    mesh.until(lambda: mesh.kubectl(*ask, ok=False).returncode == 0, 15, "the return of plain text")


def stars(mesh, *curl):
    body = mesh.page("/productpage", *curl)[1]
    return "red" if "star-red" in body else "black" if "star-black" in body else "none"


@pytest.fixture
def subsets(mesh):
    mesh.kubectl("apply", "-f", str(SAMPLES / "networking/destination-rule-all.yaml"))
    yield
    mesh.kubectl("delete", "destinationrules,virtualservices/reviews", "--all", ok=False)
    mesh.kubectl("delete", "virtualservice", "reviews", "--ignore-not-found")
    mesh.kubectl("delete", "destinationrule", "--all")


def test_a_version_is_chosen_by_subset(mesh, subsets):
    mesh.kubectl("apply", "-f", str(SAMPLES / "networking/virtual-service-reviews-v3.yaml"))
    mesh.until(lambda: [stars(mesh) for _ in range(8)] == ["red"] * 8, 20, "red stars only")


def test_a_version_is_chosen_by_header(mesh, subsets):
    mesh.kubectl("apply", "-f", str(SAMPLES / "networking/virtual-service-reviews-test-v2.yaml"))
    mesh.until(lambda: [stars(mesh) for _ in range(6)] == ["none"] * 6, 20, "no stars")
    login = ["-b", "session-user=jason"]
    assert [stars(mesh, *login) for _ in range(6)] == ["black"] * 6


def test_weights_are_kept_within_statistical_bounds(mesh, subsets):
    mesh.kubectl("apply", "-f", str(SAMPLES / "networking/virtual-service-reviews-50-v3.yaml"))
    mesh.until(lambda: {stars(mesh) for _ in range(12)} == {"red", "none"}, 30, "two versions only")
    pod = mesh.pod("productpage")
    count = "curl -s http://reviews:9080/reviews/0 | grep -c '\"red\"'"
    script = f"for i in $(seq 200); do {count}; done | sort | uniq -c"
    out = mesh.kubectl("exec", pod, "-c", "productpage", "--", "sh", "-c", script).stdout
    counts = {line.split()[1]: int(line.split()[0]) for line in out.splitlines()}
    assert 60 <= counts.get("1", 0) <= 140, counts  # five standard deviations around 100


def test_a_field_without_effect_is_answered_with_a_warning_by_name(mesh):
    done = mesh.apply("""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: later}
spec:
  host: later.example.com
  trafficPolicy: {retryBudget: {percent: 20, budgetInterval: 5s}}
""")
    try:
        field = "DestinationRule field spec.trafficPolicy.retryBudget.budgetInterval"
        assert f"Warning: {field} has no effect in this version of Lateen: Envoy has no such setting" in done.stderr
    finally:
        mesh.kubectl("delete", "destinationrule", "later")


def test_proxy_status_shows_every_proxy_in_sync(mesh):
    def synced():
        lines = mesh.lateen("proxy-status").stdout.splitlines()
        return len(lines) == 9 and all(line.split()[2] == "SYNCED" for line in lines[1:])

    mesh.until(synced, 20, "SYNCED everywhere")


def test_the_page_works_in_the_ways_users_know(mesh):
    assert json.loads(mesh.page("/api/v1/products")[1])[0]["title"] == "The Comedy of Errors"
    assert json.loads(mesh.page("/api/v1/products/0/ratings")[1])["ratings"] == {"Reviewer1": 5, "Reviewer2": 4}
    assert json.loads(mesh.page("/api/v1/products/0/reviews")[1])["reviews"]
    code, head = mesh.page("/login", "-i", "-d", "username=jason&passwd=x")
    assert code == 302
    assert "session-user=jason" in head
    assert "jason" in mesh.page("/productpage", "-b", "session-user=jason")[1]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_port_forward(mesh):
    process = subprocess.Popen(
        [mesh.kubectl_path, "port-forward", "svc/details", ":9080"],
        stdout=subprocess.PIPE,
        text=True,
        env=mesh.environment,
    )
    try:
        port = re.search(r":(\d+) ->", process.stdout.readline())[1]
        done = subprocess.run(
            ["curl", "-s", "-m", "10", f"http://127.0.0.1:{port}/details/0"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert "William" in done.stdout
    finally:
        process.terminate()
        process.wait(10)


def test_certificates_are_renewed_before_they_expire_and_no_request_fails(mesh):
    """With a lifetime of seconds, given by Istio's own variable, several generations pass under load."""
    issued = "certificate for spiffe://cluster.local/ns/default/sa/bookinfo-details"

    def renewals():
        return mesh.kubectl("logs", "deploy/details-v1", "-c", "istio-proxy").stdout.count(issued)

    def lasting():
        """Its next certificate may come from the istiod before, or already have come."""
        there = json.loads(mesh.inside("details", "curl", "-s", "localhost:15000/certs").stdout)["certificates"]
        own = [c["expiration_time"] for one in there for c in one["cert_chain"] if c["subject_alt_names"]]
        return max(own, default="") > times.stamp(times.now() + timedelta(minutes=10))

    mesh.kubectl("set", "env", "-n", "istio-system", "deploy/istiod", "DEFAULT_WORKLOAD_CERT_TTL=6s")
    mesh.kubectl("rollout", "status", "-n", "istio-system", "deploy/istiod", "--timeout=60s")
    try:
        mesh.kubectl("rollout", "restart", "deploy/details-v1")
        mesh.kubectl("rollout", "status", "deploy/details-v1", "--timeout=60s")
        codes, pages, before = set(), 0, renewals()  # on a slow machine there have been some by now
        while renewals() < before + 3 and pages < 400:
            code, body = mesh.page()
            codes.add((code, "Error fetching product details" in body))
            pages += 1
        assert renewals() >= before + 3
        assert codes == {(200, False)}
    finally:
        mesh.kubectl("set", "env", "-n", "istio-system", "deploy/istiod", "DEFAULT_WORKLOAD_CERT_TTL-")
        mesh.kubectl("rollout", "status", "-n", "istio-system", "deploy/istiod", "--timeout=60s")
        mesh.until(lasting, what="a certificate that lasts again")


def test_a_container_that_exits_is_restarted_with_back_off(mesh):
    mesh.apply("""
apiVersion: v1
kind: Pod
metadata: {name: crasher, labels: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: a, image: lateen/sleep, command: [sh, -c, "echo last words; exit 3"]}]
""")
    try:
        path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
        mesh.until(lambda: mesh.get("pod", "crasher", "-o", path) == "CrashLoopBackOff", 20, "CrashLoopBackOff")
        says = "Back-off restarting failed container"
        mesh.until(lambda: says in mesh.kubectl("describe", "pod", "crasher").stdout, what="the event")
        assert mesh.kubectl("logs", "crasher").stdout == "last words\n"
    finally:
        mesh.kubectl("delete", "pod", "crasher", "--grace-period=1")


def test_probes_control_readiness_and_restarts(mesh):
    mesh.apply("""
apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: a
    image: lateen/sleep
    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, "!", -e, /tmp/dead]}, periodSeconds: 1, failureThreshold: 1}
""")
    try:
        mesh.until(
            lambda: "0/1" in mesh.get("pod", "probed") and "Running" in mesh.get("pod", "probed"), 15, "0/1 Running"
        )
        mesh.kubectl("exec", "probed", "--", "touch", "/tmp/ready")
        mesh.kubectl("wait", "--for=condition=Ready", "pod/probed", "--timeout=15s")
        mesh.kubectl("exec", "probed", "--", "touch", "/tmp/dead")
        count = "jsonpath={.status.containerStatuses[0].restartCount}"
        mesh.until(lambda: mesh.get("pod", "probed", "-o", count) == "1", 20, "a restart")
    finally:
        mesh.kubectl("delete", "pod", "probed", "--grace-period=1")


@pytest.mark.parametrize("binary", kubectls())
def test_small_objects_are_created_without_a_manifest(mesh, binary):
    """From 1.32 on, kubectl sends these as protobuf."""
    mesh.kubectl("create", "namespace", "small", binary=binary)
    try:
        mesh.kubectl("create", "configmap", "c", "-n", "small", "--from-literal=a=b", binary=binary)
        mesh.kubectl("create", "secret", "generic", "s", "-n", "small", "--from-literal=a=b", binary=binary)
        mesh.kubectl("create", "serviceaccount", "sa", "-n", "small", binary=binary)
        assert mesh.get("configmap", "c", "-n", "small", "-o", "jsonpath={.data.a}") == "b"
        assert mesh.get("secret", "s", "-n", "small", "-o", "jsonpath={.data.a}") == "Yg=="
        assert mesh.kubectl("auth", "can-i", "create", "pods", binary=binary).stdout.strip() == "yes"
    finally:
        mesh.kubectl("delete", "namespace", "small", binary=binary)
