"""What the unit tests say that kube-apiserver answers to invalid objects is what it answers."""

import asyncio
import http.client
import json
import sys

import building
import pytest
from world import ROOT

from lateen.kube.kubeconfig import from_file

sys.path.append(str(ROOT / "tests/unit"))
import invalid

pytestmark = pytest.mark.skipif(building.VERSION != building.COMPARED, reason=f"compared with {building.COMPARED} only")


def test_kube_apiserver_answers_as_the_unit_tests_say(mesh):
    found = from_file(mesh.home / "kubeconfig")
    headers = {"Content-Type": "application/json", **asyncio.run(found.auth.headers())}
    connection = http.client.HTTPSConnection(str(found.url.host), found.url.port, context=found.context, timeout=60)
    differing = []
    for case in invalid.cases():
        connection.request("POST", invalid.path(case), json.dumps(invalid.body(case)), headers)
        response = connection.getresponse()
        ours = {k: case[k] for k in ("code", "reason", "causes")}
        theirs = invalid.answer(response.status, json.loads(response.read()))
        if ours != theirs:
            differing.append((invalid.title(case), ours, theirs))
    connection.close()
    assert differing == []
