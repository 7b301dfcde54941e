"""Connections: TLS, and who handles them: aiohttp, or our own SPDY/3.1 after its upgrade."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from asyncio import sslproto
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from lateen.cluster.apiserver import streams
from lateen.kit import tasks

MAX_CONNECTIONS = 2000
HEAD_S = 30.0
HANDSHAKE_S = 10.0
WRITE_BUFFER = 64 * 1024
"""Bytes that a connection may hold which its client does not take; asyncio's default is half a MB."""
READ_BUFFER = 32 * 1024
"""... and in which TLS is decrypted; asyncio's default is a quarter of a MB for each connection, idle ones included."""
STALLED_S = 600.0
"""Seconds after which a client that does not read what is written to it is disconnected."""

Spdy = Callable[[str, asyncio.Transport, asyncio.StreamReader, streams.Write], Awaitable[None]]


class FrontDoor(asyncio.Protocol):
    """Inspects the first request's head, because aiohttp supports no upgrade but WebSocket's.

    A connection that does not send a complete head in time, or that exceeds the limit of connections, is closed.
    """

    _open = 0

    def __init__(self, http: web.Server, spdy: Spdy) -> None:
        self._http, self._spdy = http, spdy
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._inner: asyncio.Protocol | None = None
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        FrontDoor._open += 1
        if FrontDoor._open > MAX_CONNECTIONS:
            self._transport.abort()
            return
        self._deadline = asyncio.get_running_loop().call_later(HEAD_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.feed_data(data)
        elif self._inner is not None:
            self._inner.data_received(data)
        else:
            self._buffer += data
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if found and self._deadline:
                self._deadline.cancel()
            if found and b"\nupgrade: spdy/3.1" in head.lower():
                self._upgrade(head.decode("latin-1"), rest)
            elif found or len(self._buffer) > 65536:
                assert self._transport is not None
                self._inner = self._http()
                self._inner.connection_made(self._transport)
                buffer, self._buffer = self._buffer, b""
                self._inner.data_received(buffer)

    def _upgrade(self, head: str, rest: bytes) -> None:
        self._reader = asyncio.StreamReader(limit=4 * 1024 * 1024)
        if rest:
            self._reader.feed_data(rest)
        transport = self._transport
        assert transport is not None

        async def write(data: bytes) -> None:
            await self._writable.wait()
            if transport.is_closing():
                raise ConnectionResetError("the client has gone away")
            transport.write(data)

        async def run() -> None:
            try:
                assert self._reader is not None
                await self._spdy(head, transport, self._reader, write)
            except ConnectionError:
                pass  # the client went away
            finally:
                transport.close()

        tasks.spawn(run(), "spdy connection")

    def eof_received(self) -> bool | None:
        if self._reader is not None:
            self._reader.feed_eof()
            return False
        return self._inner.eof_received() if self._inner else False

    def connection_lost(self, exc: Exception | None) -> None:
        FrontDoor._open -= 1
        for timer in (self._deadline, self._stalled):
            if timer:
                timer.cancel()
        self._writable.set()
        if self._reader is not None:
            self._reader.feed_eof()
        elif self._inner:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._stalled = asyncio.get_running_loop().call_later(STALLED_S, reset, self._transport)
        self._writable.clear()
        if self._inner:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._stalled:
            self._stalled.cancel()
        self._writable.set()
        if self._inner:
            self._inner.resume_writing()


def reset(transport: asyncio.BaseTransport) -> None:
    """Hang up on a client that does not read: what it has not taken is dropped, in the kernel too, where the end of the
    stream would otherwise wait behind it for as long as the client likes."""
    if connection := transport.get_extra_info("socket"):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cast(asyncio.Transport, transport).abort()


async def listen(
    connection: Callable[[], asyncio.Protocol], at: tuple[str, int] | socket.socket, context: ssl.SSLContext
) -> None:
    """Serve at an address or on a bound socket, until the process ends."""
    sslproto.SSLProtocol.max_size = READ_BUFFER
    loop = asyncio.get_running_loop()
    if isinstance(at, socket.socket):
        await loop.create_server(connection, sock=at, ssl=context, ssl_handshake_timeout=HANDSHAKE_S)
    else:
        await loop.create_server(connection, *at, ssl=context, ssl_handshake_timeout=HANDSHAKE_S)


def tls(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context
