"""The distribution of objects: which connected proxies have the resources generated from each, according to their
sessions. Pure."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable
from typing import NamedTuple

from lateen.ads.peers import Connection
from lateen.api import kinds
from lateen.wire.resource import ResourceSet


class Reach(NamedTuple):
    """An object's distribution: the affected proxies, those that have it, and those that rejected it."""

    concerned: int = 0
    have: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    """(proxy, its message)"""


_GATEWAYS = tuple(f"{kind.id} " for kind in (kinds.GATEWAY, kinds.KUBERNETES_GATEWAY))
_origins: weakref.WeakKeyDictionary[ResourceSet, dict[str, frozenset[str]]] = weakref.WeakKeyDictionary()
_served: weakref.WeakKeyDictionary[ResourceSet, frozenset[str]] = weakref.WeakKeyDictionary()


def origins(resources: ResourceSet) -> dict[str, frozenset[str]]:
    """User's object -> names of the resources generated from it; computed once per set."""
    found = _origins.get(resources)
    if found is None:
        collected: dict[str, set[str]] = {}
        for r in resources.resources.values():
            for origin in r.origin:
                collected.setdefault(origin, set()).add(r.name)
        found = _origins[resources] = {origin: frozenset(n) for origin, n in collected.items()}
    return found


def reach(connections: Iterable[Connection], wanted: Collection[str] | None = None) -> dict[str, Reach]:
    """The reach of every object that is the origin of some proxy's resources, or only of those ``wanted``."""
    concerned: dict[str, int] = {}
    have: dict[str, int] = {}
    refused: dict[str, list[tuple[str, str]]] = {}
    alike: dict[tuple[int, ...], tuple[Connection, int]] = {}
    """Proxies with identical sets are counted together."""
    different = []
    for c in connections:
        if any(any(c.session.missing(t)) for t in c.session.sets()):
            different.append(c)
            continue
        key = tuple(id(s) for sets in c.session.sets().values() for s in sets)
        alike[key] = (c, alike[key][1] + 1 if key in alike else 1)
    for c, number in alike.values():
        for ref in {r for sets in c.session.sets().values() for s in sets for r in _among(origins(s), wanted)}:
            concerned[ref] = concerned.get(ref, 0) + number
            have[ref] = have.get(ref, 0) + number
    for c in different:
        for ref, (there, says) in _of_one(c, wanted).items():
            concerned[ref] = concerned.get(ref, 0) + 1
            have[ref] = have.get(ref, 0) + there
            if says:
                refused.setdefault(ref, []).append((f"{c.node.pod}.{c.node.namespace}", says))
    return {ref: Reach(n, have[ref], tuple(sorted(refused.get(ref, ())))) for ref, n in concerned.items()}


def refused(connections: Iterable[Connection]) -> set[str]:
    """The objects that some proxy has rejected."""
    return {ref for c in connections if c.session.refusing for ref, (_, says) in _of_one(c, None).items() if says}


def served(connections: Iterable[Connection]) -> set[str]:
    """The Gateways that some proxy serves."""
    sets = {s for c in connections for given in c.session.sets().values() for s in given}
    return {ref for s in sets for ref in _gateways(s)}


def _gateways(resources: ResourceSet) -> frozenset[str]:
    found = _served.get(resources)
    if found is None:
        found = _served[resources] = frozenset(r for r in origins(resources) if r.startswith(_GATEWAYS))
    return found


def _among(made: dict[str, frozenset[str]], wanted: Collection[str] | None) -> Iterable[str]:
    return made if wanted is None else made.keys() & wanted


def _of_one(c: Connection, wanted: Collection[str] | None) -> dict[str, tuple[bool, str]]:
    """Object -> (whether the proxy has all resources generated from it, its message if it rejected any)."""
    out: dict[str, tuple[bool, str]] = {}
    for type_url, sets in c.session.sets().items():
        waiting, bad = c.session.missing(type_url)
        messages = c.session.refusals(type_url) if bad else {}
        for resources in sets:
            every = origins(resources)
            for ref in _among(every, wanted):
                made = every[ref]
                there, before = out.get(ref, (True, ""))
                says = next((messages[n].strip() or "refused" for n in sorted(made & bad)), "")
                out[ref] = (there and not made & waiting and not made & bad, before or says)
    return out
