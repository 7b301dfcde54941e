"""Jaeger's query API over gRPC, as Kiali asks it."""

import asyncio
import contextlib
import time

import grpc
import pytest

from lateen.console.traces import jaeger_grpc
from lateen.console.traces.jaeger_grpc import MESSAGES, SERVICE, GrpcQueries
from lateen.console.traces.serving import Traces
from lateen.console.traces.spans import Event, Span
from lateen.console.traces.store import Store

NOW = time.time_ns() // 1000
TRACE = "5af7183fb1d4cf5f" * 2


def span(number, *, trace=TRACE, parent="", service="web", kind="SERVER", tags=None, error=False, events=()):
    return Span(
        trace, f"{number:016x}", parent and f"{parent:016x}", service, "GET /", kind, NOW - 1_000_000, 1500,
        tags or {}, list(events), error,
    )  # fmt: skip


def asking(tmp_path, spans, work):
    """What ``work`` returns, with a function that calls a method of Jaeger's service."""

    async def run():
        store = Store(tmp_path / "traces.sqlite", 10_000_000, 3600)
        store.add(spans, NOW)
        server = grpc.aio.server()
        GrpcQueries(Traces(store).queries).add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await work(Call(channel))
        finally:
            await server.stop(0)
            store.close()

    return asyncio.run(run())


class Call:
    def __init__(self, channel):
        self.channel = channel

    async def __call__(self, method, answer, request):
        """The answer; of a stream, its messages."""
        path = f"/{SERVICE}/{method}"
        serialize = bytes if isinstance(request, bytes) else lambda m: m.SerializeToString()
        given = {"request_serializer": serialize, "response_deserializer": MESSAGES[answer].FromString}
        if answer != "SpansResponseChunk":
            return await self.channel.unary_unary(path, **given)(request)
        return [chunk async for chunk in self.channel.unary_stream(path, **given)(request)]


def find(service="web", **more):
    tags = [{"key": k, "value": v} for k, v in more.pop("tags", {}).items()]
    query = MESSAGES["TraceQueryParameters"](service_name=service, tags=tags, **more)
    return "FindTraces", "SpansResponseChunk", MESSAGES["FindTracesRequest"](query=query)


def test_a_trace_is_found_by_its_id_with_every_field(tmp_path):
    spans = [
        span(1, tags={"node_id": "sidecar~10.0.0.1~web-1.default~x"}),
        span(2, parent=1, service="db", kind="CLIENT", error=True, events=[Event(NOW, {"event": "retry"})]),
    ]

    async def work(call):
        # As it is on the wire: field 1, 16 bytes.
        return await call("GetTrace", "SpansResponseChunk", b"\x0a\x10" + bytes.fromhex(TRACE))

    ((chunk),) = asking(tmp_path, spans, work)
    root, child = sorted(chunk.spans, key=lambda s: s.span_id)
    assert (root.trace_id.hex(), root.span_id.hex(), root.operation_name) == (TRACE, f"{1:016x}", "GET /")
    assert root.process.service_name == "web"
    assert root.start_time.ToMicroseconds() == NOW - 1_000_000
    assert root.duration.ToMicroseconds() == 1500
    assert {(t.key, t.v_str) for t in root.tags} == {
        ("node_id", "sidecar~10.0.0.1~web-1.default~x"),
        ("span.kind", "server"),
    }
    assert [r.span_id.hex() for r in child.references] == [f"{1:016x}"]
    assert [t.v_bool for t in child.tags if t.key == "error"] == [True]
    assert [(f.key, f.v_str) for f in child.logs[0].fields] == [("event", "retry")]


def test_traces_are_found_by_service_tags_and_time(tmp_path):
    other = "5af7183fb1d4cf60" * 2
    spans = [span(1, tags={"istio.cluster_id": "Kubernetes"}), span(2, trace=other, error=True)]

    async def work(call):
        def traces(chunks):
            return {s.trace_id.hex() for chunk in chunks for s in chunk.spans}

        later = MESSAGES["TraceQueryParameters"]().start_time_min
        later.FromMicroseconds(NOW + 1_000_000)
        return [
            traces(await call(*find())),
            traces(await call(*find(tags={"istio.cluster_id": "Kubernetes"}))),
            traces(await call(*find(tags={"error": "true"}))),
            traces(await call(*find(start_time_min=later))),
            traces(await call(*find("nobody"))),
        ]

    assert asking(tmp_path, spans, work) == [{TRACE, other}, {TRACE}, {other}, set(), set()]


def test_services_operations_and_calls_are_listed(tmp_path):
    spans = [span(1), span(2, parent=1, service="db", kind="CLIENT")]

    async def work(call):
        services = await call("GetServices", "GetServicesResponse", b"")
        named = MESSAGES["GetOperationsRequest"](service="db")
        operations = await call("GetOperations", "GetOperationsResponse", named)
        calls = await call("GetDependencies", "GetDependenciesResponse", b"")
        return services, operations, calls

    services, operations, calls = asking(tmp_path, spans, work)
    assert list(services.services) == ["db", "web"]
    assert [(o.name, o.span_kind) for o in operations.operations] == [("GET /", "client")]
    assert [(c.parent, c.child, c.call_count) for c in calls.dependencies] == [("web", "db", 1)]


def test_spans_come_in_messages_that_clients_take(tmp_path, monkeypatch):
    monkeypatch.setattr(jaeger_grpc, "CHUNK", 300)

    async def work(call):
        return await call(*find())

    found = asking(tmp_path, [span(i, parent=20) for i in range(1, 20)], work)
    assert len(found) > 3
    assert all(chunk.ByteSize() < 500 for chunk in found)
    assert len({s.span_id for chunk in found for s in chunk.spans}) == 19


def test_an_answer_that_nobody_reads_ends(tmp_path, monkeypatch):
    """Or it would stay in memory, and keep its place from others."""
    monkeypatch.setattr(jaeger_grpc, "ANSWER_S", 0.1)

    async def work(call):
        answer = call.channel.unary_stream(f"/{SERVICE}/FindTraces")(find()[2].SerializeToString())
        await answer.read()
        await asyncio.sleep(2 * jaeger_grpc.ANSWER_S)
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await answer.read() is not grpc.aio.EOF:
                pass
        return await answer.code()

    long = [span(i, tags={f"t{n}": "x" * 4000 for n in range(100)}) for i in range(1, 40)]
    assert asking(tmp_path, long, work) is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        (("GetTrace", "SpansResponseChunk", b"\x0a\x10" + b"\1" * 16), grpc.StatusCode.NOT_FOUND, "not found"),
        (("GetTrace", "SpansResponseChunk", b""), grpc.StatusCode.INVALID_ARGUMENT, "not a trace id"),
        (("GetTrace", "SpansResponseChunk", b"\x0a\x20" + b"\1" * 32), grpc.StatusCode.INVALID_ARGUMENT, "16 or 32"),
        (find(""), grpc.StatusCode.INVALID_ARGUMENT, "service: is missing"),
        (find(search_depth=100_000), grpc.StatusCode.INVALID_ARGUMENT, "limit: must be between"),
        (find(search_depth=-1), grpc.StatusCode.INVALID_ARGUMENT, "limit"),
    ],
)
def test_questions_that_cannot_be_answered_get_a_clear_status(tmp_path, asked, code, says):
    async def work(call):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(*asked)
        return refused.value

    refused = asking(tmp_path, [span(1)], work)
    assert refused.code() is code
    assert says in refused.details()
