"""Prometheus' HTTP API over the store, for Grafana, Kiali, promtool and scripts.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import numpy as np
import promql_parser as ast
from aiohttp import web

from lateen import __version__
from lateen.console.gate import TIMEOUT_S, Deadline, Gate
from lateen.console.promql import answers, parsing
from lateen.console.promql.engine import Engine
from lateen.console.promql.selecting import LOOKBACK_MS, Steps
from lateen.console.promql.values import STATUS, QueryError, failed, refused
from lateen.console.series.intake import Intake
from lateen.console.series.names import Names
from lateen.console.series.scrape import JOB
from lateen.console.series.store import Store
from lateen.kit import jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

FOLLOWS = "3.0.0"
"""The version of Prometheus whose API and language are implemented; clients select features by it."""
MAX_POINTS = 11_000
"""The limit for one series in a response, as in Prometheus."""
MAX_SERIES = 20_000
"""The limit for a response without values."""

T = TypeVar("T")
Handler = Callable[["Api", "Asked"], Awaitable[Json | list[Json] | list[str]]]


class Asked:
    """The parameters of a request, of its URL and its form."""

    def __init__(self, pairs: list[tuple[str, str]], path: dict[str, str], now: float) -> None:
        self._pairs, self.path, self.now = pairs, path, now

    def all(self, name: str) -> list[str]:
        return [v for k, v in self._pairs if k == name]

    def get(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    def time_ms(self, name: str, default: float | None = None) -> int:
        """Seconds since 1970 or RFC 3339. Raises QueryError."""
        given = self.get(name)
        if not given and default is not None:
            return round(default * 1000)
        try:
            seconds = float(given)
        except ValueError:
            try:
                moment = datetime.fromisoformat(given)
                seconds = moment.timestamp() if moment.tzinfo else float("nan")
            except ValueError:
                seconds = float("nan")
        if not abs(seconds) < 1e11:
            raise refused(f'invalid parameter "{name}": cannot parse "{given}" to a valid timestamp')
        return round(seconds * 1000)

    def duration_ms(self, name: str, default: float | None = None) -> int:
        """Raises QueryError."""
        given = self.get(name)
        if not given and default is not None:
            return round(default * 1000)
        try:
            return parsing.duration_ms(given)
        except QueryError:
            raise refused(f'invalid parameter "{name}": cannot parse "{given}" to a valid duration') from None

    def limit(self) -> int:
        given = self.get("limit") or "0"
        if not digits(given):
            raise refused(f'invalid parameter "limit": "{given}" is not a number')
        return int(given) or 1 << 60


class Api:
    def __init__(self, store: Store, intake: Intake, gate: Gate) -> None:
        self._store, self._intake, self._gate = store, intake, gate
        self._started = time.time()

    def routes(self) -> list[web.RouteDef]:
        out = []
        for path, handler in _PAGES.items():
            out += [web.route(m, f"/api/v1/{path}", self._answering(handler)) for m in _methods(path)]
        out.append(web.get("/version", self._version))
        return [*out, web.route("*", "/api/v1/{rest:.*}", self._answering(Api._unknown))]

    async def _version(self, request: web.Request) -> web.Response:
        """Outside of the API, where Kiali asks for it: the same without its envelope."""
        return web.Response(body=jsons.dumps(await self._build(await _asked(request))), content_type="application/json")

    def _answering(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            try:
                data = await handler(self, await _asked(request))
                body: Json = {"status": "success", "data": data}
                return web.Response(body=jsons.dumps(body), content_type="application/json")
            except QueryError as e:
                body = {"status": "error", "errorType": e.kind, "error": e.text}
            except RecursionError:
                body = {"status": "error", "errorType": "bad_data", "error": "the query is nested too deeply"}
            except MemoryError:
                body = {"status": "error", "errorType": "execution", "error": "the query needs too much memory"}
            status = STATUS[str(body["errorType"])]
            return web.Response(body=jsons.dumps(body), status=status, content_type="application/json")

        return answer

    async def _worked(self, asked: Asked, work: Callable[[Deadline], T]) -> T:
        """Raises QueryError."""
        return await self._gate.worked(work, asked.duration_ms("timeout", TIMEOUT_S) / 1000)

    # --- queries ---------------------------------------------------------------------------------------------

    async def _query(self, asked: Asked) -> Json:
        at = asked.time_ms("time", asked.now)
        tree, limit = parsing.parse(asked.get("query")), asked.limit()
        steps = Steps(np.array([at], np.int64), at, at)

        def work(deadline: Deadline) -> Json:
            engine = Engine(self._store, deadline.check)
            if isinstance(parsing.bare(tree), ast.MatrixSelector | ast.SubqueryExpr):
                return answers.samples(engine.ranges(tree, steps), limit)
            return answers.instant(engine.evaluate(tree, steps), at, limit)

        return await self._worked(asked, work)

    async def _query_range(self, asked: Asked) -> Json:
        start, end, step = asked.time_ms("start"), asked.time_ms("end"), asked.duration_ms("step")
        if end < start:
            raise refused('invalid parameter "end": end timestamp must not be before start time')
        if step <= 0:
            raise refused('invalid parameter "step": zero or negative query resolution step widths are not accepted')
        if (end - start) // step > MAX_POINTS:
            raise refused(
                f"exceeded maximum resolution of {MAX_POINTS:,} points per timeseries. "
                "Try decreasing the query resolution (?step=XX)"
            )
        tree, limit = parsing.parse(asked.get("query")), asked.limit()
        steps = Steps(np.arange(start, end + 1, step, dtype=np.int64), start, end)

        def work(deadline: Deadline) -> Json:
            return answers.matrix(Engine(self._store, deadline.check).evaluate(tree, steps), steps, limit)

        return await self._worked(asked, work)

    # --- metadata of series ---------------------------------------------------------------------------------------

    async def _found(self, asked: Asked, told: Callable[[Names], T]) -> T:
        """What is told of the series that ``match[]`` means (all without it) between ``start`` and ``end``. Raises
        QueryError."""
        start, end = asked.time_ms("start", 0.0), asked.time_ms("end", asked.now)

        def work(deadline: Deadline) -> T:
            return told(self._store.names(parsing.selectors(asked.all("match[]")), start, end, deadline.check))

        return await self._worked(asked, work)

    async def _series(self, asked: Asked) -> list[Json]:
        if not asked.all("match[]"):
            raise refused("no match[] parameter provided")
        limit = asked.limit()

        def told(found: Names) -> list[Json]:
            if len(found) > MAX_SERIES:
                raise failed(f"more than {MAX_SERIES} series; ask for fewer by match[]")
            return [dict(labels) for labels in found][:limit]

        return await self._found(asked, told)

    async def _labels(self, asked: Asked) -> list[str]:
        limit = asked.limit()
        return await self._found(asked, lambda found: sorted({name for labels in found for name in labels})[:limit])

    async def _values(self, asked: Asked) -> list[str]:
        label, limit = asked.path["label"], asked.limit()
        return await self._found(asked, lambda found: sorted({one.get(label, "") for one in found} - {""})[:limit])

    async def _metadata(self, asked: Asked) -> Json:
        wanted = asked.get("metric")
        known = {n: m for n, m in sorted(self._intake.meta.items()) if not wanted or n == wanted}
        out = {n: [{"type": m.kind, "help": m.help, "unit": ""}] for n, m in known.items()}
        return dict(list(out.items())[: asked.limit()])

    async def _targets(self, asked: Asked) -> Json:
        pool, active = asked.get("scrapePool"), asked.get("state").lower() != "dropped"
        found = [target for target in self._intake.targets() if active and pool in ("", target["scrapePool"])]
        return {"activeTargets": found, "droppedTargets": [], "droppedTargetCounts": {}}

    async def _pools(self, _: Asked) -> Json:
        return {"scrapePools": [JOB]}

    async def _exemplars(self, asked: Asked) -> list[Json]:
        """Proxies give no exemplars."""
        parsing.parse(asked.get("query"))
        return []

    async def _unknown(self, asked: Asked) -> Json:
        rest = _LABEL.sub(r"label/{label}/values", asked.path["rest"])
        if rest in _PAGES:
            raise QueryError("not_allowed", f"the method must be {' or '.join(_methods(rest))}")
        raise QueryError("not_found", "this part of Prometheus' API is not implemented; see docs/howto-see.md")

    # --- status ----------------------------------------------------------------------------------------

    async def _build(self, _: Asked) -> Json:
        return {
            "version": FOLLOWS,
            "revision": f"lateen-{__version__}",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        }

    async def _runtime(self, _: Asked) -> Json:
        return {
            "startTime": datetime.fromtimestamp(self._started).astimezone().isoformat(timespec="seconds"),
            "timeSeriesCount": len(self._store.registry),
            "storageRetention": self._retention,
            "corruptionCount": 0,
            "reloadConfigSuccess": True,
        }

    @property
    def _retention(self) -> str:
        return f"{max(t.keep_ms for t in self._store.tiers) // 3_600_000}h"

    async def _config(self, _: Asked) -> Json:
        return {"yaml": "global:\n  scrape_interval: 5s\n  evaluation_interval: 1m\n"}

    async def _tsdb(self, _: Asked) -> Json:
        registry = self._store.registry
        counts = sorted(((len(registry.matching(n, ())), n) for n in registry.names()), reverse=True)[:10]
        head = {"numSeries": len(registry), "minTime": min(t.oldest for t in self._store.tiers), "maxTime": 0}
        head["maxTime"] = self._store.tiers[0].newest
        return {"headStats": head, "seriesCountByMetricName": [{"name": n, "value": c} for c, n in counts]}

    async def _flags(self, _: Asked) -> Json:
        return {
            "query.lookback-delta": f"{LOOKBACK_MS // 60_000}m",
            "query.timeout": f"{TIMEOUT_S:.0f}s",
            "storage.tsdb.retention.time": self._retention,
        }

    async def _rules(self, _: Asked) -> Json:
        return {"groups": []}

    async def _alerts(self, _: Asked) -> Json:
        return {"alerts": []}

    async def _alertmanagers(self, _: Asked) -> Json:
        return {"activeAlertmanagers": [], "droppedAlertmanagers": []}


_LABEL = re.compile(r"label/[^/]+/values")
_FORMS = ("query", "query_range", "query_exemplars", "series", "labels")
_PAGES: dict[str, Handler] = {
    "query": Api._query,
    "query_range": Api._query_range,
    "series": Api._series,
    "labels": Api._labels,
    "label/{label}/values": Api._values,
    "query_exemplars": Api._exemplars,
    "metadata": Api._metadata,
    "targets": Api._targets,
    "scrape_pools": Api._pools,
    "rules": Api._rules,
    "alerts": Api._alerts,
    "alertmanagers": Api._alertmanagers,
    "status/buildinfo": Api._build,
    "status/runtimeinfo": Api._runtime,
    "status/config": Api._config,
    "status/flags": Api._flags,
    "status/tsdb": Api._tsdb,
}


def _methods(path: str) -> tuple[str, ...]:
    return ("GET", "POST") if path in _FORMS else ("GET",)


async def _asked(request: web.Request) -> Asked:
    """Raises QueryError for a form that cannot be read."""
    pairs = list(request.query.items())
    if request.method == "POST":
        try:
            form = await request.post()
        except (ValueError, web.HTTPException) as e:
            raise refused(f"the form cannot be read: {e}") from None
        pairs = [*((k, v) for k, v in form.items() if isinstance(v, str)), *pairs]
    return Asked(pairs, dict(request.match_info), time.time())
