"""A fault of ours in the check of one object is a finding about it: all others are checked, and istiod goes on."""

import pytest
from test_meshconfig import config_map

from lateen.api import cel
from lateen.api.mesh import reading
from lateen.api.mesh.config import MeshConfig
from lateen.control import meshconfig
from lateen.control.accepted import Accepted
from lateen.mesh.settings import Cluster
from lateen.wire.revision import Revision
from lateen.xds.patches import values
from lateen.xds.patches.check import verdict


def broken(*_):
    raise KeyError("b")


TELEMETRY = {
    "apiVersion": "telemetry.istio.io/v1",
    "kind": "Telemetry",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"accessLogging": [{"filter": {"expression": "response.code >= 400"}}]},
}
FILTER = {
    "apiVersion": "networking.istio.io/v1alpha3",
    "kind": "EnvoyFilter",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"configPatches": [{"applyTo": "CLUSTER", "patch": {"operation": "MERGE", "value": {"name": "a"}}}]},
}


@pytest.mark.parametrize(
    ("obj", "module", "name", "at"),
    [(TELEMETRY, cel, "problem", "spec"), (FILTER, values, "message", "spec.configPatches")],
)
def test_an_object_whose_check_fails_is_refused_with_a_sentence(monkeypatch, obj, module, name, at):
    assert [f for f in verdict(obj) if not f.warning] == []
    monkeypatch.setattr(module, name, broken)
    (found,) = (f for f in verdict(obj) if not f.warning)
    assert found.path == at
    assert found.says.startswith("cannot be checked because of a fault in Lateen (KeyError: 'b'; test_faults.py:")


def test_a_mesh_configuration_whose_check_fails_is_refused_with_a_sentence(monkeypatch):
    monkeypatch.setitem(reading.RULES, MeshConfig, broken)
    with pytest.raises(reading.Invalid, match="a fault in Lateen"):
        reading.mesh_config("{}")


def test_a_mesh_configuration_that_istiod_cannot_use_leaves_the_last_one_in_effect(monkeypatch):
    source = meshconfig.MeshConfigSource("istio-system", Revision(), Cluster(), Accepted("istio-system", Revision()))
    key = ("istio-system", "istio")
    source.changed(key, config_map("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"))
    before = source.settings
    monkeypatch.setattr(meshconfig, "settings", broken)
    assert source.changed(key, config_map("accessLogFile: /dev/stdout"))
    assert source.settings is before
    assert "a fault in Lateen (KeyError" in source.problem
