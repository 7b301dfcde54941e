"""HTTP/2 connections that carry gRPC calls, for servers.

``h2`` keeps the state of the connection and of its streams, and decodes headers. DATA and WINDOW_UPDATE frames, nearly
all of the traffic on a long-lived stream, are read and written here and in ``ads.streams``: in ``h2`` they took a third
of istiod's CPU time for a push (``bench/fanout.py``). So is flow control, because only this code knows what has been
read. ``grpc.aio`` costs four times as much, because its completion queues and threads wake each other for each message.
Source: RFC 9113.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Mapping
from math import inf
from typing import Protocol

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from lateen.ads.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEADERS,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    PUSH_PROMISE,
    WINDOW_UPDATE,
    Violation,
    frame,
)
from lateen.ads.rpc import MAX_MESSAGE, Accept, Call, Status
from lateen.ads.streams import CALL_ROOM, ROOM, Streams

log = logging.getLogger("lateen.ads")

PING_S, PONG_S = 30.0, 10.0
"""Seconds without a frame after which the client is pinged, and seconds that it then has to send one."""
MAX_AGE_S, SPREAD = 1800.0, 0.1
"""Seconds after which a client is told to connect anew, so that replicas that are added get proxies, and the share by
which they vary: Istio's ``keepaliveMaxServerConnectionAge`` and gRPC's jitter. A proxy says what it has when it comes
back, and gets what has changed."""
MAX_NOISE = 1000
"""The most frames in that time that carry no messages (pings, settings, resets, empty DATA)."""
MAX_PARTIAL = 2 * MAX_MESSAGE
"""The most bytes of incomplete messages, over all calls of a connection."""


class Owner(Protocol):
    """The server of a connection."""

    def established(self, connection: Connection) -> None:
        """The handshake is complete: the client's identity is known."""

    def lost(self, connection: Connection) -> None:
        """The connection has ended."""


