"""Listening for gRPC clients, and how many there may be."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from lateen.ads.http2 import Connection
from lateen.ads.rpc import Accept
from lateen.kit import tasks

log = logging.getLogger("lateen.ads")

MAX_CONNECTIONS = 10_000
"""Of a server, those whose clients have not shown yet who they are included. Who comes then is refused, so that it may
try another istiod; each costs about 100 KB (``bench/fanout.py``)."""
MAX_HANDSHAKES = 1000
"""Connections whose clients have not shown yet who they are. Who comes then waits in the kernel's queue: the proxies of
a whole mesh come at once when istiod has been restarted, and if they were refused, they would wait longer each time."""
PATIENCE_S = 5.0
"""Seconds that a handshake may take while others wait for a place; otherwise it has ``tls.HANDSHAKE_S``."""
WAITING = 4096
"""Connections in the kernel's queue (Linux's own upper limit, ``net.core.somaxconn``)."""
PAUSE_S = 1.0
"""Seconds until the next attempt where the system has no more files for a connection, and between looks at handshakes
that others wait for."""
AT_ONCE = 100
"""Connections that are accepted before other work has its turn."""


class Server:
    """A listening socket and its connections."""

    def __init__(self, listener: socket.socket, made: Callable[[Server], Connection]) -> None:
        self.listener, self._made = listener, made
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._shaking: dict[Connection, float] = {}
        """Those whose clients are not known yet, the oldest first, and when they came."""
        self._full = self._stopped = False
        self._pause: asyncio.TimerHandle | None = None
        """While nothing is accepted."""
        self._resume()

    # --- who comes -------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if len(self._shaking) >= MAX_HANDSHAKES:
                self._wait()
                return
            try:
                client, _ = self.listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                log.warning("no more connections for a moment: %s", e)
                self._wait()
                return
            self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        full = len(self._connections) >= MAX_CONNECTIONS
        if full and not self._full:
            log.warning("no more connections: %d are open, %d in TLS handshakes", *self.counts())
        self._full = full
        if full:
            client.close()
            return
        client.setblocking(False)
        connection = self._made(self)
        self._connections.add(connection)
        self._shaking[connection] = self._loop.time()
        tasks.spawn(self._start(connection, client), "xds connection")

    async def _start(self, connection: Connection, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, client)
        except OSError as e:
            log.debug("connection lost: %s", e)
            client.close()
            self.lost(connection)

    def _wait(self) -> None:
        """Accept nobody until there is a place, or until later."""
        self._loop.remove_reader(self.listener)
        self._pause = self._loop.call_later(PAUSE_S, self._look)

    def _look(self) -> None:
        """Those that are slow make room for those that wait."""
        until = self._loop.time() - PATIENCE_S
        slow = [c for c, came in self._shaking.items() if came < until] if len(self._shaking) >= MAX_HANDSHAKES else []
        for connection in slow:
            connection.abort()
        self._resume()

    def _resume(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if not self._stopped:
            self._loop.add_reader(self.listener, self._accept)

    # --- what becomes of them --------------------------------------------------------------------------------

    def counts(self) -> tuple[int, int]:
        """(connections, those of them whose clients are not known yet)"""
        return len(self._connections), len(self._shaking)

    def established(self, connection: Connection) -> None:
        self._shaking.pop(connection, None)
        if self._pause is not None and len(self._shaking) < MAX_HANDSHAKES:
            self._resume()

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.established(connection)

    def disconnect(self) -> None:
        """Have all clients connect again, and show what they are trusted by now."""
        for connection in tuple(self._connections):
            connection.stop()

    async def stop(self) -> None:
        if not self._stopped:
            self._resume()
            self._stopped = True
            self._loop.remove_reader(self.listener)
            self.listener.close()
        self.disconnect()
        await asyncio.sleep(0)


async def serve(accept: Accept, host: str, port: int, context: Callable[[], ssl.SSLContext]) -> Server:
    """Listen; each new connection asks for its context. Raises OSError."""
    listener = socket.create_server((host, port), backlog=WAITING, reuse_port=True)
    listener.setblocking(False)
    return Server(listener, lambda server: Connection(context(), accept, server))
