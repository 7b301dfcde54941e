"""The listening socket for gRPC clients, and limits on their number."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence

from lateen.ads.http2 import Connection
from lateen.ads.rpc import Accept
from lateen.kit import tasks

log = logging.getLogger("lateen.ads")

MAX_CONNECTIONS = 10_000
"""The limit for one server, without unfinished handshakes. Beyond it, the newest connection of the identity with most
of them is closed: clients may try another istiod, and one that takes all the room keeps nobody else out. Each costs
about 100 KB (``bench/fanout.py``)."""
MAX_HANDSHAKES = 1000
"""The limit for unfinished handshakes. Further clients wait in the kernel's queue: all proxies of a mesh reconnect at
once after a restart of istiod, and if they were refused, they would back off longer each time."""
PATIENCE_S = 5.0
"""Seconds that a handshake may take while others are waiting; otherwise ``tls.HANDSHAKE_S`` applies."""
WAITING = 4096
"""The listen backlog (Linux's own upper limit, ``net.core.somaxconn``)."""
PAUSE_S = 1.0
"""Seconds until the next ``accept`` when the process is out of file descriptors, and between checks for slow handshakes
while others are waiting."""
AT_ONCE = 100
"""Connections that are accepted before yielding to other work."""


class Server:
    """Listening sockets and their connections."""

    def __init__(self, listeners: Sequence[socket.socket], made: Callable[[Server], Connection]) -> None:
        self._listeners, self._made = listeners, made
        self._loop = asyncio.get_running_loop()
        self._connections: dict[Connection, None] = {}
        """The oldest first."""
        self._shaking: dict[Connection, float] = {}
        """Connections in a handshake, the oldest first, and when each was accepted."""
        self._full = self._stopped = False
        self._pause: asyncio.TimerHandle | None = None
        """The timer that resumes accepting; None while accepting."""
        self._resume()

    # --- who comes -------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            if len(self._shaking) >= MAX_HANDSHAKES:
                self._wait()
                return
            try:
                client, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                log.warning("no more connections for a moment: %s", e)
                self._wait()
                return
            self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        client.setblocking(False)
        connection = self._made(self)
        self._connections[connection] = None
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
        """Stop accepting until there is room, or for a while."""
        self._deaf()
        self._pause = self._loop.call_later(PAUSE_S, self._look)

    def _look(self) -> None:
        """Abort slow handshakes in favour of waiting clients."""
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
            for listener in self._listeners:
                self._loop.add_reader(listener, self._accept, listener)

    def _deaf(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)

    # --- what becomes of them --------------------------------------------------------------------------------

    def counts(self) -> tuple[int, int]:
        """(connections, those still in a handshake)"""
        return len(self._connections), len(self._shaking)

    def established(self, connection: Connection) -> None:
        self._shaken(connection)
        full = len(self._connections) - len(self._shaking) > MAX_CONNECTIONS
        if full:
            known = [c for c in self._connections if c not in self._shaking]
            most, many = Counter(c.known_as for c in known).most_common(1)[0]
            if not self._full:
                log.warning(
                    "no more connections: %d are open, %d of %s", len(known), many, " ".join(most) or "no identity"
                )
            next(c for c in reversed(known) if c.known_as == most).abort()
        self._full = full

    def _shaken(self, connection: Connection) -> None:
        self._shaking.pop(connection, None)
        if self._pause is not None and len(self._shaking) < MAX_HANDSHAKES:
            self._resume()

    def lost(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._shaken(connection)

    def disconnect(self) -> None:
        """Make all clients reconnect, so that they are verified against the current trust roots."""
        for connection in tuple(self._connections):
            connection.stop()

    async def stop(self) -> None:
        if not self._stopped:
            self._resume()
            self._stopped = True
            self._deaf()
            for listener in self._listeners:
                listener.close()
        self.disconnect()
        await asyncio.sleep(0)


async def serve(accept: Accept, host: str, port: int, context: Callable[[], ssl.SSLContext]) -> Server:
    """Listen, without a ``host`` at all addresses of both families; ``context`` is called for each new connection.
    Raises OSError."""
    families = [socket.AF_INET] if host else [socket.AF_INET, *_ipv6()]
    listeners = [socket.create_server((host, port), family=f, backlog=WAITING, reuse_port=True) for f in families]
    for listener in listeners:
        listener.setblocking(False)
    return Server(listeners, lambda server: Connection(context(), accept, server))


def _ipv6() -> list[socket.AddressFamily]:
    """Its family, unless the kernel does not have it."""
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return []
    return [socket.AF_INET6]
