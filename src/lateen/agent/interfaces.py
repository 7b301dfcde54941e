"""The addresses of the network namespace's interfaces, as the kernel shows them."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

from lateen.wire import ports

FILE = "/proc/net/if_inet6"
SHOW = ("cat", FILE)
"""The command that shows them inside of another network namespace."""
_GLOBAL = 0
_SIOCGIFADDR = 0x8915


def ipv6(shown: str) -> list[str] | None:
    """The addresses by which others reach it, without link-local ones; None where there is no IPv6 at all, not even
    ``::1``. ``shown``: address, index, prefix length, scope, flags (all hexadecimal) and interface a line (kernel,
    net/ipv6/addrconf.c). Pure."""
    lines = [line.split() for line in shown.splitlines()]
    found = [
        str(ipaddress.IPv6Address(bytes.fromhex(f[0]))) for f in lines if int(f[3], 16) == _GLOBAL and f[5] != "lo"
    ]
    return found if lines else None


def addresses() -> list[str]:
    """Those of this process's network namespace, the IPv4 ones first, without loopback and link-local ones."""
    return [*_ipv4(), *(ipv6(_shown()) or ())]


def redirected() -> bool:
    """Whether the rules of IPv6 have been written: the source of the proxy's connections comes with them."""
    lines = [line.split() for line in _shown().splitlines()]
    return any(f[5] == "lo" and f[0] == ipaddress.IPv6Address(ports.GUARD_V6).exploded.replace(":", "") for f in lines)


def loopback() -> list[str]:
    """The addresses by which the processes of this network namespace reach each other."""
    return ["127.0.0.1", *(["::1"] if ipv6(_shown()) is not None else [])]


def _shown() -> str:
    try:
        return Path(FILE).read_text()
    except OSError:
        return ""


def _ipv4() -> list[str]:
    """The first address of each interface."""
    out = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # it has none
            found = ipaddress.IPv4Address(answer[20:24])
            if not found.is_loopback and not found.is_link_local:
                out.append(str(found))
    return out
