"""Expensive questions to the collector: a few at a time, in time, with bounds."""

import asyncio
import threading
from functools import partial

import aiohttp
import pytest
from aiohttp import web

from lateen.console import collector as collector_module
from lateen.console.answers import why
from lateen.console.collector import Collector
from lateen.console.federation import Federation
from lateen.console.gate import AT_ONCE, WAITING, Deadline, Gate
from lateen.console.metrics import meaning
from lateen.console.prometheus import Api
from lateen.console.promql import parsing
from lateen.console.promql.values import QueryError
from lateen.console.series import codec
from lateen.console.series.store import Store
from lateen.kit import tasks
from lateen.kube.client import HttpClient


async def served(work):
    """``work(session, collector)`` beside a collector with everything that it answers."""
    found = Collector(HttpClient("http://127.0.0.1:1", None))
    app = web.Application()
    store = found.intake.store
    app.add_routes([*found.routes(), *Api(store, found.intake, found.gate).routes()])
    app.add_routes(Federation(store, found.gate).routes())
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        out = await work(session, found)
    await runner.cleanup()
    return out


EXPENSIVE = (
    "/api/v1/query?query=up",
    "/api/v1/series?match[]=up",
    "/api/v1/labels",
    "/api/v1/label/job/values",
    "/federate?match[]=up",
    "/api/graph?at=1700000000",
    "/api/graph/history?id=x",
)


@pytest.mark.parametrize("path", EXPENSIVE)
def test_whatever_reads_the_store_is_refused_where_too_many_wait(path):
    async def work(session, collector):
        async with session.get(path) as free:
            assert free.status == 200
        end = threading.Event()
        busy = [tasks.spawn(collector.gate.worked(lambda _: end.wait()), "busy") for _ in range(AT_ONCE + WAITING)]
        await asyncio.sleep(0)
        try:
            async with session.get(path) as full:
                return full.status, await full.text()
        finally:
            end.set()
            await asyncio.gather(*busy)

    status, says = asyncio.run(served(work))
    assert status == 503
    assert "too many queries are waiting" in says


LIVE = ("/api/graph", "/api/graph?kind=service&window=5", "/api/health?window=60")


@pytest.mark.parametrize("path", LIVE)
def test_questions_about_now_wait_for_one_another_but_not_for_those_about_the_past(path):
    async def work(session, collector):
        statuses = []
        for gate in (collector.gate, collector.live):
            end = threading.Event()
            wait = partial(gate.worked, lambda _, end=end: end.wait())
            busy = [tasks.spawn(wait(), "busy") for _ in range(AT_ONCE + WAITING)]
            await asyncio.sleep(0)
            async with session.get(path) as found:
                statuses.append(found.status)
            collector._answers.clear()
            end.set()
            await asyncio.gather(*busy)
        async with session.get(path) as found:
            return [*statuses, found.status]

    assert asyncio.run(served(work)) == [200, 503, 200]


def test_what_everybody_asks_is_worked_out_once_before_the_next_reading():
    async def work(session, collector):
        drawn = []
        collector.graph = lambda *question: drawn.append(question) or {"nodes": []}

        async def ask(path):
            async with session.get(path) as found:
                return found.status, await found.json()

        found = await asyncio.gather(*(ask("/api/graph?window=60.1&namespaces=b,a,a") for _ in range(20)))
        return drawn, found

    drawn, found = asyncio.run(served(work))
    assert drawn == [("versionedApp", ("a", "b"), 60)]
    assert found == [(200, {"nodes": []})] * 20


def test_pages_that_show_the_live_graph_are_bounded_and_the_place_of_one_that_is_closed_is_free(monkeypatch):
    monkeypatch.setattr(collector_module, "STREAMS", 2)

    async def work(session, collector):
        open_ = [await session.get("/api/graph/stream") for _ in range(2)]
        assert [found.status for found in open_] == [200, 200]
        async with session.get("/api/graph/stream") as full:
            refused = full.status
        for found in open_:
            found.close()
        while collector._streams:
            async with collector.looked:
                collector.looked.notify_all()
            await asyncio.sleep(0.01)
        return refused

    assert asyncio.run(served(work)) == 503


def test_no_more_than_a_few_run_at_once_also_when_clients_hang_up():
    async def run():
        gate, end, running, most = Gate(), threading.Event(), [0], [0]

        def work(_):
            running[0] += 1
            most[0] = max(most[0], running[0])
            end.wait()
            running[0] -= 1

        asked = [tasks.spawn(gate.worked(work), "asked") for _ in range(8)]
        await asyncio.sleep(0.05)
        for task in asked[:4]:
            task.cancel()
        await asyncio.sleep(0.05)
        end.set()
        await asyncio.gather(*asked, return_exceptions=True)
        assert await gate.worked(lambda _: "free again") == "free again"
        return most[0]

    assert asyncio.run(run()) == AT_ONCE


def test_what_takes_too_long_ends_between_two_steps():
    store = Store(None)
    number = store.registry.intern({"__name__": "up"})
    store.put(1000, codec.np.array([number]), codec.np.array([1.0]))
    late = Deadline(-1).check
    with pytest.raises(QueryError, match="timed out"):
        store.names(parsing.selectors(["up"]), 0, 2000, late)


def test_the_number_of_selectors_and_matchers_is_bounded():
    with pytest.raises(QueryError, match="more than 100 match"):
        parsing.selectors(["up"] * 101)
    many = ",".join(f'a{i}=~".*"' for i in range(101))
    with pytest.raises(QueryError, match="more than 100 label matchers"):
        parsing.selectors([f"up{{{many}}}"])


@pytest.mark.parametrize("bound", ["", "x", "nan", "0x10"])
def test_a_bucket_without_a_bound_is_no_measurement(bound):
    name = b"istio_request_duration_milliseconds_bucket"
    assert meaning(name + b'{le="%s"}' % bound.encode()) is None
    assert meaning(name + b'{le="+Inf"}') is not None


def test_who_does_not_answer_is_named_without_the_clients_own_words():
    async def work(session, _):
        try:
            await session.get("http://127.0.0.1:1/")
        except aiohttp.ClientError as e:
            return why(e)

    assert asyncio.run(served(work)) == "127.0.0.1:1: Connection refused"
    assert why(TimeoutError()) == "timeout"


def test_programs_find_prometheus_health_and_version_outside_of_its_api():
    """Kiali asks for them, and takes a Prometheus without for unreachable."""

    async def work(session, _):
        async with session.get("/-/healthy") as health, session.get("/version") as version:
            return health.status, await version.json()

    status, version = asyncio.run(served(work))
    assert status == 200
    assert version["version"].partition(".")[0].isdecimal()
