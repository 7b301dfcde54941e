"""From proxies' texts to the graph."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from consoles import added, edges, line

from lateen.agent.exposition import IDLE
from lateen.console import metrics, scraping
from lateen.console.collector import Collector
from lateen.console.graph import Graph
from lateen.console.graph import health as traffic
from lateen.console.metrics import Target, began, quantile
from lateen.console.series.scrape import LeftOut, samples


def test_only_increments_since_the_last_reading_are_added():
    assert sum(added(line(value=5), line(value=7)).values()) == 7
    assert sum(added(line(value=5), line(value=7), fresh=False).values()) == 2


def test_a_counter_that_fell_was_reset():
    assert sum(added(line(value=5), line(value=2)).values()) == 7


def test_a_call_goes_through_the_service_to_the_version():
    found = edges(Graph().build(added(line(value=60)), 60))
    assert set(found) == {("app/shop/web/v1", "service/shop/cart"), ("service/shop/cart", "app/shop/cart/v1")}
    assert all(e["rate"] == 1.0 for e in found.values())


def test_the_graph_calls_applications_as_lists_do():
    """By the canonical name, which pods of charts have by labels of their own; without a version by none."""
    chart = 'canonical_service="shop-web",source_canonical_revision="1.4",source_app="unknown"'
    named = line(value=60).replace(b'app="web",source_version="v1"', chart.encode() + b',source_version="unknown"')
    known = b'destination_canonical_revision="latest",destination_app="cart",destination_version="unknown"'
    named = named.replace(b'destination_app="cart",destination_version="v1"', known)
    found = edges(Graph().build(added(named), 60))
    assert set(found) == {("app/shop/shop-web/1.4", "service/shop/cart"), ("service/shop/cart", "app/shop/cart/")}


def test_both_reports_of_a_call_count_once_and_the_servers_shows_mutual_tls():
    both = line(value=10) + line(reporter="destination", policy="mutual_tls", value=10)
    edge = edges(Graph().build(added(both), 10))["app/shop/web/v1", "service/shop/cart"]
    assert (edge["requests"], edge["mtls"]) == (10, 1.0)


def test_a_caller_whose_certificate_has_no_description_counts_once():
    """Such as SPIRE's: the server does not know the workload, but the caller's own proxy reports, too."""
    spire = "spiffe://example.org/ns/shop/sa/web"
    server = line(reporter="destination", source="unknown", policy="mutual_tls", principal=spire, value=10)
    text = line(policy="mutual_tls", value=10) + server
    found = edges(Graph().build(added(text), 10))
    assert set(found) == {("app/shop/web/v1", "service/shop/cart"), ("service/shop/cart", "app/shop/cart/v1")}
    edge = found["app/shop/web/v1", "service/shop/cart"]
    assert (edge["requests"], edge["mtls"]) == (10, 1.0), "the client's proxy tells, too"
    assert traffic(added(text)) == {"shop": (10.0, 0.0)}


def test_a_caller_without_a_proxy_counts_by_the_servers_report():
    text = line(reporter="destination", source="unknown", policy="none", value=10)
    edge = edges(Graph().build(added(text), 10))["unknown", "service/shop/cart"]
    assert (edge["requests"], edge["mtls"]) == (10, 0.0)


def test_requests_without_a_code_are_no_failures():
    """A user's Telemetry may remove the label."""
    text = line(code="C", value=9).replace(b'response_code="C",', b"")
    edge = edges(Graph().build(added(text), 10))["app/shop/web/v1", "service/shop/cart"]
    assert (edge["requests"], edge["errorRate"], edge["codes"]) == (9, 0.0, {"unknown": 9})
    assert traffic(added(text)) == {"shop": (9.0, 0.0)}


def test_errors_are_those_of_the_server():
    text = line(value=6) + line(code=404, value=2) + line(code=503, value=1) + line(code=0, value=1)
    edge = edges(Graph().build(added(text), 10))["app/shop/web/v1", "service/shop/cart"]
    assert (edge["requests"], edge["errorRate"]) == (10, 0.2)
    assert edge["codes"] == {"0": 1, "200": 6, "404": 2, "503": 1}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("app", {("app/shop/web", "service/shop/cart"), ("service/shop/cart", "app/shop/cart")}),
        ("workload", {("workload/shop/web", "workload/shop/cart")}),
        ("service", {("service/shop/web", "service/shop/cart")}),
    ],
)
def test_the_graph_has_four_kinds(kind, expected):
    assert set(edges(Graph(kind).build(added(line()), 10))) == expected


