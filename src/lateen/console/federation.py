"""``/federate``: the newest sample of each series that is asked for, for a Prometheus of the user's own.

https://prometheus.io/docs/prometheus/latest/federation/
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from aiohttp import web

from lateen.console.gate import Gate
from lateen.console.promql import parsing, selecting, windows
from lateen.console.promql.functions import text
from lateen.console.promql.selecting import Steps
from lateen.console.promql.values import STATUS, QueryError
from lateen.console.series.codec import Labels
from lateen.console.series.registry import NAME
from lateen.console.series.store import Store
from lateen.kit import metrics


class Federation:
    def __init__(self, store: Store, gate: Gate) -> None:
        self._store, self._gate = store, gate

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/federate", self._federate)]

    async def _federate(self, request: web.Request) -> web.Response:
        asked = request.query.getall("match[]", [])
        if not asked:
            return web.Response(status=400, text='select series with match[], such as match[]={__name__=~"istio_.*"}\n')
        try:
            now = round(time.time() * 1000)
            found = await self._gate.worked(lambda deadline: exposed(self._store, asked, now, deadline.check))
        except QueryError as e:
            return web.Response(status=STATUS[e.kind], text=f"{e.text}\n")
        return web.Response(text=found, content_type="text/plain")


def exposed(store: Store, asked: list[str], now_ms: int, in_time: Callable[[], None]) -> str:
    """Prometheus' text, with the times of the samples. ``in_time`` is called between the steps, and may raise. Raises
    QueryError."""
    steps = Steps(np.array([now_ms], np.int64), now_ms, now_ms)
    lines: dict[str, None] = {}
    for node in parsing.nodes(asked):
        in_time()
        found = selecting.latest(store, node, steps)
        values, there = found.chunked(windows.current)
        when, _ = found.chunked(windows.measured)
        for row in np.flatnonzero(there[:, 0]).tolist():
            at = round(float(when[row, 0]) * 1000)
            lines[f"{_written(found.labels[row])} {text(float(values[row, 0]))} {at}"] = None
    return "".join(f"{line}\n" for line in sorted(lines))


def _written(labels: Labels) -> str:
    inside = ",".join(f'{k}="{metrics.escaped(v)}"' for k, v in sorted(labels.items()) if k != NAME)
    return f"{labels.get(NAME, '')}{{{inside}}}"
