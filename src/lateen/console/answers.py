"""Reading requests and writing responses in the console's server."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lateen.kit import bodies, jsons

MAX_TEXT = 1024 * 1024


async def limited(request: web.Request) -> str:
    """The request's body. Raises HTTPRequestEntityTooLarge and HTTPBadRequest."""
    try:
        raw = await bodies.whole(request.content.iter_any(), MAX_TEXT)
    except bodies.TooLong:
        says = f"at most {MAX_TEXT} bytes are read"
        raise web.HTTPRequestEntityTooLarge(MAX_TEXT, MAX_TEXT + 1, text=says) from None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise web.HTTPBadRequest(text="the text is not UTF-8") from None


def answer(found: Any) -> web.Response:
    return web.Response(body=jsons.dumps(found), content_type="application/json")
