"""How all HTTP servers on aiohttp are set up.

Bodies arrive as they were sent: aiohttp unpacks them without a bound, also what is left of a request that has been
refused, and a few kB of gzip would keep the process from everything else for seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from lateen.kit.later import aiohttp, web


def runner(app: web.Application) -> web.AppRunner:
    """Of a server with routes."""
    _silence()
    return web.AppRunner(app, access_log=None, auto_decompress=False)


def server(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], keepalive_s: float, lingering_s: float = 10.0
) -> web.Server:
    """Of all requests. ``lingering_s``: how long the rest of a refused request's body is read."""
    _silence()
    return web.Server(handler, keepalive_timeout=keepalive_s, lingering_time=lingering_s, auto_decompress=False)


def _silence() -> None:
    log = logging.getLogger("aiohttp.server")
    if _ours not in log.filters:
        log.addFilter(_ours)


def _ours(record: logging.LogRecord) -> bool:
    """Whether a failure is the server's own. What a client has sent that is not HTTP is of no interest."""
    return not (record.exc_info and isinstance(record.exc_info[1], aiohttp.http_exceptions.HttpProcessingError))
