"""A small HTTP/1.1 server and client on asyncio, so that the sample starts quickly and needs no library."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

TRACE_HEADERS = (
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "sw8",
    "user-agent",
    "end-user",
    "cookie",
    "authorization",
    "jwt",
)
REASONS = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    418: "I'm a teapot",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {k: v[0] for k, v in parse_qs(self.body.decode(errors="replace")).items()}

    @property
    def query(self) -> dict[str, str]:
        return {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}

    def traced(self) -> dict[str, str]:
        """The headers that link the calls made for one request, for tracing."""
        return {k: self.headers[k] for k in TRACE_HEADERS if k in self.headers}


@dataclass
class Response:
    status: int = 200
    body: bytes = b""
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: object, status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode())


Handler = Callable[[Request], Awaitable[Response]]


async def _read(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return head[0], headers, body


async def _connection(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            first, headers, body = await _read(reader)
            method, path, _ = first.split(" ", 2)
            try:
                response = await handler(Request(method, path, headers, body))
            except Exception as e:  # noqa: BLE001 - the sample answers 500 and continues
                print(f"{method} {path}: {type(e).__name__}: {e}", file=sys.stderr, flush=True)
                response = as_json({"error": "internal error"}, 500)
            lines = [
                f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Status')}",
                f"content-type: {response.kind}",
                f"content-length: {len(response.body)}",
                "server: bookinfo",
            ]
            lines += [f"{k}: {v}" for k, v in response.headers.items()]
            writer.write(
                "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if method == "HEAD" else response.body)
            )
            await writer.drain()
            if headers.get("connection", "").lower() == "close":
                return
    except (asyncio.IncompleteReadError, ConnectionError, ValueError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def call(
    host: str,
    port: int,
    path: str,
    headers: dict[str, str],
    timeout: float = 10.0,
    method: str = "GET",
    body: bytes = b"",
) -> tuple[int, bytes]:
    """One request on a connection of its own. Raises OSError or TimeoutError."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            head = {"host": f"{host}:{port}", **headers, "connection": "close", "content-length": str(len(body))}
            lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in head.items())]
            writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
            first, _, answer = await _read(reader)
            return int(first.split(" ")[1]), answer
        except (asyncio.IncompleteReadError, ValueError) as e:
            raise OSError(f"{host}:{port} closed the connection") from e
        finally:
            writer.close()


def serve(handler: Handler) -> None:
    """Listen on the port in ``argv`` until SIGTERM; requests in flight are completed."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 9080
        server = await asyncio.start_server(lambda r, w: _connection(handler, r, w), None, port)
        print(f"listening on port {port}", flush=True)
        await stop.wait()
        server.close()
        await asyncio.sleep(0.2)

    asyncio.run(main())


def segments(path: str) -> list[str]:
    return [unquote(p) for p in urlsplit(path).path.strip("/").split("/")]


def digits(text: str) -> bool:
    """Whether ``int`` takes a text of digits alone."""
    return text.isascii() and text.isdigit() and len(text) < 19
