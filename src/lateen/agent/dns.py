"""DNS for the pod (15053): answers for hosts that only the mesh knows, and forwards all other queries unchanged to the
pod's own nameservers.

Source: https://istio.io/latest/docs/ops/configuration/traffic-management/dns-proxy/. The table of names comes from
istiod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSError, DNSRecord

from lateen.kit import tasks
from lateen.wire import ports

log = logging.getLogger("lateen.agent.dns")

TTL_S = 30
TIMEOUT_S = 5.0
AT_ONCE = 256
"""Forwarded queries that may be pending; more are refused, and clients retry."""
Table = Mapping[str, tuple[str, ...]]
"""Host in lower case (or ``*.suffix``) -> its addresses."""


def servers(text: str) -> tuple[str, ...]:
    """The nameservers in a resolv.conf."""
    return tuple(parts[1] for line in text.splitlines() if len(parts := line.split()) > 1 and parts[0] == "nameserver")


def lookup(table: Table, name: str) -> tuple[str, ...] | None:
    """A name's addresses; None if the mesh does not know it."""
    host = name.rstrip(".").lower()
    if host in table:
        return table[host]
    parts = host.split(".")
    for i in range(1, len(parts)):
        found = table.get("*." + ".".join(parts[i:]))
        if found is not None:
            return found
    return None


def answer(table: Table, raw: bytes) -> bytes | None:
    """The response to a query; None if it has to be forwarded. Raises DNSError for anything that is not a query."""
    question = DNSRecord.parse(raw)
    if len(question.questions) != 1 or question.q.qtype not in (QTYPE.A, QTYPE.AAAA):
        return None
    found = lookup(table, str(question.q.qname))
    if found is None:
        return None
    reply = question.reply(ra=1)
    wants_six = question.q.qtype == QTYPE.AAAA
    for address in found:
        if (":" in address) == wants_six:
            data = AAAA(address) if wants_six else A(address)
            reply.add_answer(RR(question.q.qname, question.q.qtype, rdata=data, ttl=TTL_S))
    return bytes(reply.pack())


def usable(table: Mapping[str, Sequence[str]], families: str) -> Table:
    """The table without addresses of other families than ``families`` (``Options``), unless a name has no others."""
    kept = {name: tuple(a for a in found if ("6" if ":" in a else "4") in families) for name, found in table.items()}
    return {name: kept[name] or tuple(found) for name, found in table.items()}


def failure(raw: bytes) -> bytes:
    """SERVFAIL."""
    reply = DNSRecord.parse(raw).reply()
    reply.header.rcode = RCODE.SERVFAIL
    return bytes(reply.pack())


class Server:
    """``mark`` is the socket mark of the proxy's own connections, if they have one."""

    def __init__(self, upstream: tuple[str, ...], mark: int | None) -> None:
        self.table: Table = {}
        self._upstream, self._mark = upstream, mark
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def start(self, host: str = "127.0.0.1", port: int = ports.DNS) -> None:
        loop = asyncio.get_running_loop()
        server = self

        class Datagrams(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                tasks.spawn(server._udp(data, addr, self.transport), "dns")  # type: ignore[arg-type]

        await loop.create_datagram_endpoint(Datagrams, local_addr=(host, port))
        await asyncio.start_server(self._tcp, host, port)

    async def _udp(self, raw: bytes, addr: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        found = await self._answered(raw, False)
        if found is not None:
            transport.sendto(found, addr)

    async def _tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            while True:
                async with asyncio.timeout(30):
                    size = int.from_bytes(await reader.readexactly(2))
                    raw = await reader.readexactly(size)
                found = await self._answered(raw, True)
                if found is None:
                    break
                writer.write(len(found).to_bytes(2) + found)
                await writer.drain()
        writer.close()

    async def _answered(self, raw: bytes, by_tcp: bool) -> bytes | None:
        try:
            own = answer(self.table, raw)
        except (DNSError, ValueError, IndexError):
            return None
        if own is not None:
            return own
        if self._gate.locked():
            return failure(raw)
        async with self._gate:
            for server in self._upstream:
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(TIMEOUT_S):
                        return await self._ask(server, raw, by_tcp)
        return failure(raw)

    async def _ask(self, server: str, raw: bytes, by_tcp: bool) -> bytes:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM if by_tcp else socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            if self._mark is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
            await loop.sock_connect(sock, (server, 53))
            if not by_tcp:
                await loop.sock_sendall(sock, raw)
                return await loop.sock_recv(sock, 65535)
            await loop.sock_sendall(sock, len(raw).to_bytes(2) + raw)
            size = int.from_bytes(await _exactly(loop, sock, 2))
            return await _exactly(loop, sock, size)


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    out = b""
    while len(out) < size:
        more = await loop.sock_recv(sock, size - len(out))
        if not more:
            raise OSError("the server closed the connection")
        out += more
    return out


def own_servers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    try:
        return servers(path.read_text())
    except OSError:
        return ()
