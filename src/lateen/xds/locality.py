"""Which endpoints come first for a client at some place: failover by priorities, distribution by weights.

Facts: https://istio.io/latest/docs/reference/config/networking/destination-rule/#LocalityLoadBalancerSetting.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.networking import Distribute, LocalityLb
from lateen.mesh.registry import Found
from lateen.mesh.view import Locality

TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
"""Labels that stand for the parts of a place, as failoverPriority names them."""


class Group(NamedTuple):
    place: str
    priority: int
    weight: int
    endpoints: Found


def groups(endpoints: Found, asked: Locality | None) -> list[Group]:
    """Endpoints of one place and priority together. Priorities have no gaps, as Envoy asks."""
    if not endpoints:
        return []
    if asked is None:
        return [Group("", 0, _weight(endpoints), endpoints)]
    setting = asked.setting or LocalityLb()
    chosen = next((d for d in setting.distribute if _covers(d.from_ or "*", asked.here)), None)
    if chosen is not None:
        return _distributed(endpoints, chosen)
    by: dict[tuple[int, str], list[tuple[o.Endpoint, o.Pod | None]]] = {}
    for e, w in endpoints:
        place = w.locality if w else ""
        rank = _rank(w, place, asked, setting) if asked.failover else 0
        by.setdefault((rank, place), []).append((e, w))
    ranks = sorted({rank for rank, _ in by})
    return [
        Group(place, ranks.index(rank), _weight(found), tuple(found)) for (rank, place), found in sorted(by.items())
    ]


def _weight(endpoints: Iterable[tuple[o.Endpoint, o.Pod | None]]) -> int:
    return sum(w.weight if w else 1 for _, w in endpoints)


def _parts(place: str) -> list[str]:
    return [*place.split("/"), "", "", ""][:3]


def _covers(pattern: str, place: str) -> bool:
    """``*``, ``region``, ``region/zone/*``, …"""
    wanted = pattern.split("/")
    return all(w in ("*", have) for w, have in zip(wanted, _parts(place), strict=False))


def _distributed(endpoints: Found, chosen: Distribute) -> list[Group]:
    """Each entry's share is split among its places by their endpoints; places that no entry names get nothing."""
    by: dict[str, list[tuple[o.Endpoint, o.Pod | None]]] = {}
    for e, w in endpoints:
        by.setdefault(w.locality if w else "", []).append((e, w))
    out: list[Group] = []
    left = dict(by)
    for pattern, share in sorted(chosen.to.items(), key=lambda item: -len(item[0])):
        mine = {place: found for place, found in left.items() if _covers(pattern, place)}
        total = sum(map(_weight, mine.values()))
        for place, found in sorted(mine.items()):
            left.pop(place)
            if share:
                out.append(Group(place, 0, max(1, round(share * 100 * _weight(found) / total)), tuple(found)))
    return out


def _rank(w: o.Pod | None, place: str, asked: Locality, setting: LocalityLb) -> int:
    if setting.failover_priority:
        return _by_labels(w, place, asked, setting)
    here, there = _parts(asked.here), _parts(place)
    same = next((i for i in range(3) if here[i] != there[i]), 3)
    if same:
        return 3 - same
    onward = next((f.to for f in setting.failover if f.from_ == here[0]), "")
    return 3 if not onward or there[0] == onward else 4


def _by_labels(w: o.Pod | None, place: str, asked: Locality, setting: LocalityLb) -> int:
    """The fewer labels (from the first on) are alike, the later; ``label=value`` stands for the client's."""
    mine = dict(zip(TOPOLOGY, _parts(asked.here), strict=True)) | dict(asked.labels)
    theirs = dict(zip(TOPOLOGY, _parts(place), strict=True)) | (w.label_map if w else {})
    for i, text in enumerate(setting.failover_priority):
        name, given, value = text.partition("=")
        if (value if given else mine.get(name)) != theirs.get(name):
            return len(setting.failover_priority) - i
    return 0
