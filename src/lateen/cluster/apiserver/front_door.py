"""Connections: TLS, and who handles them: plain requests at once (``lane``), the others aiohttp, or our own SPDY/3.1
after its upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
from asyncio import sslproto
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import cast

from lateen.cluster.apiserver import lane, streams
from lateen.kit import tasks

MAX_CONNECTIONS = 2000
HEAD_S = 30.0
"""Seconds within which a request that has begun has to be complete."""
IDLE_S = 75.0
HANDSHAKE_S = 10.0
WRITE_BUFFER = 64 * 1024
"""Bytes of unread output that a connection may buffer; asyncio's default is half a MB."""
READ_BUFFER = 32 * 1024
"""... and in which TLS is decrypted; asyncio's default is a quarter of a MB for each connection, idle ones included."""
STALLED_S = 600.0
"""Seconds after which a client that does not read what is written to it is disconnected."""
DRAINING_S = 5.0
"""Seconds between checks of a connection whose client waits for its response, or is still reading it."""
KEPT_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3}
"""Seconds, and probes, after which the kernel takes a silent peer for gone: a pod's network ends without a farewell."""
TURN = 8
"""Requests of one connection that are answered before the other connections get their turn."""

Answers = Callable[[lane.Plain, asyncio.Transport], bytes | Coroutine[None, None, bytes] | None]
"""The response to a plain request, at once or later; None for what has to be asked of aiohttp."""
Spdy = Callable[[str, asyncio.Transport, asyncio.StreamReader, streams.Write], Awaitable[None]]


