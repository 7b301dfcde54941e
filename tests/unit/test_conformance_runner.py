"""The runner of foreign cases tells right from wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[1] / "conformance" / "run.py"
GATEWAY = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "g"},
    "spec": {"servers": [{"hosts": ["a.b"], "port": {"number": 80, "name": "http", "protocol": "HTTP"}}]},
}


def run(mode, folder):
    return subprocess.run([sys.executable, str(RUNNER), mode, str(folder)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("valid", "code", "last"), [(True, 0, "1 passed, 0 failed"), (False, 1, "0 passed, 1 failed")])
def test_a_verdict_is_compared(tmp_path, valid, code, last):
    (tmp_path / "webhook").mkdir()
    case = {"id": "one", "valid": valid, "warning": None, "error_contains": None, "resource": GATEWAY}
    (tmp_path / "webhook" / "Gateway.json").write_text(json.dumps([case]))
    done = run("validation", tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last)


@pytest.mark.parametrize(("expected", "code"), [([["IST0101", "Gateway g"]], 0), ([], 1)])
def test_findings_are_compared(tmp_path, expected, code):
    (tmp_path / "g.json").write_text(json.dumps(GATEWAY))
    (tmp_path / "default_resources.yaml").write_text("")
    case = {"name": "one", "inputFiles": ["g.json"], "analyzer": "gateway.SecretAnalyzer", "expected": expected}
    (tmp_path / "expected.json").write_text(json.dumps([{**case, "meshConfigFile": None}]))
    bare = {**GATEWAY, "spec": {**GATEWAY["spec"], "selector": {"a": "b"}}}
    (tmp_path / "g.json").write_text(json.dumps(bare))
    assert run("analysis", tmp_path).returncode == code


SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {clusterIP: 1.2.3.4, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop]
  http: [{match: [{uri: {prefix: /new}}], route: [{destination: {host: shop, subset: v2}}]}, {route: [{destination: {host: shop}}]}]
"""
HOST = "shop.default.svc.cluster.local"


def simulated(tmp_path, mode, **expected):
    calls = [
        {"name": "old", "call": {"address": "1.2.3.4", "port": 80, "protocol": "http", "hostHeader": "shop"},
         "result": {"clusterMatched": expected.get("old", f"outbound|80||{HOST}")}},
        {"name": "new", "call": {"address": "1.2.3.4", "port": 80, "protocol": "http", "hostHeader": "shop", "path": "/new"},
         "result": {"clusterMatched": f"outbound|80|v2|{HOST}"}},
        {"name": "tcp", "call": {"address": "1.2.3.4", "port": 90, "protocol": "tcp"},
         "result": {"clusterMatched": f"outbound|90||{HOST}"}},
        {"name": "unknown", "call": {"address": "9.9.9.9", "port": 99, "protocol": "tcp"},
         "result": {"clusterMatched": "PassthroughCluster"}},
        {"name": "loop", "call": {"port": 15001, "protocol": "tcp"}, "result": {"clusterMatched": "BlackHoleCluster"}},
    ]  # fmt: skip
    proxy = {"type": "sidecar", "namespace": "default", "labels": {}}
    case = {"id": "shop", "proxy": proxy, "config": RULE, "kubeConfig": SERVICES, "calls": calls}
    hosts = {"name": "hosts", "proxyNamespace": "default", "routeName": "80", "services": "@knownServices", "config": RULE,
             "expectedVirtualHosts": {"known.default.svc.cluster.local": ["outbound|80||known.default.svc.cluster.local"]}}  # fmt: skip
    (tmp_path / "calls.json").write_text(json.dumps([case]))
    (tmp_path / "hosts.json").write_text(json.dumps([hosts]))
    return run(mode, tmp_path)


def test_calls_are_simulated(tmp_path):
    done = simulated(tmp_path, "simulation")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "6 passed, 0 failed"), done.stdout
    assert simulated(tmp_path, "simulation", old="outbound|80||other").returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_calls_are_made_for_real(tmp_path):
    done = simulated(tmp_path, "simulation-real")
    if "a network namespace cannot be made" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "5 passed, 0 failed"), done.stdout + done.stderr
    assert simulated(tmp_path, "simulation-real", old="outbound|80||other").returncode == 1


@pytest.mark.parametrize(("port", "code"), [("123", 0), ("15020", 1)])
def test_injected_workloads_are_compared_with_the_options_of_their_case(tmp_path, port, code):
    (tmp_path / "testdata").mkdir()
    given = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    (tmp_path / "testdata" / "a.yaml").write_text(json.dumps(given))
    from lateen.inject import manifest, pods

    values = {"global": {"hub": "registry.istio.io/testing", "tag": "latest", "proxy": {"statusPort": 123}}}
    wanted = manifest.into(given, "", pods.settings(values, native=True), [])
    (tmp_path / "testdata" / "a.yaml.injected").write_text(json.dumps(wanted))
    case = {"in": "a.yaml", "want": "a.yaml.injected", "setFlags": [f"values.global.proxy.statusPort={port}"]}
    (tmp_path / "index.json").write_text(json.dumps({"cases": [case]}))
    done = run("inject", tmp_path)
    assert done.returncode == code, done.stdout
    assert ("15090,15021,123" in done.stdout) is bool(code)


def test_a_folder_without_cases_is_no_success(tmp_path):
    assert run("validation", tmp_path).returncode == 65
    assert run("nonsense", tmp_path).returncode == 64


DEFINITION = """
kind: CustomResourceDefinition
metadata: {name: workloadentries.networking.istio.io}
spec:
  group: networking.istio.io
  scope: Namespaced
  names: {plural: workloadentries, singular: workloadentry, kind: WorkloadEntry, listKind: WorkloadEntryList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {FIELD}}}
"""


@pytest.mark.parametrize(
    ("field", "code", "last"),
    [
        ("locality: {type: string, maxLength: 2048}", 0, "1 passed, 0 failed"),
        ("locality: {type: string, maxLength: 2000}", 0, "1 passed, 0 failed"),
        ("locality: {type: string, maxLength: 299}", 1, "0 passed, 1 failed"),
    ],
)
def test_what_a_definition_refuses_is_tried(tmp_path, field, code, last):
    (tmp_path / "crds.yaml").write_text(DEFINITION.replace("FIELD", field))
    done = run("crds", tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last), done.stderr
