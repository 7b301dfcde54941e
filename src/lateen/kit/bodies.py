"""Read a request or response body to its end: aiohttp's ``StreamReader.read(n)`` returns only what has arrived so
far."""

from __future__ import annotations

from collections.abc import AsyncIterable


class TooLong(ValueError):
    """The body exceeds its reader's limit."""


async def whole(parts: AsyncIterable[bytes], limit: int) -> bytes:
    """All of ``parts``, at most ``limit`` bytes. Raises TooLong, and whatever the iteration raises."""
    out = bytearray()
    async for part in parts:
        out += part
        if len(out) > limit:
            raise TooLong(f"more than {limit} bytes")
    return bytes(out)
