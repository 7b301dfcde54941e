"""Jaeger's query API over gRPC, which Kiali uses unless it is told otherwise.

Source: https://github.com/jaegertracing/jaeger-idl (``proto/api_v2/query.proto`` and ``model.proto``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory, timestamp_pb2

from lateen.console.traces import jaeger
from lateen.console.traces.asking import TooMuch
from lateen.console.traces.query import REFUSED, Busy, Queries, jaeger_query, now_us
from lateen.console.traces.spans import Span, trace_id
from lateen.kit import jsons
from lateen.kit.jsons import Json

PACKAGE = "jaeger.api_v2"
SERVICE = f"{PACKAGE}.QueryService"
USUAL_LIMIT = 100
"""Traces of a query without ``search_depth``, as Jaeger's stores have it."""
MAX_QUESTION = 64 * 1024
AT_ONCE = 32
CHUNK = 1024 * 1024
"""Bytes of spans in a message. Clients in Go refuse messages of more than 4 MB."""
ANSWER_S = 60.0
"""How long a client may take to read an answer, which is in memory until then."""

_TIME, _SPAN_OF_TIME = ".google.protobuf.Timestamp", ".google.protobuf.Duration"
_MESSAGES = {
    "KeyValue": "key:1:string v_type:2:int32 v_str:3:string v_bool:4:bool",
    "Log": f"timestamp:1:{_TIME} fields:2:*KeyValue",
    "SpanRef": "trace_id:1:bytes span_id:2:bytes ref_type:3:int32",
    "Process": "service_name:1:string tags:2:*KeyValue",
    "Span": f"trace_id:1:bytes span_id:2:bytes operation_name:3:string references:4:*SpanRef start_time:6:{_TIME} "
    f"duration:7:{_SPAN_OF_TIME} tags:8:*KeyValue logs:9:*Log process:10:Process",
    "Tag": "key:1:string value:2:string",
    "TraceQueryParameters": "service_name:1:string operation_name:2:string tags:3:*Tag "
    f"start_time_min:4:{_TIME} start_time_max:5:{_TIME} duration_min:6:{_SPAN_OF_TIME} duration_max:7:{_SPAN_OF_TIME} "
    "search_depth:8:int32",
    "GetTraceRequest": "trace_id:1:bytes",
    "FindTracesRequest": "query:1:TraceQueryParameters",
    "SpansResponseChunk": "spans:1:*Span",
    "GetServicesRequest": "",
    "GetServicesResponse": "services:1:*string",
    "GetOperationsRequest": "service:1:string span_kind:2:string",
    "Operation": "name:1:string span_kind:2:string",
    "GetOperationsResponse": "operationNames:1:*string operations:2:*Operation",
    "GetDependenciesRequest": f"start_time:1:{_TIME} end_time:2:{_TIME}",
    "DependencyLink": "parent:1:string child:2:string call_count:3:uint64",
    "GetDependenciesResponse": "dependencies:1:*DependencyLink",
}
"""Name, number and type of each field that is read or written here; ``*`` is repeated. Enumerations are numbers and a
map is a list of pairs, which are the same bytes."""
_SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("string", "bytes", "bool", "int32", "uint64")
}
_TEXT, _BOOL = 0, 1
"""Of ``ValueType``."""


