"""Spans by every protocol, on disk within bounds, and found again by Jaeger's and Zipkin's queries."""

import asyncio
import contextlib
import gzip
import json
import random

import apsw
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from spans import DAY_S, NOW, OTLP, TRACE, serving, span

from lateen.console.traces import otlp, zipkin
from lateen.console.traces.asking import Query
from lateen.console.traces.query import BadQuery, jaeger_query, zipkin_query
from lateen.console.traces.receiving import METHOD
from lateen.console.traces.spans import BadSpans
from lateen.console.traces.store import MAX_SPANS, Store


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "traces.sqlite", 10_000_000, DAY_S)
    yield found
    found.close()


ZIPKIN = {
    "traceId": "5af7183fb1d4cf5f",
    "id": "6b221d5bc9e6496c",
    "parentId": "5af7183fb1d4cf5f",
    "name": "get /api",
    "kind": "CLIENT",
    "timestamp": NOW,
    "duration": 1431,
    "localEndpoint": {"serviceName": "backend", "ipv4": "192.168.99.1", "port": 3306},
    "remoteEndpoint": {"serviceName": "db"},
    "annotations": [{"timestamp": NOW + 1, "value": "ws"}],
    "tags": {"http.status_code": "503"},
}


# --- protocols ---------------------------------------------------------------------------------------------------


def test_a_span_of_zipkin_is_read_and_written_again():
    (found,) = zipkin.decode(json.dumps([ZIPKIN]).encode())
    assert found.trace == "0" * 16 + "5af7183fb1d4cf5f"
    assert (found.service, found.remote, found.kind, found.duration) == ("backend", "db", "CLIENT", 1431)
    assert found.error
    again = zipkin.decode(json.dumps([zipkin.encode(found)]).encode())
    assert again == [found]


@pytest.mark.parametrize("at", [1 << 70, -(1 << 70), -5])
def test_an_event_at_an_impossible_time_does_not_end_the_store(store, at):
    """One such span ended the process, and with it all that waited."""
    (found,) = zipkin.decode(json.dumps([ZIPKIN | {"annotations": [{"timestamp": at, "value": "ws"}]}]).encode())
    store.add([found], NOW)
    (kept,) = store.trace(found.trace)
    assert 0 <= kept.events[0].time < 1 << 53


def test_a_span_of_opentelemetry_is_the_same_as_json_and_as_protobuf():
    (found,), _ = otlp.decode_json(json.dumps(OTLP).encode())
    assert (found.trace, found.id, found.parent) == (TRACE, "6b221d5bc9e6496c", "5af7183fb1d4cf5f")
    assert (found.service, found.kind, found.start, found.duration) == ("backend", "CLIENT", NOW, 1431)
    assert found.tags["n"] == "3"
    assert found.tags["l"] == "[a]"
    assert found.error
    assert found.events[0].fields == {"event": "retry"}
    assert otlp.decode(otlp.encode([found])) == ([found], [])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not a JSON list of Zipkin spans"),
        (b"{}", "not a JSON list"),
        (b"[1]", "not a JSON list"),
        (b'[{"id": "1"}]', "traceId"),
        (json.dumps([ZIPKIN | {"traceId": "zz"}]).encode(), 'span 0: "zz" is not a trace id'),
        (json.dumps([ZIPKIN | {"id": "0"}]).encode(), "not a span id"),
        (json.dumps([ZIPKIN | {"timestamp": -1}]).encode(), "not a time in microseconds"),
        (json.dumps([ZIPKIN | {"tags": {"a": 1}}]).encode(), "tags"),
        (b"[" * 100_000, "not a JSON list"),
    ],
)
def test_a_bad_body_of_zipkin_is_refused_with_the_place(body, says):
    with pytest.raises(BadSpans, match=says):
        zipkin.decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"resourceSpans": 3}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xy"}]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}',
        b'{"a":' * 50 + b"1" + b"}" * 50,
        b"\xff\xfe",
    ],
)
def test_a_bad_body_of_opentelemetry_is_refused(body):
    with pytest.raises(BadSpans):
        otlp.decode_json(body)


def test_what_is_too_long_is_cut():
    many = {f"k{i}": "v" * 10_000 for i in range(500)}
    (found,) = zipkin.decode(json.dumps([ZIPKIN | {"tags": many, "name": "n" * 10_000}]).encode())
    assert len(found.tags) <= 129
    assert max(len(v) for v in found.tags.values()) == 4096
    assert len(found.name) == 256


# --- the store ---------------------------------------------------------------------------------------------------


