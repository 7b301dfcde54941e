"""One call of ``grpc.health.v1.Health/Check`` without a gRPC library, because the agent has to stay small.

HTTP/2 with a single stream. The request's headers are literals that need no table (RFC 7541 §6.2.2); of the response
only the data frames are read: a successful health check has one, a failed one has none.
Source: RFC 9113, https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
import socket
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
MAX_FRAME, MAX_FRAMES = 16384, 200


async def check(sock: socket.socket, service: str) -> str:
    """Empty if the service is SERVING, otherwise the problem. Closes the connection. Raises OSError."""
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(_request(service))
        await writer.drain()
        return await _answer(reader, writer)
    except asyncio.IncompleteReadError:
        return "the connection was closed before an answer"
    finally:
        writer.close()


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body


def _request(service: str) -> bytes:
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"lateen-agent"),
    )
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0)
        + _frame(_HEADERS, _END_HEADERS, 1, block)
        + _frame(_DATA, _END_STREAM, 1, b"\x00" + struct.pack(">I", len(message)) + message)
    )


def _text(value: bytes) -> bytes:
    """A literal without Huffman coding; all of ours are shorter than 127 bytes."""
    return bytes((len(value),)) + value


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    data = b""
    for _ in range(MAX_FRAMES):
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        if length > MAX_FRAME:
            return "the server does not speak HTTP/2" if not data else "a frame is too long"
        body = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, body))
        elif kind == _DATA:
            padded = body[1 : len(body) - body[0]] if flags & 0x8 and body else body
            data += padded
        elif kind in (_RESET, _GOAWAY):
            return "the server has ended the call"
        if kind in (_DATA, _HEADERS) and (flags & _END_STREAM or _complete(data)):
            return _verdict(data)
    return "no answer"


def _complete(data: bytes) -> bool:
    return len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5], "big")


def _verdict(data: bytes) -> str:
    if not _complete(data):
        return "the call failed; does the server implement grpc.health.v1.Health, and know the service?"
    message = data[5 : 5 + int.from_bytes(data[1:5], "big")]
    state = message[1] if len(message) >= 2 and message[0] == 0x08 else 0
    return "" if state == 1 else f"the service is {_STATES.get(state, state)}"
