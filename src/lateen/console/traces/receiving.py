"""Receivers of spans: Zipkin's and OpenTelemetry's HTTP, and OpenTelemetry's gRPC."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable
from typing import Any

import grpc
from aiohttp import web
from google.rpc import status_pb2

from lateen.console.traces import otlp, zipkin
from lateen.console.traces.spans import BadSpans, Span
from lateen.console.traces.unpacking import Unknown, unpacked
from lateen.kit import bodies, jsons

log = logging.getLogger("lateen.console.traces")

MAX_BODY = 8 * 1024 * 1024
AT_ONCE = 16
"""The number of bodies that are read concurrently; together with MAX_BODY it bounds memory."""
JSON, PROTOBUF = "application/json", "application/x-protobuf"
METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

ELSEWHERE = {
    "/api/v1/spans": "spans of Zipkin's version 1 are not taken; send version 2 as JSON to /api/v2/spans",
    "/v1/logs": "logs are not taken, only traces: set OTEL_LOGS_EXPORTER=none, or send them to a collector of your own",
    "/v1/metrics": "metrics are not taken, only traces: set OTEL_METRICS_EXPORTER=none; the collector scrapes metrics",
    METHOD: "this port has OTLP over HTTP; OTLP over gRPC is on port 4317",
}
"""What clients send to paths of other services -> the answer."""
Decode = Callable[[bytes], tuple[list[Span], list[str]]]
"""A body to (its spans, what is wrong with others). Raises BadSpans."""
Take = Callable[[list[Span]], bool]
"""Stores spans; False if the queue is full, so that the client should retry."""


class Receiver:
    def __init__(self, take: Take) -> None:
        self._take = take
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.refused = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v2/spans", self._zipkin),
            web.post("/v1/traces", self._otlp),
            *(web.post(path, self._elsewhere) for path in ELSEWHERE),
        ]

    async def _elsewhere(self, request: web.Request) -> web.Response:
        return self._no(request, 404, ELSEWHERE[request.path])

    async def _zipkin(self, request: web.Request) -> web.Response:
        if request.content_type not in (JSON, "text/plain", "application/octet-stream"):
            says = f"Zipkin's spans are taken as JSON (Content-Type: {JSON}), not {request.content_type}"
            return self._no(request, 415, says)
        found = await self._read(request, lambda body: (zipkin.decode(body), []))
        return found if isinstance(found, web.Response) else web.Response(status=202)

    async def _otlp(self, request: web.Request) -> web.Response:
        decoders = {JSON: otlp.decode_json, PROTOBUF: otlp.decode}
        if request.content_type not in decoders:
            return self._no(request, 415, f"spans are taken as {PROTOBUF} or {JSON}, not {request.content_type}")
        found = await self._read(request, decoders[request.content_type])
        if isinstance(found, web.Response):
            return found
        answer = otlp.accepted_json if request.content_type == JSON else otlp.accepted
        return web.Response(body=answer(found), content_type=request.content_type)

    async def _read(self, request: web.Request, decode: Decode) -> web.Response | list[str]:
        """Store a body's spans; what is wrong with others, or the answer if none could be stored."""
        async with self._gate:
            try:
                async with asyncio.timeout(30):
                    body = await bodies.whole(request.content.iter_any(), MAX_BODY)
                encoding = request.headers.get("Content-Encoding", "")
                spans, problems = decode(unpacked(body, encoding, MAX_BODY))
            except bodies.TooLong:
                return self._no(request, 413, f"a body may have at most {MAX_BODY} bytes; send fewer spans at once")
            except BadSpans as e:
                return self._no(request, 400, str(e))
            except Unknown as e:
                return self._no(request, 415, str(e))
            except (zlib.error, OSError) as e:
                return self._no(request, 400, f"the body cannot be unpacked: {e}")
            except TimeoutError:
                return self._no(request, 408, "the body did not arrive within 30 seconds")
        if not self._take(spans):
            found = self._no(request, 503, "too many spans are waiting to be stored")
            found.headers["Retry-After"] = "1"
            return found
        self.refused += bool(problems)
        return problems

    def _no(self, request: web.Request, status: int, says: str) -> web.Response:
        """In the format of the request, as OTLP wants it."""
        self.refused += 1
        if request.content_type == PROTOBUF:
            body = status_pb2.Status(message=says).SerializeToString()
            return web.Response(status=status, body=body, content_type=PROTOBUF)
        return web.Response(status=status, body=jsons.dumps({"code": status, "message": says}), content_type=JSON)

    # --- gRPC --------------------------------------------------------------------------------------------------------

    async def serve_grpc(self, port: int) -> Any:
        """The server, started."""
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", MAX_BODY), ("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=AT_ONCE * 4,
        )
        self.add_to(server)
        server.add_insecure_port(f"[::]:{port}")
        await server.start()
        return server

    def add_to(self, server: Any) -> None:
        handler = grpc.unary_unary_rpc_method_handler(self._export)
        service, _, method = METHOD[1:].partition("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))

    async def _export(self, raw: bytes, context: Any) -> bytes:
        try:
            spans, problems = otlp.decode(raw)
        except BadSpans as e:
            self.refused += 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))
            raise
        if not self._take(spans):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "too many spans are waiting to be stored")
        self.refused += bool(problems)
        return otlp.accepted(problems)
