"""Listening for gRPC clients, and how many there may be."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from lateen.ads.http2 import Connection
from lateen.ads.rpc import Accept

log = logging.getLogger("lateen.ads")

MAX_CONNECTIONS, MAX_HANDSHAKES = 10_000, 1000
"""Of a server; those whose clients have not shown yet who they are count for both."""


class Server:
    """A listening socket and its connections."""

    def __init__(self) -> None:
        self.listening: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._shaking: set[Connection] = set()
        """Those whose clients are not known yet."""
        self._full = False

    def admits(self, connection: Connection) -> bool:
        full = len(self._connections) >= MAX_CONNECTIONS or len(self._shaking) >= MAX_HANDSHAKES
        if full and not self._full:
            log.warning("no more connections: %d are open, %d in TLS handshakes", *self.counts())
        self._full = full
        if not full:
            self._connections.add(connection)
            self._shaking.add(connection)
        return not full

    def counts(self) -> tuple[int, int]:
        return len(self._connections), len(self._shaking)

    def established(self, connection: Connection) -> None:
        self._shaking.discard(connection)

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._shaking.discard(connection)

    def disconnect(self) -> None:
        """Have all clients connect again, and show what they are trusted by now."""
        for connection in tuple(self._connections):
            connection.stop()

    async def stop(self) -> None:
        if self.listening is not None:
            self.listening.close()
        self.disconnect()
        await asyncio.sleep(0)


async def serve(accept: Accept, host: str, port: int, context: Callable[[], ssl.SSLContext]) -> Server:
    """Listen; each new connection asks for its context. Raises OSError."""
    server = Server()
    server.listening = await asyncio.get_running_loop().create_server(
        lambda: Connection(context(), accept, server), host, port, reuse_port=True, backlog=1024
    )
    return server
