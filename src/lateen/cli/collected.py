"""PromQL queries to the mesh's collector, over a port-forward to its pod."""

from __future__ import annotations

import time
import urllib.parse

from lateen.cli.output import CliError
from lateen.console import calls
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient
from lateen.wire import ports


async def ranged(client: HttpClient, namespace: str, query: str, seconds: int, step: int) -> list[Json]:
    """The series of a PromQL query over the last ``seconds``, in the format of Prometheus' API. ``namespace``: the
    control plane's. Raises CliError, KubeError, Unreachable."""
    from lateen.cli.workloads import collector, through

    asked = calls.asked(query, seconds, step, time.time())
    path = f"/api/v1/query_range?{urllib.parse.urlencode(asked)}"
    answer = jsons.loads(await through(client, await collector(client, namespace), ports.COLLECTOR, path))
    if answer.get("status") != "success":
        raise CliError(f"the collector cannot answer: {answer.get('error', answer)}")
    found: list[Json] = answer["data"]["result"]
    return found


def total(series: Json) -> float:
    """The sum of a series' values."""
    return sum(float(value) for _, value in series["values"])
