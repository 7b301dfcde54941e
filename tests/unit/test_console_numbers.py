"""Whatever stands in the place of a number, the pages of the collector and of the store of traces answer or refuse."""

import asyncio
import itertools

import aiohttp
import pytest
from aiohttp import web
from test_console_gate import served

from lateen.console.traces.serving import Traces
from lateen.console.traces.store import Store
from lateen.kit import duration

JUNK = (
    "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "1e18", "-1", "-1e300", "0", "-0", "", "9" * 4000,
    "9" * 400 + "h", "99999999999999h", "-5s", "99999d", "²", "٣", "0x10", "1_000", "null", "\x00", "[", "1;2",
    "2024-01-01T00:00:00",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59",
)  # fmt: skip
SERIES = {"query": "up", "start": "1700000000", "end": "1700000060", "step": "15", "match[]": "up"}
PAGES = {
    "/api/graph": {"window": "60", "at": "1700000000", "kind": "app", "namespaces": "a"},
    "/api/graph/history": {"window": "60", "id": "x", "kind": "app"},
    "/api/health": {"window": "60"},
    "/api/v1/query": SERIES | {"time": "1700000000", "timeout": "1s", "limit": "1"},
    "/api/v1/query_range": SERIES | {"timeout": "1s", "limit": "1"},
    "/api/v1/series": SERIES | {"limit": "1"},
    "/api/v1/labels": SERIES | {"limit": "1"},
    "/api/v1/label/job/values": SERIES | {"limit": "1"},
    "/api/v1/metadata": {"limit": "1", "limit_per_metric": "1", "metric": "up"},
    "/api/v1/targets": {"state": "any", "scrapePool": "x"},
    "/api/v1/rules": SERIES,
    "/api/v1/alerts": SERIES,
    "/api/v1/status/buildinfo": {},
    "/api/v1/status/runtimeinfo": {},
    "/api/v1/status/config": {},
    "/api/v1/status/flags": {},
    "/api/v1/status/tsdb": {"limit": "1"},
    "/federate": {"match[]": "up"},
}
WINDOW = {"start": "1", "end": "2", "limit": "1", "lookback": "1h"}
TRACES = {
    "/api/services": {},
    "/api/operations": {"service": "a", "spanKind": "server"},
    "/api/traces": WINDOW | {"service": "a", "minDuration": "1ms", "maxDuration": "1s", "tags": "{}", "traceID": "1"},
    "/api/traces/1": {},
    "/api/dependencies": {"endTs": "1", "lookback": "1"},
    "/api/dropped-headers": {"endTs": "1", "lookback": "1"},
    "/api/v2/services": {},
    "/api/v2/spans": {"serviceName": "a"},
    "/api/v2/remoteServices": {"serviceName": "a"},
    "/api/v2/traces": {
        "serviceName": "a", "endTs": "1", "lookback": "1", "limit": "1", "minDuration": "1", "maxDuration": "1",
        "annotationQuery": "a",
    },
    "/api/v2/trace/1": {},
    "/api/v2/dependencies": {"endTs": "1", "lookback": "1"},
}  # fmt: skip


QUERIES = (
    "up @ 1e18", "up @ -1e300", "up @ 9223372036854775", "up[292y]", "up offset 292y", "up offset -292y", "1e999999",
    "-Inf", "topk(1e300, up)", "topk(NaN, up)", "quantile(-Inf, up)", "round(up, 0)", "round(up, NaN)",
    "vector(1e308) * 1e308",
    "histogram_quantile(NaN, up)", "quantile_over_time(NaN, up[5m])", "predict_linear(up[5m], 1e300)", "up[5m:1ms]",
    "clamp(up, NaN, -Inf)", "label_replace(up, 'a', '$99999999999', 'b', '(.*)')", "bottomk(-1e18, up)", "up[290y:1s]",
)  # fmt: skip


async def answers(session, pages):
    """(page, parameter, value) -> status"""
    out = {}
    for page, usual in pages.items():
        for name, value in itertools.product(usual, JUNK):
            async with session.get(page, params={**usual, name: value}) as found:
                out[page, name, value[:40]] = found.status
                await found.read()
    return out


def paths(routes):
    """Of the pages that can be asked; a stream has no end."""
    return {r.resource.canonical for r in routes if r.method == "GET" and "stream" not in r.resource.canonical}


def test_no_number_breaks_a_page_of_the_collector():
    found = asyncio.run(served(lambda session, _: answers(session, PAGES)))
    # A question that may take no time at all has timed out, as Prometheus has it.
    assert not {key: status for key, status in found.items() if status >= 500 and (status, key[1]) != (503, "timeout")}
    for name in ("graph", "graph/history", "health"):
        statuses = {v: found[f"/api/{name}", "window", v] for v in ("nan", "inf", "-1", "0", "1e999", "²", "1e18")}
        assert statuses == dict.fromkeys(("nan", "inf", "-1", "0", "1e999", "²"), 400) | {"1e18": 200}


def test_no_number_in_a_query_breaks_the_collector():
    async def work(session, _):
        out = {}
        for query in QUERIES:
            for page, usual in (("query", {"time": "1700000000"}), ("query_range", SERIES)):
                async with session.get(f"/api/v1/{page}", params={**usual, "query": query}) as found:
                    out[page, query] = found.status
        return out

    found = asyncio.run(served(work))
    assert not {key: status for key, status in found.items() if status >= 500}
    assert {found["query", q] for q in ("topk(1e300, up)", "1e999999", "round(up, 0)")} == {200}


def test_no_number_breaks_a_page_of_the_store_of_traces(tmp_path):
    async def work():
        traces = Traces(Store(tmp_path / "traces.db", 10_000_000, 86_400))
        app = web.Application()
        app.add_routes(traces.queries.routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
            found = await answers(session, TRACES)
        await runner.cleanup()
        return found

    found = asyncio.run(work())
    assert not {key: status for key, status in found.items() if status >= 500}


def test_every_page_of_the_collector_is_in_the_table():
    async def work(_, collector):
        app = web.Application()
        app.add_routes(collector.routes())
        return paths(app.router.routes())

    assert asyncio.run(served(work)) - {"/", "/-/healthy", "/-/ready"} <= PAGES.keys()


@pytest.mark.parametrize("text", ["9" * 400 + "h", "9223372036854775807s", "2562048h"])
def test_a_duration_that_go_cannot_hold_is_refused(text):
    with pytest.raises(ValueError, match="too long"):
        duration.nanoseconds(text)
