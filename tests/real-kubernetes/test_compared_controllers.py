"""The controllers of the embedded cluster make of the same objects what Kubernetes' own make of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import building
import pytest
from both import Api, Both
from scenarios import SCENARIOS

pytestmark = pytest.mark.skipif(building.VERSION != building.COMPARED, reason=f"compared with {building.COMPARED} only")
AT_ONCE = 4
"""Scenarios, each in a namespace of its own: most of the time is spent on waiting."""


@pytest.fixture(scope="module")
def played(mesh, embedded):
    """scenario -> a future of its differences."""
    apis = [Api(Path(side.home / "kubeconfig")) for side in (embedded, mesh)]

    def play(scenario):
        name = scenario.__name__.replace("_", "-")
        both = Both(
            name, apis, SCENARIOS[scenario], [("Namespace", name)] if "Namespace" in SCENARIOS[scenario] else []
        )
        try:
            scenario(both)
        finally:
            both.end()
        return both.differences

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {scenario: pool.submit(play, scenario) for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_both_come_to_the_same(played, scenario):
    found = played[scenario].result()
    assert not found, "\n".join(found)
