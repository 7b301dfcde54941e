"""The real Prometheus and our own HTTP API answer the same questions over the same samples."""

import asyncio
import contextlib
import json
import math
import random
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from lateen.console.gate import Gate
from lateen.console.prometheus import Api
from lateen.console.series.intake import Intake

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="the real Prometheus is not installed here (apt-get install prometheus)",
)

EVERY_S, COUNT = 10, 90
START = 1_700_000_003
"""No window of a query begins at a sample: which window has that one differs between Prometheus 2 and 3."""
END = START + EVERY_S * (COUNT - 1)

EXPRESSIONS = """
hits
hits{app="web"}
hits{code!~"5..", app=~"w.*|cart"}
{__name__=~"hits|level", app="web"}
hits offset 5m
hits @ 1700000333
rate(hits[1m])
rate(hits[47s])
irate(hits[1m])
increase(hits[5m])
increase(resetting[5m])
rate(resetting[2m])
irate(resetting[1m])
delta(level[3m])
idelta(level[1m])
deriv(level[3m])
predict_linear(level[3m], 600)
predict_linear(level[3m] offset 1m, scalar(level{app="web"}))
rate(gapped[1m])
increase(gapped[2m])
irate(gapped[1m])
gapped
count_over_time(gapped[2m])
last_over_time(gapped[2m])
sum(rate(hits[1m]))
sum by (app) (rate(hits[1m]))
sum without (code) (hits)
sum(rate(hits{code=~"5.."}[2m])) by (app) / sum(rate(hits[2m])) by (app)
avg(level)
avg by (app) (hits)
min(level)
max by (code) (hits)
count(hits)
count by (app) (hits > 100)
stddev(level)
stdvar by (app) (hits)
group by (app) (hits)
topk(2, level)
bottomk by (app) (1, hits)
topk(1, sum by (app) (hits))
quantile(0.9, level)
quantile by (app) (0.25, hits)
count_values("n", info)
histogram_quantile(0.5, rate(took_bucket[1m]))
histogram_quantile(0.99, sum by (le) (rate(took_bucket[2m])))
histogram_quantile(0.9, sum(increase(took_bucket[5m])) by (le, app))
histogram_quantile(0, took_bucket)
histogram_quantile(1, took_bucket)
histogram_quantile(1.5, took_bucket)
sum by (app) (hits) * on (app) group_left (version) info
info * on (app) group_right () sum by (app) (hits)
hits{code="500"} / ignoring (code) hits{code="200"}
hits > 100
hits > bool 100
100 < hits
hits == hits
hits != bool hits
hits and on (app) info{version="v2"}
hits unless on (app) level
sum(nothing) or vector(0)
hits or level
hits + 1
2 ^ level
level % 3
-level
(level > 0) / (level > 0)
label_replace(info, "major", "$1", "version", "v(.)")
label_replace(hits, "kind", "${1}xx", "code", "(.)..")
label_join(hits, "id", "/", "app", "code")
round(level / 3)
round(level, 0.5)
clamp(level, 0, 3)
clamp_min(level, 2)
clamp_max(level, 2)
abs(level)
ceil(level / 3)
floor(level / 3)
sqrt(level)
exp(level)
ln(hits)
log2(hits)
log10(hits)
sgn(level)
avg_over_time(level[1m])
min_over_time(level[1m])
max_over_time(level[90s])
sum_over_time(level[1m])
stddev_over_time(level[2m])
stdvar_over_time(level[2m])
quantile_over_time(0.3, level[2m])
quantile_over_time(scalar(level{app="web"}) / 9, hits[2m])
present_over_time(gapped[1m])
changes(level[3m])
resets(resetting[5m])
max_over_time(sum(rate(hits[1m]))[5m:30s])
avg_over_time(rate(hits[1m])[3m:1m])
timestamp(hits)
absent(hits)
absent(nothing{app="x", y=~"z"})
absent_over_time(nothing[5m])
scalar(sum(hits))
vector(time())
time()
sum(hits) - sum(hits offset 1m)
sort(hits)
sort_desc(level)
hits{app="web"}[30s]
"text"
hits{app="web"}[1m:20s]
(hits)[1m:20s]
(hits{app="web"}[30s])
round(sum(irate(hits{app="web"}[1m])) by (app, code), 0.001)
nothing * on () hits
hits + on () nothing or vector(7)
sum by (app) (hits) * on (app) group_left (code) (hits > 1e9)
sum by (app) (topk by (app) (1, sum by (app, code) (hits)))
clamp(level, NaN, 3)
timestamp((gapped))
hour() * 100 + minute()
day_of_week(vector(1709164800)) + 10 * day_of_month(vector(1709164800))
day_of_year(vector(1709164800)) + 1000 * days_in_month(vector(1709164800))
year(level * 1e9) * 100 + month(level * 1e9)
sin(level) + cos(level) * tan(level)
asin(level / 10) + acos(level / 10) * atan(level)
sinh(level) + cosh(level) * tanh(level)
asinh(level) + acosh(level) * atanh(level / 10)
deg(rad(level)) * pi()
label_replace(sum(increase(hits[90s])) by (app), "a", "b", "", "")
""".strip().splitlines()
WRONG = (
    "sum(rate(hits[5m])",
    "rate(hits)",
    "hits[5m]",
    "sum(1, hits)",
    'hits{app=~"("}',
    "hits + on (app) info{version=~'.*'} * hits",
    "label_replace(hits, '0', 'a', 'b', '(')",
    "nofunction(hits)",
    "'a' + 1",
)


