"""The cluster of the system tests, whose traces and metrics programs of others receive."""

import pytest
from world import demo


@pytest.fixture(scope="session")
def mesh(tmp_path_factory):
    with demo(tmp_path_factory.mktemp("lateen")) as found:
        yield found
