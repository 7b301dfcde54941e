"""Bounds on responses whose clients read slowly: each is in memory until it has been read."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

MOST = 128 * 1024 * 1024
"""Bytes of all answers that have not been read yet."""
LIMIT_S = 60.0
"""How long a client may take to read one."""


def bounded(most: int = MOST, limit_s: float = LIMIT_S) -> Middleware:
    """For one server: a response for which the others leave no room becomes a 503, and the connection of a client that
    takes longer than ``limit_s`` to read one is cut. One that is larger than ``most`` is sent when no other waits."""
    left = most

    @web.middleware
    async def sent(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal left
        answer = await handler(request)
        size = len(answer.body) if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else 0
        if not size:  # streams wait for their readers piece by piece
            return answer
        if left < min(size, most):
            raise web.HTTPServiceUnavailable(
                text="clients have not read many earlier responses yet, and there is no room for more; try again later"
            )
        left -= size
        try:
            async with asyncio.timeout(limit_s):
                await answer.prepare(request)
                await answer.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            left += size
        return answer

    return sent
