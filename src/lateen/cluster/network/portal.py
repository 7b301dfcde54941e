"""The portal: the part of the cluster that stays in the host's network namespace and opens sockets there.

The node daemon asks for a listening socket over a socket pair and receives the file descriptor; it then accepts the
host's connections although it runs in a private namespace. Nothing in the host's network is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from typing import Any

from lateen.cluster.network import datagrams
from lateen.kit import jsons

MAX_CONNECTIONS = 4096


def serve_request(portal: socket.socket) -> bool:
    """Answer one request of the node daemon; False once it has closed the socket."""
    raw = portal.recv(65536)
    if not raw:
        return False
    request = jsons.loads(raw)
    listener, datagrams = None, request["protocol"] == "UDP"
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
        if not datagrams:  # of two UDP sockets with this option, the second would get the first one's datagrams
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((request["address"], request["port"]))
        if not datagrams:
            listener.listen(512)
        answer: dict[str, Any] = {"n": request["n"], "port": listener.getsockname()[1]}
        socket.send_fds(portal, [jsons.dumps(answer)], [listener.fileno()])
    except OSError as e:
        portal.send(jsons.dumps({"n": request["n"], "errno": e.errno, "error": os.strerror(e.errno or 0)}))
    finally:
        if listener:
            listener.close()
    return True


class HostPorts:
    """The node daemon's end of the socket pair."""

    def __init__(self, portal: socket.socket) -> None:
        self._portal = portal
        self._n = 0
        self._lock = asyncio.Lock()
        portal.setblocking(False)

    async def bind(self, address: str, port: int, protocol: str = "TCP") -> socket.socket:
        """A listening socket in the host's namespace. Raises OSError (EADDRINUSE, EACCES, …)."""
        loop = asyncio.get_running_loop()
        async with self._lock, asyncio.timeout(5):
            self._n += 1
            wanted = {"n": self._n, "address": address, "port": port, "protocol": protocol}
            await loop.sock_sendall(self._portal, jsons.dumps(wanted))
            while True:
                ready = loop.create_future()
                loop.add_reader(self._portal, lambda f=ready: f.done() or f.set_result(None))  # type: ignore[misc]
                try:
                    await ready
                finally:
                    loop.remove_reader(self._portal)
                with contextlib.suppress(BlockingIOError):
                    raw, fds, _, _ = socket.recv_fds(self._portal, 65536, 1)
                    answer = jsons.loads(raw)
                    if answer["n"] == self._n:
                        break
                    for fd in fds:
                        os.close(fd)
        if "error" in answer:
            raise OSError(answer["errno"], answer["error"])
        return socket.socket(fileno=fds[0])


Place = tuple[str, int, str]
"""(address, port, TCP or UDP) on the host"""
Target = tuple[str, int]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Forwarder:
    """Host ports that are forwarded to addresses in the cluster."""

    def __init__(self, ports: HostPorts) -> None:
        self._ports = ports
        self._targets: dict[Place, Target] = {}
        self._sources: dict[Place, tuple[Network, ...]] = {}
        self._servers: dict[Place, asyncio.Server | asyncio.DatagramTransport] = {}
        self._open = 0

    async def open(
        self, host: str, port: int, target: Target, protocol: str = "TCP", sources: tuple[Network, ...] = ()
    ) -> int:
        """Listen on the host (0: any free port) and return the port; if it is open already, only its target changes.
        ``sources``: networks of the clients that are let in; empty for all. Raises OSError."""
        place = (host, port, protocol)
        if place in self._servers:
            self._targets[place], self._sources[place] = target, sources
            return port
        listener = await self._ports.bind(host, port, protocol)
        place = (host, int(listener.getsockname()[1]), protocol)
        self._targets[place], self._sources[place] = target, sources
        if protocol == "UDP":
            self._servers[place] = await datagrams.relay(
                listener, lambda: self._targets[place], lambda address: self._admits(place, address)
            )
        else:
            self._servers[place] = await self._listen(listener, place)
        return place[1]

    async def _listen(self, listener: socket.socket, place: Place) -> asyncio.Server:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._carry(place, reader, writer)

        return await asyncio.start_server(accepted, sock=listener)

    def close(self, place: Place) -> None:
        self._targets.pop(place, None)
        self._sources.pop(place, None)
        if server := self._servers.pop(place, None):
            server.close()

    def _admits(self, place: Place, address: str) -> bool:
        wanted = self._sources.get(place) or ()
        return not wanted or any(ipaddress.ip_address(address) in network for network in wanted)

    def opened(self) -> set[Place]:
        return set(self._servers)

    async def _carry(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str((writer.get_extra_info("peername") or [""])[0])
        if place not in self._targets or self._open >= MAX_CONNECTIONS or not self._admits(place, peer):
            writer.close()
            return
        self._open += 1
        try:
            async with asyncio.timeout(10):
                inner = await asyncio.open_connection(*self._targets[place])
            await carry((reader, writer), inner)
        except (OSError, TimeoutError):
            pass  # nothing listens inside, or one side has gone away: the client sees the connection close
        finally:
            self._open -= 1
            writer.close()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def carry(one: Ends, other: Ends) -> None:
    """Pass on what comes from either connection until both have ended; ``other`` is closed."""
    try:
        await asyncio.gather(_pump(one[0], other[1]), _pump(other[0], one[1]))
    finally:
        other[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionError:
        writer.close()


def explain(error: OSError, address: str, port: int) -> str:
    """One sentence with the remedy, for a host port that could not be opened."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {address} is in use by another program (see `ss -ltnp 'sport = :{port}'`)"
    if error.errno == errno.EACCES:
        return f"port {port} on {address} needs root (or net.ipv4.ip_unprivileged_port_start <= {port})"
    return f"port {port} on {address}: {error.strerror}"
