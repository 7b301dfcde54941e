"""What the unit tests say that kube-apiserver answers to invalid objects is what it answers."""

import asyncio
import http.client
import json
import sys
import time

import building
import pytest
from world import ROOT

from lateen.kube.kubeconfig import from_file

sys.path.append(str(ROOT / "tests/unit"))
import invalid

pytestmark = pytest.mark.skipif(building.VERSION != building.COMPARED, reason=f"compared with {building.COMPARED} only")

TRIES = 50
"""Of a change: controllers write, too, so that the version may be an old one."""


def test_kube_apiserver_answers_as_the_unit_tests_say(mesh):
    found = from_file(mesh.home / "kubeconfig")
    headers = {"Content-Type": "application/json", **dict(asyncio.run(found.auth.headers()))}
    connection = http.client.HTTPSConnection(str(found.url.host), found.url.port, context=found.context, timeout=60)

    def ask(method, path, body=None):
        connection.request(method, path, body and json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def must(method, path, body=None):
        code, status = ask(method, path, body)
        assert code < 300, (method, path, status)
        return status

    def established(kind):
        """Until a controller has accepted a definition's names, these may still change."""
        for _ in range(TRIES if kind == "CustomResourceDefinition" else 0):
            conditions = must("GET", invalid.named(kind)).get("status", {}).get("conditions", [])
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
            time.sleep(0.2)

    differing, changed = [], ""
    for case in invalid.cases():
        kind, body = case["kind"], invalid.body(case)
        if changed and (not case.get("update") or kind != changed):
            must("DELETE", f"{invalid.named(changed)}?gracePeriodSeconds=0")
            changed = ""
        if not case.get("update"):
            code, status = ask("POST", invalid.place(kind) + invalid.OPTIONS, body)
        else:
            if not changed:
                must("POST", invalid.place(kind), invalid.VALID[kind])
                changed = kind
                established(kind)
            for _ in range(TRIES):
                there = must("GET", invalid.named(kind))
                body["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
                code, status = ask("PUT", invalid.named(kind) + invalid.OPTIONS, body)
                if code != 409:
                    break
        ours = {k: case[k] for k in ("code", "reason", "causes")}
        theirs = invalid.answer(code, status)
        if ours != theirs:
            differing.append((invalid.title(case), ours, theirs))
    if changed:
        must("DELETE", invalid.named(changed))
    connection.close()
    assert differing == []
