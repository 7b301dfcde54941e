"""Streaming gRPC calls on the server side: messages in and out, as bytes. ``ads.http2`` carries them.

Calls and their handlers run in the event loop; a message is sent when ``send`` is called, without waking a task. A call
is read only as fast as its handler processes messages and its client accepts responses; unread bytes use up the
client's HTTP/2 window, so that neither side can make the other buffer more than that. Source:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

log = logging.getLogger("lateen.ads")

T = TypeVar("T")
M = TypeVar("M", bound=Message)

MAX_MESSAGE = 4 * 1024 * 1024
"""The most bytes of a message that a client may send."""
MAX_UNSENT = 1000
"""The most messages queued for a slow client."""


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


class BadRequest(ValueError):
    """The client sent an invalid message; its call ends with INVALID_ARGUMENT and this text."""


def decoded(kind: type[M], message: bytes) -> M:
    """Parse a protobuf message. Raises BadRequest."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise BadRequest(f"the message is not a valid {kind.DESCRIPTOR.name}") from None


class Handler(Protocol):
    """The handler of one call. An exception ends this call and no other."""

    def received(self, message: bytes) -> None:
        """The next message is delivered when this has returned, or, after ``Call.hold``, upon ``Call.resume``."""

    def completed(self) -> None:
        """The client has half-closed the call and waits for the rest of the response."""

    def closed(self) -> None:
        """The call is over, whichever side ended it; called exactly once, last."""


class Carrier(Protocol):
    """The connection of a call."""

    def at_once(self, number: int, call: Call, parts: Sequence[bytes], size: int) -> bool:
        """Send a message if the client's window has room for all of it; False if it has to wait."""

    def pump(self, number: int, call: Call) -> None:
        """Send queued messages, as far as the client's window permits."""

    def credit(self, number: int, call: Call) -> None:
        """Send window updates for what has been read."""


class Call:
    """One call."""

    def __init__(self, carrier: Carrier, number: int, headers: Mapping[str, str], identities: tuple[str, ...]) -> None:
        self.path = headers.get(":path", "")
        self.headers = headers
        self.identities = identities
        """The URI SANs of the client's certificate."""
        self.handler: Handler | None = None
        self.waiting: deque[bytes | memoryview] = deque()
        """The send queue; parts are not copied, since many clients often get the same bytes."""
        self.started = False
        """Whether response headers have been sent."""
        self.status: tuple[Status, str] | None = None
        """The status that ends the call once the queue is empty."""
        self.window = self.room = 0
        """Send window and receive window, in bytes."""
        self.unread = 0
        """Received bytes that have not been credited to the client yet."""
        self.partial = bytearray()
        """Received bytes: incomplete messages, or messages that wait for the handler."""
        self.complete = False
        """The client sends nothing more."""
        self._carrier, self._number = carrier, number
        self._held = self._delivering = self._told = False
        self._unsent = 0

    def send(self, messages: Sequence[Sequence[bytes]]) -> None:
        """Send messages, each in parts, which are kept (not copied) until the client takes them."""
        if self.status is not None or not messages:
            return
        if len(messages) == 1 and self.started and not self.waiting:
            (message,) = messages
            if self._carrier.at_once(self._number, self, message, sum(map(len, message))):
                return
        self._unsent = len(messages) + (self._unsent if self.waiting else 0)
        if self._unsent > MAX_UNSENT:
            self.waiting.clear()
            self.finish(Status.RESOURCE_EXHAUSTED, f"{MAX_UNSENT} messages wait for the client to take them")
            return
        for parts in messages:
            self.waiting.append(b"\0" + sum(map(len, parts)).to_bytes(4, "big"))
            self.waiting.extend(p for p in parts if p)
        self._carrier.pump(self._number, self)

    def finish(self, status: Status = Status.OK, says: str = "") -> None:
        """End the call after what has been sent; what the client sends from now on is ignored."""
        if self.status is None:
            self.status = (status, says)
            self._carrier.pump(self._number, self)

    def hold(self) -> None:
        """Deliver no further message: the handler is busy with the current one."""
        self._held = True

    def resume(self) -> None:
        """Deliver the next message."""
        self._held = False
        self.deliver()
        self._carrier.credit(self._number, self)

    @property
    def ready(self) -> bool:
        """Whether the handler takes another message now."""
        return not self._held and not self.waiting and self.status is None and self.handler is not None

    def take(self, data: bytes) -> None:
        """Receive data from the client."""
        if not self.partial and len(data) >= 5 and self.ready and not self._delivering:
            size = int.from_bytes(data[1:5], "big")
            if not data[0] and len(data) == 5 + size:  # the usual case: exactly one message
                self._delivering = True
                assert self.handler is not None
                try:
                    self.guarded(self.handler.received, data[5:])
                finally:
                    self._delivering = False
                return
        self.partial += data
        self.deliver()

    def deliver(self) -> None:
        """Give the handler the received messages, one at a time."""
        if self._delivering:
            return  # re-entered because the handler sent something: the outer call goes on
        self._delivering = True
        try:
            while self.ready and (message := self._next()) is not None:
                assert self.handler is not None
                self.guarded(self.handler.received, message)
            if self.complete and self.ready and not self._told:
                self._told = True
                assert self.handler is not None
                self.guarded(lambda handler: handler.completed(), self.handler)
        finally:
            self._delivering = False

    def _next(self) -> bytes | None:
        """The next message; None if it is incomplete or refused."""
        partial = self.partial
        if len(partial) < 5:
            return None
        size = int.from_bytes(partial[1:5], "big")
        if partial[0]:
            self.finish(Status.UNIMPLEMENTED, "compressed messages are not supported")
            return None
        if size > MAX_MESSAGE:
            self.finish(Status.RESOURCE_EXHAUSTED, f"a message has {size} bytes; the limit is {MAX_MESSAGE}")
            return None
        if len(partial) < 5 + size:
            return None
        message = bytes(partial[5 : 5 + size])
        del partial[: 5 + size]
        return message

    def guarded(self, handle: Callable[[T], None], message: T) -> None:
        """Call the handler; a failure ends this call and no other."""
        try:
            handle(message)
        except BadRequest as e:
            self.finish(Status.INVALID_ARGUMENT, str(e))
        except Exception:
            log.exception("%s failed", self.path)
            self.finish(Status.INTERNAL, "the control plane failed to handle the request; its log says why")

    def over(self) -> None:
        """Called by the connection when the call has ended or the client has disconnected."""
        self.status = self.status or (Status.CANCELLED, "")
        self.waiting.clear()
        self.partial.clear()
        handler, self.handler = self.handler, None
        if handler is not None:
            try:
                handler.closed()
            except Exception:
                log.exception("%s: the end of a call failed", self.path)


Accept = Callable[[Call], Handler | None]
"""A new call -> its handler; None if there is no such method."""


class Requests:
    """A handler whose messages are awaited one after the other; the next one is read only when it is asked for."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def received(self, message: bytes) -> None:
        self._call.hold()
        self._queue.put_nowait(message)

    def completed(self) -> None:
        self._queue.put_nowait(None)

    def closed(self) -> None:
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._queue.get()) is not None:
            yield message
            self._call.resume()
