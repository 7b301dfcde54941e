"""Relays datagrams between clients on the host and an address in the cluster: one inner socket for each client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

Address = tuple[str, int]
MAX_CLIENTS = 1024
IDLE_S = 60.0
"""Seconds without a datagram after which a client's socket is closed, as in the kernel's connection tracking."""


async def relay(
    listener: socket.socket, target: Callable[[], Address], admits: Callable[[str], bool] = lambda _: True
) -> asyncio.DatagramTransport:
    """Serve a bound socket until the result is closed. ``target`` is asked for each new client, and ``admits`` whether
    one with this address is served."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Relay(target, admits), sock=listener)
    return transport


class _Relay(asyncio.DatagramProtocol):
    def __init__(self, target: Callable[[], Address], admits: Callable[[str], bool]) -> None:
        self._target, self._admits = target, admits
        self._outside: asyncio.DatagramTransport | None = None
        self._clients: dict[Address, _Client] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._outside = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if not self._admits(addr[0]):
            return
        found = self._clients.get(addr)
        if found is None:
            if len(self._clients) >= MAX_CLIENTS:
                return  # as when a queue is full: datagrams may be lost
            found = self._clients[addr] = _Client(self, addr, self._target())
        found.send(data)

    def answer(self, data: bytes, addr: Address) -> None:
        if self._outside is not None:
            self._outside.sendto(data, addr)

    def forget(self, addr: Address) -> None:
        self._clients.pop(addr, None)

    def connection_lost(self, _: Exception | None) -> None:
        self._outside = None
        for client in list(self._clients.values()):
            client.close()


class _Client(asyncio.DatagramProtocol):
    """A client's socket inside; what comes before it is open waits in it."""

    def __init__(self, relay: _Relay, addr: Address, target: Address) -> None:
        self._relay, self._addr = relay, addr
        self._waiting: list[bytes] = []
        self._inside: asyncio.DatagramTransport | None = None
        self._closed = False
        loop = asyncio.get_running_loop()
        self._opening = loop.create_task(self._open(target), name=f"datagrams of {addr[0]}:{addr[1]}")
        self._timer = loop.call_later(IDLE_S, self.close)

    async def _open(self, target: Address) -> None:
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, remote_addr=target)
        except OSError:
            self.close()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._inside = transport
        for data in self._waiting:
            transport.sendto(data)
        self._waiting.clear()
        if self._closed:
            transport.close()

    def send(self, data: bytes) -> None:
        self._touch()
        if self._inside is None:
            self._waiting.append(data)
        else:
            self._inside.sendto(data)

    def datagram_received(self, data: bytes, _: Address) -> None:
        self._touch()
        self._relay.answer(data, self._addr)

    def _touch(self) -> None:
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self.close)

    def close(self) -> None:
        self._closed = True
        self._timer.cancel()
        self._relay.forget(self._addr)
        if self._inside is not None:
            self._inside.close()
