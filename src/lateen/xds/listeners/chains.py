"""Filter chain matches, by SNI and by destination address.

Envoy refuses a listener with two chains that match the same; here the first one wins.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc

from lateen.mesh.patterns import is_partial
from lateen.xds import pb


def network(text: str) -> str:
    """A CIDR range of an address or a range; host bits are ignored."""
    return str(ipaddress.ip_network(text, strict=False))


def cidr(text: str) -> address_pb2.CidrRange:
    address, _, length = network(text).partition("/")
    return address_pb2.CidrRange(address_prefix=address, prefix_len=pb.u32(int(length)))


class Taken:
    """The matches already used by the chains of a listener."""

    def __init__(self) -> None:
        self._pairs: set[tuple[str, str]] = set()

    def left(self, names: Iterable[str], ranges: Iterable[str]) -> list[Any]:
        """Claim what no earlier chain matches of these names (none: every name) and ranges (none: everywhere). Returns
        the matches for it; one without conditions is for all the rest. Wildcards of a part of a label are left out:
        Envoy would refuse the listener for them."""
        names = tuple(names)
        known = tuple(n for n in names if not is_partial(n))
        if names and not known:
            return []
        names = known
        groups: dict[tuple[str, ...], list[str]] = {}
        wanted = tuple(dict.fromkeys(network(r) for r in ranges)) or ("",)
        for name in dict.fromkeys(n.lower() for n in names) or ("",):
            free = tuple(r for r in wanted if (name, r) not in self._pairs)
            self._pairs |= {(name, r) for r in free}
            if free:
                groups.setdefault(free, []).append(name)
        return [
            lc.FilterChainMatch(server_names=[n for n in found if n], prefix_ranges=[cidr(r) for r in free if r])
            for free, found in groups.items()
        ]


def everything(match: Any) -> bool:
    return not match.server_names and not match.prefix_ranges
