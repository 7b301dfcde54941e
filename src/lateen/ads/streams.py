"""The sending half of an HTTP/2 connection, and flow control in both directions. Source: RFC 9113, section 5.2."""

from __future__ import annotations

import logging
import ssl
from collections import deque
from collections.abc import Sequence
from urllib.parse import quote

from h2.errors import ErrorCodes
from h2.exceptions import H2Error

from lateen.ads.frames import DATA, FRAME, WINDOW_UPDATE, State, frame, message
from lateen.ads.rpc import Call, Status
from lateen.ads.tls import Link

log = logging.getLogger("lateen.ads")

CALL_ROOM, ROOM = 65_535, 1 << 20
"""Receive windows in bytes: of one call (HTTP/2's initial value), and of the connection."""
CREDIT = 1 << 14
"""Bytes read after which a window update is sent; not for each message, since most of them are small."""


class Streams(Link):
    """The calls of one connection, and how much each side may send. ``ads.http2`` disconnects a client that exceeds its
    window."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self._h2 = State()
        self._calls: dict[int, Call] = {}
        self._window, self._room, self._read_bytes = CALL_ROOM, ROOM, 0
        """Bytes of the connection's send window; of its receive window; read without a window update yet."""

    def _flush(self) -> None:
        self.write(self._h2.data_to_send())

    # --- sending ---------------------------------------------------------------------------------------------

    def writable(self) -> None:
        for number, call in tuple(self._calls.items()):
            if call.waiting:
                self.pump(number, call)

    def pump(self, number: int, call: Call) -> None:
        if number not in self._calls or self.closing:
            return
        try:
            self._pump(number, call)
        except H2Error as e:  # the client has just reset the stream
            log.debug("%s: %s", call.path, e)
        if not call.waiting and call.status is None:
            call.deliver()
            self.credit(number, call)

    def at_once(self, number: int, call: Call, parts: Sequence[bytes], size: int) -> bool:
        whole = size + 5
        if self.closing or self.paused or whole > FRAME or whole > call.window or whole > self._window:
            return False
        call.window -= whole
        self._window -= whole
        self.write(b"".join((message(number, size), *parts)))
        return True

    def _pump(self, number: int, call: Call) -> None:
        if call.waiting and not call.started:
            call.started = True
            self._h2.send_headers(number, _HEADERS)
        self._flush()  # headers, and the acknowledgement of the settings that permit the rest
        while call.waiting and not self.paused:
            room = min(call.window, self._window, FRAME)
            if room <= 0:
                return
            parts, size = _taken(call.waiting, room)
            call.window -= size
            self._window -= size
            self.write(b"".join((frame(DATA, 0, number, size), *parts)))
        if call.status is not None and not call.waiting:
            self._end(number, call.started, *call.status)

    def _end(self, number: int, started: bool, status: Status, says: str) -> None:
        trailers = [] if started else list(_HEADERS)
        trailers.append(("grpc-status", str(int(status))))
        if says:
            trailers.append(("grpc-message", quote(says, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")))
        self._h2.send_headers(number, trailers, end_stream=True)
        try:
            self._h2.reset_stream(number, ErrorCodes.NO_ERROR)  # the rest of the request will not be read
        except H2Error:
            pass  # the request was complete
        self._flush()
        self._forget(number)

    # --- flow control of what is received --------------------------------------------------------------------

    def credit(self, number: int, call: Call) -> None:
        """Unread bytes are not credited, so that the client stops sending."""
        if not call.ready and call.status is None:
            return
        if call.unread < CREDIT and call.status is None:
            return
        size, call.unread = call.unread, 0
        if call.status is None and not call.complete:
            call.room += size
            self._grant(number, size)
        self._release(size)

    def _release(self, size: int) -> None:
        self._read_bytes += size
        if self._read_bytes >= CREDIT:
            self._room += self._read_bytes
            self._grant(0, self._read_bytes)
            self._read_bytes = 0

    def _grant(self, number: int, size: int) -> None:
        self.write(frame(WINDOW_UPDATE, 0, number, 4) + size.to_bytes(4, "big"))

    def _forget(self, number: int) -> None:
        if (call := self._calls.pop(number, None)) is not None:
            size, call.unread = call.unread, 0
            self._release(size)
            call.over()


_HEADERS = ((":status", "200"), ("content-type", "application/grpc"))


def _taken(waiting: deque[bytes | memoryview], room: int) -> tuple[list[bytes | memoryview], int]:
    """Take up to ``room`` bytes from the queue; returns them and their number."""
    parts: list[bytes | memoryview] = []
    size = 0
    while waiting and size < room:
        part = waiting.popleft()
        if len(part) > room - size:
            part = memoryview(part)
            waiting.appendleft(part[room - size :])
            part = part[: room - size]
        parts.append(part)
        size += len(part)
    return parts, size
