"""Settings of single proxies: open requests while the configuration changes, and which headers a gateway trusts."""

import json
import subprocess
import time

import pytest
from samples import NS, obj, tasks  # noqa: F401 - a fixture of this module

pytestmark = pytest.mark.system

HURRIED = f"""
apiVersion: v1
kind: Service
metadata: {{name: hurried, namespace: {NS}}}
spec: {{selector: {{app: hurried}}, ports: [{{name: http, port: 8000, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: hurried, namespace: {NS}}}
spec:
  selector: {{matchLabels: {{app: hurried}}}}
  template:
    metadata:
      labels: {{app: hurried}}
      annotations: {{proxy.istio.io/config: "drainDuration: 1s"}}
    spec: {{containers: [{{name: httpbin, image: docker.io/mccutchen/go-httpbin, ports: [{{containerPort: 8080}}]}}]}}
"""
SECURITY = "security.istio.io/v1"


@pytest.fixture(scope="module")
def hurried(tasks):  # noqa: F811
    """A workload whose proxy drains for one second."""
    tasks.mesh.apply(HURRIED)
    tasks.mesh.kubectl("rollout", "status", "deploy/hurried", "-n", NS, "--timeout=60s")
    tasks.until(lambda: tasks.get("hurried:8000/get")[0] == 200, what="hurried")
    return tasks


class Request:
    """One that takes five seconds and is open when this returns."""

    def __init__(self, found, host):
        command = f"curl -s -m 20 -o /dev/null -w '%{{http_code}}' http://{host}:8000/delay/5"
        mesh = found.mesh
        self.process = subprocess.Popen(
            [mesh.kubectl_path, "exec", mesh.pod("sleep", NS), "-n", NS, "-c", "sleep", "--", "sh", "-c", command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=mesh.environment,
        )  # fmt: skip
        time.sleep(1.5)

    def code(self):
        """The answer's, when it is there; 0 where the connection ended instead."""
        return int(self.process.communicate(timeout=30)[0] or 0)


def peer_authentication(app):
    spec = f"{{selector: {{matchLabels: {{app: {app}}}}}, mtls: {{mode: STRICT}}}}"
    return obj("PeerAuthentication", "strict", spec, SECURITY)


def test_an_open_request_goes_on_when_a_policy_changes_and_the_next_one_meets_it(hurried):
    denied = "{selector: {matchLabels: {app: hurried}}, action: DENY, rules: [{}]}"
    request = Request(hurried, "hurried")
    with hurried.applied(obj("AuthorizationPolicy", "denied", denied, SECURITY)):
        hurried.until(lambda: hurried.get("hurried:8000/get")[0] == 403, what="refused")
        assert request.code() == 200
    hurried.until(lambda: hurried.get("hurried:8000/get")[0] == 200, what="allowed again")


def test_the_drain_time_is_the_pods_own(hurried):
    """A change of mutual TLS needs other filter chains."""
    request = Request(hurried, "hurried")
    with hurried.applied(peer_authentication("hurried")):
        assert request.code() != 200


def test_the_drain_time_is_long_without_a_setting(hurried):
    request = Request(hurried, "httpbin")
    with hurried.applied(peer_authentication("httpbin")):
        assert request.code() == 200


def test_a_gateway_behind_a_trusted_proxy_believes_what_it_forwards(mesh):
    def annotate(value):
        config = {"spec": {"template": {"metadata": {"annotations": {"proxy.istio.io/config": value}}}}}
        mesh.kubectl(
            "patch", "deploy", "istio-ingressgateway", "-n", "istio-system", "--type=merge", "-p", json.dumps(config)
        )
        mesh.kubectl("rollout", "status", "deploy/istio-ingressgateway", "-n", "istio-system", "--timeout=60s")
        mesh.until(lambda: mesh.page()[0] == 200, what="the page")

    annotate('{"gatewayTopology": {"numTrustedProxies": 1}}')
    allowed = {"action": "ALLOW", "rules": [{"from": [{"source": {"remoteIpBlocks": ["203.0.113.7"]}}]}]}
    text = obj("AuthorizationPolicy", "known", json.dumps({"selector": {"matchLabels": {"istio": "ingressgateway"}},
                                                           **allowed}), SECURITY)  # fmt: skip
    mesh.apply(text.replace("{name: known}", "{name: known, namespace: istio-system}"))
    try:
        mesh.until(lambda: mesh.page()[0] == 403, what="others are refused")
        assert mesh.page("/productpage", "-H", "X-Forwarded-For: 203.0.113.7")[0] == 200
        assert mesh.page("/productpage", "-H", "X-Forwarded-For: 203.0.113.7, 203.0.113.8")[0] == 403
    finally:
        mesh.kubectl("delete", "authorizationpolicy", "known", "-n", "istio-system")
        annotate(None)


def received(found):
    """How many requests the proxy of ``hurried`` has answered with 503."""
    text = found.sh("curl -s localhost:15020/stats/prometheus", "hurried", "httpbin")
    lines = [x for x in text.splitlines() if x.startswith("istio_requests_total{") and 'response_code="503"' in x]
    return sum(int(float(x.rpartition(" ")[2])) for x in lines if 'reporter="destination"' in x)


def attempts(found):
    """How often one request is sent."""
    before = received(found)
    assert found.get("hurried:8000/status/503")[0] == 503
    return received(found) - before


@pytest.mark.parametrize(
    ("policy", "sent"), [("{attempts: 3, retryOn: 5xx}", 4), ("{attempts: 0}", 1)], ids=["three", "none"]
)
def test_requests_are_repeated_as_the_mesh_says(hurried, policy, sent):
    where = ("configmap", "istio", "-n", "istio-system")
    before = json.loads(hurried.mesh.kubectl("get", *where, "-o", "json").stdout)["data"]["mesh"]

    def set_to(text):
        hurried.mesh.kubectl("patch", *where, "--type=merge", "-p", json.dumps({"data": {"mesh": text}}))

    set_to(
        f"{before.rstrip()}\ndefaultHttpRetryPolicy: {policy}\n"
        if before.strip() not in ("", "{}")
        else f"defaultHttpRetryPolicy: {policy}"
    )
    try:
        hurried.until(lambda: attempts(hurried) == sent, what="the mesh's retries")
    finally:
        set_to(before)
