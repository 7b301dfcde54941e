"""Spans, and a server of traces, for tests."""

import asyncio
import time

import aiohttp
from aiohttp import web

from lateen.console.traces.serving import Traces
from lateen.console.traces.spans import Span
from lateen.console.traces.store import Store
from lateen.kit import tasks

NOW = time.time_ns() // 1000
DAY_S = 24 * 3600
TRACE = "5af7183fb1d4cf5f" * 2


def span(number, *, trace=TRACE, parent="", service="web", kind="SERVER", start=0, duration=1000, tags=None, **more):
    return Span(
        trace, f"{number:016x}", parent and f"{parent:016x}", service, more.pop("name", "GET /"), kind,
        NOW - 60_000_000 + start, duration, tags or {}, [], more.pop("error", False), **more,
    )  # fmt: skip


OTLP = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "backend"}}]},
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": TRACE.upper(),
                            "spanId": "6b221d5bc9e6496c",
                            "parentSpanId": "5af7183fb1d4cf5f",
                            "name": "get /api",
                            "kind": 3,
                            "startTimeUnixNano": str(NOW * 1000),
                            "endTimeUnixNano": str((NOW + 1431) * 1000),
                            "attributes": [
                                {"key": "n", "value": {"intValue": "3"}},
                                {"key": "l", "value": {"arrayValue": {"values": [{"stringValue": "a"}]}}},
                            ],
                            "events": [{"timeUnixNano": str(NOW * 1000), "name": "retry"}],
                            "status": {"code": 2, "message": "no"},
                        }
                    ]
                }
            ],
        }
    ]
}


def serving(tmp_path, work):
    """The result of ``work(base URL, traces, session)``."""

    async def main():
        traces = Traces(Store(tmp_path / "traces.sqlite", 10_000_000, DAY_S))
        runner = traces.runner()
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        writing = tasks.spawn(traces.run(), "writing")
        try:
            async with aiohttp.ClientSession() as session:
                return await work(f"http://127.0.0.1:{port}", traces, session)
        finally:
            await tasks.cancel(writing)
            await runner.cleanup()

    return asyncio.run(main())
