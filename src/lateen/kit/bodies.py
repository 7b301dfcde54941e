"""Read a request or response body to its end: aiohttp's ``StreamReader.read(n)`` returns only what has arrived so
far."""

from __future__ import annotations

from collections.abc import AsyncIterable


class TooLong(ValueError):
    """The body exceeds its reader's limit."""


async def whole(parts: AsyncIterable[bytes], limit: int) -> bytes:
    """All of ``parts``, at most ``limit`` bytes. Raises TooLong, and whatever the iteration raises."""
    out, all_of_it = await start(parts, limit)
    if not all_of_it:
        raise TooLong(f"more than {limit} bytes")
    return out


async def start(parts: AsyncIterable[bytes], limit: int) -> tuple[bytes, bool]:
    """The first ``limit`` bytes of ``parts``, and whether that is all of them. Raises whatever the iteration raises."""
    out = bytearray()
    async for part in parts:
        out += part
        if len(out) > limit:
            return bytes(out[:limit]), False
    return bytes(out), True