def _classes() -> dict[str, Any]:
    # A pool of its own: another library may have these messages under the same names.
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="jaeger_api_v2.proto", package=PACKAGE, syntax="proto3")
    for known in (timestamp_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        file.dependency.append(known.DESCRIPTOR.name)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            called, number, kind = field.split(":")
            added = message.field.add(name=called, number=int(number))
            added.label = added.LABEL_REPEATED if kind.startswith("*") else added.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type, added.type_name = added.TYPE_MESSAGE, kind if kind[0] == "." else f".{PACKAGE}.{kind}"
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{n}")) for n in _MESSAGES}


MESSAGES = _classes()


class GrpcQueries:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def serve(self, port: int) -> Any:
        """The server, started."""
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", MAX_QUESTION), ("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=AT_ONCE,
        )
        self.add_to(server)
        server.add_insecure_port(f"[::]:{port}")
        await server.start()
        return server

    def add_to(self, server: Any) -> None:
        streams = {"GetTrace": self._trace, "FindTraces": self._find}
        single = {
            "GetServices": self._services,
            "GetOperations": self._operations,
            "GetDependencies": self._dependencies,
        }
        handlers = {
            n: _handler(grpc.unary_stream_rpc_method_handler, n, _refusing_stream(h)) for n, h in streams.items()
        }
        handlers |= {n: _handler(grpc.unary_unary_rpc_method_handler, n, _refusing(h)) for n, h in single.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def _trace(self, asked: Any, context: Any) -> list[list[Span]]:
        number = trace_id(asked.trace_id.hex())
        found = await self._queries.ask(self._queries.store.traces, [number])
        if not found:
            await context.abort(grpc.StatusCode.NOT_FOUND, "trace not found")
        return found

    async def _find(self, asked: Any, _: Any) -> list[list[Span]]:
        wanted = jaeger_query(_as_http(asked.query), now_us())
        return await self._queries.ask(self._queries.store.find, wanted)

    async def _services(self, _asked: Any, _: Any) -> Any:
        return MESSAGES["GetServicesResponse"](services=await self._queries.ask(self._queries.store.services))

    async def _operations(self, asked: Any, _: Any) -> Any:
        found = await self._queries.ask(self._queries.store.names, asked.service, asked.span_kind.upper())
        return MESSAGES["GetOperationsResponse"](
            operationNames=sorted({name for name, _ in found}),
            operations=[{"name": name, "span_kind": kind.lower()} for name, kind in found],
        )

    async def _dependencies(self, asked: Any, _: Any) -> Any:
        stop = _micros(asked.end_time) if asked.HasField("end_time") else now_us()
        calls = await self._queries.ask(self._queries.store.calls, _micros(asked.start_time), stop)
        links = [{"parent": p, "child": c, "call_count": n} for p, c, n, _ in calls]
        return MESSAGES["GetDependenciesResponse"](dependencies=links)


def _as_http(query: Any) -> dict[str, str]:
    """The parameters of the same question over HTTP."""
    found = {
        "service": query.service_name,
        "operation": query.operation_name,
        "tags": jsons.dumps({t.key: t.value for t in query.tags}).decode(),
        "limit": str(query.search_depth or USUAL_LIMIT),
    }
    for name, field in (("start", "start_time_min"), ("end", "start_time_max")):
        if query.HasField(field):
            found[name] = str(_micros(getattr(query, field)))
    for name, field in (("minDuration", "duration_min"), ("maxDuration", "duration_max")):
        if length := _micros(getattr(query, field)):
            found[name] = str(length)
    return found


def _micros(given: Any) -> int:
    """Of a Timestamp or Duration, within what the store can compare."""
    micros: int = given.seconds * 1_000_000 + given.nanos // 1000
    return min(max(0, micros), 1 << 53)


def chunks(traces: Sequence[Sequence[Span]]) -> Iterator[Any]:
    """``SpansResponseChunk``s with all spans of these traces."""
    chunk, size = MESSAGES["SpansResponseChunk"](), 0
    for spans in traces:
        found = jaeger.trace(spans)
        services = {number: process["serviceName"] for number, process in found["processes"].items()}
        for one in found["spans"]:
            span = _span(one, services[one["processID"]])
            length = span.ByteSize()
            if size and size + length > CHUNK:
                yield chunk
                chunk, size = MESSAGES["SpansResponseChunk"](), 0
            chunk.spans.append(span)
            size += length
    if size:
        yield chunk


def _span(one: Json, service: str) -> Any:
    """``one``: in Jaeger's JSON."""
    span = MESSAGES["Span"](
        trace_id=bytes.fromhex(one["traceID"]),
        span_id=bytes.fromhex(one["spanID"]),
        operation_name=one["operationName"],
        references=[
            {"trace_id": bytes.fromhex(r["traceID"]), "span_id": bytes.fromhex(r["spanID"])} for r in one["references"]
        ],
        tags=[_tag(t) for t in one["tags"]],
        process={"service_name": service},
    )
    span.start_time.FromMicroseconds(one["startTime"])
    span.duration.FromMicroseconds(one["duration"])
    for event in one["logs"]:
        span.logs.add(fields=[_tag(f) for f in event["fields"]]).timestamp.FromMicroseconds(event["timestamp"])
    return span


def _tag(given: Json) -> Json:
    if given["type"] == "bool":
        return {"key": given["key"], "v_type": _BOOL, "v_bool": given["value"]}
    return {"key": given["key"], "v_type": _TEXT, "v_str": given["value"]}


# --- methods ----------------------------------------------------------------------------------------------------------

_ANSWERS = {
    "GetTrace": "SpansResponseChunk",
    "FindTraces": "SpansResponseChunk",
    "GetServices": "GetServicesResponse",
    "GetOperations": "GetOperationsResponse",
    "GetDependencies": "GetDependenciesResponse",
}


def _handler(make: Callable[..., Any], method: str, run: Callable[..., Any]) -> Any:
    return make(
        run,
        request_deserializer=MESSAGES[f"{method}Request"].FromString,
        response_serializer=MESSAGES[_ANSWERS[method]].SerializeToString,
    )


def _refusing(handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def run(asked: Any, context: Any) -> Any:
        try:
            return await handler(asked, context)
        except REFUSED as e:
            await context.abort(_status(e), str(e))

    return run


def _refusing_stream(handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    whole = _refusing(handler)

    async def run(asked: Any, context: Any) -> None:
        found = await whole(asked, context)
        try:
            async with asyncio.timeout(ANSWER_S):
                for chunk in chunks(found):
                    await context.write(chunk)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"the answer was not read within {ANSWER_S:.0f} s")

    return run


def _status(e: Exception) -> grpc.StatusCode:
    return grpc.StatusCode.RESOURCE_EXHAUSTED if isinstance(e, (Busy, TooMuch)) else grpc.StatusCode.INVALID_ARGUMENT
