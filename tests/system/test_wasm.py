"""Wasm plugins: modules that istiod fetches run in the proxies, and what cannot run does what the plugin says."""

import base64
import json
import sys

import modules
import pytest

pytestmark = pytest.mark.system

NS = "plugins"
PODS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: echo, labels: {{app: echo}}}}
spec:
  containers: [{{name: echo, image: docker.io/lateen/http-echo, args: ["8080"], ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{selector: {{app: echo}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: files, labels: {{app: files, sidecar.istio.io/inject: "false"}}}}
spec:
  containers:
  - name: files
    image: docker.io/lateen/http-echo
    command: [{sys.executable}, -m, http.server, "8000", -d, /files]
    volumeMounts: [{{name: files, mountPath: /files}}]
  volumes: [{{name: files, configMap: {{name: files}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: files}}
spec: {{selector: {{app: files}}, ports: [{{name: http, port: 80, targetPort: 8000}}]}}
"""
ASK = (
    "import http.client, json; c = http.client.HTTPConnection('echo.plugins', timeout=8); c.request('GET', '/');"
    "r = c.getresponse(); print(json.dumps([r.status, r.getheader('x-wasm')]))"
)


class Plugins:
    def __init__(self, mesh):
        self.mesh = mesh

    def ask(self):
        """[status, what the plugin has stamped on the response], by a client without a sidecar and so with a new
        connection for each request: one from before a plugin keeps the listener that it came by for a while."""
        return json.loads(self.mesh.kubectl("exec", "files", "-n", NS, "--", sys.executable, "-c", ASK).stdout)

    def becomes(self, *wanted):
        self.mesh.until(lambda: self.ask() == list(wanted), 20, f"{wanted} as the answer")

    def apply(self, file, **spec):
        self.mesh.apply(
            f"apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: one, namespace: {NS}}}\n"
            f"spec: {json.dumps({'url': f'http://files.{NS}/{file}', **spec})}"
        )

    def says(self, text):
        """Statuses follow within seconds."""
        self.mesh.until(lambda: text in self.condition("ModuleFetched"), 15, f"{text!r} in the status")

    def condition(self, kind):
        found = json.loads(self.mesh.get("wasmplugin", "one", "-n", NS, "-o", "json")).get("status", {})
        return next((c for c in found.get("conditions", []) if c["type"] == kind), {"message": ""})["message"]


@pytest.fixture(scope="module")
def plugins(mesh):
    mesh.kubectl("create", "namespace", NS)
    mesh.kubectl("label", "namespace", NS, "istio-injection=enabled")
    files = {"stamp": modules.stamping(), "close": modules.closing(), "broken": modules.stamping()[:60], "text": b"no"}
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    files_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "binaryData": data}
    mesh.kubectl("apply", "-n", NS, "-f", "-", stdin=f"{PODS}---\n{json.dumps(files_map)}")
    mesh.kubectl("wait", "-n", NS, "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    out = Plugins(mesh)
    out.becomes(200, None)
    yield out
    mesh.kubectl("delete", "namespace", NS, "--wait=false")


def test_a_plugin_runs_where_it_is_selected_with_its_configuration(plugins):
    where = {"selector": {"matchLabels": {"app": "echo"}}}
    plugins.apply("stamp", **where, pluginConfig={"level": 1})
    plugins.becomes(200, '{"level":1}')
    plugins.says("istiod has the module")
    plugins.apply("stamp", **where, pluginConfig={"level": 2})
    plugins.becomes(200, '{"level":2}')
    plugins.apply("missing", **where, pluginConfig={"level": 3})
    plugins.says("status 404")
    assert plugins.ask() == [200, '{"level":3}'], "the module from before stays until the new one is there"
    plugins.mesh.kubectl("delete", "wasmplugin", "one", "-n", NS)
    plugins.becomes(200, None)


def test_what_cannot_run_denies_everything_unless_the_plugin_fails_open(plugins):
    plugins.apply("text")
    plugins.becomes(403, None)
    plugins.says("neither a WebAssembly module nor an archive")
    plugins.apply("text", failStrategy="FAIL_OPEN")
    plugins.becomes(200, None)
    plugins.mesh.kubectl("delete", "wasmplugin", "one", "-n", NS)
    plugins.apply("broken")
    plugins.mesh.until(lambda: plugins.ask()[0] >= 500, what="the refusal of requests without the plugin")
    plugins.apply("stamp")
    plugins.mesh.until(lambda: plugins.ask()[0] == 200, what="an answer with a module that runs")
    plugins.mesh.kubectl("delete", "wasmplugin", "one", "-n", NS)
    plugins.becomes(200, None)


def test_a_network_plugin_sees_connections(plugins):
    def closed():
        """A client without a sidecar, and so with a new connection for each request."""
        done = plugins.mesh.kubectl("exec", "files", "-n", NS, "--", sys.executable, "-c", ASK, ok=False)
        return done.returncode and any(s in done.stderr for s in ("RemoteDisconnected", "ConnectionReset"))

    assert not closed()
    plugins.apply("close", type="NETWORK", match=[{"mode": "SERVER"}])
    plugins.mesh.until(closed, what="a connection that the plugin closes")
    plugins.mesh.kubectl("delete", "wasmplugin", "one", "-n", NS)
    plugins.mesh.until(lambda: not closed(), what="an answer without the plugin")