def test_other_namespaces_are_left_out():
    assert Graph(namespaces=["other"]).build(added(line()), 10)["edges"] == []


def test_versions_share_a_box():
    text = line(version="v1") + line(version="v2")
    graph = Graph().build(added(text), 10)
    assert "box/shop/cart" in graph["boxes"]


def test_health_is_by_namespace():
    assert traffic(added(line(value=3) + line(code=500, value=1))) == {"shop": (4.0, 1.0)}


@pytest.mark.parametrize(("q", "expected"), [(0.5, 10.0), (0.75, 15.0), (1.0, 20.0)])
def test_quantiles_are_prometheus(q, expected):
    assert quantile(q, {10.0: 5.0, 20.0: 10.0, float("inf"): 10.0}) == expected


def test_a_quantile_of_nothing_is_nothing():
    assert quantile(0.5, {}) is None


def test_lines_that_are_not_metrics_are_skipped():
    assert added(b"# HELP x\nistio_requests_total nan\nistio_build{} x\ngarbage\n\n") == {}


# --- what is read of proxies ---------------------------------------------------------------------------------------


def test_a_last_line_that_was_cut_off_does_not_count():
    whole = line(value=1234)
    assert sum(added(whole, whole[:-3], whole).values()) == 1234


def test_series_that_disappear_leave_only_their_last_values():
    target = Target(fresh=True)
    target.read(samples(line(source="a") + line(source="b")), {})
    target.read(samples(line(source="b")), {})
    assert len(target._last) == len(target._known) == len(target._absent) == 1


