"""Watches over HTTP: one line per event; a client that does not read is disconnected, and a watch ends with its
client."""

from __future__ import annotations

import asyncio
import contextlib

from lateen.cluster.apiserver import answers, front_door
from lateen.cluster.apiserver.api import Api
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError
from lateen.cluster.apiserver.figures import Figures
from lateen.kit import jsons
from lateen.kit.later import web

LONGEST_S = 3600
SLICE = 64 * 1024
STALLED_S = 30.0
"""Seconds after which a watch is closed if its client does not read; the client then lists again."""


async def watch(
    api: Api, lines: answers.Lines, figures: Figures, request: web.BaseRequest, c: Call
) -> web.StreamResponse:
    """Raises ApiError before the first line; afterwards an error is a line."""
    wanted = answers.form(request.headers.get("Accept", ""))
    limit = min(c.number("timeoutSeconds") or LONGEST_S, LONGEST_S)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    async with contextlib.aclosing(api.watch(c)) as events:
        await response.prepare(request)
        try:
            async with asyncio.timeout(limit) as scope:
                with front_door.until_lost(request.transport, lambda: scope.reschedule(0)):
                    async for event in events:
                        await _write(request, response, lines.line(c, wanted, event))
                        figures.watched(c)
        except ApiError as e:
            await _write(request, response, jsons.dumps({"type": "ERROR", "object": e.status()}) + b"\n")
        except (TimeoutError, ConnectionError):
            pass
    return response


async def _write(request: web.BaseRequest, response: web.StreamResponse, line: bytes) -> None:
    """Written in slices, each of them awaited: an unread watch holds one slice of a line that all watches share."""
    transport = request.transport
    if transport is not None and len(line) <= SLICE and not transport.get_write_buffer_size():
        if transport.is_closing():
            raise ConnectionResetError("the client has gone away")
        transport.write(b"%x\r\n%s\r\n" % (len(line), line))  # a chunk; the buffer has room, so no drain is needed
        return
    view = memoryview(line)
    for at in range(0, len(line), SLICE):
        try:
            async with asyncio.timeout(STALLED_S):
                await response.write(view[at : at + SLICE])
        except TimeoutError:
            if request.transport is not None:
                front_door.reset(request.transport)
            raise ConnectionResetError("the client does not read") from None
