"""A minimal HTTP/1.1 server and client on asyncio streams, for processes that must stay small.

The agent serves only a few probes and scrapes; aiohttp would double its memory. Bodies are bounded, every connection
has a deadline (streamed responses have one per part), and connections are closed after one response.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

MAX_HEAD = 64 * 1024
MAX_BODY = 16 * 1024 * 1024
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    peer: str = ""
    """The client's address."""


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncGenerator[bytes] | None = None
    """The parts that follow, until the iterator ends or the client disconnects; then the iterator is closed."""


Handler = Callable[[Request], Awaitable[Response]]


async def serve(handler: Handler, host: str | Sequence[str], port: int) -> asyncio.Server:
    """Listen and answer requests; an exception in the handler becomes a 500."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                stream = await _answer(handler, reader, writer)
            if stream is not None:
                await _pour(stream, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the peer disconnected or sent something invalid: there is nobody to answer
        finally:
            writer.close()

    return await asyncio.start_server(on_connection, host, port, limit=MAX_HEAD)


async def _pour(stream: AsyncGenerator[bytes], writer: asyncio.StreamWriter) -> None:
    async with contextlib.aclosing(stream):
        async for part in stream:
            writer.write(part)
            async with asyncio.timeout(DEADLINE_S):
                await writer.drain()


async def _answer(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncGenerator[bytes] | None:
    first, headers = _head(await reader.readuntil(b"\r\n\r\n"))
    method, path, _ = first.split(" ", 2)
    length = int(headers.get("content-length", "0"))
    if length > MAX_BODY:
        response = Response(413)
    else:
        body = await reader.readexactly(length)
        try:
            peer = writer.get_extra_info("peername") or ("",)
            response = await handler(Request(method, path, headers, body, str(peer[0])))
        except OSError as e:
            response = Response(502, str(e).encode())
    lines = [f"HTTP/1.1 {response.status} -", "connection: close"]
    if response.stream is None:
        lines.append(f"content-length: {len(response.body)}")
    lines += [f"{k}: {v}" for k, v in response.headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else response.body))
    await writer.drain()
    return response.stream


def _head(raw: bytes) -> tuple[str, dict[str, str]]:
    first, *rest = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    return first, {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}


async def fetch(
    host: str,
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    timeout: float = 5.0,
    ssl: object = None,
    server_hostname: str | None = None,
    sock: object = None,
) -> Response:
    """Send one request on a new connection. Raises OSError or TimeoutError."""
    async with asyncio.timeout(timeout):
        if sock is not None:
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=ssl, server_hostname=server_hostname, limit=MAX_BODY
            )
        else:
            reader, writer = await asyncio.open_connection(
                host, port, ssl=ssl, server_hostname=server_hostname, limit=MAX_BODY
            )
        try:
            head = {"host": host, "connection": "close", **(headers or {})}
            return await _ask(reader, writer, method, path, head, body)
        except (asyncio.IncompleteReadError, ValueError) as e:
            raise OSError(f"{host}:{port} did not answer with valid HTTP") from e
        finally:
            writer.close()


class Connection:
    """A connection that carries one request after another, and is reopened if the server has closed it.

    Requests must be idempotent, because one may be sent twice.
    """

    def __init__(self, host: str, port: int, *, ssl: object = None, server_hostname: str | None = None) -> None:
        self._host, self._port, self._ssl, self._server_hostname = host, port, ssl, server_hostname
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b"", timeout: float = 30.0
    ) -> Response:
        """Raises OSError or TimeoutError."""
        async with asyncio.timeout(timeout):
            if self._streams is not None:
                try:
                    return await self._ask(self._streams, method, path, headers, body)
                except (OSError, EOFError, ValueError):
                    self.close()  # it was idle for too long
            self._streams = await asyncio.open_connection(
                self._host, self._port, ssl=self._ssl, server_hostname=self._server_hostname, limit=MAX_BODY
            )
            try:
                return await self._ask(self._streams, method, path, headers, body)
            except (EOFError, ValueError) as e:
                self.close()
                raise OSError(f"{self._host}:{self._port} did not answer with valid HTTP") from e

    async def _ask(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
    ) -> Response:
        response = await _ask(*streams, method, path, {"host": f"{self._host}:{self._port}", **headers}, body)
        if response.headers.get("connection", "").lower() == "close":
            self.close()
        return response

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
) -> Response:
    """Raises OSError, asyncio.IncompleteReadError (an EOFError) and ValueError."""
    head = {"content-length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in head.items())]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    first, got = _head(await reader.readuntil(b"\r\n\r\n"))
    status = int(first.partition(" ")[2][:3])
    return Response(status, await _body(reader, got), got)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        while (await reader.readline()).strip():
            pass  # trailers are not used
        return b"".join(parts)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read(MAX_BODY)
