"""PromQL over small stores whose answers can be worked out by hand, and against a plain reading of the definitions."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest

from lateen.console import calls
from lateen.console.gate import Deadline
from lateen.console.promql import parsing
from lateen.console.promql.engine import Engine
from lateen.console.promql.functions import text
from lateen.console.promql.selecting import Steps
from lateen.console.promql.values import QueryError, Vector
from lateen.console.series.codec import STALE_BITS, marker
from lateen.console.series.store import Store

START = 1_700_000_000_000
STALE = marker(STALE_BITS)
_, END = None, STALE


def loaded(every_s=10, **rows):
    """A store with one sample every ``every_s`` from START on; None is no sample, END the end of the series. Rows are
    ``name__label_value__label_value=[…]``."""
    store = Store(None)
    numbers = {}
    for row in rows:
        name, *labels = row.split("__")
        numbers[row] = store.registry.intern({"__name__": name, **dict(part.split("_", 1) for part in labels)})
    for i in range(max(len(v) for v in rows.values())):
        here = [(numbers[r], v[i]) for r, v in rows.items() if i < len(v) and v[i] is not None]
        ids = np.array([n for n, _ in here], np.int64)
        store.put(START + i * every_s * 1000, ids, np.array([float(v) for _, v in here]))
    return store


def ask(store, query, at_s=0.0, to_s=None, step_s=1.0):
    """{labels as text: value}, or with ``to_s`` {labels: {second: value}}; numbers for scalars."""
    first = START + round(at_s * 1000)
    last = first if to_s is None else START + round(to_s * 1000)
    steps = Steps(np.arange(first, last + 1, round(step_s * 1000), dtype=np.int64), first, last)
    found = Engine(store, lambda: None).evaluate(parsing.parse(query), steps)
    if not isinstance(found, Vector):
        return found if isinstance(found, str) else float(found[0])
    out = {}
    for labels, values, there in zip(found.labels, found.values, found.there, strict=True):
        name = labels.get("__name__", "") + "".join(f" {k}={v}" for k, v in sorted(labels.items()) if k != "__name__")
        seconds = {
            (t - START) / 1000: float(v) for t, v, p in zip(steps.times.tolist(), values, there, strict=True) if p
        }
        if seconds:
            out[name.strip()] = seconds if to_s is not None else seconds[at_s]
    return out


def close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, nan_ok=True), key


SHOP = loaded(
    hits__app_web__code_200=[0, 10, 20, 30, 40, 50, 60],
    hits__app_web__code_500=[0, 1, 2, 3, 4, 5, 6],
    hits__app_cart__code_200=[5, 5, 25, 25, 45, 45, 65],
    info__app_web__version_v1=[1] * 7,
    info__app_cart__version_v2=[1] * 7,
    took_bucket__le_1=[0, 5, 10, 15, 20, 25, 30],
    took_bucket__le_5=[0, 9, 18, 27, 36, 45, 54],
    **{"took_bucket__le_+Inf": [0, 10, 20, 30, 40, 50, 60]},
    level__app_web=[1, 2, 3, -4, 5, 6, 7],
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('hits{app="web"}', {"hits app=web code=200": 60, "hits app=web code=500": 6}),
        ('hits{code!="200"}', {"hits app=web code=500": 6}),
        ('hits{app=~"w.*|x", code=~"2.."}', {"hits app=web code=200": 60}),
        ('hits{app!~"w.*"}', {"hits app=cart code=200": 65}),
        (
            'hits{version=""} offset 30s',
            {"hits app=web code=200": 30, "hits app=web code=500": 3, "hits app=cart code=200": 25},
        ),
        ('{__name__=~"inf.", app="web"}', {"info app=web version=v1": 1}),
        ('hits{code="500"} @ 1700000020', {"hits app=web code=500": 2}),
        ('increase(hits{code="500"}[50s])', {"app=web code=500": 5}),
        ('rate(hits{app="web"}[40s])', {"app=web code=200": 1.0, "app=web code=500": 0.1}),
        ('irate(hits{app="cart"}[1m])', {"app=cart code=200": 2.0}),
        ("delta(level[30s])", {"app=web": 3}),
        ("idelta(level[30s])", {"app=web": 1}),
        ("sum(rate(hits[50s])) by (app)", {"app=web": 1.1, "app=cart": 1.0}),
        ("sum without (code) (hits)", {"app=web": 66, "app=cart": 65}),
        ("avg(hits)", {"": 131 / 3}),
        ("min by (app) (hits)", {"app=web": 6, "app=cart": 65}),
        ("max(hits)", {"": 65}),
        ("count by (code) (hits)", {"code=200": 2, "code=500": 1}),
        ("stddev(level) + stdvar(level)", {"": 0}),
        ("topk(1, hits)", {"hits app=cart code=200": 65}),
        ("bottomk by (app) (1, hits)", {"hits app=web code=500": 6, "hits app=cart code=200": 65}),
        ("quantile(0.5, hits)", {"": 60}),
        ('count_values("n", info)', {"n=1": 2}),
        ("histogram_quantile(0.5, rate(took_bucket[50s]))", {"": 1.0}),
        ("histogram_quantile(0.7, rate(took_bucket[50s]))", {"": 1 + 4 * (0.2 / 0.4)}),
        ("histogram_quantile(0.99, took_bucket)", {"": 5.0}),
        ("histogram_quantile(0.9, sum by (le) (took_bucket)) > 6", {}),
        ("histogram_quantile(2, took_bucket)", {"": math.inf}),
        ('hits{code="500"} / ignoring(code) hits{app="web", code="200"}', {"app=web": 0.1}),
        ('sum(hits{code=~"5.."}) / sum(hits)', {"": 6 / 131}),
        (
            "sum by (app) (hits) * on (app) group_left (version) info",
            {"app=web version=v1": 66, "app=cart version=v2": 65},
        ),
        ("info * on (app) group_right () sum by (app) (hits)", {"app=web": 66, "app=cart": 65}),
        ("hits > 60", {"hits app=cart code=200": 65}),
        ("hits > bool 60", {"app=web code=200": 0, "app=web code=500": 0, "app=cart code=200": 1}),
        ("60 >= hits", {"hits app=web code=200": 60, "hits app=web code=500": 6}),
        ('hits and on (app) info{version="v2"}', {"hits app=cart code=200": 65}),
        ("hits unless on (app) level", {"hits app=cart code=200": 65}),
        ("sum(nothing) or vector(0)", {"": 0}),
        (
            'label_replace(info, "major", "$1", "version", "v(.)")',
            {"info app=web major=1 version=v1": 1, "info app=cart major=2 version=v2": 1},
        ),
        ('label_replace(info{app="web"}, "v", "${x}!", "version", "(?P<x>..)")', {"info app=web v=v1! version=v1": 1}),
        ('label_join(info{app="web"}, "id", "/", "app", "version")', {"info app=web id=web/v1 version=v1": 1}),
        ("round(sum(rate(hits[50s])), 0.5)", {"": 2.0}),
        ("round(level / 2)", {"app=web": 4}),
        ("clamp(level, 0, 5)", {"app=web": 5}),
        ("clamp(level, 5, 0)", {}),
        ("abs(level @ 1700000030)", {"app=web": 4}),
        ("max_over_time(level[1m])", {"app=web": 7}),
        ("min_over_time(level[1m])", {"app=web": -4}),
        ("avg_over_time(level[30s])", {"app=web": 6}),
        ("sum_over_time(level[30s])", {"app=web": 18}),
        ("count_over_time(level[30s])", {"app=web": 3}),
        ("last_over_time(level[30s])", {"level app=web": 7}),
        ("quantile_over_time(0.5, level[50s])", {"app=web": 5}),
        ("changes(level[50s])", {"app=web": 4}),
        ("resets(level[1m])", {"app=web": 1}),
        ('deriv(hits{code="500"}[50s])', {"app=web code=500": 0.1}),
        ('predict_linear(hits{code="500"}[50s], 100)', {"app=web code=500": 16}),
        ('predict_linear(hits{code="500"}[50s] offset 10s, 100)', {"app=web code=500": 16}),
        ('predict_linear(hits{code="500"}[50s] @ 1700000050, 100)', {"app=web code=500": 16}),
        ("max_over_time(sum(hits)[30s:10s])", {"": 131}),
        ("timestamp(level)", {"app=web": 1_700_000_060}),
        ('absent(hits{app="gone", code="200"})', {"app=gone code=200": 1}),
        ("absent(hits)", {}),
        ("-level", {"app=web": -7}),
        ("sort_desc(info) * 2", {"app=web version=v1": 2, "app=cart version=v2": 2}),
        ("level % 4", {"app=web": 3}),
        ("2 ^ level", {"app=web": 128}),
        ("level / 0", {"app=web": math.inf}),
    ],
)
def test_answers_that_can_be_worked_out_by_hand(query, expected):
    close(ask(SHOP, query, 60.0), expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("1 + 2 * 3 ^ 2", 19),
        ("time()", 1_700_000_060),
        ("1 == bool 1", 1),
        ("scalar(sum(level))", 7),
        ("scalar(hits)", math.nan),
        ("0 / 0", math.nan),
        ("-3 % 2", -1),
    ],
)
def test_numbers(query, expected):
    assert ask(SHOP, query, 60.0) == pytest.approx(expected, nan_ok=True)


def test_a_range_query_has_a_value_wherever_there_are_samples():
    store = loaded(up__i_a=[1, 0, None, None, END, 1], up__i_b=[None, 1, 1])
    found = ask(store, "up", 0, 60, 10)
    assert found == {
        "up i=a": {0: 1, 10: 0, 20: 0, 30: 0, 50: 1, 60: 1},
        "up i=b": dict.fromkeys(range(10, 61, 10), 1),
    }
    assert ask(store, "sum(up)", 0, 50, 10) == {"": {0: 1, 10: 1, 20: 1, 30: 1, 40: 1, 50: 2}}


def test_a_series_that_was_not_seen_for_five_minutes_is_gone():
    store = loaded(up=[1])
    assert ask(store, "up", 299.0) == {"up": 1}
    assert ask(store, "up", 300.0) == {}


def test_a_counter_that_was_reset_still_only_grows():
    store = loaded(c=[100, 110, 3, 8])
    assert ask(store, "increase(c[40s])", 30.0) == pytest.approx({"": (10 + 3 + 5) * 40 / 30})


def test_first_samples_count_as_calls_once_the_collector_was_looking():
    """A series that begins counts with its value; what was counted before anybody looked does not."""
    old = [7.0] * 15 + [8.0] * 15
    first = [None] * 9 + [1.0] * 21
    store = loaded(
        up=[1] * 30,
        hits__reporter_destination__app_old=old,
        hits__reporter_destination__app_new=first,
        hits__app_other=first,
    )
    query, step = calls.counted("hits", "app", 290), calls.step(290)
    found = {name: sum(at.values()) for name, at in ask(store, query, 0.0, 290.0, step).items()}
    assert found["app=new"] == pytest.approx(1)
    assert found["app=old"] == pytest.approx(1, rel=0.35)
    assert set(found) == {"app=new", "app=old"}


def test_a_missed_scrape_does_not_turn_what_a_proxy_has_counted_into_new_calls():
    """What a proxy had counted before it was read, again or for the first time, is of an unknown time."""
    query, step = calls.counted("hits", "app", 290), calls.step(290)
    # Missed at any place among the moments that are looked at.
    for missed in range(1, 29):
        up = [1.0] * 30
        old = [1000.0] * 30
        up[missed], old[missed] = 0.0, END
        store = loaded(
            up__instance_a=[1] * 30,
            up__instance_b=up,
            hits__reporter_destination__instance_b__app_old=old,
            hits__reporter_destination__instance_a__app_new=[None] * 9 + [1.0] * 21,
        )
        found = {name: sum(at.values()) for name, at in ask(store, query, 0.0, 290.0, step).items()}
        assert found == pytest.approx({"app=old": 0, "app=new": 1}), missed


@pytest.mark.parametrize("before", [_, 0], ids=["not known", "not reached"])
def test_what_a_proxy_had_counted_before_it_was_read_first_is_no_new_call(before):
    since = 12
    store = loaded(
        up__instance_a=[1] * 30,
        up__instance_b=[before] * since + [1] * (30 - since),
        hits__reporter_destination__instance_b__app_late=[_] * since + [500.0] * (30 - since),
        hits__reporter_destination__instance_b__app_new=[_] * 22 + [1.0] * 8,
    )
    query, step = calls.counted("hits", "app", 290), calls.step(290)
    found = {name: sum(at.values()) for name, at in ask(store, query, 0.0, 290.0, step).items()}
    assert found == pytest.approx({"app=late": 0, "app=new": 1})


def test_what_a_proxy_that_began_within_the_time_had_counted_is_of_that_time():
    """Also what it had counted before the collector read it for the first time: the mesh may be minutes old."""
    since = 12
    store = loaded(
        up__instance_a=[_] * since + [1] * (30 - since),
        up__instance_b=[_] * since + [1] * (30 - since),
        istio_agent_uptime_seconds__instance_a=[_] * since + [10.0 * at for at in range(1, 31 - since)],
        istio_agent_uptime_seconds__instance_b=[_] * since + [10_000 + 10.0 * at for at in range(30 - since)],
        hits__reporter_destination__instance_a__app_young=[_] * since + [5.0] * (30 - since),
        hits__reporter_destination__instance_b__app_old=[_] * since + [500.0] * (30 - since),
    )
    query, step = calls.counted("hits", "app", 290), calls.step(290)
    found = {name: sum(at.values()) for name, at in ask(store, query, 0.0, 290.0, step).items()}
    assert found == pytest.approx({"app=young": 5, "app=old": 0}, abs=0.5)


def test_a_counter_is_not_extrapolated_below_zero():
    store = loaded(c=[1, 21, 41])
    half = (40 + 0.5) / 20 * 10  # from zero, half a second before the first sample, to the last one
    assert ask(store, "increase(c[1m])", 20.0)[""] == pytest.approx(half / 10 * 20, rel=0.02)


def plain_rate(samples, end, span):
    """``rate`` as the documentation and Prometheus' source say it, sample by sample."""
    inside = [(t, v) for t, v in samples if end - span < t <= end]
    if len(inside) < 2:
        return None
    (first_t, first), (last_t, last) = inside[0], inside[-1]
    total = last - first + sum(a for (_, a), (_, b) in pairwise(inside) if b < a)
    sampled = last_t - first_t
    average = sampled / (len(inside) - 1)
    to_start, to_end = first_t - (end - span), end - last_t
    if to_start >= average * 1.1:
        to_start = average / 2
    if total > 0 and first >= 0:
        to_start = min(to_start, sampled * first / total)
    if to_end >= average * 1.1:
        to_end = average / 2
    return total * (sampled + to_start + to_end) / sampled / span


