"""One embedded cluster for all system tests, started by the product's own command, with Bookinfo in the mesh."""

import pytest
from world import demo

MESH = pytest.StashKey()


@pytest.fixture(scope="session")
def mesh(tmp_path_factory, request):
    with demo(tmp_path_factory.mktemp("lateen")) as found:
        request.config.stash[MESH] = found
        yield found


@pytest.fixture(scope="module", autouse=True)
def addons_of_this_file_alone(request):
    """Every file of tests leaves the shared mesh without addons, even where it fails."""
    yield
    if found := request.config.stash.get(MESH, None):
        found.without_addons()