class Connection(Streams):
    """A client's connection and its calls."""

    def __init__(self, context: ssl.SSLContext, accept: Accept, server: Owner) -> None:
        super().__init__(context)
        self._accept, self._server = accept, server
        self.known_as: tuple[str, ...] = ()
        """The identities in the client's certificate, after the handshake."""
        self._rest = b""
        """The beginning of a frame."""
        self._preface = PREFACE
        self._in_headers = False
        self._stirred = False
        """Whether ``h2`` may have data to send."""
        self._heard, self._asked, self._noise = True, False, 0
        self._known_until: float | None = None
        self._old_at = inf
        self._watch: asyncio.TimerHandle | None = None

    # --- the connection itself -------------------------------------------------------------------------------

    def established(self) -> None:
        self.known_as = self.identities()
        self._server.established(self)
        self._h2.initiate_connection()
        self._flush()
        self._grant(0, ROOM - CALL_ROOM)
        self._known_until = self.valid_until()
        self._old_at = time.monotonic() + MAX_AGE_S * random.uniform(1 - SPREAD, 1 + SPREAD)
        self._check()

    def _check(self) -> None:
        """Check that the client is alive, that its certificate is still valid, and that it has not stayed too long."""
        if self.closing:
            return
        if self._known_until is not None and time.time() > self._known_until:
            log.info("the certificate of a client has expired; its connection is closed")
            self.stop()
            return
        if time.monotonic() > self._old_at:
            log.debug("a client has been connected for %g min; it is told to connect anew", MAX_AGE_S / 60)
            self.stop()
            return
        if self._asked and not self._heard:
            log.info("a client has not answered for %g s; its connection is closed", PING_S + PONG_S)
            self.abort()
            return
        self._asked = not self._heard
        if self._asked:
            self._h2.ping(b"lateen\0\0")
            self._flush()
        self._heard, self._noise = False, 0
        pause = PONG_S if self._asked else PING_S
        self._watch = asyncio.get_running_loop().call_later(pause, self._check)

    def stop(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Send GOAWAY (connect elsewhere, or the error code of a violation) and close."""
        if not self.closing and self.shaken:
            try:
                self._h2.close_connection(code)
            except H2Error as e:
                log.debug("no farewell: %s", e)
            self._flush()
        self.close()
        self._end_calls()

    def lost(self) -> None:
        self._server.lost(self)
        if self._watch is not None:
            self._watch.cancel()
        self._end_calls()

    def _end_calls(self) -> None:
        for number in tuple(self._calls):
            self._forget(number)

    # --- what comes ------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._frames(self._rest + data if self._rest else data)
        except H2Error as e:
            log.info("a client violates HTTP/2: %s", e)
            self.stop(e.code if isinstance(e, Violation) else ErrorCodes.PROTOCOL_ERROR)
            return
        if not self.closing and self._stirred:
            self._stirred = False
            self._flush()

    def _frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        if self._preface:
            at = min(self._preface, end)
            self._preface -= at
            self._others(data[:at])
        while end - at >= 9 and not self.closing:
            size = int.from_bytes(data[at : at + 3], "big")
            if size > FRAME:
                raise Violation(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            stop = at + 9 + size
            if stop > end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if self._in_headers or kind not in {DATA, WINDOW_UPDATE}:
                if kind in {HEADERS, PUSH_PROMISE, CONTINUATION}:
                    self._in_headers = not flags & END_HEADERS
                self._others(data[at:stop])
            else:
                number = int.from_bytes(data[at + 5 : at + 9], "big") & MAX_WINDOW
                if kind == DATA:
                    self._data(number, flags, data[at + 9 : stop])
                else:
                    self._window_update(number, data[at + 9 : stop])
            at = stop
        self._rest = data[at:]

    def _others(self, data: bytes) -> None:
        self._stirred = True
        for event in self._h2.receive_data(data):
            self._on(event)

    def _on(self, event: Event) -> None:
        match event:
            case RequestReceived():
                assert event.stream_id is not None
                self._open(event.stream_id, {_text(k): _text(v) for k, v in event.headers or ()})
            case StreamEnded():
                if (call := self._calls.get(event.stream_id or 0)) is not None:
                    call.complete = True
                    call.deliver()
            case RemoteSettingsChanged():
                self._be_noisy()
                changed = event.changed_settings.get(SettingCodes.INITIAL_WINDOW_SIZE)
                if changed is not None:
                    for call in self._calls.values():
                        call.window += changed.new_value - (changed.original_value or 0)
                self.writable()
            case StreamReset():
                self._be_noisy()
                self._forget(event.stream_id or 0)
            case ConnectionTerminated():
                self.stop()
            case DataReceived() | SettingsAcknowledged():
                pass  # the end of a stream, already handled by ``_data``; acknowledgement of our settings
            case _:
                self._be_noisy()

    def _be_noisy(self) -> None:
        """Count a frame without a message; too many are an attack (rapid reset, ping floods)."""
        self._noise += 1
        if self._noise > MAX_NOISE:
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, f"more than {MAX_NOISE} frames that are no messages")

    def _open(self, number: int, headers: Mapping[str, str]) -> None:
        call = self._calls[number] = Call(self, number, headers, self.known_as)
        call.window, call.room = self._h2.remote_settings.initial_window_size, CALL_ROOM
        if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith("application/grpc"):
            call.finish(Status.UNIMPLEMENTED, "only gRPC is served here")
        elif "content-length" in headers:  # ``h2`` would compare it with the DATA frames, which it does not see
            call.finish(Status.UNIMPLEMENTED, "calls have no length that is known before")
        else:
            call.guarded(self._handle, call)

    def _handle(self, call: Call) -> None:
        call.handler = self._accept(call)
        if call.handler is None:
            call.finish(Status.UNIMPLEMENTED, f"there is no method {call.path}")

    def _data(self, number: int, flags: int, data: bytes) -> None:
        size = len(data)
        call = self._calls.get(number)
        self._room -= size
        if self._room < 0 or (call is not None and call.room < size):
            raise Violation(ErrorCodes.FLOW_CONTROL_ERROR, "more data than there is room for")
        if call is None or call.status is not None:
            self._known(number)
            self._release(size)  # it was in flight when the call ended
            return
        call.room -= size
        if call.complete:
            raise Violation(ErrorCodes.STREAM_CLOSED, "data after the end of a call")
        if flags & PADDED:
            if not data or data[0] >= size:
                raise Violation(ErrorCodes.PROTOCOL_ERROR, "more padding than data")
            data = data[1 : size - data[0]]
        if not data and not flags & END_STREAM:
            self._be_noisy()
        call.unread += size
        call.take(data)
        if len(call.partial) > CALL_ROOM and sum(len(c.partial) for c in self._calls.values()) > MAX_PARTIAL:
            call.finish(Status.RESOURCE_EXHAUSTED, f"unfinished messages have more than {MAX_PARTIAL} bytes")
        self.credit(number, call)
        if flags & END_STREAM and number in self._calls:
            self._others(frame(DATA, END_STREAM, number, 0))

    def _known(self, number: int) -> None:
        if not 0 < number <= self._h2.highest_inbound_stream_id:
            raise Violation(ErrorCodes.PROTOCOL_ERROR, "a frame of a stream that has never been opened")

    def _window_update(self, number: int, data: bytes) -> None:
        if len(data) != 4:
            raise Violation(ErrorCodes.FRAME_SIZE_ERROR, "a window update has four bytes")
        more = int.from_bytes(data, "big") & MAX_WINDOW
        if not more:
            raise Violation(ErrorCodes.PROTOCOL_ERROR, "a window update of nothing")
        call = self._calls.get(number)
        if call is not None:
            call.window += more
            if call.waiting:
                self.pump(number, call)
        elif number:
            self._known(number)
        else:
            self._window += more
            self.writable()
        if self._window > MAX_WINDOW or (call is not None and call.window > MAX_WINDOW):
            raise Violation(ErrorCodes.FLOW_CONTROL_ERROR, "a window is too large")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
