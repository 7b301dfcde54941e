"""Reads every proxy's metrics at an interval: into the store, and as increments of 15 minutes for the graph."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp import web

from lateen.api import kinds
from lateen.console import past, scraping, shapes
from lateen.console.federation import Federation
from lateen.console.gate import Deadline, Gate
from lateen.console.graph import KINDS, Graph, health
from lateen.console.metrics import Added, Target
from lateen.console.prometheus import Api
from lateen.console.promql.values import STATUS, QueryError, failed
from lateen.console.reports import Reports
from lateen.console.sending import bounded
from lateen.console.series.intake import Intake, Key, Look
from lateen.console.series.scrape import Meta
from lateen.console.series.selection import TooMany
from lateen.kit import jsons, servers, tasks
from lateen.kube.client import Client
from lateen.kube.informer import Informer
from lateen.wire import ports

log = logging.getLogger("lateen.console.collector")

INTERVAL_S, LONGEST_S = 1.0, 15.0
SHARE = 0.25
"""The maximum share of time for reading; beyond it, the interval grows."""
KEEP_S = 900.0
TIMEOUT_S = 3.0
WHOLE_S = 5.0
"""Seconds between reads of all metrics; those of the graph are read every time."""
AT_ONCE = 16
"""Proxies that are read concurrently; together with scraping.MAX_TEXT it bounds memory."""
POINTS = 60
STREAMS = 200
"""The most pages that can show the live graph."""

T = TypeVar("T")
Question = tuple[str, tuple[str, ...], float]
"""(kind of graph, namespaces, seconds)."""


class Collector:
    def __init__(self, client: Client, folder: Path | None = None, port: int = ports.MERGED_METRICS) -> None:
        """``folder``: where the store's files are. ``port``: where agents serve their proxies' metrics."""
        self._port = port
        self.intake = Intake(folder)
        self.pods = Informer(client, kinds.POD)
        self._targets: dict[Key, Target] = {}
        self._rounds: deque[tuple[float, Added]] = deque()
        self._started, self._whole_at = time.time(), 0.0
        self._session: aiohttp.ClientSession | None = None
        self.failures: dict[str, str] = {}
        self.interval = INTERVAL_S
        self.looked = asyncio.Condition()
        self.gate, self.live = Gate(), Gate()
        """Gates for queries about the past, and for those about now, which must not wait for the former."""
        self._streams = 0
        self._answers: dict[tuple[str, Question], asyncio.Task[bytes | QueryError]] = {}
        """Responses about now, shared until the next reading."""

    # --- reading ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self.pods.synced.wait()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as self._session:
            while True:
                began = time.monotonic()
                await self.look()
                took = time.monotonic() - began
                self.interval = min(LONGEST_S, max(INTERVAL_S, took / SHARE))
                await asyncio.sleep(max(0.0, self.interval - took))

    async def look(self) -> None:
        """Read every running proxy once, and everything else less often."""
        now = time.time()
        whole = now // WHOLE_S != self._whole_at // WHOLE_S
        self._whole_at = now
        found = scraping.processes(list(self.pods.objects.values()), self._port)
        wanted = {key: p for key, p in found.items() if whole or p.quick}
        for gone in self._targets.keys() - found.keys():
            del self._targets[gone]
            self.failures.pop(f"{gone[0]}/{gone[1]}", None)
        gate = asyncio.Semaphore(AT_ONCE)
        meta: dict[str, Meta] = {}
        session = self._session
        assert session is not None

        async def one(key: Key, process: scraping.Process) -> tuple[Key, Look]:
            async with gate:
                return key, await scraping.read(session, process, whole, meta, idle=self.intake.unsure(key))

        looks = dict(await asyncio.gather(*(one(k, p) for k, p in wanted.items())))
        added: Added = {}
        for key, look in looks.items():
            process = found[key]
            if look.problem:
                self.failures[process.name] = look.problem
                continue
            self.failures.pop(process.name, None)
            if process.quick:
                target = self._targets.get(key)
                if target is None:
                    target = self._targets[key] = Target.of(process.pod, self._started, now)
                if look.idle is not None:
                    target.told(look.idle)
                target.read(look.pairs, added, look.complete, look.whole)
        self.intake.frame(now, looks, found.keys())
        self.intake.described(meta)
        while self._rounds and self._rounds[-1][0] > now:  # the clock was turned back
            self._rounds.pop()
        self._rounds.append((now, added))
        while self._rounds and self._rounds[0][0] < now - KEEP_S:
            self._rounds.popleft()
        self._answers.clear()
        async with self.looked:
            self.looked.notify_all()

    def added(self, window_s: float) -> Added:
        """The increments in the last ``window_s`` seconds."""
        since = time.time() - window_s
        out: Added = {}
        for at, round_ in reversed(list(self._rounds)):
            if at < since:
                break
            for sample, value in round_.items():
                out[sample] = out.get(sample, 0.0) + value
        return out

    # --- responses ---------------------------------------------------------------------------------------

    def graph(self, kind: str, namespaces: tuple[str, ...], window_s: float) -> shapes.Graph:
        added = self.added(window_s)
        reports = Reports(added)
        drawn = Graph(kind, namespaces).build(added, window_s, reports)
        latest = next((added for _, added in reversed(list(self._rounds))), {})
        now = {e["id"]: e for e in Graph(kind, namespaces).build(latest, self.interval, reports)["edges"]}
        for edge in drawn["edges"]:
            just = now.get(edge["id"])
            edge["now"] = just["requests"] + just["connections"] if just else 0
            edge["nowErrors"] = round(just["requests"] * just["errorRate"]) if just else 0
        drawn["at"], drawn["proxies"], drawn["failures"] = time.time(), len(self._targets), dict(self.failures)
        return drawn

    def health(self, window_s: float) -> dict[str, shapes.Traffic]:
        """By namespace."""
        return {ns: {"requests": r, "errors": e} for ns, (r, e) in health(self.added(window_s)).items()}

    def history(self, kind: str, wanted: str, window_s: float, in_time: Callable[[], None]) -> shapes.History:
        """The rate of a node or an edge (requests per second; bytes per second for TCP edges) over a window.
        ``in_time`` is called between the steps, and may raise."""
        step = max(window_s / POINTS, self.interval)
        count = max(1, int(window_s / step))
        now = time.time()
        steps: list[Added] = [{} for _ in range(count)]
        for at, round_ in list(self._rounds):
            age = int((now - at) / step)
            if age < count:
                into = steps[count - 1 - age]
                for sample, value in round_.items():
                    into[sample] = into.get(sample, 0.0) + value
        rates, reports = [], Reports(self.added(window_s))
        for added in steps:
            in_time()
            rates.append(rate_of(kind, wanted, added, step, reports))
        return {"step": step, "rates": rates}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/-/ready", self._ready),
            web.get("/-/healthy", self._healthy),
            web.get("/api/graph", self._graph),
            web.get("/api/graph/history", self._history),
            web.get("/api/graph/stream", self._stream),
            web.get("/api/health", self._health),
            web.get("/", self._page),
        ]

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="It runs.\n")

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._rounds else 503)

    async def _graph(self, request: web.Request) -> web.Response:
        """As it is now, or as it was ``at`` a time (seconds since 1970) that the store still knows."""
        at = request.query.get("at")
        question = _question(request)
        if not at:
            return await self._now("graph", question)
        moment = _moment(at)
        found = await self._worked(lambda deadline: self._past(question, moment, deadline))
        return web.Response(body=jsons.dumps(found), content_type="application/json")

    async def _now(self, what: str, question: Question) -> web.Response:
        return web.Response(body=await self._answer(what, question), content_type="application/json")

    async def _answer(self, what: str, question: Question) -> bytes:
        """The ``graph`` or the ``health`` of now. Raises HTTPException."""
        key = what, question
        if key not in self._answers:
            self._answers[key] = tasks.spawn(self._drawn(what, question), what)
        found = await asyncio.shield(self._answers[key])
        if isinstance(found, QueryError):
            self._answers.pop(key, None)
            raise _refusal(found)
        return found

    async def _drawn(self, what: str, question: Question) -> bytes | QueryError:
        def work(_: Deadline) -> bytes:
            return jsons.dumps(self.graph(*question) if what == "graph" else self.health(question[2]))

        try:
            return await self.live.worked(work)
        except QueryError as e:
            return e

    def _past(self, question: Question, at: float, deadline: Deadline) -> shapes.Graph:
        """Raises QueryError."""
        kind, namespaces, window_s = question
        try:
            counted = past.added(self.intake.store, at, window_s, deadline.check)
        except TooMany:
            raise failed("too many series for this window; choose a shorter one") from None
        deadline.check()
        drawn = Graph(kind, namespaces).build(counted, window_s)
        drawn["at"], drawn["proxies"] = at, len(self._targets)
        return drawn

    async def _worked(self, work: Callable[[Deadline], T]) -> T:
        try:
            return await self.gate.worked(work)
        except QueryError as e:
            raise _refusal(e) from None

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the graph after each reading."""
        question = _question(request)
        if self._streams >= STREAMS:
            raise web.HTTPServiceUnavailable(text="too many pages show the graph; close some")
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        self._streams += 1
        try:
            await answer.prepare(request)
            while True:
                with contextlib.suppress(web.HTTPException):  # overloaded: skip this one
                    await answer.write(b"data: " + await self._answer("graph", question) + b"\n\n")
                async with self.looked:
                    await self.looked.wait()
        except (ConnectionError, asyncio.CancelledError):
            return answer
        finally:
            self._streams -= 1

    async def _history(self, request: web.Request) -> web.Response:
        kind, _, window = _question(request)
        wanted = request.query.get("id", "")
        found = await self._worked(lambda deadline: self.history(kind, wanted, window, deadline.check))
        return web.Response(body=jsons.dumps(found), content_type="application/json")

    async def _health(self, request: web.Request) -> web.Response:
        _, _, window = _question(request)
        return await self._now("health", (KINDS[0], (), window))

    async def _page(self, _: web.Request) -> web.Response:
        store = self.intake.store
        rows = [f"{ns}/{name}" for ns, name, _ in sorted(self._targets)]
        lines = [
            f"collector: {len(rows)} proxies, every {self.interval:.1f} s",
            f"store: {len(store.registry)} series, {store.size / 1e6:.1f} MB in blocks",
            *([f"store: {store.problem}"] if store.problem else []),
            *(f"{name}: some series are dropped, since there are too many" for name in sorted(self.intake.dropped)),
            "PromQL: /api/v1/query?query=sum(rate(istio_requests_total[1m])) by (destination_service_name)",
            "",
            *rows,
        ]
        lines += ["", *(f"{name}: {why}" for name, why in sorted(self.failures.items()))]
        return web.Response(text="\n".join(lines) + "\n")


