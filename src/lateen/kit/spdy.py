"""SPDY/3.1: framing and streams, as used by kubectl up to 1.29 for exec, attach, cp and port-forward.

Implements only what Kubernetes clients use: SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY, data frames and
WINDOW_UPDATE. The header dictionary is that of the SPDY/3 specification (section 2.6.10.1).
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age "
    "allow authorization cache-control connection content-base content-encoding content-language "
    "content-length content-location content-md5 content-range content-type date etag expect expires from host "
    "if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards "
    "pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status|200 OK|version|"
    "HTTP/1.1|url public set-cookie keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 "
    "Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 "
    "Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr "
    "May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,"
    "image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public"
    "privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words: list[str] = []
    for part in _WORDS.split("|"):
        words += [part] if part in ("200 OK", "HTTP/1.1") else part.split()
    return b"".join(struct.pack(">I", len(w)) + w.encode() for w in words) + _TAIL.encode()


DICTIONARY = _dictionary()
MAX_FRAME = 1024 * 1024
WINDOW = 64 * 1024 * 1024


class Stream:
    """One stream of a session; ``incoming`` is the queue of received data (b"" at its end)."""

    def __init__(self, session: Session, number: int, headers: dict[str, str]) -> None:
        self.number, self.headers = number, headers
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(maxsize=256)
        self._session = session
        self._closed = False

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), 32768):
            await self._session.send_data(self.number, data[at : at + 32768])

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._session.send_data(self.number, b"", fin=True)


class Session:
    """Either side of one connection: a server awaits ``opened``, a client calls ``open``."""

    def __init__(self, reader: asyncio.StreamReader, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._reader, self._write = reader, write
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self.streams: dict[int, Stream] = {}
        self.opened: asyncio.Queue[Stream | None] = asyncio.Queue(maxsize=256)
        self._next = 1

    async def open(self, headers: dict[str, str]) -> Stream:
        """Open a stream; clients use odd numbers."""
        number, self._next = self._next, self._next + 2
        stream = Stream(self, number, headers)
        self.streams[number] = stream
        packed = struct.pack(">I", len(headers)) + b"".join(
            struct.pack(">I", len(text)) + text for pair in headers.items() for text in (p.encode() for p in pair)
        )
        squeezed = self._deflate.compress(packed) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self._frame(1, 0, struct.pack(">IIH", number, 0, 0) + squeezed)
        return stream

    async def run(self) -> None:
        """Read frames until the peer closes the connection."""
        try:
            while True:
                head = await self._reader.readexactly(8)
                word, rest = struct.unpack(">II", head)
                length, flags = rest & 0xFFFFFF, rest >> 24
                if length > MAX_FRAME:
                    return
                body = await self._reader.readexactly(length)
                if word & 0x80000000:
                    await self._control(word & 0xFFFF, flags, body)
                else:
                    await self._data(word & 0x7FFFFFFF, flags, body)
        except (asyncio.IncompleteReadError, ConnectionError, zlib.error, struct.error):
            return
        finally:
            for stream in self.streams.values():
                _offer(stream.incoming, b"")
            await self.opened.put(None)

    async def _control(self, kind: int, flags: int, body: bytes) -> None:
        if kind == 1:
            number = struct.unpack(">I", body[:4])[0] & 0x7FFFFFFF
            stream = Stream(self, number, self._headers(body[10:]))
            self.streams[number] = stream
            reply = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            await self._frame(2, 0, struct.pack(">I", number) + reply)
            await self._frame(9, 0, struct.pack(">II", number, WINDOW))
            if flags & 1:
                _offer(stream.incoming, b"")
            await self.opened.put(stream)
        elif kind == 2:
            self._headers(body[4:])  # unused, but the decompression of later headers depends on it
        elif kind == 3:
            number = struct.unpack(">I", body[:4])[0] & 0x7FFFFFFF
            if stream_ := self.streams.pop(number, None):
                _offer(stream_.incoming, b"")
        elif kind == 6:
            await self._frame(6, 0, body)

    def _headers(self, packed: bytes) -> dict[str, str]:
        raw = self._inflate.decompress(packed, MAX_FRAME)
        count, at = struct.unpack(">I", raw[:4])[0], 4
        out = {}
        for _ in range(count):
            pair = []
            for _ in range(2):
                (size,) = struct.unpack(">I", raw[at : at + 4])
                pair.append(raw[at + 4 : at + 4 + size].decode())
                at += 4 + size
            out[pair[0]] = pair[1]
        return out

    async def _data(self, number: int, flags: int, body: bytes) -> None:
        stream = self.streams.get(number)
        if stream is None:
            return
        if body:
            await stream.incoming.put(body)
            await self._frame(9, 0, struct.pack(">II", number, len(body)))
        if flags & 1:
            await stream.incoming.put(b"")

    async def send_data(self, number: int, data: bytes, fin: bool = False) -> None:
        await self._write(struct.pack(">II", number, (1 if fin else 0) << 24 | len(data)) + data)

    async def _frame(self, kind: int, flags: int, body: bytes) -> None:
        await self._write(struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body)

    async def goaway(self) -> None:
        await self._frame(7, 0, struct.pack(">II", 0, 0))


def _offer(queue: asyncio.Queue[bytes], item: bytes) -> None:
    if not queue.full():
        queue.put_nowait(item)