class FrontDoor(asyncio.Protocol):
    """Answers plain requests, one after the other; from the first other one on, the connection is aiohttp's, or (what
    aiohttp does not support) SPDY's.

    A connection that does not send a complete request in time, or that exceeds the limit of connections, is closed.
    """

    def __init__(self, http: Callable[[], asyncio.Protocol], spdy: Spdy, plain: Answers | None = None) -> None:
        self._http, self._spdy, self._plain = http, spdy, plain
        self._deadline: asyncio.TimerHandle | None = None
        self._since, self._written, self._served = 0.0, 0.0, False
        self._answering: asyncio.Task[bytes] | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._inner: asyncio.Protocol | None = None
        self._buffer = b""
        self._head: lane.Head | None = None
        """The head of the first request in the buffer, once it has arrived."""
        self._turn: asyncio.Handle | None = None
        self._paused = False
        self._begun: bytes | None = None
        """The last bytes of an incomplete head that has been handed to aiohttp."""
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost: list[Callable[[], None]] = []
        """Who wants to know that the client has gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        _DOORS[transport] = self
        if len(_DOORS) > MAX_CONNECTIONS:
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        self._deadline = loop.call_later(HEAD_S, self._check)

    def _check(self) -> None:
        """Close a connection whose request does not arrive in time, or that has been idle for long."""
        transport = self._transport
        assert transport is not None
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._begun is None:
            unread = self._unread(transport)
            if unread and now - self._written >= STALLED_S:
                reset(transport)
                return
            if unread or self._answering is not None:  # the client's deadline starts when it has the response
                self._since = now
                self._deadline = loop.call_later(DRAINING_S, self._check)
                return
        limit = IDLE_S if self._served and not self._buffer and self._begun is None else HEAD_S
        left = limit - (now - self._since)
        if left <= 0:
            transport.abort()
        else:
            self._deadline = loop.call_later(left, self._check)

    def _unread(self, transport: asyncio.Transport) -> bool:
        """Whether the client has not taken all that has been written. TLS does not count what it has given to its
        socket's transport."""
        below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None) or transport
        return not self._writable.is_set() or bool(transport.get_write_buffer_size() or below.get_write_buffer_size())

    def data_received(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.feed_data(data)
        elif self._inner is not None:
            if self._begun is not None:
                self._await_head(self._begun + data)
            self._inner.data_received(data)
        else:
            if not self._buffer:
                self._since = asyncio.get_running_loop().time()
            self._buffer += data
            if self._turn is None:
                self._serve()
            else:
                self._flow()

    def _serve(self) -> None:
        """Answer the plain requests that have arrived, some at a time."""
        self._turn = None
        transport = self._transport
        assert transport is not None
        left = TURN
        while self._buffer and self._answering is None and self._writable.is_set() and not transport.is_closing():
            if not left:
                self._turn = asyncio.get_running_loop().call_soon(self._serve)
                break
            left -= 1
            try:
                asked = self._asked()
            except lane.Unusual:
                self._hand_over(transport)
                return
            if asked is None:
                break
            found = self._plain(asked, transport) if self._plain else None
            if found is None:
                self._hand_over(transport)
                return
            self._buffer, self._head = self._buffer[asked.size :], None
            if isinstance(found, bytes):
                self._answer(found, asked.closes)
            else:
                self._answering = tasks.spawn(found, "request")
                self._answering.add_done_callback(functools.partial(self._answered, asked.closes))
        self._flow()

    def _flow(self) -> None:
        """Stop reading while too many pipelined requests are waiting."""
        assert self._transport is not None
        full = len(self._buffer) > 2 * lane.MAX_BODY
        if full and not self._paused:
            self._transport.pause_reading()
        elif self._paused and not full:
            self._transport.resume_reading()
        self._paused = full

    def _asked(self) -> lane.Plain | None:
        """The next request; None while it is not complete. Raises lane.Unusual."""
        if self._plain is not None:
            if self._head is None:
                self._head = lane.head(self._buffer)
            return self._head.request(self._buffer) if self._head else None
        if b"\r\n\r\n" in self._buffer or len(self._buffer) > lane.MAX_HEAD:
            raise lane.Unusual
        return None

    def _answer(self, response: bytes, closes: bool) -> None:
        assert self._transport is not None
        self._since = self._written = asyncio.get_running_loop().time()
        self._served = True
        self._transport.write(response)
        if self._deadline and self._unread(self._transport):
            self._deadline.cancel()
            self._deadline = asyncio.get_running_loop().call_later(DRAINING_S, self._check)
        if closes:
            self._transport.close()

    def _answered(self, closes: bool, task: asyncio.Task[bytes]) -> None:
        self._answering = None
        assert self._transport is not None
        if self._transport.is_closing():
            return
        if task.cancelled() or task.exception() is not None:
            self._transport.abort()
            return
        self._answer(task.result(), closes)
        self._serve()

    def _hand_over(self, transport: asyncio.Transport) -> None:
        """What has arrived of a request that is not plain, and whatever comes after it."""
        if self._paused:
            self._paused = False
            transport.resume_reading()
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        self._await_head(self._buffer)
        self._buffer, buffer, self._head = b"", self._buffer, None
        if found and b"\nupgrade: spdy/3.1" in head.lower():
            self._upgrade(head.decode("latin-1"), rest)
            return
        self._inner = self._http()
        self._inner.connection_made(transport)
        self._inner.data_received(buffer)

    def _await_head(self, data: bytes) -> None:
        """aiohttp has no deadline for the first head: ours stays until the head's blank line is there."""
        data = data if self._begun else data.lstrip(b"\r\n")  # empty lines before a request are not part of it
        if b"\r\n\r\n" not in data:
            self._begun = data[-3:]
            return
        self._begun = None
        if self._deadline:
            self._deadline.cancel()

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
        if self._transport is not None:
            _DOORS.pop(self._transport, None)
        for timer in (self._deadline, self._stalled, self._turn):
            if timer:
                timer.cancel()
        self._writable.set()
        tasks.tell(self.lost)
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
        elif self._reader is None:
            self._serve()


_DOORS: dict[asyncio.BaseTransport, FrontDoor] = {}
"""The open connections. A weak dictionary would keep the ended ones: each value holds its key."""


@contextlib.contextmanager
def until_lost(transport: asyncio.BaseTransport | None, tell: Callable[[], None]) -> Iterator[None]:
    """Calls ``tell`` once the client has gone, while inside: whoever writes nothing would never know."""
    door = _DOORS.get(transport) if transport is not None else None
    if door is None or transport is None or transport.is_closing():
        tell()
        yield
        return
    door.lost.append(tell)
    try:
        yield
    finally:
        door.lost.remove(tell)


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
    if not isinstance(at, socket.socket):
        at = socket.create_server(at, reuse_port=False)
        at.setblocking(False)
    at.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # which connections inherit
    for name, value in KEPT_ALIVE.items():
        at.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    await loop.create_server(connection, sock=at, ssl=context, ssl_handshake_timeout=HANDSHAKE_S)


def tls(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context
