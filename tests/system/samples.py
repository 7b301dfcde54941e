"""Istio's samples httpbin, tcp-echo and sleep in a namespace of the mesh, and httpbin also outside of it."""

import json

import pytest
from world import ROOT

SAMPLES = ROOT / "samples"
V2 = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: httpbin-v2}
spec:
  replicas: 1
  selector: {matchLabels: {app: httpbin, version: v2}}
  template:
    metadata: {labels: {app: httpbin, version: v2}}
    spec:
      serviceAccountName: httpbin
      containers:
      - name: httpbin
        image: docker.io/mccutchen/go-httpbin
        env: [{name: SERVICE_VERSION, value: v2}]
        ports: [{containerPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: httpbin}
spec:
  host: httpbin
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tcp-echo}
spec:
  host: tcp-echo
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"""
NS = "tasks"


@pytest.fixture(scope="module")
def tasks(mesh):
    mesh.kubectl("create", "namespace", NS)
    mesh.kubectl("label", "namespace", NS, "istio-injection=enabled")
    mesh.kubectl("create", "namespace", "tasks-outside")
    for name in ("httpbin/httpbin.yaml", "sleep/sleep.yaml", "tcp-echo/tcp-echo-services.yaml"):
        mesh.kubectl("apply", "-n", NS, "-f", str(SAMPLES / name))
    mesh.kubectl("apply", "-n", "tasks-outside", "-f", str(SAMPLES / "httpbin/httpbin.yaml"))
    mesh.apply(V2.replace("metadata: {name", f"metadata: {{namespace: {NS}, name"))
    for namespace in (NS, "tasks-outside"):
        mesh.kubectl(
            "wait", "-n", namespace, "--for=condition=Available", "deploy", "--all", "--timeout=90s", timeout=120
        )
    out = Tasks(mesh)
    out.until(lambda: out.get("httpbin:8000/get")[0] == 200, what="httpbin")
    yield out
    mesh.remove(NS, "tasks-outside")


class Tasks:
    def __init__(self, mesh):
        self.mesh = mesh

    def until(self, test, limit_s=60, what="the condition"):
        return self.mesh.until(test, limit_s, what)

    def sh(self, script, app="sleep", container="sleep", ok=True):
        return self.mesh.inside(app, "sh", "-c", script, container=container, namespace=NS, ok=ok).stdout

    def get(self, url, *curl):
        """(code, body)"""
        more = " ".join(curl)
        out = self.sh(f"curl -s -m 8 -w '\\n%{{http_code}}' {more} '{url}'", ok=False)
        body, _, code = out.rpartition("\n")
        return int(code or 0), body

    def codes(self, url, times, *curl):
        """How often each status came."""
        more = " ".join(curl)
        # One curl with many URLs: a process for each would be what is measured.
        out = self.sh(f"curl -s -m 60 -o /dev/null -w '%{{http_code}}\\n' {more} '{url}?n=[1-{times}]'", ok=False)
        found = {}
        for line in out.split():
            found[int(line)] = found.get(int(line), 0) + 1
        return found

    def versions(self, url, times):
        """How often each version answered."""
        out = self.sh(f"curl -s -m 60 '{url}?n=[1-{times}]'")
        found = {}
        for part in out.replace("}{", "}\n{").splitlines():
            version = json.loads(part)["version"] or "v1"
            found[version] = found.get(version, 0) + 1
        return found

    def applied(self, *documents):
        """Apply mesh objects of the namespace; returns what ends them."""
        text = "\n---\n".join(
            d if "namespace:" in d.split("spec:")[0] else d.replace("metadata: {", f"metadata: {{namespace: {NS}, ", 1)
            for d in documents
        )
        self.mesh.apply(text)
        return Applied(self.mesh, text)


class Applied:
    def __init__(self, mesh, text):
        self.mesh, self.text = mesh, text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.mesh.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=self.text)


def vs(name, host, http, gateways=""):
    gate = f"\n  gateways: {gateways}" if gateways else ""
    return (
        f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\n"
        f"spec:\n  hosts: [{host}]{gate}\n  http: {http}"
    )


def dr(name, host, policy, more=""):
    return (
        f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\n"
        f"spec: {{host: {host}, trafficPolicy: {policy}{more}}}"
    )


def obj(kind, name, spec, version="networking.istio.io/v1"):
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}"
