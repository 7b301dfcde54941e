"""HTTP/2 frames, and ``h2``'s state of a connection, with its memory bounded. Source: RFC 9113, RFC 7541 (headers)."""

from __future__ import annotations

from struct import Struct

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from hpack import Encoder

FRAME = 1 << 14
"""The maximum payload of a frame in bytes, in both directions: HTTP/2's initial value. OpenSSL keeps a buffer of this
size for each connection, so larger records are not written."""
MAX_WINDOW = 2**31 - 1
MAX_TABLE = 4096
"""Bytes of our dynamic header table (HTTP/2's initial value); clients may ask for less."""
PREFACE = 24
DATA, HEADERS, PUSH_PROMISE, WINDOW_UPDATE, CONTINUATION = 0, 1, 5, 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8


class Violation(H2Error):
    """The client violates HTTP/2, or our limits."""

    def __init__(self, code: ErrorCodes, says: str) -> None:
        super().__init__(says)
        self.code = code


def frame(kind: int, flags: int, number: int, size: int) -> bytes:
    """A frame's header."""
    return size.to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big")


_MESSAGE = Struct(">BHBBIBI")


def message(number: int, size: int) -> bytes:
    """The prefix of a gRPC message that has a DATA frame to itself: the frame's header and the message's."""
    whole = size + 5
    return _MESSAGE.pack(whole >> 16, whole & 0xFFFF, DATA, 0, number, 0, size)


class _Encoder(Encoder):
    """Does not let the client choose the size of its header table."""

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        self.header_table.maxsize = min(value, MAX_TABLE)
        changes = self.table_size_changes
        if self.header_table.resized:
            changes.append(self.header_table.maxsize)
        if len(changes) > 2:  # RFC 7541 §4.2: signal the smallest and the final size
            changes[:] = [min(changes), changes[-1]]


class State(H2Connection):
    MAX_CLOSED_STREAMS = 1000

    def __init__(self) -> None:
        super().__init__(H2Configuration(client_side=False, header_encoding=None))
        self.encoder = _Encoder()
