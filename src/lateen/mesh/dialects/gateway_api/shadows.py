"""Shadowed rules: an earlier rule matches the same requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lateen.api import objects as o
from lateen.mesh.routing import Route


class Shadow(NamedTuple):
    of: o.Ref
    rule: int
    match: int
    """-1 for a rule without matches"""
    by: o.Ref
    by_rule: int
    host: str


def shadows(host: str, routes: Iterable[tuple[tuple[int, int], Route]]) -> Iterator[Shadow]:
    """``routes``: those of a host in order, each with its (rule, match). Only identical matches count: a rule that is
    partly covered is not a mistake."""
    first: dict[tuple[str, str], tuple[o.Ref, tuple[int, int]]] = {}
    for place, route in routes:
        key = (repr(route.match), route.below)
        by, by_place = first.setdefault(key, (route.rule, place))
        if (by, by_place) != (route.rule, place):
            yield Shadow(route.rule, *place, by, by_place[0], host)
