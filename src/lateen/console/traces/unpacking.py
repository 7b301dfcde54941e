"""Bodies that clients have packed. (For an encoding that aiohttp does not know, it logs a traceback.)"""

from __future__ import annotations

import zlib

from lateen.kit import bodies

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Encoding -> zlib's ``wbits``."""
_GZIP = b"\x1f\x8b"
MAX_ENCODINGS, MAX_PARTS = 2, 64
"""Of one body; each costs about as much as the whole body."""


class Unknown(ValueError):
    """An encoding that is not taken; the message says which ones are."""


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """``encoding``: of the header ``Content-Encoding``; some clients pack by gzip without saying so. Raises Unknown,
    ``bodies.TooLong`` and ``zlib.error``."""
    named = [e for e in (part.strip().lower() for part in encoding.split(",")) if e not in ("", "identity")]
    if any(e not in _WINDOW for e in named) or len(named) > MAX_ENCODINGS:
        raise Unknown(f"a body may be packed by gzip or deflate, not by {encoding[:40]}")
    if not named and body.startswith(_GZIP):
        named = ["gzip"]
    for e in reversed(named):
        body = _whole(body, _WINDOW[e], limit)
    return body


def _whole(packed: bytes, window: int, limit: int) -> bytes:
    out = b""
    for _ in range(MAX_PARTS):  # gzip may have several
        unpacking = zlib.decompressobj(wbits=window)
        out += unpacking.decompress(packed, limit - len(out) + 1)
        if len(out) > limit:
            raise bodies.TooLong(f"more than {limit} bytes")
        if not unpacking.eof:
            raise zlib.error("it is cut")
        packed = unpacking.unused_data
        if not packed:
            return out
    raise zlib.error(f"it has more than {MAX_PARTS} parts")
