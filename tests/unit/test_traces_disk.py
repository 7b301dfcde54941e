"""A disk without room costs the oldest traces and nothing else; a collector of the user's own gets every span."""

import asyncio
import contextlib
import random
import subprocess
import sys
import time

import apsw
import pytest
from aiohttp import web

from lateen.console.traces import otlp, serving
from lateen.console.traces.asking import Query
from lateen.console.traces.spans import Span
from lateen.console.traces.store import Store
from lateen.kit import tasks

NOW = 1_700_000_000_000_000
FILL = """
import logging, pathlib, random, subprocess, sys
sys.path[:0] = {paths!r}
from lateen.console.traces.spans import Span
from lateen.console.traces.store import Store

folder = pathlib.Path({folder!r})
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], check=True)
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
dice = random.Random(1)
text = lambda: {{"text": dice.randbytes(2000).hex()}}
store = Store(folder / "traces.sqlite", 1_000_000_000, 86_400)
for batch in range(100):
    start = {now} + batch * 1_000_000
    spans = [
        Span(f"{{batch * 100 + i:032x}}", "1" * 16, "", "shop", "get", "SERVER", start, 5, text(), [], False)
        for i in range(100)
    ]
    store.add(spans, start)
print("lost", store.lost)
print("newest", all(store.trace(f"{{99 * 100 + i:032x}}") for i in range(100)))
print("oldest", bool(store.trace(f"{{0:032x}}")))
print("kept", store.size > 3_000_000)
print("says", store.problem)
"""


def add(store, count, tags):
    store.add(
        [
            Span(f"{i + 1:032x}", "1" * 16, "", "shop", "get", "SERVER", NOW + i, 5, tags(), [], False)
            for i in range(count)
        ],
        NOW,
    )


def test_a_full_disk_costs_the_oldest_traces_and_says_so(tmp_path):
    """20 MB of spans, compressed, on a file system of 12 MB, whose bound for traces is far away."""
    script = FILL.format(paths=sys.path, folder=str(tmp_path), now=NOW)
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip("this kernel gives no namespaces to users")
    assert done.returncode == 0, done.stderr
    lines = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert lines["lost"] == "0", done.stdout
    assert (lines["newest"], lines["oldest"], lines["kept"]) == ("True", "False", "True")
    assert "is full; the oldest traces are deleted to store new ones" in lines["says"]
    assert done.stdout.count("is full") == 2  # it is logged once, and printed here


@pytest.mark.parametrize("reopened", [False, True])
def test_the_file_shrinks_when_old_traces_go(tmp_path, reopened):
    path, dice = tmp_path / "traces.sqlite", random.Random(1)
    store = Store(path, 100_000_000, 3600)
    add(store, 4000, lambda: {"text": dice.randbytes(700).hex()})
    if reopened:
        store.close()
        store = Store(path, 100_000_000, 3600)
    store.trim(NOW)
    before = path.stat().st_size
    store.trim(NOW + 3_601 * 1_000_000)
    assert (store.services(), before > 3_000_000, path.stat().st_size < 1_000_000) == ([], True, True)
    store.close()


def test_a_file_that_cannot_shrink_gives_way_to_one_that_can(tmp_path):
    """Files of version 2 kept their size for ever."""
    path = tmp_path / "traces.sqlite"
    with contextlib.closing(apsw.Connection(str(path))) as old:
        list(old.execute("PRAGMA journal_mode=WAL"))
        old.execute("CREATE TABLE spans(body); INSERT INTO spans VALUES(randomblob(3000000)); PRAGMA user_version=2")
    store = Store(path, 100_000_000, 3600)
    add(store, 1, dict)
    assert len(store.find(Query())) == 1
    assert store._one("PRAGMA auto_vacuum") == 2
    store.close()
    assert path.stat().st_size < 200_000


def test_a_store_of_traces_does_not_wait_for_the_disk_with_every_batch(tmp_path):
    store = Store(tmp_path / "traces.sqlite", 100_000_000, 3600)
    assert (store._one("PRAGMA synchronous"), store._one("PRAGMA journal_mode")) == (1, "wal")
    store.close()


def test_who_removes_the_oldest_traces_reads_of_no_others(tmp_path):
    store, read = Store(tmp_path / "traces.sqlite", 100_000_000, 3600), []
    add(store, 1000, dict)
    store._db.row_trace = lambda _, row: read.append(row) or row
    store._remove_oldest(0.02)
    assert 20 <= len(read) <= 40
    assert store._one("SELECT count(*) FROM traces") == pytest.approx(980, abs=1)
    store.close()


def test_a_collector_of_the_user_s_own_gets_every_span_also_after_an_outage(tmp_path):
    got, answers = [], iter([503, 200, 200, 200])

    async def take(request):
        status = next(answers)
        if status == 200:
            got.extend(otlp.decode(await request.read())[0])
        return web.Response(status=status)

    async def work():
        app = web.Application()
        app.add_routes([web.post("/v1/traces", take)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        store = Store(tmp_path / "traces.sqlite", 10**7, 86_400)
        traces = serving.Traces(store, f"http://127.0.0.1:{runner.addresses[0][1]}/")
        exporting = tasks.spawn(traces.export(), "export")
        sent = [
            Span(f"{i + 1:032x}", f"{i + 1:016x}", "", "shop", f"n{i}", "CLIENT", NOW, 7, {"k": "v"}, [], i == 1)
            for i in range(3)
        ]
        assert traces.take(sent)
        deadline = time.monotonic() + 30
        while len(got) < 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        exporting.cancel()
        await runner.cleanup()
        assert traces.unsent == 0
        return sent

    sent = asyncio.run(work())
    shown = [(s.trace, s.id, s.service, s.name, s.kind, s.start, s.duration, s.tags["k"], s.error) for s in sent]
    assert [(s.trace, s.id, s.service, s.name, s.kind, s.start, s.duration, s.tags["k"], s.error) for s in got] == shown


@pytest.mark.parametrize("harm", ["cut", "overwritten", "overwritten at its beginning"])
@pytest.mark.parametrize("first", ["write", "question", "tidying"])
def test_a_damaged_file_is_begun_anew_and_named(tmp_path, harm, first):
    """It lay in a volume, so the add-on failed at each start until somebody deleted it."""
    path, old = tmp_path / "traces.sqlite", 400
    before = Store(path, 50_000_000, 86_400)
    for i in range(old):
        before.add(
            [Span(f"{i + 1:032x}", "1" * 16, "", "shop", "get", "SERVER", NOW, 5, {"k": "v" * 99}, [], False)], NOW
        )
    before.close()
    data = path.read_bytes()
    bad = {
        "cut": data[: len(data) // 3],
        "overwritten": data[:4096] + b"\xaa" * len(data),
        "overwritten at its beginning": bytes(4096) + data[4096:],
    }
    path.write_bytes(bad[harm])
    for log in tmp_path.glob("*-wal"):
        log.unlink()
    store = Store(path, 50_000_000, 86_400)
    if first == "question":
        assert len(store.within(10, lambda: store.find(Query(limit=1000)))) < old
    if first == "tidying":
        store.tidy(NOW)
    new = Span("f" * 32, "1" * 16, "", "cart", "get", "SERVER", NOW, 5, {}, [], False)
    store.add([new], NOW)
    assert store.within(10, lambda: store.trace("f" * 32)) == [new]
    assert f"{path} was damaged" in store.problem
    store.close()