def test_spans_are_there_after_a_restart(tmp_path):
    path = tmp_path / "deep" / "traces.sqlite"
    first = Store(path, 10_000_000, DAY_S)
    first.add([span(1), span(2, parent=1, service="cart")], NOW)
    first.close()
    second = Store(path, 10_000_000, DAY_S)
    assert [s.service for s in second.trace(TRACE)] == ["web", "cart"]
    second.close()


def test_the_same_span_twice_is_one(store):
    store.add([span(1)], NOW)
    before = store.size
    store.add([span(1)], NOW)
    assert len(store.trace(TRACE)) == 1
    assert store.size == before


def test_errors_and_slow_traces_outlive_ordinary_ones(tmp_path):
    store = Store(tmp_path / "traces.sqlite", 200_000, DAY_S)
    big = {"x": "y" * 900}

    def numbered(i, **more):
        return span(1, trace=f"{i + 1:032x}", start=i * 1000, tags=big, **more)

    store.add([numbered(0, error=True), numbered(1, duration=9_000_000)], NOW)
    for i in range(2, 600):
        store.add([numbered(i)], NOW)
    assert store.size <= 200_000
    assert store.trace(f"{1:032x}"), "the error"
    assert store.trace(f"{2:032x}"), "the slow one"
    assert not store.trace(f"{3:032x}"), "an old ordinary one"
    assert store.trace(f"{600:032x}"), "the latest"
    store.close()


def test_the_file_stays_within_its_bound_however_long_the_spans_are(tmp_path):
    """A span of 1,500 bytes takes less than that, and not a page of SQLite's."""
    path = tmp_path / "traces.sqlite"
    store, dice = Store(path, 2_000_000, DAY_S), random.Random(1)
    for i in range(60):
        text = {"http.url": f"http://shop/{dice.randbytes(500).hex()}"}
        store.add([span(k, trace=f"{i * 50 + k + 1:032x}", start=i, tags=text) for k in range(50)], NOW)
        assert store.size <= 2_000_000
    store.close()
    assert path.stat().st_size <= 2_100_000, "what came last is there before the oldest goes"
    store = Store(path, 2_000_000, DAY_S)
    kept = len(store.find(Query(limit=10_000)))
    store.close()
    assert kept >= 1500


def test_what_waits_to_be_written_stays_small_while_old_traces_go(tmp_path):
    """It takes room beside the file, which the bound of the file does not have."""
    store, dice, most = Store(tmp_path / "traces.sqlite", 20_000_000, DAY_S), random.Random(1), 0
    for i in range(60):
        text = [{"http.url": f"http://shop/{dice.randbytes(700).hex()}"} for _ in range(400)]
        store.add([span(k, trace=f"{i * 400 + k + 1:032x}", start=i, tags=text[k]) for k in range(400)], NOW)
        most = max(most, (tmp_path / "traces.sqlite-wal").stat().st_size)
    assert store.services() == ["web"]
    store.close()
    assert most <= 6_000_000


def test_a_file_of_a_former_version_is_begun_anew(tmp_path):
    path = tmp_path / "traces.sqlite"
    with contextlib.closing(apsw.Connection(str(path))) as old:
        old.execute("CREATE TABLE traces(id TEXT PRIMARY KEY); CREATE TABLE spans(trace TEXT, body BLOB)")
        old.execute("INSERT INTO spans VALUES('1', 'x'); INSERT INTO traces VALUES('1')")
    store = Store(path, 10_000_000, DAY_S)
    store.add([span(1)], NOW)
    assert [s.service for s in store.trace(TRACE)] == ["web"]
    store.close()
    store = Store(path, 10_000_000, DAY_S)
    assert store.trace(TRACE), "the same version keeps what it has"
    store.close()


def test_what_is_too_old_goes_whatever_it_is(store):
    store.add([span(1, error=True)], NOW)
    store.trim(NOW + 2 * DAY_S * 1_000_000, only_if_needed=True)
    assert store.trace(TRACE) == []
    assert store.services() == []


def test_a_trace_without_end_is_bounded_and_says_so(store):
    store.add([span(i) for i in range(1, MAX_SPANS + 11)], NOW)
    assert len(store.trace(TRACE)) == MAX_SPANS
    assert store.lost == 10


def test_a_place_that_cannot_be_a_file_is_named(tmp_path):
    path = tmp_path / "traces.sqlite"
    path.mkdir()
    with pytest.raises(OSError, match=r"traces\.sqlite cannot be used for traces"):
        Store(path, 1000, 10)


