"""lateen x precheck, without a cluster."""

import asyncio
from pathlib import Path

import pytest

from lateen.cli import precheck

PAGE = Path(__file__).parents[2] / "docs" / "howto-kubernetes.md"


class Api:
    """An API server of that version."""

    def __init__(self, minor):
        self._minor = minor

    async def call(self, _method, _path):
        return {"major": "1", "minor": self._minor, "gitVersion": f"v1.{self._minor}.3"}


@pytest.mark.parametrize(("minor", "old"), [("26", True), ("27", False), ("33+", False)])
def test_a_kubernetes_that_the_documentation_calls_too_old_is_told(minor, old):
    found = asyncio.run(precheck.version_findings(Api(minor)))
    assert [m.kind.code for m in found] == ["IST0142"] * old
    assert "Kubernetes 1.27 or newer" in PAGE.read_text()
