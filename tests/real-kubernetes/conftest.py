"""A cluster of Kubernetes' own control plane and our node."""

import building
import leftovers
import pytest
from control_plane import ControlPlane
from world import Mesh


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory):
    try:
        for name in building.PROGRAMS:
            building.program(name)
    except building.Missing as e:
        pytest.skip(str(e))
    tmp = tmp_path_factory.mktemp("kubernetes")
    made = ControlPlane(Mesh(tmp / "home", tmp), tmp)
    try:
        made.start()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def mesh(control_plane):
    """As it came, for every file of tests, whatever became of the file before."""
    before = leftovers.everything(control_plane.mesh)
    yield control_plane.mesh
    leftovers.clear(control_plane.mesh, before)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A cluster of our own control plane, to be compared."""
    tmp = tmp_path_factory.mktemp("embedded")
    made = Mesh(tmp / "home", tmp)
    made.lateen("cluster", "start")
    try:
        made.until(
            lambda: made.kubectl("wait", "node", "lateen", "--for=condition=Ready", ok=False).returncode == 0, 60
        )
        yield made
    finally:
        made.lateen("cluster", "delete", ok=False)