def test_traces_are_found_by_service_name_tag_duration_and_error(store):
    other = "1" * 32
    store.add([span(1, tags={"k": "v"}), span(2, parent=1, service="cart", duration=5000)], NOW)
    store.add([span(3, trace=other, name="POST /", error=True, start=10)], NOW)
    every = [TRACE, other]

    def found(**wanted):
        return sorted((t[0].trace for t in store.find(Query(**wanted))), key=every.index)

    assert found(service="web") == every
    assert found(service="cart") == [TRACE]
    assert found(service="web", name="POST /") == [other]
    assert found(service="web", tags={"k": "v"}) == [TRACE]
    assert found(service="web", tags={"k": "other"}) == []
    assert found(shortest=4000) == [TRACE]
    assert found(longest=1000, service="web") == every
    assert found(errors=True) == [other]
    assert found(limit=1) == [other]
    assert found(tags={"k": "v"}) == [TRACE]
    assert found() == every
    assert found(stop=NOW - 120_000_000) == []
    assert store.services() == ["cart", "web"]
    assert store.names("web") == [("GET /", "SERVER"), ("POST /", "SERVER")]


def test_calls_between_services_are_counted_also_with_shared_ids(store):
    store.add([span(1, kind="CLIENT"), span(2, parent=1, service="cart", error=True)], NOW)
    store.add([span(3, trace="2" * 32, kind="CLIENT"), span(3, trace="2" * 32, service="cart", shared=True)], NOW)
    assert store.calls(0, NOW) == [("web", "cart", 2, 1)]
    assert store.remotes("web") == ["cart"]


def test_a_service_that_does_not_pass_headers_on_is_found(store):
    store.add([span(1, service="good", duration=100), span(2, service="good", kind="CLIENT", parent=1, start=10)], NOW)
    store.add([span(3, trace="3" * 32, service="bad", duration=100)], NOW)
    store.add([span(4, trace="4" * 32, service="bad", kind="CLIENT", start=50, duration=10)], NOW)
    store.add([span(5, trace="5" * 32, service="gateway", kind="CLIENT")], NOW)
    (found,) = store.dropped(0, NOW)
    assert (found.service, found.calls, found.of) == ("bad", 1, 1)
    assert (found.example, found.within) == ("4" * 32, "3" * 32)


# --- over HTTP and gRPC ------------------------------------------------------------------------------------------


async def until(session, url, wanted):
    async with asyncio.timeout(10):
        while True:
            async with session.get(url) as answer:
                found = await answer.json()
            if wanted(found):
                return found
            await asyncio.sleep(0.02)


def test_both_apis_find_what_came_by_both_protocols(tmp_path):
    async def work(url, _traces, session):
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        body = gzip.compress(json.dumps([ZIPKIN | {"traceId": TRACE}]).encode())
        async with session.post(f"{url}/api/v2/spans", data=body, headers=headers) as answer:
            assert answer.status == 202
        other = json.loads(json.dumps(OTLP).replace("6b221d5bc9e6496c", "00000000000000aa").replace("backend", "db"))
        async with session.post(f"{url}/v1/traces", json=other) as answer:
            assert (answer.status, await answer.json()) == (200, {})
        jaeger = await until(
            session, f"{url}/api/traces/{TRACE}", lambda a: a["data"] and len(a["data"][0]["spans"]) == 2
        )
        for path in (
            "/api/traces?service=db&lookback=1h&limit=5",
            "/api/traces?service=*&lookback=1h&limit=5",
            "/jaeger/api/services",
            "/api/services/db/operations",
        ):
            async with session.get(url + path) as answer:
                assert (await answer.json())["data"], path
        async with session.get(f"{url}/api/v2/trace/{TRACE}") as answer:
            zipkins = await answer.json()
        async with session.get(f"{url}/api/v2/traces?serviceName=backend&annotationQuery=error") as answer:
            assert len(await answer.json()) == 1
        async with session.get(f"{url}/zipkin/api/v2/services") as answer:
            assert await answer.json() == ["backend", "db"]
        return jaeger["data"][0], zipkins

    jaeger, zipkins = serving(tmp_path, work)
    assert {p["serviceName"] for p in jaeger["processes"].values()} == {"backend", "db"}
    assert {s["localEndpoint"]["serviceName"] for s in zipkins} == {"backend", "db"}
    assert all(s["references"][0]["spanID"] == "5af7183fb1d4cf5f" for s in jaeger["spans"])


