"""The two parts of protobuf's wire format that are needed to join messages as bytes."""

from __future__ import annotations

_SHORT = tuple(bytes((n,)) for n in range(0x80))


def varint(n: int) -> bytes:
    if n <= 0x7F:
        return _SHORT[n]
    out = bytearray()
    while n > 0x7F:
        out.append((n & 0x7F) | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def head(number: int, length: int) -> bytes:
    """The tag and length that precede the bytes of a length-delimited field: a message, string or bytes."""
    return varint(number << 3 | 2) + varint(length)


def message(number: int, body: bytes) -> bytes:
    return head(number, len(body)) + body