def rows():
    """{series: its values; None where there is no sample}"""
    dice = random.Random(11)
    out, names = {}, [("web", "200"), ("web", "500"), ("cart", "200"), ("pay", "404")]
    for app, code in names:
        total, values = 0.0, []
        for _ in range(COUNT):
            total += dice.choice((0, 1, 2, 9))
            values.append(total)
        out[f'hits{{app="{app}",code="{code}"}}'] = values
    for app, version in (("web", "v1"), ("cart", "v2"), ("pay", "v2")):
        out[f'info{{app="{app}",version="{version}"}}'] = [1.0] * COUNT
    for app in ("web", "cart"):
        out[f'level{{app="{app}"}}'] = [round(dice.uniform(-5, 9), 3) for _ in range(COUNT)]
    total, values = 0.0, []
    for _ in range(COUNT):
        total = 0.0 if dice.random() < 0.1 else total + dice.choice((1, 4))
        values.append(total)
    out["resetting{}"] = values
    total, values = 0.0, []
    for i in range(COUNT):
        total += 3
        values.append(None if dice.random() < 0.3 or 40 < i < 50 else total)
    out["gapped{}"] = values
    counts = [[0.0] * 4 for _ in range(2)]
    buckets = {(app, le): [] for app in ("web", "cart") for le in ("0.1", "1", "5", "+Inf")}
    for _ in range(COUNT):
        for app, had in zip(("web", "cart"), counts, strict=True):
            for _ in range(dice.choice((0, 3, 5))):
                for place in range(dice.randrange(4), 4):
                    had[place] += 1
            for le, count in zip(("0.1", "1", "5", "+Inf"), had, strict=True):
                buckets[app, le].append(count)
    return out | {f'took_bucket{{app="{app}",le="{le}"}}': values for (app, le), values in buckets.items()}


def labels(series):
    name, _, rest = series.partition("{")
    pairs = (p.split("=", 1) for p in rest.rstrip("}").split(",") if p)
    return {"__name__": name, **{k: v.strip('"') for k, v in pairs}}


def intake():
    out = Intake(None)
    numbers = {series: out.store.registry.intern(labels(series)) for series in rows()}
    for i in range(COUNT):
        there = {numbers[s]: v[i] for s, v in rows().items() if v[i] is not None}
        ids = np.array(list(there), np.int64)
        out.store.put((START + i * EVERY_S) * 1000, ids, np.array(list(there.values())))
    return out


def openmetrics():
    lines, kinds = [], {}
    for series, values in rows().items():
        kinds.setdefault(series.partition("{")[0], []).append((series.replace("{}", ""), values))
    for name, found in kinds.items():
        lines.append(f"# TYPE {name} unknown")
        for series, values in found:
            lines += [f"{series} {v} {START + i * EVERY_S}" for i, v in enumerate(values) if v is not None]
    return "\n".join([*lines, "# EOF", ""])


