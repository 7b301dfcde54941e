"""A disk without room costs the oldest traces and nothing else; a collector of the user's own gets every span."""

import asyncio
import subprocess
import sys
import time

import pytest
from aiohttp import web

from lateen.console.traces import otlp, serving
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


def test_a_collector_of_the_user_s_own_gets_every_span_also_after_an_outage(tmp_path):
    got, answers = [], iter([503, 200, 200, 200])

    async def take(request):
        status = next(answers)
        if status == 200:
            got.extend(otlp.decode(await request.read()))
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
