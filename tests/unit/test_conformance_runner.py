"""The runner of foreign cases tells right from wrong."""

import json
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


def test_a_folder_without_cases_is_no_success(tmp_path):
    assert run("validation", tmp_path).returncode == 65
    assert run("nonsense", tmp_path).returncode == 64
