"""A kind in two versions whose objects a webhook in a pod converts, with the real kubectl."""

import base64
import functools
import json
import subprocess
from datetime import timedelta

import pytest
from world import kubectls

from lateen.kit import certs, times

pytestmark = pytest.mark.system

SERVER = """
import http.server, json, ssl

class Converter(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = review.pop("request")
        made = [convert(o, asked["desiredAPIVersion"]) for o in asked["objects"]]
        review["response"] = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": made}
        body = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

def convert(obj, version):
    spec = obj["spec"]
    if version.endswith("/v2") and "size" in spec:
        spec["width"], spec["height"] = map(int, spec.pop("size").split("x"))
    elif version.endswith("/v1") and "width" in spec:
        spec["size"] = "%dx%d" % (spec.pop("width"), spec.pop("height"))
    return {**obj, "apiVersion": version}

server = http.server.ThreadingHTTPServer(("", 8443), Converter)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
WEBHOOK = """
apiVersion: v1
kind: Pod
metadata: {name: converter, labels: {app: converter, sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: lateen/sleep
    command: [python3, /code/server.py]
    readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
    volumeMounts: [{name: tls, mountPath: /tls}, {name: code, mountPath: /code}]
  volumes:
  - {name: tls, secret: {secretName: converter}}
  - {name: code, configMap: {name: converter}}
---
apiVersion: v1
kind: Service
metadata: {name: converter}
spec: {selector: {app: converter}, ports: [{port: 443, targetPort: 8443}]}
"""
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig: {service: {namespace: SPACE, name: converter, path: /convert}, caBundle: BUNDLE}
  versions:
  - name: v1
    served: true
    storage: false
    additionalPrinterColumns: [{name: Size, type: string, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: string, pattern: '^[0-9]+x[0-9]+$'}}}}
  - name: v2
    served: true
    storage: true
    additionalPrinterColumns: [{name: Width, type: integer, jsonPath: .spec.width}]
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {width: {type: integer}, height: {type: integer}}}}
"""


@pytest.fixture
def space(mesh, tmp_path):
    """A namespace with the webhook, and the definition that names it."""
    mesh.kubectl("create", "namespace", "versions")
    ca = certs.authority("converters", times.now(), days=2)
    made = certs.issue(ca, ["converter.versions.svc"], times.now(), timedelta(days=1))
    files = {"tls.crt": made.certificate, "tls.key": made.key, "server.py": SERVER}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    own = ("-n", "versions")
    mesh.kubectl(
        *own, "create", "secret", "tls", "converter", f"--cert={tmp_path}/tls.crt", f"--key={tmp_path}/tls.key"
    )
    mesh.kubectl(*own, "create", "configmap", "converter", f"--from-file={tmp_path}/server.py")
    mesh.kubectl(*own, "apply", "-f", "-", stdin=WEBHOOK)
    bundle = base64.b64encode(ca.certificate.encode()).decode()
    mesh.apply(DEFINITION.replace("SPACE", "versions").replace("BUNDLE", bundle))
    mesh.kubectl(*own, "wait", "--for=condition=Ready", "pod/converter", "--timeout=30s")
    mesh.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s")
    yield own
    mesh.kubectl("delete", "crd", "widgets.example.com", "--ignore-not-found")
    mesh.kubectl("delete", "namespace", "versions")


def widget(version, name, **spec):
    return json.dumps(
        {"apiVersion": f"example.com/{version}", "kind": "Widget", "metadata": {"name": name}, "spec": spec}
    )


def test_every_kubectl_reads_in_one_version_what_was_applied_in_the_other(mesh, space):
    for binary in kubectls():
        kubectl = functools.partial(mesh.kubectl, *space, binary=binary)
        applied = kubectl("apply", "-f", "-", stdin=widget("v1", "a", size="3x4"))
        assert "Warning" not in applied.stderr
        assert json.loads(kubectl("get", "widgets.v2.example.com", "a", "-o", "json").stdout)["spec"] == {
            "width": 3,
            "height": 4,
        }
        assert kubectl("get", "widgets.v1.example.com").stdout.split() == ["NAME", "SIZE", "a", "3x4"]
        assert kubectl("get", "wd").stdout.split() == ["NAME", "WIDTH", "a", "3"], "the latest version comes first"
        kubectl("apply", "-f", "-", stdin=widget("v1", "a", size="5x6"))
        kubectl("patch", "widgets.v2.example.com", "a", "--type=merge", "-p", '{"spec":{"height":7}}')
        assert kubectl("get", "widgets.v1.example.com", "a", "-o", "jsonpath={.spec.size}").stdout == "5x7"
        kubectl("delete", "widgets.v1.example.com", "a")


def test_server_side_apply_finds_conflicts_across_versions(mesh, space):
    def apply(text, *argv, ok=True):
        return mesh.kubectl(*space, "apply", "--server-side", *argv, "-f", "-", stdin=text, ok=ok)

    apply(widget("v1", "b", size="1x2"), "--field-manager=one")
    refused = apply(widget("v2", "b", width=9), "--field-manager=two", ok=False)
    assert 'conflict with "one": .spec.size' in refused.stderr
    apply(widget("v2", "b", width=9), "--field-manager=two", "--force-conflicts")
    assert mesh.kubectl(*space, "get", "widgets.v1.example.com/b", "-o", "jsonpath={.spec.size}").stdout == "9x2"


def test_a_watch_is_in_the_version_that_was_asked_for(mesh, space):
    mesh.kubectl(*space, "create", "-f", "-", stdin=widget("v2", "c", width=1, height=1))
    argv = [mesh.kubectl_path, *space, "get", "widgets.v1.example.com", "-w", "--no-headers"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=mesh.environment) as watch:
        try:
            assert watch.stdout.readline().split() == ["c", "1x1"]
            mesh.kubectl(*space, "patch", "widgets.v2.example.com", "c", "--type=merge", "-p", '{"spec":{"width":8}}')
            assert watch.stdout.readline().split() == ["c", "8x1"]
        finally:
            watch.kill()


def test_without_its_webhook_a_version_cannot_be_read_and_the_stored_one_can(mesh, space):
    mesh.kubectl(*space, "create", "-f", "-", stdin=widget("v2", "d", width=1, height=1))
    mesh.kubectl(*space, "delete", "service", "converter")
    refused = mesh.kubectl(*space, "get", "widgets.v1.example.com", "d", ok=False)
    assert refused.stderr == (
        "Error from server: conversion webhook for example.com/v2, Kind=Widget failed: Post "
        '"https://converter.versions.svc:443/convert?timeout=30s": service "versions/converter" not found\n'
    )
    assert mesh.kubectl(*space, "get", "widgets.v2.example.com", "d", "-o", "jsonpath={.spec.width}").stdout == "1"
