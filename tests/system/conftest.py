"""One embedded cluster for all system tests, started by the product's own command, with Bookinfo in the mesh."""

import pytest
from world import Mesh


@pytest.fixture(scope="session")
def mesh(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("lateen")
    found = Mesh(tmp / "home", tmp)
    try:
        started = found.lateen("demo", ok=False, timeout=180)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        found.lateen("addons", "delete")  # the tests that need them apply them
        yield found
    finally:
        found.lateen("cluster", "delete", ok=False)