@pytest.mark.parametrize("seed", range(20))
def test_rates_are_those_of_a_plain_reading_of_the_definition(seed):
    dice = random.Random(seed)
    rows, value = {}, 0.0
    for name in "ab":
        row = []
        for _ in range(120):
            value = 0.0 if dice.random() < 0.03 else value + dice.choice([0, 0, 1, 5])
            row.append(None if dice.random() < 0.2 else value)
        rows[f"c__i_{name}"] = row
    store = loaded(5, **rows)
    span, step = dice.choice([20, 60, 300]), dice.choice([1, 7, 30])
    found = ask(store, f"rate(c[{span}s])", 0, 700, step)
    for name in "ab":
        samples = [(i * 5, v) for i, v in enumerate(rows[f"c__i_{name}"]) if v is not None]
        expected = {t: plain_rate(samples, t, span) for t in range(0, 701, step)}
        expected = {t: v for t, v in expected.items() if v is not None}
        assert found[f"i={name}"].keys() == expected.keys()
        assert found[f"i={name}"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("query", "kind", "says"),
    [
        ("hits{", "bad_data", "parse error"),
        ("nonsense(hits)", "bad_data", "unknown function"),
        ("holt_winters(level[1m], 0.1, 0.1)", "bad_data", "holt_winters"),
        ("histogram_count(hits)", "bad_data", 'the function "histogram_count" is not supported'),
        ('count_values("1x", hits)', "execution", 'invalid label name: "1x"'),
        ("limitk(1, hits)", "bad_data", "the aggregation limitk is not supported"),
        ("hits[1m]", "bad_data", "a range of time is only allowed"),
        ("rate(hits)", "bad_data", "expected type matrix"),
        ('hits{app=~"(a"}', "bad_data", "regex"),
        ("{}", "bad_data", "at least one non-empty matcher"),
        ("info * on (app) hits", "execution", "many-to-many matching not allowed"),
        ("hits * on (app) info", "execution", "many-to-one matching must be explicit"),
        ('label_replace(hits, "code", "", "", "")', "execution", "same labelset"),
        ('label_replace(hits, "1", "", "", "")', "execution", "invalid destination label name"),
        ("(" * 1500 + "hits" + ")" * 1500, "bad_data", "more than 1000 operators"),
        ("+".join(["hits"] * 2000), "bad_data", "more than 1000 operators"),
        ("hits" + " " * 40_000, "bad_data", "longer than"),
        ("rate(hits[31e999:1m])", "bad_data", "parse error"),
        ("rate(hits[999999999y])", "bad_data", "the range is too long"),
        ("hits offset 999999999y", "bad_data", "the offset is too long"),
        ("rate(hits[1m:999999999y])", "bad_data", "the step is too long"),
        ("hits @ -1", "bad_data", "before 1970"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(query, kind, says):
    with pytest.raises(QueryError) as refusal:
        ask(SHOP, query, 60.0)
    assert refusal.value.kind == kind
    assert says in refusal.value.text


def test_a_query_that_takes_too_long_is_given_up():
    steps = Steps(np.array([START], np.int64), START, START)
    with pytest.raises(QueryError, match="timed out"):
        Engine(SHOP, Deadline(-1).check).evaluate(parsing.parse("sum(hits)"), steps)


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (1.0, "1"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (1e21, "1000000000000000000000"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (-0.0, "-0"),
        (123456789.125, "123456789.125"),
        (2.0**60, "1152921504606847000"),
    ],
)
def test_numbers_are_written_as_prometheus_writes_them(number, written):
    assert text(number) == written


def test_steady_counters_answer_what_counters_with_gaps_and_resets_beside_them_answer():
    """Series without missing samples take another path; a store with some of both answers for each as one with it
    alone."""
    dice = random.Random(5)
    rows = {}
    for i in range(40):
        value, out = 0.0, []
        for j in range(150):
            value = 0.0 if i % 4 == 1 and dice.random() < 0.05 else value + dice.choice((0, 0, 1, 7))
            missing = dice.random() < 0.1 if i % 4 == 2 else i % 4 == 3 and not 40 < j < 100
            out.append(None if missing else value)
        rows[f"hits__of_{i}__half_{i % 2}"] = out
    together = loaded(**rows)
    asked = ["rate(hits[1m])", "irate(hits[1m])", "increase(hits[45s])", "hits", "timestamp(hits)", "delta(hits[1m])"]
    for query in asked:
        found = ask(together, query, 0, 1500, 15)
        assert len(found) == 40
        for row, samples in rows.items():
            _, of, half = row.split("__")
            alone = ask(loaded(**{row: samples}), query, 0, 1500, 15)
            assert list(alone) == [k for k in alone if k.endswith(f"half={half[5:]} of={of[3:]}")]
            for key, values in alone.items():
                assert found[key].keys() == values.keys()
                assert all(found[key][at] == pytest.approx(v) for at, v in values.items()), (query, key)
    total = ask(together, "sum by (half) (rate(hits[1m]))", 0, 1500, 15)
    single = ask(together, "rate(hits[1m])", 0, 1500, 15)
    for half in "01":
        for at, value in total[f"half={half}"].items():
            expected = sum(v.get(at, 0.0) for k, v in single.items() if f"half={half}" in k)
            assert value == pytest.approx(expected)


def test_a_parameter_may_be_another_one_at_each_step():
    store = loaded(1, level=list(range(100)), part=[i / 100 for i in range(100)])
    found = ask(store, "quantile_over_time(scalar(part), level[11s])", 50, 99, 1)[""]
    assert found == pytest.approx({float(s): s - 10 + 10 * s / 100 for s in range(50, 100)})


def test_one_instant_is_looked_up_exactly_however_far_apart_the_steps_are():
    """Samples of every second; those of 30 s are enough for steps of a minute only where they move with these."""
    store = loaded(1, level=list(range(200)))
    assert ask(store, "level @ 1700000137", 100, 220, 60) == {"level": dict.fromkeys((100.0, 160.0, 220.0), 137.0)}
    moved = ask(store, "count_over_time(level[10s] @ 1700000137)", 100, 220, 60)
    assert moved == {"": dict.fromkeys((100.0, 160.0, 220.0), 10.0)}
