"""Asks the machine's own DNS servers about names that are not the cluster's."""

from __future__ import annotations

import asyncio
import struct

PATIENCE_S = 4.0
TRIES = 2
MOST = 512
"""The most queries in flight."""
Server = tuple[str, int]


class Unanswered(Exception):
    """No server has answered."""


class Forwarding:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._open = 0

    async def ask(self, packet: bytes, stream: bool = False) -> bytes:
        """The server's answer to a query. ``stream``: over TCP, as the client has asked. Raises Unanswered."""
        if self._open >= MOST:
            raise Unanswered
        self._open += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await (self._over_stream(packet) if stream else self._by_datagrams(packet))
        except (OSError, TimeoutError, EOFError) as e:
            raise Unanswered from e
        finally:
            self._open -= 1

    async def _over_stream(self, packet: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._server)
        try:
            writer.write(struct.pack(">H", len(packet)) + packet)
            (size,) = struct.unpack(">H", await reader.readexactly(2))
            return await reader.readexactly(size)
        finally:
            writer.close()

    async def _by_datagrams(self, packet: bytes) -> bytes:
        """Each query is sent from its own random port, which a forged answer would have to guess, besides the query's
        id."""
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Answer(packet[:2], answered), remote_addr=self._server
        )
        try:
            for _ in range(TRIES):
                transport.sendto(packet)
                done, _ = await asyncio.wait((answered,), timeout=PATIENCE_S / TRIES)
                if done:
                    return answered.result()
            raise TimeoutError
        finally:
            answered.cancel()
            transport.close()


class _Answer(asyncio.DatagramProtocol):
    def __init__(self, number: bytes, answered: asyncio.Future[bytes]) -> None:
        self._number, self._answered = number, answered

    def datagram_received(self, data: bytes, _: object) -> None:
        if data[:2] == self._number and not self._answered.done():
            self._answered.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc)