def rate_of(kind: str, wanted: str, added: Added, step_s: float, reports: Reports) -> float:
    drawn = Graph(kind).build(added, step_s, reports)
    for edge in drawn["edges"]:
        if edge["id"] == wanted:
            return float(edge["bytesRate"] if edge["protocol"] == "tcp" else edge["rate"])
    return next((float(n["rateIn"]) for n in drawn["nodes"] if n["id"] == wanted), 0.0)


def _refusal(e: QueryError) -> web.HTTPException:
    kind = web.HTTPUnprocessableEntity if STATUS[e.kind] == 422 else web.HTTPServiceUnavailable
    return kind(text=e.text)


def _question(request: web.Request) -> Question:
    kind = request.query.get("kind", KINDS[0])
    if kind not in KINDS:
        raise web.HTTPBadRequest(text=f"kind must be one of {', '.join(KINDS)}")
    window = _number(request.query.get("window", "60"))
    if not 0 < window < float("inf"):
        raise web.HTTPBadRequest(text="window must be a number of seconds, more than 0")
    namespaces = tuple(sorted({n for n in request.query.get("namespaces", "").split(",") if n}))
    return kind, namespaces, min(max(round(window), 1), KEEP_S)


def _number(given: str) -> float:
    """A number; NaN, which fails all comparisons, for anything else."""
    try:
        return float(given)
    except ValueError:
        return float("nan")


def _moment(given: str) -> float:
    at = _number(given)
    if not 0 <= at < 1e11:
        raise web.HTTPBadRequest(text="at must be a number of seconds since 1970")
    return at


async def serve(client: Client, listen: tuple[int, ...], folder: Path | None = None) -> None:
    """Serve until cancelled; data in memory is then written to ``folder``. ``listen``: ports."""
    collector = Collector(client, folder)
    tasks.spawn(collector.pods.run(), "informer pods")
    looking = tasks.spawn(collector.run(), "looking")
    app = web.Application(middlewares=[bounded()])
    app.add_routes(collector.routes())
    app.add_routes(Api(collector.intake.store, collector.intake, collector.gate).routes())
    app.add_routes(Federation(collector.intake.store, collector.gate).routes())
    runner = servers.runner(app)
    await runner.setup()
    for port in listen:
        await web.TCPSite(runner, None, port).start()
    log.info("collecting; ports %s", ", ".join(map(str, listen)))
    try:
        await looking
    finally:
        await tasks.cancel(looking)
        collector.intake.store.flush()
