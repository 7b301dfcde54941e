"""Links, addresses and routes of a network namespace, by the kernel's own messages (rtnetlink(7)).

Each pod needs a dozen of these changes; a process of ``ip`` for every few of them costs twenty times as much.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from types import TracebackType
from typing import Self

ROUTES = 0
"""NETLINK_ROUTE"""
_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 17, 20, 24
_ERROR = 2
_REQUEST, _ACK, _REPLACE, _EXCLUSIVE, _CREATE = 1, 4, 0x100, 0x200, 0x400
_NAME, _LINK_INFO, _NAMESPACE = 3, 18, 28
_INFO_KIND, _INFO_DATA, _PEER = 1, 2, 1
_ADDRESS, _LOCAL = 1, 2
_DESTINATION, _OUT, _GATEWAY, _SOURCE = 1, 4, 5, 7
_TABLE_MAIN, _BOOT, _UNIVERSE, _LINK, _UNICAST, _UNREACHABLE = 254, 3, 0, 253, 1, 7
_UP = 1
_GET_ADDRESS = 0x8915
"""SIOCGIFADDR"""


class Netlink:
    """A socket of the namespace in which it was opened. Every method raises OSError with the kernel's reason."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, ROUTES)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def add_pair(self, name: str, peer: str, namespace: int) -> None:
        """A link, and its other end in the namespace of a descriptor."""
        there = _link(0) + _text(_NAME, peer) + _attribute(_NAMESPACE, struct.pack("=i", namespace))
        info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(_PEER, there))
        self._ask(_NEW_LINK, _CREATE | _EXCLUSIVE, _link(0) + _text(_NAME, name) + _attribute(_LINK_INFO, info), name)

    def delete(self, name: str) -> None:
        self._ask(_DELETE_LINK, 0, _link(socket.if_nametoindex(name)), name)

    def up(self, name: str) -> None:
        self._ask(_NEW_LINK, 0, _link(socket.if_nametoindex(name), _UP), name)

    def address(self, name: str, address: str) -> None:
        """Give a link an address, which it may have already."""
        own = socket.inet_aton(address)
        head = struct.pack("=BBBBi", socket.AF_INET, 32, 0, _UNIVERSE, socket.if_nametoindex(name))
        body = head + _attribute(_LOCAL, own) + _attribute(_ADDRESS, own)
        self._ask(_NEW_ADDRESS, _CREATE | _REPLACE, body, f"{address} on {name}")

    def route(self, to: str, link: str = "", source: str = "", gateway: str = "") -> None:
        """Replace the route to a network (``a.b.c.d/n``): through a link, or nowhere (ICMP unreachable) without one."""
        net, _, bits = to.partition("/")
        scope = _UNIVERSE if gateway or not link else _LINK
        kind = _UNICAST if link else _UNREACHABLE
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, int(bits), 0, 0, _TABLE_MAIN, _BOOT, scope, kind, 0)
        body += _attribute(_DESTINATION, socket.inet_aton(net))
        body += _attribute(_OUT, struct.pack("=i", socket.if_nametoindex(link))) if link else b""
        body += _attribute(_SOURCE, socket.inet_aton(source)) if source else b""
        body += _attribute(_GATEWAY, socket.inet_aton(gateway)) if gateway else b""
        self._ask(_NEW_ROUTE, _CREATE | _REPLACE, body, f"the route to {to}")

    def _ask(self, kind: int, flags: int, body: bytes, about: str) -> None:
        self._number += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, self._number, 0)
        self._socket.send(head + body)
        while True:
            answer = self._socket.recv(65536)
            _, said, _, number, _ = struct.unpack_from("=IHHII", answer)
            if said == _ERROR and number == self._number:
                (code,) = struct.unpack_from("=i", answer, 16)
                if code:
                    raise OSError(-code, f"{about}: {os.strerror(-code).lower()}")
                return


def address_of(link: str) -> str:
    """The address of a link of the present namespace; empty if it has none or there is no such link."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _GET_ADDRESS, struct.pack("16s24x", link.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def _link(index: int, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
