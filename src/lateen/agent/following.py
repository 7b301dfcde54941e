"""Addresses that come after the agent: a machine may have IPv4 at once, and IPv6 when a router has told its prefix.

Envoy listens on the families that the machine has when it starts, and istiod knows them from its node; so Envoy is
started again for a family that is new. (Istio's agent reads its addresses once.) A family that is gone may come back,
and is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from lateen.agent import interfaces
from lateen.agent.options import Options

log = logging.getLogger("lateen.agent.following")

LOOK_S = 5.0
"""The time between two looks at the addresses, in seconds."""


async def follow(options: Options, take: Callable[[Options], Awaitable[None]]) -> None:
    """``take`` gets the options with the addresses whenever there is one of a family that it does not know. Returns
    when it knows both."""
    while len(_families(options)) < 2:
        await asyncio.sleep(LOOK_S)
        now = replace(options, found=tuple(interfaces.addresses()), ipv6_redirected=interfaces.redirected())
        new = _families(now) - _families(options)
        if new:
            options = now
            first = next(a for a in now.found if _family(a) in new)
            log.warning("the address %s is new: Envoy is started again, and listens on %s, too", first, *new)
            await take(now)


def _families(options: Options) -> set[str]:
    return set(map(_family, options.addresses))


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"
