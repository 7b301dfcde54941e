"""The cluster of the system tests, for clients that others have made: each test needs the client's own binary."""

import pytest
from world import demo


@pytest.fixture(scope="session")
def mesh(tmp_path_factory):
    with demo(tmp_path_factory.mktemp("lateen")) as found:
        yield found
