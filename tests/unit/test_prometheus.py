"""Prometheus' HTTP API as Grafana, Kiali and scripts see it."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from lateen.console.federation import exposed
from lateen.console.gate import Gate
from lateen.console.prometheus import Api
from lateen.console.promql.values import QueryError
from lateen.console.series.intake import Intake, Look
from lateen.console.series.scrape import samples

AT = 1_700_000_000
LABELS = {"job": "kubernetes-pods", "instance": "10.0.0.1:15020", "namespace": "shop", "pod": "web-1"}
TEXT = """# TYPE istio_requests_total counter
istio_requests_total{{reporter="source",response_code="200"}} {0}
istio_requests_total{{reporter="source",response_code="503"}} 4
"""


def filled():
    intake, key = Intake(None), ("shop", "web-1", "u")
    meta = {}
    for i in range(13):
        text = TEXT.format(10 * i).encode()
        look = Look(LABELS, "http://10.0.0.1:15020/stats", samples(text, meta), True, 0.01)
        intake.frame(AT + 5 * i, {key: look}, {key})
    intake.described(meta)
    return intake


def answers(*requests):
    """[(status, body)] of ``(method, path, parameters)``."""

    async def run():
        app = web.Application()
        intake = filled()
        app.add_routes(Api(intake.store, intake, Gate()).routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/"
        out = []
        async with aiohttp.ClientSession() as session:
            for method, path, given in requests:
                how = {"data": given} if method == "POST" else {"params": given}
                async with session.request(method, base + path, **how) as answer:
                    out.append((answer.status, await answer.json()))
        await runner.cleanup()
        return out

    return asyncio.run(run())


def answer(path, given=(), method="GET"):
    status, body = answers((method, path, list(dict(given).items()) if isinstance(given, dict) else list(given)))[0]
    assert (status == 200) == (body["status"] == "success")
    return body["data"] if status == 200 else (status, body)


def test_an_instant_query_answers_with_a_vector():
    found = answer("query", {"query": 'istio_requests_total{response_code="200"}', "time": AT + 60})
    assert found["resultType"] == "vector"
    (one,) = found["result"]
    assert one["metric"] == {
        "__name__": "istio_requests_total",
        "reporter": "source",
        "response_code": "200",
        **LABELS,
    }
    assert one["value"] == [AT + 60, "120"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_range_query_answers_with_a_matrix(method):
    asked = {"query": "sum(rate(istio_requests_total[30s]))", "start": AT + 30, "end": AT + 60, "step": "15s"}
    found = answer("query_range", {k: str(v) for k, v in asked.items()}, method)
    assert found == {
        "resultType": "matrix",
        "result": [{"metric": {}, "values": [[AT + 30, "2"], [AT + 45, "2"], [AT + 60, "2"]]}],
    }


def test_times_are_seconds_or_rfc_3339():
    for time in (AT, f"{AT}.0", "2023-11-14T22:13:20Z", "2023-11-15T00:13:20.000+02:00"):
        found = answer("query", {"query": "time()", "time": time})
        assert found == {"resultType": "scalar", "result": [AT, str(AT)]}


def test_a_range_of_samples_and_a_text_are_answers_too():
    found = answer("query", {"query": 'istio_requests_total{response_code="503"}[15s]', "time": AT + 60})
    assert found["resultType"] == "matrix"
    assert found["result"][0]["values"] == [[AT + 50, "4"], [AT + 55, "4"], [AT + 60, "4"]]
    assert answer("query", {"query": '"hi"', "time": AT})["result"] == [AT, "hi"]


def test_what_there_is_can_be_listed():
    near = {"start": AT, "end": AT + 60}
    assert len(answer("series", [("match[]", '{reporter="source"}'), ("match[]", "up")])) == 3
    assert len(answer("series", {"match[]": "up", "start": AT + 3600})) == 0
    assert {"__name__", "pod", "response_code"} <= set(answer("labels", near))
    assert "response_code" not in answer("labels", {**near, "match[]": "up"})
    assert answer("label/response_code/values", near) == ["200", "503"]
    assert answer("label/__name__/values", near)[0] == "istio_requests_total"
    assert answer("label/response_code/values", {**near, "limit": 1}) == ["200"]
    assert answer("metadata") == {"istio_requests_total": [{"type": "counter", "help": "", "unit": ""}]}
    (target,) = answer("targets")["activeTargets"]
    assert (target["health"], target["labels"]["pod"], target["lastError"]) == ("up", "web-1", "")
    assert answer("targets", {"scrapePool": answer("scrape_pools")["scrapePools"][0]})["activeTargets"] == [target]
    for others in ({"state": "dropped"}, {"scrapePool": "other"}):
        assert answer("targets", others)["activeTargets"] == []
    assert answer("query_exemplars", {"query": "up"}, "POST") == []


def test_a_range_has_as_many_points_as_prometheus_gives():
    found = answer("query_range", {"query": "vector(1)", "start": 0, "end": 11_000, "step": 1})
    assert len(found["result"][0]["values"]) == 11_001


def test_a_method_that_a_path_does_not_take_is_refused_as_such():
    assert answer("label/pod/values", {}, "PUT")[0] == 405
    assert "GET or POST" in answer("query", {"query": "up"}, "DELETE")[1]["error"]


def test_clients_learn_what_they_talk_to():
    assert answer("status/buildinfo")["version"].startswith("3.")
    assert answer("status/runtimeinfo")["storageRetention"] == "24h"
    assert "scrape_interval" in answer("status/config")["yaml"]


@pytest.mark.parametrize(
    ("path", "given", "status", "kind", "says"),
    [
        ("query", {"query": "sum("}, 400, "bad_data", "parse error"),
        ("query", {}, 400, "bad_data", "parse error"),
        (
            "query",
            {"query": "up", "time": "yesterday"},
            400,
            "bad_data",
            'cannot parse "yesterday" to a valid timestamp',
        ),
        ("query", {"query": "up", "time": "nan"}, 400, "bad_data", "valid timestamp"),
        ("query", {"query": "up", "timeout": "soon"}, 400, "bad_data", "valid duration"),
        ("query", {"query": "up", "limit": "-1"}, 400, "bad_data", "limit"),
        ("query_range", {"query": "up", "start": 10, "end": 1, "step": 1}, 400, "bad_data", "before start time"),
        ("query_range", {"query": "up", "start": 1, "end": 10, "step": 0}, 400, "bad_data", "zero or negative"),
        ("query_range", {"query": "up", "start": 1, "end": 10}, 400, "bad_data", '"step"'),
        ("query_range", {"query": "up", "start": 0, "end": AT, "step": 1}, 400, "bad_data", "11,000 points"),
        ("query_range", {"query": "up[1m]", "start": 0, "end": 1, "step": 1}, 400, "bad_data", "range of time"),
        ("query_range", {"query": '"a"', "start": 0, "end": 1, "step": 1}, 400, "bad_data", "string"),
        ("query", {"query": "istio_requests_total * on() istio_requests_total", "time": AT}, 422, "execution", "many"),
        ("query", {"query": "up[100d:1ms]", "time": AT}, 422, "execution", "too many steps"),
        ("query", {"query": "sum_over_time(up[100d:1ms])", "time": AT}, 422, "execution", "too many steps"),
        ("series", {}, 400, "bad_data", "no match[]"),
        ("series", {"match[]": "sum(up)"}, 400, "bad_data", "not a series selector"),
        ("query_range", {"query": "up", "start": 0, "end": 11_001, "step": 1}, 400, "bad_data", "11,000 points"),
        ("query_exemplars", {"query": "sum("}, 400, "bad_data", "parse error"),
        ("read", {}, 404, "not_found", "not implemented"),
    ],
)
def test_what_is_wrong_gets_a_clear_refusal(path, given, status, kind, says):
    found, body = answer(path, {k: str(v) for k, v in given.items()})
    assert (found, body["errorType"]) == (status, kind)
    assert says in body["error"]


def test_a_hostile_query_does_not_end_the_process():
    hostile = [
        "-" * 30_000 + "up",
        "((" * 15_000,
        "up" + "+up" * 9000,
        'up{a=~"(((a{99}){99}){99})"}',
        "\x00",
        "up{" * 999,
    ]
    for status, body in answers(*(("POST", "query", {"query": q}) for q in hostile)):
        assert (status, body["errorType"]) == (400, "bad_data")
    assert answer("query", {"query": "1", "time": AT})["result"] == [AT, "1"]


def test_another_prometheus_takes_the_newest_samples_with_their_times():
    store = filled().store
    now = round((AT + 62) * 1000)
    found = exposed(store, ['{__name__=~"up|istio_.*"}', "up"], now, lambda: None).splitlines()
    assert len(found) == len(set(found))
    assert any(line.startswith("up{") and line.endswith(f" 1 {round((AT + 60) * 1000)}") for line in found)
    assert {line.partition("{")[0] for line in found} >= {"up", "istio_requests_total"}
    assert exposed(store, ["up"], now + 600_000, lambda: None) == ""
    with pytest.raises(QueryError, match="not a series selector"):
        exposed(store, ["sum(up)"], now, lambda: None)
