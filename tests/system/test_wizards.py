"""What each of the console's wizards makes changes real traffic as its form says."""

import json
import subprocess
import urllib.request

import pytest
from world import ROOT, free_port

pytestmark = pytest.mark.system

PLAIN = """
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: default, labels: {app: plain, sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: plain, image: curlimages/curl, command: [sleep, infinity]}]
"""


@pytest.fixture(scope="module")
def wizard(mesh):
    """``with wizard(name, service, form):`` what it makes is in force inside."""
    mesh.lateen("addons", "apply", "kiali")
    mesh.kubectl("apply", "-f", str(ROOT / "samples" / "httpbin" / "httpbin.yaml"))
    mesh.apply(PLAIN)
    mesh.kubectl("rollout", "status", "deployment/httpbin", "--timeout=60s")
    mesh.kubectl("wait", "--for=condition=Ready", "pod/plain", "--timeout=60s")
    command = ["port-forward", "-n", "istio-system", "service/kiali", f"{(port := free_port())}:20001"]
    forward = subprocess.Popen([mesh.kubectl_path, *command], env=mesh.environment, stdout=subprocess.PIPE, text=True)
    forward.stdout.readline()

    class Made:
        def __init__(self, name, service, form):
            url = f"http://localhost:{port}/kiali/api/wizards/{name}/default/{service}"
            with urllib.request.urlopen(url, json.dumps(form).encode(), timeout=10) as answer:
                self.text = answer.read().decode()

        def __enter__(self):
            mesh.apply(self.text)

        def __exit__(self, *_):
            mesh.kubectl("delete", "-f", "-", stdin=self.text)

    yield Made
    forward.terminate()
    forward.wait(10)
    mesh.kubectl("delete", "pod", "plain", "--grace-period=1")
    mesh.kubectl("delete", "-f", str(ROOT / "samples" / "httpbin" / "httpbin.yaml"))
    mesh.lateen("addons", "delete", "kiali")


CODE = ("curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}")


def status(mesh, url, app="ratings"):
    return mesh.inside(app, *CODE, url, ok=False).stdout


def test_shifted_traffic_goes_where_the_shares_say(mesh, wizard):
    def colours():
        answers = "".join(mesh.inside("ratings", "curl", "-s", "reviews:9080/reviews/0").stdout for _ in range(6))
        return answers.count('"red"'), answers.count('"black"')

    with wizard("weights", "reviews", {"weights": {"v1": 0, "v2": 0, "v3": 100}}):
        mesh.until(lambda: colours() == (12, 0), 15, "v3 alone")


def test_a_timeout_ends_a_request(mesh, wizard):
    assert status(mesh, "httpbin:8000/delay/1") == "200"
    with wizard("limits", "httpbin", {"timeout": "300ms", "attempts": 0, "perTryTimeout": ""}):
        mesh.until(lambda: status(mesh, "httpbin:8000/delay/1") == "504", 15, "the timeout")


def test_a_failed_request_is_tried_again(mesh, wizard):
    def served():
        text = mesh.inside("httpbin", "curl", "-s", "localhost:15020/stats/prometheus").stdout
        lines = [line for line in text.splitlines() if line.startswith("istio_requests_total{")]
        return sum(int(line.split()[-1]) for line in lines if 'response_code="503"' in line and "destination" in line)

    def tries():
        before = served()
        assert status(mesh, "httpbin:8000/status/503") == "503"
        return served() - before

    with wizard("limits", "httpbin", {"timeout": "5s", "attempts": 4, "perTryTimeout": ""}):
        mesh.until(lambda: tries() == 5, 15, "one request and four more tries")


def test_an_injected_fault_is_answered(mesh, wizard):
    with wizard("fault", "details", {"delay": "", "delayed": 0, "status": 555, "aborted": 100}):
        mesh.until(lambda: status(mesh, "details:9080/details/0") == "555", 15, "the fault")
    mesh.until(lambda: status(mesh, "details:9080/details/0") == "200", 15, "the end of the fault")


def test_a_circuit_breaker_refuses_what_is_too_much(mesh, wizard):
    def answered():
        urls = [word for i in range(6) for word in ("-o", "/dev/null", f"httpbin:8000/delay/1?{i}")]
        curl = ("curl", "-Z", "--parallel-immediate", "-s", "-m", "10", "-w", "%{http_code}\\n")
        return set(mesh.inside("ratings", *curl, *urls, ok=False).stdout.split())

    assert "503" not in answered()
    with wizard("breaker", "httpbin", {"connections": 1, "pending": 1, "errors": 0, "ejection": "30s"}):
        mesh.until(lambda: {"200", "503"} <= answered(), 20, "refused requests beside answered ones")


def test_strict_mutual_tls_refuses_callers_without_a_sidecar(mesh, wizard):
    assert status(mesh, "details:9080/details/0", "plain") == "200"
    with wizard("mutual-tls", "details", {"mode": "STRICT"}):
        mesh.until(lambda: status(mesh, "details:9080/details/0", "plain") == "000", 15, "the refusal")
        assert status(mesh, "details:9080/details/0") == "200"


def test_only_the_chosen_callers_are_let_in(mesh, wizard):
    with wizard("callers", "details", {"callers": ["default/productpage-v1"]}):
        mesh.until(lambda: status(mesh, "details:9080/details/0") == "403", 15, "the refusal")
        assert status(mesh, "details:9080/details/0", "productpage") == "200"


def test_a_service_is_exposed_at_the_gateway(mesh, wizard):
    def asked():
        return mesh.page("/status/202", "-H", "Host: wizard.example.com")[0]

    assert asked() == 404
    with wizard("expose", "httpbin", {"host": "wizard.example.com", "path": "/status", "port": 8000}):
        mesh.until(lambda: asked() == 202, 15, "the answer at the gateway")