def test_spans_come_by_grpc(tmp_path):
    async def work(url, traces, session):
        server = grpc.aio.server()
        traces.receiver.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            return await exported(port, url, session)
        finally:
            await server.stop(0)

    async def exported(port, url, session):
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(otlp.encode([span(1)]))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = channel.unary_unary(
                METHOD,
                request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=trace_service_pb2.ExportTraceServiceResponse.FromString,
            )
            await export(request)
            request.resource_spans[0].instrumentation_library_spans[0].spans[0].trace_id = b"\0" * 16
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await export(request)
            with pytest.raises(grpc.aio.AioRpcError) as unread:
                await channel.unary_unary(METHOD)(b"\xff\xff\xff")
        await until(session, f"{url}/api/traces/{TRACE}", lambda a: a["data"])
        return refused.value, unread.value

    refused, unread = serving(tmp_path, work)
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a trace id" in refused.details()
    assert unread.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a protobuf" in unread.details()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/api/traces", "service: is missing"),
        ("/api/traces?service=a&limit=0", "limit"),
        ("/api/traces?service=a&tags=x", "tags"),
        ("/api/traces?service=a&minDuration=soon", "minDuration"),
        ("/api/traces?service=a&start=12x", "start"),
        ("/api/traces/nothex", "not a trace id"),
        ("/api/v2/traces?limit=many", "limit"),
        ("/api/v2/traceMany?traceIds=aa", "traceIds"),
    ],
)
def test_questions_that_cannot_be_read_get_a_clear_answer(tmp_path, path, says):
    async def work(url, _traces, session):
        async with session.get(url + path) as answer:
            return answer.status, await answer.text()

    status, text = serving(tmp_path, work)
    assert status == 400
    assert says in text


def test_every_tag_counts_and_so_does_the_service_at_the_other_end(tmp_path):
    other = ZIPKIN | {"traceId": "aaaa", "remoteEndpoint": {"serviceName": "cache"}, "annotations": []}
    other |= {"tags": {"http.status_code": "503", "span.kind": "client"}}

    async def work(url, _traces, session):
        async with session.post(f"{url}/api/v2/spans", json=[ZIPKIN, other]) as answer:
            assert answer.status == 202
        await until(session, f"{url}/api/v2/traces?serviceName=backend", lambda a: len(a) == 2)

        async def found(path):
            async with session.get(url + path) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        jaeger = "/api/traces?service=backend&tag=http.status_code:503"
        return {
            "remote": await found("/api/v2/traces?remoteServiceName=cache"),
            "annotation": await found("/api/v2/traces?annotationQuery=ws"),
            "many": await found("/api/v2/traceMany?traceIds=aaaa,5af7183fb1d4cf5f"),
            "keys": await found("/api/v2/autocompleteKeys"),
            "both": (await found(f"{jaeger}&tag=span.kind:client"))["data"],
            "one": (await found(jaeger))["data"],
        }

    answers = serving(tmp_path, work)
    assert [t[0]["remoteEndpoint"]["serviceName"] for t in answers["remote"]] == ["cache"]
    assert [t[0]["remoteEndpoint"]["serviceName"] for t in answers["annotation"]] == ["db"]
    assert (len(answers["many"]), answers["keys"], len(answers["one"])) == (2, [], 2)
    ((only,),) = [t["spans"] for t in answers["both"]]
    assert [t["key"] for t in only["tags"]].count("span.kind") == 1, "each tag of Jaeger's has a name of its own"


def test_too_many_waiting_spans_are_refused_for_now(tmp_path, monkeypatch):
    monkeypatch.setattr("lateen.console.traces.serving.WAITING", 0)

    async def work(url, _traces, session):
        async with session.post(f"{url}/api/v2/spans", json=[ZIPKIN]) as answer:
            return answer.status, answer.headers["Retry-After"]

    assert serving(tmp_path, work) == (503, "1")


def test_parameters_mean_what_they_mean_in_jaeger_and_zipkin():
    found = jaeger_query({"service": "a", "lookback": "2d", "minDuration": "1.5ms", "tags": '{"error":true}'}, NOW)
    assert (found.stop - found.start, found.shortest, found.errors) == (2 * DAY_S * 1_000_000, 1500, True)
    other = zipkin_query({"annotationQuery": "error and http.path=/a", "lookback": "1000", "minDuration": "7"}, NOW)
    assert (other.errors, other.tags, other.shortest) == (True, {"http.path": "/a"}, 7)
    with pytest.raises(BadQuery):
        jaeger_query({"service": "a", "tag": "nothing"}, NOW)
