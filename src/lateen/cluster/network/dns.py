"""The cluster's DNS server: services and headless endpoints under cluster.local. Other names do not exist, unless the
pods have a way out of the machine: then the machine's own servers are asked."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct
from typing import Protocol

from dnslib import AAAA, CNAME, PTR, QTYPE, RCODE, RR, SRV, A, DNSRecord

from lateen.cluster.network import plan
from lateen.cluster.network.forwarding import Forwarding, Unanswered
from lateen.kit import tasks

TTL = 5
AT_ONCE, MOST = 256, 4096
"""Queries that are taken in one turn of the loop, and bytes of one."""
_OURS = tuple(ipaddress.ip_network(n) for n in (plan.POD_NET, plan.SERVICE_NET, plan.OUTSIDE_NET))
_REVERSE = ".in-addr.arpa"


class Names(Protocol):
    """The cluster's DNS records. Names are fully qualified, in lower case, without the final dot."""

    def lookup(self, name: str) -> list[str] | None:
        """Addresses; None if there is no such name."""

    def reverse(self, address: str) -> str | None: ...
    def srv(self, name: str) -> list[tuple[int, str]]: ...
    def alias(self, name: str) -> str | None:
        """The name outside of the cluster that a Service stands for."""

    def has(self, namespace: str) -> bool:
        """Whether there is such a namespace."""


class Resolver:
    """``beyond``: the resolver for other names, if pods may connect to the outside."""

    def __init__(self, names: Names, beyond: Forwarding | None = None) -> None:
        self._names, self._beyond = names, beyond

    async def answer(self, packet: bytes, stream: bool = False) -> bytes:
        """The answer to one query. Raises ValueError for anything that is not a query."""
        query, name, kind = _parsed(packet)
        if self._beyond is not None:
            if not _is_ours(name):
                return await self._ask(self._beyond, query, packet, stream)
            if target := self._names.alias(name):
                return await self._follow(self._beyond, query, target, stream)
        return bytes(self._own(query, name, kind).pack())

    async def _ask(self, beyond: Forwarding, query: DNSRecord, packet: bytes, stream: bool) -> bytes:
        try:
            return await beyond.ask(packet, stream)
        except Unanswered:
            reply = query.reply(ra=1)
            reply.header.rcode = RCODE.SERVFAIL
            return bytes(reply.pack())

    async def _follow(self, beyond: Forwarding, query: DNSRecord, target: str, stream: bool) -> bytes:
        """A Service of type ExternalName: its target is the canonical name, whose records come with it."""
        reply = query.reply(ra=1, aa=0)
        reply.add_answer(RR(query.q.qname, QTYPE.CNAME, rdata=CNAME(target), ttl=TTL))
        if query.q.qtype == QTYPE.CNAME:
            return bytes(reply.pack())
        asked = DNSRecord.question(target, QTYPE[query.q.qtype])
        asked.header.id = query.header.id
        try:
            found, *_ = _parsed(await self._ask(beyond, asked, bytes(asked.pack()), stream))
        except ValueError:
            reply.header.rcode = RCODE.SERVFAIL
            return bytes(reply.pack())
        reply.header.rcode, reply.header.tc = found.header.rcode, found.header.tc
        reply.add_answer(*found.rr)
        return bytes(reply.pack())

    def _own(self, query: DNSRecord, name: str, kind: str) -> DNSRecord:
        reply = query.reply(ra=1)
        if name.endswith(_REVERSE):
            if found := self._names.reverse(_reversed(name)):
                reply.add_answer(RR(query.q.qname, QTYPE.PTR, rdata=PTR(found), ttl=TTL))
            else:
                reply.header.rcode = RCODE.NXDOMAIN
            return reply
        addresses = self._names.lookup(name)
        addresses = self._of_pod(name) if addresses is None else addresses
        ports = self._names.srv(name) if kind == "SRV" else []
        if addresses is None and not ports:
            reply.header.rcode = RCODE.NXDOMAIN
            return reply
        reply.header.aa = 1
        for port, target in ports:
            reply.add_answer(RR(query.q.qname, QTYPE.SRV, rdata=SRV(0, 100, port, target), ttl=TTL))
        for address in addresses or []:
            if kind in ("A", "ANY") and ":" not in address:
                reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(address), ttl=TTL))
            elif kind == "AAAA" and ":" in address:
                reply.add_answer(RR(query.q.qname, QTYPE.AAAA, rdata=AAAA(address), ttl=TTL))
        return reply

    def _of_pod(self, name: str) -> list[str] | None:
        """A pod's name says its address, which is answered whether or not there is such a pod, as by CoreDNS where
        kubeadm has set it up (``pods insecure``); its namespace has to be there."""
        if (found := _POD.fullmatch(name)) is None or not self._names.has(found["namespace"]):
            return None
        parts = [int(part) for part in found["address"].split("-")]
        return None if max(parts) > 255 else [".".join(map(str, parts))]

    async def serve(self, address: str, port: int = 53) -> None:
        """Serve UDP and TCP; returns once both are listening."""
        _Udp(self, address, port)
        await asyncio.start_server(self._tcp, address, port)

    async def _tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                while True:
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                    answer = await self.answer(await reader.readexactly(size), stream=True)
                    writer.write(struct.pack(">H", len(answer)) + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, OSError, ValueError):
            pass  # the peer has finished, gone away, or is not a resolver
        finally:
            writer.close()


def _parsed(packet: bytes) -> tuple[DNSRecord, str, str]:
    """A message, and the name and type that are asked for. Raises ValueError."""
    try:
        found = DNSRecord.parse(packet)
        return found, str(found.q.qname).rstrip(".").lower(), str(QTYPE[found.q.qtype])
    except Exception as e:  # dnslib raises errors of its own and struct's
        raise ValueError("no DNS message") from e


_POD = re.compile(rf"(?P<address>\d+(-\d+){{3}})\.(?P<namespace>[a-z0-9-]+)\.pod\.{re.escape(plan.DOMAIN)}", re.ASCII)


def _reversed(name: str) -> str:
    return ".".join(reversed(name.removesuffix(_REVERSE).split(".")))


def _is_ours(name: str) -> bool:
    """Whether a name must not be forwarded: the cluster's domain, its networks, and bare names, which outside servers
    should not learn."""
    if name.endswith(_REVERSE):
        try:
            return any(ipaddress.ip_address(_reversed(name)) in network for network in _OURS)
        except ValueError:
            return False
    return "." not in name or name == plan.DOMAIN or name.endswith(f".{plan.DOMAIN}")


class _Udp:
    """Takes all queries that have come at once. asyncio's own transport takes one in each turn of the loop: where the
    machine has much to do, queries would wait until their clients have given up and asked again."""

    def __init__(self, resolver: Resolver, address: str, port: int) -> None:
        self._resolver = resolver
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((address, port))
        asyncio.get_running_loop().add_reader(self._socket, self._take)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data, addr = self._socket.recvfrom(MOST)
            except BlockingIOError:
                return
            except OSError:
                continue  # an earlier answer had no receiver
            tasks.spawn(self._reply(data, addr), "a DNS query")

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            self._socket.sendto(await self._resolver.answer(data), addr)
        except (ValueError, OSError):
            pass  # not a query, or the client has gone: clients that need an answer ask again