def test_of_series_that_are_gone_the_oldest_are_forgotten_and_counted_from_then_on(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_ABSENT", 2)
    target, out = Target(fresh=True), {}
    for name in "abcd":
        target.read(samples(line(target=name, value=100)), out)
    assert len(target._absent) == 2, "of a, b and c"
    target.read(samples(line(target="a", value=101)), out)
    target.read(samples(line(target="a", value=103) + line(target="c", value=105)), out)
    assert sum(out.values()) == 4 * 100 + 2 + 5


def test_a_series_that_was_idle_continues_with_its_total():
    """Agents leave out what has not changed for an hour."""
    idle, busy = (lambda v: line(target="idle", value=v)), (lambda v: line(target="busy", value=v))
    assert sum(added(idle(100) + busy(1), busy(2), busy(3), idle(101) + busy(4)).values()) == 101 + 4
    assert sum(added(idle(100) + busy(1), busy(2), idle(101) + busy(3), fresh=False).values()) == 1 + 2


def test_a_restarted_proxy_counts_from_0_what_was_idle_before():
    idle, busy = (lambda v: line(target="idle", value=v)), (lambda v: line(target="busy", value=v))
    assert sum(added(idle(100) + busy(10), busy(20), busy(1), idle(130) + busy(1)).values()) == 100 + 20 + 1 + 130
    assert sum(added(idle(100) + busy(9), idle(5) + busy(9), b"\n", idle(2) + busy(12)).values()) == 109 + 5 + 2 + 12


def pod(started):
    return {"status": {"startTime": f"2026-01-01T{started}Z"}}


def test_what_an_old_proxy_leaves_out_when_counting_begins_is_not_taken_for_new():
    at = began(pod("12:00:00"))
    assert began({}) == 0.0
    for started, expected in (("12:00:01", 1001), ("11:59:00", 1001), ("10:00:00", 1)):
        target, out = Target.of(pod(started), at, at + 5), {}
        target.read(samples(b"\n"), out)
        for value in (1000, 1001):
            target.read(samples(line(target="idle", value=value)), out)
        assert sum(out.values()) == expected, started


def test_a_burst_of_errors_at_an_old_proxy_is_seen_once_it_has_told_what_it_leaves_out(monkeypatch):
    target, out = Target(fresh=False, old=True), {}
    target.told(LeftOut(samples(line(target="idle", value=1000) + b"istio_build 1\n"), complete=True))
    target.read(samples(line(value=5)), out)
    target.read(samples(line(value=5) + line(target="idle", value=1001) + line(code=503, value=20)), out)
    assert {(s.flow.destination.name, s.detail): n for s, n in out.items()} == {("idle", "200"): 1, ("cart", "503"): 20}
    monkeypatch.setattr(metrics, "MAX_ABSENT", 1)
    many = Target(fresh=False, old=True)
    many.told(LeftOut(samples(line(target="a") + line(target="b")), complete=True))
    assert (many.old, many._absent) == (True, {}), "too many to be remembered: one may come back"


def test_an_old_proxy_is_asked_once_for_what_it_leaves_out():
    asked = []

    def answer(query):
        asked.append("idle" in query)
        left_out = IDLE + b"\n" + line(target="idle", value=1000) if "idle" in query else b""
        return line(value=5) + (line(code=503, value=20) if len(asked) > 2 else b"") + left_out

    found = asyncio.run(collected(answer, rounds=3, started="2020-01-01T00:00:00Z"))
    assert asked == [True, False, False]
    assert {s.detail: n for s, n in found.added(60).items()} == {"503": 20}


def test_a_proxy_with_too_much_to_tell_of_what_it_leaves_out_is_not_asked_again_and_again(monkeypatch):
    """What it shows is complete all the same, and what appears later is not known to be new."""
    monkeypatch.setattr(scraping, "MAX_TEXT", 500_000)
    asked = []

    def answer(query):
        asked.append("idle" in query)
        idle = b"".join(line(target=f"idle-{i}", value=1000) for i in range(4000))
        return (
            line(value=len(asked))
            + (line(target="idle-0", value=1001) if len(asked) > 2 else b"")
            + (IDLE + b"\n" + idle if "idle" in query else b"")
        )

    found = asyncio.run(collected(answer, rounds=3, started="2020-01-01T00:00:00Z"))
    assert asked == [True, False, False]
    assert found.intake.dropped == set()
    assert {s.flow.destination.name: n for s, n in found.added(60).items()} == {"cart": 2}


class Pods:
    """A client whose list of pods never changes."""

    def __init__(self, *pods):
        self.pods = pods

    async def list(self, *_):
        return list(self.pods), "1"

    async def watch(self, *_):
        await asyncio.Event().wait()
        yield


async def collected(given, rounds=1, started="2100-01-01T00:00:00Z"):
    """A collector that has looked ``rounds`` times at a proxy which answers with a text; ``given``: this, or what makes
    it of the query."""

    async def metrics(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        text = given(request.query_string) if callable(given) else given
        for i in range(0, len(text), 60_000):
            await answer.write(text[i : i + 60_000])
        return answer

    app = web.Application()
    app.add_routes([web.get("/stats/prometheus", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector = Collector(Pods(), port=runner.addresses[0][1])
    meta = {"namespace": "shop", "name": "web", "uid": "1"}
    status = {"phase": "Running", "podIP": "127.0.0.1", "startTime": started}
    pod = {"metadata": meta, "status": status, "spec": {"containers": [{"name": "istio-proxy"}]}}
    collector.pods.objects = {("shop", "web"): pod}
    async with aiohttp.ClientSession() as collector._session:
        for _ in range(rounds):
            await collector.look()
    await runner.cleanup()
    return collector


def test_a_long_response_is_read_completely():
    text = b"".join(line(source=f"web-{i}") for i in range(4000))
    assert len(text) > 1_000_000
    found = asyncio.run(collected(text))
    assert found.failures == {}
    assert sum(found.added(60).values()) == 4000


def test_of_a_response_that_is_too_long_the_beginning_counts(monkeypatch):
    """Rather than that the proxy is missing in the graph."""
    monkeypatch.setattr(scraping, "MAX_TEXT", 500_000)
    text = b"".join(line(source=f"web-{i}") for i in range(4000))
    found = asyncio.run(collected(text, rounds=2))
    assert found.failures == {}
    assert sum(found.added(60).values()) == text[:500_000].count(b"\n")
    assert found.intake.dropped == {"shop/web"}, "and the collector's page says so"


def test_the_history_of_an_edge_is_there_before_anybody_asked():
    found = asyncio.run(collected(line(value=30)))
    history = found.history("versionedApp", "app/shop/web/v1>service/shop/cart:http", 60, lambda: None)
    assert sum(history["rates"]) * history["step"] == pytest.approx(30)
    assert sum(found.history("versionedApp", "nothing", 60, lambda: None)["rates"]) == 0
