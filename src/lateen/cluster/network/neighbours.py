"""Other embedded clusters of this machine, which the user has named: a way there for TCP connections.

Each cluster has an address for its neighbours (``Home.outside``): its API server and its Services of type LoadBalancer
are there. A connection to a neighbour's address ends at the node, which passes it on through a Unix socket in the
neighbour's state directory, so that who may open that directory may come in, and nothing of the host's network is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from lateen.cluster.network import portal

PORT = 15099
"""Where connections to neighbours end: at the neighbour's address, to which the node answers."""
SO_ORIGINAL_DST = 80
PATIENCE_S = 10.0
DOOR = "neighbours.sock"


Behind = Mapping[tuple[str, int, str], int]
"""(a Service's address, its port, a neighbour's address) -> the port there"""


class Door:
    """Where neighbours' connections come in."""

    def __init__(self, home: Path, address: str) -> None:
        self._home, self._address = home, address
        self._open = 0

    async def listen(self) -> asyncio.Server:
        (self._home / DOOR).unlink(missing_ok=True)
        with _reachable(self._home) as folder:
            return await asyncio.start_unix_server(self._enter, f"{folder}/{DOOR}")

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= portal.MAX_CONNECTIONS:
            writer.close()
            return
        self._open += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                (port,) = struct.unpack("!H", await reader.readexactly(2))
                inner = await asyncio.open_connection(self._address, port)
                writer.write(b"+")
            await portal.carry((reader, writer), inner)
        except (OSError, TimeoutError, EOFError):
            pass  # nothing listens there, or the neighbour has gone: it sees the connection close
        finally:
            self._open -= 1
            writer.close()


class Ways:
    """The ways to neighbours, by their addresses."""

    def __init__(self, homes: Mapping[str, Path]) -> None:
        self._homes = homes
        self._open = 0
        self.behind: Behind = {}
        """Services whose endpoints are at neighbours."""

    async def listen(self) -> list[asyncio.Server]:
        return [await asyncio.start_server(self._leave, address, PORT) for address in self._homes]

    async def _leave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= portal.MAX_CONNECTIONS:
            writer.close()
            return
        self._open += 1
        try:
            connection = writer.get_extra_info("socket")
            address, (called, port) = connection.getsockname()[0], _destination(connection)
            if called != address:
                port = self.behind[called, port, address]
            async with asyncio.timeout(PATIENCE_S):
                with _reachable(self._homes[address]) as folder:
                    inner = await asyncio.open_unix_connection(f"{folder}/{DOOR}")
                inner[1].write(struct.pack("!H", port))
                await inner[0].readexactly(1)
            await portal.carry((reader, writer), inner)
        except (OSError, TimeoutError, EOFError, KeyError):
            writer.transport.abort()  # a reset, as where nobody listens
        finally:
            self._open -= 1
            writer.close()


def _destination(connection: socket.socket) -> tuple[str, int]:
    """Where a connection was going before its port was rewritten. Raises OSError."""
    raw = connection.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
    port, address = struct.unpack("!2xH4s8x", raw)
    return socket.inet_ntoa(address), int(port)


@contextlib.contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """A short path of a folder: those of Unix sockets may have 107 bytes. Raises OSError."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
