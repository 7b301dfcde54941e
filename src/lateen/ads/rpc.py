"""Streaming gRPC calls over HTTP/2, for servers: bytes in, bytes out.

``h2`` speaks HTTP/2; this adds gRPC's framing, and the order in which what waits for a client leaves. A message and its
acknowledgement cost a quarter of what they cost with ``grpc.aio``, whose completion queues and threads wake each other
for each of them (``bench/fanout.py``). Calls and their handlers run in the event loop; a message is sent when ``send``
is called, without waking a task.
Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, RFC 9113.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error

from lateen.ads.tls import Link

log = logging.getLogger("lateen.ads")

T = TypeVar("T")

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of a message that a client may send."""
PING_S, PONG_S = 30.0, 10.0
"""A client of which nothing has come for the first is asked for a sign of life, and dropped if none comes within the
second."""
CREDIT = 1 << 14
"""Received bytes after which a client is told that it may send more."""
BURST = 1 << 14
"""Bytes that are encrypted at once; OpenSSL keeps a buffer of this size for each connection."""


class Status(enum.IntEnum):
    """Source: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Handler(Protocol):
    """What becomes of one call."""

    def received(self, message: bytes) -> None: ...

    def completed(self) -> None:
        """The client sends nothing more, and waits for the rest of the answer."""

    def closed(self) -> None:
        """The call is over, whoever has ended it; called once, last."""


class Call:
    """One call, as its server sees it."""

    def __init__(self, link: Connection, number: int, headers: Mapping[str, str], identities: tuple[str, ...]) -> None:
        self.path = headers.get(":path", "")
        self.headers = headers
        self.identities = identities
        """The URIs of the client's certificate."""
        self.handler: Handler | None = None
        self.waiting: deque[memoryview] = deque()
        self.started = False
        self.status: tuple[Status, str] | None = None
        """How it ends once nothing waits any more."""
        self.unacknowledged = 0
        """Bytes that the client does not know yet to be taken."""
        self._link, self._number, self._partial = link, number, bytearray()

    def send(self, messages: Sequence[Sequence[bytes]]) -> None:
        """Send messages, each in parts, which are kept (not copied) until the client takes them."""
        if self.status is not None:
            return
        for parts in messages:
            size = sum(map(len, parts))
            self.waiting.append(memoryview(b"\0" + size.to_bytes(4, "big") + parts[0]))
            self.waiting.extend(memoryview(p) for p in parts[1:] if p)
        self._link.pump(self._number, self)

    def finish(self, status: Status = Status.OK, says: str = "") -> None:
        """End the call after what has been sent; what the client sends from now on is ignored."""
        if self.status is None:
            self.status = (status, says)
            self._link.pump(self._number, self)

    def deliver(self, data: bytes) -> None:
        """Bytes of the request: the messages that they complete go to the handler."""
        partial = self._partial
        partial += data
        while len(partial) >= 5 and self.status is None and self.handler is not None:
            size = int.from_bytes(partial[1:5], "big")
            if partial[0]:
                return self.finish(Status.UNIMPLEMENTED, "compressed messages are not supported")
            if size > MAX_MESSAGE:
                return self.finish(Status.RESOURCE_EXHAUSTED, f"a message has {size} bytes; the limit is {MAX_MESSAGE}")
            if len(partial) < 5 + size:
                return None
            message = bytes(partial[5 : 5 + size])
            del partial[: 5 + size]
            self.guarded(self.handler.received, message)
        return None

    def guarded(self, handle: Callable[[T], None], message: T) -> None:
        """Handle a message; a failure ends this call and no other."""
        try:
            handle(message)
        except Exception:
            log.exception("%s failed", self.path)
            self.finish(Status.INTERNAL, "the control plane failed to handle the request; its log says why")


Accept = Callable[[Call], Handler | None]
"""A new call -> what handles it; None if there is no such method. Must not raise."""


