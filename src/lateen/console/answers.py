"""Reading requests and writing responses in the console's server."""

from __future__ import annotations

import os
from typing import Any

import aiohttp
from aiohttp import web

from lateen.kit import bodies, jsons

MAX_TEXT = 1024 * 1024


async def limited(request: web.Request) -> str:
    """The request's body. Raises HTTPRequestEntityTooLarge and HTTPBadRequest."""
    try:
        raw = await bodies.whole(request.content.iter_any(), MAX_TEXT)
    except web.RequestPayloadError:
        raise web.HTTPBadRequest(text="the text cannot be unpacked: it is not what Content-Encoding says") from None
    except bodies.TooLong:
        says = f"at most {MAX_TEXT} bytes are read"
        raise web.HTTPRequestEntityTooLarge(MAX_TEXT, MAX_TEXT + 1, text=says) from None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise web.HTTPBadRequest(text="the text is not UTF-8") from None


def answer(found: Any) -> web.Response:
    return web.Response(body=jsons.dumps(found), content_type="application/json")


def why(e: Exception) -> str:
    """Why another server did not answer, in words of a user rather than of the client's library."""
    if isinstance(e, aiohttp.ClientConnectorError):
        number = e.os_error.errno or 0  # negative where a name is not found
        says = os.strerror(number) if number > 0 else e.os_error.strerror or str(e.os_error)
        return f"{e.host}:{e.port}: {says}"
    return str(e) or "timeout"
