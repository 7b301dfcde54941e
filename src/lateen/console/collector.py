"""Reads every proxy's metrics at an interval and keeps the increments for 15 minutes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

import aiohttp
from aiohttp import web

from lateen.api import kinds
from lateen.api.reading import has_proxy
from lateen.console import shapes
from lateen.console.graph import KINDS, Graph, health
from lateen.console.metrics import Added, Target
from lateen.kit import bodies, jsons, tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client
from lateen.kube.informer import Informer
from lateen.wire import ports

log = logging.getLogger("lateen.console.collector")

INTERVAL_S, LONGEST_S = 1.0, 15.0
SHARE = 0.25
"""The share of time that reading may take; beyond it, the interval grows."""
KEEP_S = 900.0
TIMEOUT_S = 3.0
MAX_TEXT = 32 * 1024 * 1024
AT_ONCE = 16
"""Proxies that are read concurrently; together with MAX_TEXT it bounds memory."""
POINTS = 60


class Collector:
    def __init__(self, client: Client, port: int = ports.MERGED_METRICS) -> None:
        """``port``: where agents serve their proxies' metrics."""
        self._port = port
        self.pods = Informer(client, kinds.POD)
        self._targets: dict[tuple[str, str, str], Target] = {}
        self._rounds: deque[tuple[float, Added]] = deque()
        self._started = time.time()
        self._session: aiohttp.ClientSession | None = None
        self.failures: dict[str, str] = {}
        self.interval = INTERVAL_S
        self.looked = asyncio.Condition()

    # --- looking ---------------------------------------------------------------------------------------------

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
        """Read every running proxy once."""
        wanted: dict[tuple[str, str, str], Json] = {}
        for pod in self.pods.objects.values():
            if dig(pod, "status", "phase") == "Running" and dig(pod, "status", "podIP") and has_proxy(pod):
                meta = pod["metadata"]
                wanted[meta["namespace"], meta["name"], str(meta.get("uid"))] = pod
        for gone in self._targets.keys() - wanted.keys():
            del self._targets[gone]
            self.failures.pop(f"{gone[0]}/{gone[1]}", None)
        gate = asyncio.Semaphore(AT_ONCE)
        added: Added = {}

        async def one(key: tuple[str, str, str], pod: Json) -> None:
            async with gate:
                text = await self._fetch(pod)
            if text is not None:
                target = self._targets.get(key)
                if target is None:
                    target = self._targets[key] = Target(fresh=_began(pod) > self._started)
                target.read(text, added)

        await asyncio.gather(*(one(k, p) for k, p in wanted.items()))
        now = time.time()
        self._rounds.append((now, added))
        while self._rounds and self._rounds[0][0] < now - KEEP_S:
            self._rounds.popleft()
        async with self.looked:
            self.looked.notify_all()

    async def _fetch(self, pod: Json) -> bytes | None:
        assert self._session is not None
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        url = f"http://{pod['status']['podIP']}:{self._port}/stats/prometheus?only=istio"
        try:
            async with self._session.get(url) as answer:
                if answer.status != 200:
                    raise aiohttp.ClientError(f"HTTP {answer.status}")
                text = await bodies.whole(answer.content.iter_any(), MAX_TEXT)
        except (aiohttp.ClientError, TimeoutError, OSError, bodies.TooLong) as e:
            self.failures[name] = str(e) or "timeout"
            return None
        self.failures.pop(name, None)
        return text

    def added(self, window_s: float) -> Added:
        """What was counted in the last ``window_s`` seconds."""
        since = time.time() - window_s
        out: Added = {}
        for at, round_ in reversed(self._rounds):
            if at < since:
                break
            for sample, value in round_.items():
                out[sample] = out.get(sample, 0.0) + value
        return out

    # --- what it tells ---------------------------------------------------------------------------------------

    def graph(self, kind: str, namespaces: list[str], window_s: float) -> shapes.Graph:
        drawn = Graph(kind, namespaces).build(self.added(window_s), window_s)
        latest = self._rounds[-1][1] if self._rounds else {}
        now = {e["id"]: e for e in Graph(kind, namespaces).build(latest, self.interval)["edges"]}
        for edge in drawn["edges"]:
            just = now.get(edge["id"])
            edge["now"] = just["requests"] + just["connections"] if just else 0
            edge["nowErrors"] = round(just["requests"] * just["errorRate"]) if just else 0
        drawn["at"], drawn["proxies"], drawn["failures"] = time.time(), len(self._targets), self.failures
        return drawn

    def history(self, kind: str, wanted: str, window_s: float) -> shapes.History:
        """The rate of a node or an edge (requests per second; bytes per second for TCP edges) over a window."""
        step = max(window_s / POINTS, self.interval)
        count = max(1, int(window_s / step))
        now = time.time()
        steps: list[Added] = [{} for _ in range(count)]
        for at, round_ in self._rounds:
            age = int((now - at) / step)
            if age < count:
                into = steps[count - 1 - age]
                for sample, value in round_.items():
                    into[sample] = into.get(sample, 0.0) + value
        return {"step": step, "rates": [rate_of(kind, wanted, added, step) for added in steps]}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/-/ready", self._ready),
            web.get("/api/graph", self._graph),
            web.get("/api/graph/history", self._history),
            web.get("/api/graph/stream", self._stream),
            web.get("/api/health", self._health),
            web.get("/", self._page),
        ]

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._rounds else 503)

    async def _graph(self, request: web.Request) -> web.Response:
        return web.Response(body=jsons.dumps(self.graph(*_question(request))), content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the graph after each reading."""
        question = _question(request)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"data: " + jsons.dumps(self.graph(*question)) + b"\n\n")
                async with self.looked:
                    await self.looked.wait()
        except (ConnectionError, asyncio.CancelledError):
            return answer

    async def _history(self, request: web.Request) -> web.Response:
        kind, _, window = _question(request)
        found = self.history(kind, request.query.get("id", ""), window)
        return web.Response(body=jsons.dumps(found), content_type="application/json")

    async def _health(self, request: web.Request) -> web.Response:
        _, _, window = _question(request)
        found = {ns: {"requests": r, "errors": e} for ns, (r, e) in health(self.added(window)).items()}
        return web.Response(body=jsons.dumps(found), content_type="application/json")

    async def _page(self, _: web.Request) -> web.Response:
        rows = [f"{ns}/{name}" for ns, name, _ in sorted(self._targets)]
        lines = [f"collector: {len(rows)} proxies, every {self.interval:.1f} s", "", *rows]
        lines += ["", *(f"{name}: {why}" for name, why in sorted(self.failures.items()))]
        return web.Response(text="\n".join(lines) + "\n")


def rate_of(kind: str, wanted: str, added: Added, step_s: float) -> float:
    drawn = Graph(kind).build(added, step_s)
    for edge in drawn["edges"]:
        if edge["id"] == wanted:
            return float(edge["bytesRate"] if edge["protocol"] == "tcp" else edge["rate"])
    return next((float(n["rateIn"]) for n in drawn["nodes"] if n["id"] == wanted), 0.0)


def _question(request: web.Request) -> tuple[str, list[str], float]:
    kind = request.query.get("kind", KINDS[0])
    if kind not in KINDS:
        raise web.HTTPBadRequest(text=f"kind must be one of {', '.join(KINDS)}")
    try:
        window = float(request.query.get("window", "60"))
    except ValueError:
        raise web.HTTPBadRequest(text="window must be a number of seconds") from None
    namespaces = [n for n in request.query.get("namespaces", "").split(",") if n]
    return kind, namespaces, min(max(window, 1.0), KEEP_S)


def _began(pod: Json) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(dig(pod, "status", "startTime"))).timestamp()
    except ValueError:
        return 0.0


async def serve(client: Client, port: int) -> None:
    """Never returns."""
    collector = Collector(client)
    tasks.spawn(collector.pods.run(), "informer pods")
    looking = tasks.spawn(collector.run(), "looking")
    app = web.Application()
    app.add_routes(collector.routes())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    log.info("collecting; port %d", port)
    await looking