class Connection(Link):
    """One client's connection and its calls."""

    def __init__(self, context: ssl.SSLContext, accept: Accept, all_of_them: set[Connection]) -> None:
        super().__init__(context)
        self._accept, self._all = accept, all_of_them
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._calls: dict[int, Call] = {}
        self._identities: tuple[str, ...] = ()
        self._heard, self._asked = True, False
        self._watch: asyncio.TimerHandle | None = None

    def established(self) -> None:
        self._all.add(self)
        self._identities = self.identities()
        self._h2.initiate_connection()
        self._flush()
        self._check()

    def _check(self) -> None:
        """Is the client still there?"""
        if self._asked and not self._heard:
            log.info("a client has not answered for %g s; its connection is closed", PING_S + PONG_S)
            if self.transport is not None:
                self.transport.abort()
            return
        self._asked = not self._heard
        if self._asked:
            self._h2.ping(b"lateen\0\0")
            self._flush()
        self._heard = False
        self._watch = asyncio.get_running_loop().call_later(PONG_S if self._asked else PING_S, self._check)

    def received(self, data: bytes) -> None:
        self._heard = True
        try:
            for event in self._h2.receive_data(data):
                self._on(event)
        except H2Error as e:
            log.info("a client violates HTTP/2: %s", e)
            self._flush()
            self.close()
            return
        self._flush()

    def _on(self, event: Event) -> None:
        match event:
            case DataReceived():
                assert event.stream_id is not None
                call = self._calls.get(event.stream_id)
                self._credit(event.stream_id, call, event.flow_controlled_length or 0)
                if call is not None and event.data and call.status is None:
                    call.deliver(event.data)
            case RequestReceived():
                assert event.stream_id is not None
                self._open(event.stream_id, {_text(k): _text(v) for k, v in event.headers or ()})
            case WindowUpdated() | RemoteSettingsChanged():  # which may open the windows of all streams
                self.writable()
            case StreamEnded():
                call = self._calls.get(event.stream_id or 0)
                if call is not None and call.handler is not None and call.status is None:
                    call.handler.completed()
            case StreamReset():
                self._forget(event.stream_id or 0)
            case ConnectionTerminated():
                self._flush()
                self.close()

    def _credit(self, number: int, call: Call | None, size: int) -> None:
        """Tell the client that it may send more; not for each message, since most of them are small."""
        total = size + (call.unacknowledged if call else 0)
        if call is not None:
            call.unacknowledged = total if total < CREDIT else 0
        if call is None or total >= CREDIT:
            self._h2.acknowledge_received_data(total, number)

    def _open(self, number: int, headers: Mapping[str, str]) -> None:
        call = self._calls[number] = Call(self, number, headers, self._identities)
        if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith("application/grpc"):
            call.finish(Status.UNIMPLEMENTED, "only gRPC is served here")
            return
        call.handler = self._accept(call)
        if call.handler is None:
            call.finish(Status.UNIMPLEMENTED, f"there is no method {call.path}")

    def _forget(self, number: int) -> None:
        call = self._calls.pop(number, None)
        if call is None:
            return
        if call.unacknowledged and self.transport is not None:
            self._h2.acknowledge_received_data(call.unacknowledged, number)
        call.status = call.status or (Status.CANCELLED, "")
        call.waiting.clear()
        if call.handler is not None:
            call.handler.closed()

    def writable(self) -> None:
        for number, call in tuple(self._calls.items()):
            if call.waiting:
                self.pump(number, call)

    def pump(self, number: int, call: Call) -> None:
        """Send what waits as far as the client takes it."""
        if number not in self._calls or self.transport is None:
            return
        try:
            self._pump(number, call)
        except H2Error as e:  # the client has just ended the stream
            log.debug("%s: %s", call.path, e)
        self._flush()

    def _pump(self, number: int, call: Call) -> None:
        if call.waiting and not call.started:
            call.started = True
            self._h2.send_headers(number, _HEADERS)
        burst = 0
        while call.waiting and not self.paused:
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            chunk = _taken(call.waiting, room)
            self._h2.send_data(number, chunk)
            burst += len(chunk)
            if burst >= BURST:
                burst = 0
                self._flush()
        if call.status is not None and not call.waiting:
            self._end(number, call.started, *call.status)

    def _end(self, number: int, started: bool, status: Status, says: str) -> None:
        trailers = [] if started else list(_HEADERS)
        trailers.append(("grpc-status", str(int(status))))
        if says:
            trailers.append(("grpc-message", quote(says, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")))
        self._h2.send_headers(number, trailers, end_stream=True)
        try:
            self._h2.reset_stream(number, ErrorCodes.NO_ERROR)  # the rest of the request is not read
        except H2Error:
            pass  # it was complete
        self._forget(number)

    def _flush(self) -> None:
        self.write(self._h2.data_to_send())

    def stop(self) -> None:
        """Tell the client to connect elsewhere, and close."""
        for number in tuple(self._calls):
            self._forget(number)
        self._h2.close_connection()
        self._flush()
        self.close()

    def lost(self) -> None:
        self._all.discard(self)
        if self._watch is not None:
            self._watch.cancel()
        for number in tuple(self._calls):
            self._forget(number)


_HEADERS = ((":status", "200"), ("content-type", "application/grpc"))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _taken(waiting: deque[memoryview], size: int) -> bytes:
    """Up to ``size`` bytes of what waits."""
    first = waiting[0]
    if len(first) >= size:
        waiting[0] = first[size:]
        if not waiting[0]:
            waiting.popleft()
        return bytes(first[:size])
    parts, left = [], size
    while waiting and left:
        part = waiting.popleft()
        if len(part) > left:
            waiting.appendleft(part[left:])
            part = part[:left]
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class Server:
    """A listening socket and its connections."""

    def __init__(self, listening: asyncio.Server, connections: set[Connection]) -> None:
        self._listening, self._connections = listening, connections

    async def stop(self) -> None:
        self._listening.close()
        for connection in tuple(self._connections):
            connection.stop()
        await asyncio.sleep(0)


async def serve(accept: Accept, host: str, port: int, context: Callable[[], ssl.SSLContext]) -> Server:
    """Listen; each new connection asks for its context. Raises OSError."""
    connections: set[Connection] = set()
    listening = await asyncio.get_running_loop().create_server(
        lambda: Connection(context(), accept, connections), host, port, reuse_port=True, backlog=1024
    )
    return Server(listening, connections)


class Requests:
    """A handler whose messages are waited for, one after the other."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def received(self, message: bytes) -> None:
        self._queue.put_nowait(message)

    def completed(self) -> None:
        self._queue.put_nowait(None)

    def closed(self) -> None:
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._queue.get()) is not None:
            yield message
