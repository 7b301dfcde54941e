"""Gateways that select the same pods and want the same port for different protocols: the oldest one has it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from lateen.api import objects as o
from lateen.mesh.routing import Listener

Chosen = tuple[tuple[str, str], ...]
"""A selector: (label, value)"""
Company = tuple[str, frozenset[Chosen]]
"""The namespace of some pods (empty if it does not matter), and the other selectors that they match"""
Found = Sequence[tuple[Chosen, Listener]]
"""Listeners with their Gateways' selectors, the oldest first"""
Place = tuple[str, str, int]
"""(namespace of the pods, or empty; address; port)"""
NO_OTHERS = frozenset[Company]()


def overlap(a: Chosen, b: Chosen) -> bool:
    """Whether a pod can match both selectors."""
    wanted = dict(a)
    return all(wanted.get(key, value) == value for key, value in b)


def _place(li: Listener, scoped: bool) -> Place:
    return (li.source.namespace if scoped else "", li.address, li.port)


def contested(found: Found, mine: Collection[o.Ref], scoped: bool) -> Found:
    """The listeners at places where one of ``mine`` cannot be beside an older one. ``scoped``: whether Gateways select
    only pods of their own namespaces."""
    places, older = set(), defaultdict[Place, dict[str, Listener]](dict)
    for _, li in found:
        place = _place(li, scoped)
        if li.source in mine and any(not li.beside(one) for one in older[place].values()):
            places.add(place)
        older[place].setdefault(li.family, li)
    return [one for one in found if _place(one[1], scoped) in places]


def lost(
    found: Found, mine: Collection[o.Ref], companies: Collection[Company], chosen: Chosen, scoped: bool
) -> Iterator[tuple[Listener, Listener, bool]]:
    """(a listener that is left out, the older one that has its place, whether that is so at all pods). ``companies``:
    of the pods that ``chosen``, the selector of ``mine``, matches."""
    there = defaultdict[Place, list[tuple[Chosen, Listener]]](list)
    for one in found:
        there[_place(one[1], scoped)].append(one)
    for place, rivals in there.items():
        met = [others for space, others in companies if space == place[0]] or [frozenset[Chosen]()]
        winners = [next(li for s, li in rivals if set(s) <= set(chosen) or s in others) for others in met]
        for _, li in rivals:
            losses = [older for older in winners if not li.beside(older)] if li.source in mine else []
            if losses:
                yield li, min(losses, key=lambda older: older.age), len(losses) == len(winners)
