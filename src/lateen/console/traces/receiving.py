"""Receivers of spans: Zipkin's and OpenTelemetry's HTTP, and OpenTelemetry's gRPC."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from lateen.console.traces import otlp, zipkin
from lateen.console.traces.spans import BadSpans, Span
from lateen.kit import bodies, jsons

log = logging.getLogger("lateen.console.traces")

MAX_BODY = 8 * 1024 * 1024
AT_ONCE = 16
"""The number of bodies that are read concurrently; together with MAX_BODY it bounds memory."""
JSON, PROTOBUF = "application/json", "application/x-protobuf"
METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

Take = Callable[[list[Span]], bool]
"""Stores spans; False if the queue is full, so that the client should retry."""


class Receiver:
    def __init__(self, take: Take) -> None:
        self._take = take
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.refused = 0

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/api/v2/spans", self._zipkin), web.post("/v1/traces", self._otlp)]

    async def _zipkin(self, request: web.Request) -> web.Response:
        if request.content_type not in (JSON, "text/plain", "application/octet-stream"):
            return self._no(415, f"Zipkin's spans are taken as JSON (Content-Type: {JSON}), not {request.content_type}")
        problem = await self._read(request, zipkin.decode)
        return problem or web.Response(status=202)

    async def _otlp(self, request: web.Request) -> web.Response:
        decoders = {JSON: otlp.decode_json, PROTOBUF: otlp.decode}
        if request.content_type not in decoders:
            return self._no(415, f"spans are taken as {PROTOBUF} or {JSON}, not {request.content_type}")
        problem = await self._read(request, decoders[request.content_type])
        if problem:
            return problem
        body = b"{}" if request.content_type == JSON else b""
        return web.Response(body=body, content_type=request.content_type)

    async def _read(self, request: web.Request, decode: Callable[[bytes], list[Span]]) -> web.Response | None:
        """Store a body's spans; the answer if that was not possible."""
        async with self._gate:
            try:
                async with asyncio.timeout(30):
                    body = await bodies.whole(request.content.iter_any(), MAX_BODY)
                spans = decode(_unpacked(body))
            except bodies.TooLong:
                return self._no(413, f"a body may have at most {MAX_BODY} bytes; send fewer spans at once")
            except BadSpans as e:
                return self._no(400, str(e))
            except web.RequestPayloadError:
                said = request.headers.get("Content-Encoding", "")
                found = self._no(400, f"the body cannot be unpacked: it is not {said}, or it is cut")
                found.force_close()  # what is left of it cannot be read
                return found
            except (zlib.error, EOFError, OSError) as e:
                return self._no(400, f"the body cannot be unpacked: {e}")
            except TimeoutError:
                return self._no(408, "the body did not arrive within 30 seconds")
        if not self._take(spans):
            found = self._no(503, "too many spans are waiting to be stored")
            found.headers["Retry-After"] = "1"
            return found
        return None

    def _no(self, status: int, says: str) -> web.Response:
        self.refused += 1
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
        serialized = trace_service_pb2.ExportTraceServiceResponse.SerializeToString
        handler = grpc.unary_unary_rpc_method_handler(self._export, response_serializer=serialized)
        service, _, method = METHOD[1:].partition("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))

    async def _export(self, raw: bytes, context: Any) -> Any:
        try:
            spans = otlp.decode(raw)
        except BadSpans as e:
            self.refused += 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))
            raise
        if not self._take(spans):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "too many spans are waiting to be stored")
        return trace_service_pb2.ExportTraceServiceResponse()


def _unpacked(body: bytes) -> bytes:
    """Some clients pack without saying so, and aiohttp has unpacked what said so. Raises bodies.TooLong."""
    if body[:2] != b"\x1f\x8b":
        return body
    unpacking = zlib.decompressobj(wbits=31)
    out = unpacking.decompress(body, MAX_BODY)
    if unpacking.unconsumed_tail:
        raise bodies.TooLong
    return out
