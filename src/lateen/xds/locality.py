"""Locality load balancing: failover by priorities, distribution by weights.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#LocalityLoadBalancerSetting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from lateen.api.networking.traffic_policy import Distribute, LocalityLb
from lateen.mesh.outbound_view import Locality
from lateen.mesh.places import CLUSTER, HOSTNAME, NETWORK, TOPOLOGY
from lateen.mesh.workloads import Instance, Instances

MOST = 2**32 - 1
"""What the weights of a cluster's endpoints may add up to in Envoy."""


class Group(NamedTuple):
    place: str
    priority: int
    weight: int
    endpoints: Instances


def groups(endpoints: Instances, asked: Locality | None) -> list[Group]:
    """Endpoints grouped by locality and priority. Priorities have no gaps, as Envoy requires."""
    if not endpoints:
        return []
    endpoints = _bounded(endpoints)
    if asked is None:
        return [Group("", 0, _weight(endpoints), endpoints)]
    setting = asked.setting or LocalityLb()
    chosen = next((d for d in setting.distribute if _covers(d.from_ or "*", asked.here)), None)
    if chosen is not None:
        return _distributed(endpoints, chosen)
    by: dict[tuple[int, str], list[Instance]] = {}
    for i in endpoints:
        rank = _rank(i, asked, setting) if asked.failover else 0
        by.setdefault((rank, i.locality), []).append(i)
    ranks = sorted({rank for rank, _ in by})
    return [
        Group(place, ranks.index(rank), _weight(found), tuple(found)) for (rank, place), found in sorted(by.items())
    ]


def _bounded(endpoints: Instances) -> Instances:
    """Weights that add up to more than Envoy allows are scaled down, each to at least 1."""
    total = _weight(endpoints)
    if total <= MOST:
        return endpoints
    room = MOST - len(endpoints)  # what is rounded up to 1 has its share, too
    return tuple(replace(i, weight=max(1, i.weight * room // total)) for i in endpoints)


def _weight(endpoints: Iterable[Instance]) -> int:
    return sum(i.weight for i in endpoints)


def _parts(place: str) -> list[str]:
    return [*place.split("/"), "", "", ""][:3]


def _covers(pattern: str, place: str) -> bool:
    """``*``, ``region``, ``region/zone/*``, …"""
    wanted = pattern.split("/")
    return all(w in ("*", have) for w, have in zip(wanted, _parts(place), strict=False))


def _distributed(endpoints: Instances, chosen: Distribute) -> list[Group]:
    """Each entry's share is split among its localities by their endpoints; other localities get nothing."""
    by: dict[str, list[Instance]] = {}
    for i in endpoints:
        by.setdefault(i.locality, []).append(i)
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


def _rank(i: Instance, asked: Locality, setting: LocalityLb) -> int:
    if setting.failover_priority:
        return _by_labels(i, asked, setting)
    here, there = _parts(asked.here), _parts(i.locality)
    same = next((n for n in range(3) if here[n] != there[n]), 3)
    if same:
        return 3 - same
    onward = next((f.to for f in setting.failover if f.from_ == here[0]), "")
    return 3 if not onward or there[0] == onward else 4


def _by_labels(instance: Instance, asked: Locality, setting: LocalityLb) -> int:
    """Priority by the number of leading labels that agree with the client's; ``label=value`` overrides the client's."""
    mine = dict(zip(TOPOLOGY, _parts(asked.here), strict=True)) | dict(asked.labels)
    node = {HOSTNAME: instance.workload.node} if instance.workload and instance.workload.node else {}
    theirs = dict(zip(TOPOLOGY, _parts(instance.locality), strict=True)) | node | instance.labels
    theirs |= {NETWORK: instance.network, CLUSTER: instance.cluster or mine.get(CLUSTER, "")}
    for i, text in enumerate(setting.failover_priority):
        name, given, value = text.partition("=")
        if (value if given else mine.get(name)) != theirs.get(name):
            return len(setting.failover_priority) - i
    return 0