def get(address, path, asked):
    url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(asked, doseq=True)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "in.txt").write_text(openmetrics())
    (folder / "prometheus.yml").write_text("{}")
    create = ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "in.txt", folder / "data"]
    subprocess.run(create, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += ["--storage.tsdb.retention.time=100y", f"--web.listen-address={address}", "--log.level=error"]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).status == 200:
                    break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield lambda path, asked: get(f"http://{address}", path, asked)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def ours():
    found = intake()

    def ask(path, asked):
        async def work():
            app = web.Application()
            app.add_routes(Api(found.store, found, Gate()).routes())
            async with TestClient(TestServer(app)) as client:
                pairs = [(k, v) for k, vs in asked.items() for v in (vs if isinstance(vs, list) else [vs])]
                answer = await client.get(f"/api/v1/{path}", params=pairs)
                return answer.status, await answer.json()

        return asyncio.run(work())

    return ask


# Ranges of time begin after the first samples: what a counter had before them is guessed otherwise by Prometheus 2.


def alike(a, b):
    """Numbers may differ by what the order of additions makes."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, str) and isinstance(b, str) and a != b:
        with contextlib.suppress(ValueError):
            return math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=1e-12)
    return a == b


def ordered(answer):
    """Only sort functions promise an order."""
    found = answer["data"]["result"]
    if isinstance(found, list) and found and isinstance(found[0], dict):
        found.sort(key=lambda one: sorted(one["metric"].items()))
    return answer["data"]


@pytest.mark.parametrize("query", EXPRESSIONS)
def test_both_answer_alike(real, ours, query):
    asked = {"query": query, "time": END - 3.6}
    theirs, own = real("query", asked), ours("query", asked)
    assert own[0] == theirs[0] == 200, (own, theirs)
    if not query.startswith(("sort", "topk")):
        ordered(own[1]), ordered(theirs[1])
    assert alike(own[1]["data"], theirs[1]["data"]), (own[1]["data"], theirs[1]["data"])
    if query.endswith(("]", "])")) or query.startswith('"'):
        return
    asked = {"query": query, "start": START + 399.6, "end": END + 400, "step": 17}
    theirs, own = real("query_range", asked), ours("query_range", asked)
    assert own[0] == theirs[0] == 200, (own, theirs)
    assert alike(ordered(own[1]), ordered(theirs[1]))


@pytest.mark.parametrize("query", WRONG)
def test_both_refuse_alike(real, ours, query):
    for path, asked in (("query", {}), ("query_range", {"start": START, "end": END, "step": 15})):
        theirs, own = (one(path, {"query": query, "time": END, **asked}) for one in (real, ours))
        assert (own[0], own[1].get("errorType")) == (theirs[0], theirs[1].get("errorType")), (own, theirs)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("labels", {}),
        ("labels", {"match[]": "hits"}),
        ("label/app/values", {}),
        ("label/app/values", {"match[]": ["hits{code=~'5..'}", "level"]}),
        ("label/__name__/values", {}),
        ("series", {"match[]": ["hits", "{__name__=~'in.*'}"]}),
        ("series", {}),
        ("query_range", {"query": "hits", "start": "x", "end": END, "step": 1}),
        ("query_range", {"query": "hits", "start": START, "end": END, "step": 0}),
        ("query_range", {"query": "hits", "start": END, "end": START, "step": 1}),
        ("query_range", {"query": "hits", "start": START, "end": START + 20_000, "step": 1}),
        ("query", {"query": "hits", "time": "2023-11-14T22:20:00Z"}),
        ("query", {"query": "", "time": END}),
    ],
)
def test_both_list_and_refuse_alike(real, ours, path, asked):
    asked = {"start": START - 60, "end": END + 60, **asked}
    theirs, own = real(path, asked), ours(path, asked)
    assert own[0] == theirs[0], (own, theirs)
    assert own[1].get("errorType") == theirs[1].get("errorType")
    found, expected = own[1].get("data"), theirs[1].get("data")
    if isinstance(found, list) and found and isinstance(found[0], dict):
        found, expected = (sorted(some, key=lambda one: sorted(one.items())) for some in (found, expected))
    if isinstance(found, dict):
        ordered(own[1]), ordered(theirs[1])
    assert alike(found, expected), (found, expected)
