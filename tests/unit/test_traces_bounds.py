"""Questions about traces are bounded: by what an answer may have, by time, by how many wait."""

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp.test_utils import TestClient, TestServer

from lateen.console.sending import bounded
from lateen.console.traces import asking as module
from lateen.console.traces.asking import Query, TooMuch
from lateen.console.traces.query import WAITING, Queries
from lateen.console.traces.serving import Traces
from lateen.console.traces.spans import Span
from lateen.console.traces.store import Store

NOW = time.time_ns() // 1000
DAY_S = 24 * 3600


def spans(trace, count=3, size=100):
    return [
        Span(
            f"{trace:032x}", f"{i + 1:016x}", "", "web", "GET /", "SERVER", NOW + i, 1000, {"k": "v" * size}, [], False
        )
        for i in range(count)
    ]


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "traces.sqlite", 10_000_000, DAY_S)
    for trace in range(1, 6):
        found.add(spans(trace), NOW)
    yield found
    found.close()


def asked(store, *paths, waiting=0):
    """[(status, body)] of questions to Jaeger's and Zipkin's APIs, while others wait."""

    async def run():
        executor = ThreadPoolExecutor(1)
        traces = Traces(store)
        traces.queries = Queries(store, executor)
        async with TestClient(TestServer(traces.app())) as client:
            out = []
            for path in paths:
                answers = await asyncio.gather(*(client.get(path) for _ in range(1 + waiting)))
                out += [(a.status, await a.json()) for a in answers]
        return out

    return asyncio.run(run())


def ids(*numbers):
    return "&".join(f"traceID={n:032x}" for n in numbers)


def test_the_same_trace_asked_for_twice_is_answered_once(store):
    ((status, body),) = asked(store, f"/api/traces?{ids(1, 1, 2, 77)}")
    assert status == 200
    assert [t["traceID"] for t in body["data"]] == [f"{n:032x}" for n in (1, 2)]


def test_many_traces_by_their_ids_are_refused_where_they_are_too_much(store, monkeypatch):
    size = store._bytes(f"{1:032x}")
    monkeypatch.setattr(module, "MAX_ANSWER", 2 * size + 10)
    (two, three, one) = asked(store, f"/api/traces?{ids(1, 2)}", f"/api/traces?{ids(1, 2, 3)}", f"/api/traces/{1:032x}")
    assert (two[0], one[0]) == (200, 200)
    assert three[0] == 422
    assert "ask for fewer at once" in three[1]["errors"][0]["msg"]


def test_a_search_answers_with_as_many_of_the_latest_as_fit(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWER", 2 * store._bytes(f"{1:032x}") + 10)
    assert len(store.find(Query(limit=100))) == 2


def test_a_question_that_takes_too_long_ends(store):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(TooMuch, match="shorter time"):
        store.within(0.05, lambda: store._one(endless))
    assert store.within(5, store.services) == ["web"]


def test_a_client_that_asks_for_a_large_trace_and_does_not_read_it_is_cut_off(store, monkeypatch):
    """The answer is in memory until then."""
    monkeypatch.setattr("lateen.console.traces.serving.bounded", lambda: bounded(limit_s=0.2))
    store.add(spans(9, count=1000, size=30_000), NOW)

    async def run():
        async with TestServer(Traces(store).app()) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1000)
            writer.write(f"GET /api/traces/{9:032x} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(1)
            read = 0
            with contextlib.suppress(ConnectionResetError):
                while part := await reader.read(1 << 20):
                    read += len(part)
            assert read < 1000 * 30_000
            writer.close()

    asyncio.run(run())


def test_no_more_questions_wait_than_may(store):
    found = asked(store, "/api/services", waiting=WAITING + 8)
    assert {status for status, _ in found} == {200, 503}
    assert sum(status == 200 for status, _ in found) >= WAITING
