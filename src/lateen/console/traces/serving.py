"""The process that receives, stores and serves traces."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web

from lateen.console.sending import bounded
from lateen.console.traces import otlp
from lateen.console.traces.jaeger_grpc import GrpcQueries
from lateen.console.traces.query import Queries
from lateen.console.traces.receiving import Receiver
from lateen.console.traces.spans import Span
from lateen.console.traces.store import Store
from lateen.kit import servers, tasks

log = logging.getLogger("lateen.console.traces")

QUERY, QUERY_GRPC, ZIPKIN, OTLP_GRPC, OTLP_HTTP = 16686, 16685, 9411, 4317, 4318
"""Jaeger's and OpenTelemetry's ports."""
WRITE_S, TRIM_S = 0.2, 30.0
BATCH, WAITING = 2000, 20_000
"""The batch size of writes, and the queue length, in spans."""
EXPORT_WAITING = 5000


class Traces:
    def __init__(self, store: Store, export: str = "") -> None:
        """``export``: the base URL of a collector that gets every span, too, by OTLP over HTTP."""
        self._store, self._export = store, export.rstrip("/")
        self._executor = ThreadPoolExecutor(1, "traces")
        self._waiting: deque[Span] = deque()
        self._outgoing: deque[Span] = deque(maxlen=EXPORT_WAITING)
        self.received = self.unsent = 0
        self.receiver = Receiver(self.take)
        self.queries = Queries(store, self._executor)

    def take(self, spans: list[Span]) -> bool:
        if len(self._waiting) + len(spans) > WAITING:
            return False
        self.received += len(spans)
        self._waiting.extend(spans)
        if self._export:
            self.unsent += max(0, len(self._outgoing) + len(spans) - EXPORT_WAITING)
            self._outgoing.extend(spans)
        return True

    def app(self) -> web.Application:
        app = web.Application(client_max_size=0, middlewares=[bounded()])
        app.add_routes([*self.receiver.routes(), *self.queries.routes()])
        app.add_routes([web.get("/", self._home), web.get("/health", self._health), web.get("/metrics", self._metrics)])
        return app

    def runner(self) -> web.AppRunner:
        """Of an HTTP server that leaves it to the receiver to unpack bodies."""
        return servers.runner(self.app())

    async def run(self) -> None:
        """Write queued spans. Never returns."""
        loop = asyncio.get_running_loop()
        trimmed = 0.0
        while True:
            await asyncio.sleep(WRITE_S)
            now = time.time_ns() // 1000
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                await loop.run_in_executor(self._executor, partial(self._store.add, batch, now))
            if time.monotonic() - trimmed > TRIM_S:
                trimmed = time.monotonic()
                await loop.run_in_executor(self._executor, partial(self._store.tidy, now, True))

    async def export(self) -> None:
        """Forward every span; those that the other collector does not accept after three attempts are counted. Never
        returns."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            while True:
                await asyncio.sleep(1)
                batch = [self._outgoing.popleft() for _ in range(min(BATCH, len(self._outgoing)))]
                if batch and not await self._sent(session, otlp.encode(batch)):
                    self.unsent += len(batch)

    async def _sent(self, session: aiohttp.ClientSession, body: bytes) -> bool:
        says = ""
        for pause in (1, 2, 0):
            try:
                headers = {"Content-Type": "application/x-protobuf"}
                async with session.post(f"{self._export}/v1/traces", data=body, headers=headers) as answer:
                    if answer.status < 300:
                        return True
                    says = f"HTTP {answer.status}"
            except (aiohttp.ClientError, TimeoutError, OSError) as e:
                says = str(e) or "timeout"
            await asyncio.sleep(pause)
        log.warning("%s does not accept spans: %s", self._export, says)
        return False

    async def _home(self, _: web.Request) -> web.Response:
        return web.Response(
            text="Lateen's traces: Jaeger's API at /api, Zipkin's at /api/v2. Their page: lateen dashboard jaeger\n"
            + (f"{self._store.problem}\n" if self._store.problem else "")
        )

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "UP"})

    async def _metrics(self, _: web.Request) -> web.Response:
        size = await asyncio.get_running_loop().run_in_executor(self._executor, lambda: self._store.size)
        lines = [
            ("lateen_traces_spans_received_total", "counter", self.received),
            ("lateen_traces_spans_lost_total", "counter", self._store.lost),
            ("lateen_traces_spans_unsent_total", "counter", self.unsent),
            ("lateen_traces_requests_refused_total", "counter", self.receiver.refused),
            ("lateen_traces_stored_bytes", "gauge", size),
        ]
        return web.Response(text="".join(f"# TYPE {n} {k}\n{n} {v}\n" for n, k, v in lines))


async def serve() -> None:
    """Settings are environment variables: TRACES_FILE, TRACES_MAX_MB, TRACES_MAX_HOURS, TRACES_EXPORT,
    and TRACES_HEALTH_PORTS: further ports on which probes made for Jaeger ask. Never returns. Raises OSError and
    ValueError."""
    env = os.environ
    path = Path(env.get("TRACES_FILE") or "/data/traces.sqlite")
    megabytes, hours = int(env.get("TRACES_MAX_MB") or 150), int(env.get("TRACES_MAX_HOURS") or 24)
    traces = Traces(Store(path, megabytes * 1_000_000, hours * 3600), env.get("TRACES_EXPORT", ""))
    runner = traces.runner()
    await runner.setup()
    for port in (ZIPKIN, OTLP_HTTP, QUERY):
        await web.TCPSite(runner, None, port).start()
    await _serve_health(env.get("TRACES_HEALTH_PORTS", ""))
    servers = [await traces.receiver.serve_grpc(OTLP_GRPC), await GrpcQueries(traces.queries).serve(QUERY_GRPC)]
    log.info("receiving spans: Zipkin %d, OTLP %d (gRPC) and %d (HTTP)", ZIPKIN, OTLP_GRPC, OTLP_HTTP)
    log.info("queries: %d (HTTP) and %d (gRPC)", QUERY, QUERY_GRPC)
    jobs = [tasks.spawn(traces.run(), "traces")]
    if env.get("TRACES_EXPORT"):
        jobs.append(tasks.spawn(traces.export(), "export"))
    try:
        await asyncio.gather(*jobs)
    finally:
        for server in servers:
            await server.stop(1)
        await runner.cleanup()


async def _serve_health(ports: str) -> None:
    """``ports``: with commas between them. Jaeger answers on 14269 at /, and since version 2 on 13133 at /status."""

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response({"status": "UP"})

    app = web.Application()
    app.add_routes([web.get("/", healthy), web.get("/status", healthy)])
    runner = servers.runner(app)
    await runner.setup()
    for port in filter(None, ports.split(",")):
        await web.TCPSite(runner, None, int(port)).start()
