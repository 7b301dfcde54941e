"""Hosts that Gateways of several namespaces claim at one port of the same proxies.

Whoever may create a Gateway may name the Service of any proxies (as in Istio), and claim any host there. If an older
object of another namespace has the host, or a part of it, the routes of both are merged; such cases are reported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lateen.api import objects as o
from lateen.mesh.dialects.gateway_api.listeners import Placed
from lateen.mesh.patterns import wildcards
from lateen.mesh.routing import Age

Place = tuple[str, int, bool]
"""(host of a Service, port, whether it is UDP)"""


class Asked(NamedTuple):
    """A listener requested for the proxies behind a Service."""

    age: Age
    """The age of the listener's object."""
    service: str
    placed: Placed


class Intrusion(NamedTuple):
    by: Placed
    host: str
    on: o.Ref
    """The older object in another namespace."""


def intrusions(asked: Iterable[Asked]) -> Iterator[Intrusion]:
    """One for each listener that overlaps with an older object of another namespace; the oldest such object."""
    equal: dict[tuple[Place, str], dict[str, o.Ref]] = {}
    narrower: dict[tuple[Place, str], dict[str, o.Ref]] = {}
    """By the wildcards that cover a host"""
    for age, service, placed in sorted(asked, key=lambda a: a.age):
        del age
        li, own = placed.written, placed.owner
        place, host = (service, li.port, li.protocol == "UDP"), li.hostname or "*"
        around = [w for w in wildcards(host) if w != host]
        found = [*(equal.get((place, h), {}) for h in (host, *around)), narrower.get((place, host), {})]
        on = next((ref for owners in found for space, ref in owners.items() if space != own.namespace), None)
        if on is not None:
            yield Intrusion(placed, host, on)
        equal.setdefault((place, host), {}).setdefault(own.namespace, own)
        for w in around:
            narrower.setdefault((place, w), {}).setdefault(own.namespace, own)
