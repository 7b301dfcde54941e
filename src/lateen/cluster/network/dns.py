"""The cluster's DNS server: services and headless endpoints under cluster.local; other names do not exist."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import cast

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, SRV, A, DNSRecord

TTL = 5
Lookup = Callable[[str], list[str] | None]
"""A fully qualified name in lower case, without its final dot -> addresses; None if the name does not exist."""
Reverse = Callable[[str], str | None]
Ports = Callable[[str], list[tuple[int, str]]]


class Resolver:
    def __init__(self, lookup: Lookup, reverse: Reverse, ports: Ports) -> None:
        self._lookup, self._reverse, self._ports = lookup, reverse, ports

    def answer(self, packet: bytes) -> bytes:
        """The answer to one query. Raises ValueError for anything that is not a query."""
        try:
            query = DNSRecord.parse(packet)
            name = str(query.q.qname).rstrip(".").lower()
            kind = QTYPE[query.q.qtype]
        except Exception as e:  # dnslib raises errors of its own and struct's
            raise ValueError("not a DNS query") from e
        reply = query.reply(ra=1)
        if name.endswith(".in-addr.arpa"):
            found = self._reverse(".".join(reversed(name.removesuffix(".in-addr.arpa").split("."))))
            if found:
                reply.add_answer(RR(query.q.qname, QTYPE.PTR, rdata=PTR(found), ttl=TTL))
            else:
                reply.header.rcode = RCODE.NXDOMAIN
            return bytes(reply.pack())
        addresses = self._lookup(name)
        ports = self._ports(name) if kind == "SRV" else []
        if addresses is None and not ports:
            reply.header.rcode = RCODE.NXDOMAIN
            return bytes(reply.pack())
        reply.header.aa = 1
        for port, target in ports:
            reply.add_answer(RR(query.q.qname, QTYPE.SRV, rdata=SRV(0, 100, port, target), ttl=TTL))
        for address in addresses or []:
            if kind in ("A", "ANY") and ":" not in address:
                reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(address), ttl=TTL))
            elif kind == "AAAA" and ":" in address:
                reply.add_answer(RR(query.q.qname, QTYPE.AAAA, rdata=AAAA(address), ttl=TTL))
        return bytes(reply.pack())

    async def serve(self, address: str, port: int = 53) -> None:
        """Serve UDP and TCP; returns once both are listening."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: _Udp(self), local_addr=(address, port))
        await asyncio.start_server(self._tcp, address, port)

    async def _tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                while True:
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                    answer = self.answer(await reader.readexactly(size))
                    writer.write(struct.pack(">H", len(answer)) + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, OSError, ValueError):
            pass  # the peer has finished, gone away, or is not a resolver
        finally:
            writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        assert self._transport is not None
        try:
            self._transport.sendto(self._resolver.answer(data), addr)  # type: ignore[arg-type]
        except ValueError:
            pass  # not a query: there is nothing to answer
