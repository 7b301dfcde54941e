"""Policies of action CUSTOM and AUDIT come and go while a connection stays open."""

import contextlib
import http.client
import json

import pytest

from lateen.kit import yamldoc

pytestmark = pytest.mark.system

CHECKER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.split("/")[1]
        self.send_response(200 if self.headers.get("x-" + name) else 403)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
PODS = f"""
apiVersion: v1
kind: Service
metadata: {{name: checker, namespace: default}}
spec: {{selector: {{app: checker}}, ports: [{{name: http, port: 8000}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: checker, namespace: default, labels: {{app: checker, sidecar.istio.io/inject: "false"}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: checker, image: lateen/sleep, command: [python3, -c, {json.dumps(CHECKER)}]}}]
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  action: {action}
  rules: [{{when: [{{key: "request.headers[x-checked]", values: ["yes"]}}]}}]
"""
NAMES = ("near", "far")


def provider(name):
    service = {"service": "checker.default.svc.cluster.local", "port": 8000, "pathPrefix": f"/{name}"}
    return {"name": name, "envoyExtAuthzHttp": service | {"includeRequestHeadersInCheck": [f"x-{n}" for n in NAMES]}}


@pytest.fixture
def providers(mesh):
    before = json.loads(mesh.get("configmap", "istio", "-n", "istio-system", "-o", "json"))["data"]["mesh"]

    def configure(text, ok=True):
        patch = json.dumps({"data": {"mesh": text}})
        mesh.kubectl("patch", "configmap", "istio", "-n", "istio-system", "-p", patch, ok=ok)

    config = yamldoc.load(before)
    config["extensionProviders"] = [*config.get("extensionProviders", []), *map(provider, NAMES)]
    try:
        mesh.apply(PODS)
        mesh.kubectl("wait", "--for=condition=Ready", "pod/checker", "--timeout=60s")
        configure(yamldoc.dump(config))
        yield
    finally:
        configure(before, ok=False)
        policies = ("authorizationpolicies", *NAMES, "all", "-n", "istio-system")
        mesh.kubectl("delete", *policies, "--ignore-not-found", ok=False)
        mesh.kubectl("delete", "pod/checker", "service/checker", "--ignore-not-found", ok=False)


class Connection:
    """One to the gateway; requests fail once it is closed, as connections are whose listener is replaced."""

    def __init__(self, port):
        self.link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.link.auto_open = False
        self.link.connect()

    def status(self, *headers):
        self.link.request("GET", "/productpage", headers=dict.fromkeys(("x-checked", *headers), "yes"))
        response = self.link.getresponse()
        response.read()
        assert not response.will_close, "the listener is drained"
        return response.status


def warming(mesh):
    """How many listeners of the gateway are not in use yet."""
    gateway = mesh.pod("istio-ingressgateway", "istio-system")
    asked = "localhost:15000/stats?filter=total_listeners_warming"
    out = mesh.kubectl("exec", gateway, "-n", "istio-system", "--", "curl", "-s", asked).stdout
    return int(out.rpartition(": ")[2])


def test_a_second_provider_is_asked_about_the_next_request_of_an_open_connection(mesh, providers):
    def slots():
        gateway = mesh.pod("istio-ingressgateway", "istio-system")
        found = mesh.lateen("proxy-config", "ecds", f"{gateway}.istio-system").stdout
        return "istio.authorization.custom/2" in found and warming(mesh) == 0

    mesh.until(slots, what="a place for each provider and for one more")
    open_ = Connection(mesh.host_port(80))
    with contextlib.closing(open_.link):
        assert open_.status() == 200
        for name, passes in (("near", ["x-near"]), ("far", ["x-near", "x-far"])):
            mesh.apply(POLICY.format(name=name, action=f"CUSTOM\n  provider: {{name: {name}}}"))
            mesh.until(lambda passes=passes: open_.status(*passes[:-1]) == 403, what=f"{name} is asked")
            assert open_.status(*passes) == 200
        mesh.apply(POLICY.format(name="all", action="AUDIT"))
        mesh.kubectl("delete", "authorizationpolicy", "near", "-n", "istio-system")
        mesh.until(lambda: open_.status("x-far") == 200, what="the first one is not asked any more")
        assert open_.status("x-near") == 403
        mesh.apply(POLICY.format(name="far", action="CUSTOM\n  provider: {name: unknown}"))
        mesh.until(lambda: open_.status("x-far", "x-near") == 403, what="an unknown provider")
        mesh.kubectl("delete", "authorizationpolicy", "far", "-n", "istio-system")
        mesh.until(lambda: open_.status() == 200, what="nobody is asked")
