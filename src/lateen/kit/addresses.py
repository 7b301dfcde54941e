"""IP addresses that the control plane must not connect to on behalf of user-supplied URLs (SSRF protection)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA = tuple(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
"""Cloud metadata services, which return credentials to any client. Those at link-local addresses need no entry."""
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 behind NAT64 (RFC 6052)."""


def refused(text: str, blocked: Iterable[Network] = ()) -> str:
    """Why connecting to an address is refused; empty if it is allowed. Raises ValueError if ``text`` is not an IP
    address."""
    address = _inner(ipaddress.ip_address(text))
    if address in METADATA:
        return "it is a cloud's metadata service"
    for what, found in (
        ("link-local", address.is_link_local),
        ("of this machine itself", address.is_loopback),
        ("unspecified", address.is_unspecified or address in ipaddress.ip_network("0.0.0.0/8")),
        ("for multicast", address.is_multicast),
    ):
        if found:
            return f"it is {what}"
    network = next((n for n in blocked if address in n), None)
    return f"it is in {network}, which is blocked" if network is not None else ""


def _inner(address: Address) -> Address:
    """The IPv4 address embedded in an IPv6 address, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
