"""One embedded cluster for all system tests, started by the product's own command, with Bookinfo in the mesh."""

import pytest
from world import demo


@pytest.fixture(scope="session")
def mesh(tmp_path_factory):
    with demo(tmp_path_factory.mktemp("lateen")) as found:
        yield found
