"""What a Sidecar lets a workload see: which services and rules; and its own listeners.

Source: https://istio.io/latest/docs/reference/config/networking/sidecar/ (IstioEgressListener).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lateen.api import objects as o
from lateen.api.networking import IstioEgressListener, Sidecar
from lateen.mesh.model import Mesh
from lateen.mesh.patterns import covers, overlap

Pattern = tuple[str, str]
"""(namespace or ``*``, host pattern)"""
Members = tuple[tuple[str, frozenset[int]], ...]
"""(host, the only visible ports; none for all), by host"""


@dataclass(frozen=True)
class Scope:
    """What a Sidecar's egress lets clients of a namespace see."""

    groups: Mapping[tuple[str, int], Members]
    """By namespace and group (``chunks_in``): visible services, including those that a visible rule leads to."""
    rules: frozenset[o.Ref]
    """The visible VirtualServices for the mesh."""


def _patterns(sidecar: Sidecar, namespace: str) -> list[tuple[IstioEgressListener, list[Pattern]]]:
    everything = (IstioEgressListener(hosts=("*/*",)),)
    return [(e, [_pattern(h, namespace) for h in e.hosts]) for e in sidecar.egress or everything]


def _pattern(text: str, namespace: str) -> Pattern:
    space, slash, host = text.partition("/")
    if not slash:
        space, host = "*", text
    return (namespace if space == "." else space, host)


def scope(mesh: Mesh, sidecar: Sidecar, namespace: str) -> Scope:
    found: dict[str, dict[str, set[int]]] = {}
    known: set[str] = set()
    listeners = _patterns(sidecar, namespace)
    for listener, patterns in listeners:
        only = listener.port.number if listener.port else 0
        for s in _matching(mesh, patterns, namespace):
            shown = only and (reached([p.port for p in s.ports], only) or only)
            found.setdefault(s.namespace, {}).setdefault(s.host, set()).add(shown)
            known.add(s.host)
    rules: set[o.Ref] = set()
    for ref, targets in _rules(mesh, [p for _, patterns in listeners for p in patterns]):
        rules.add(ref)
        for host in targets:
            seen = mesh.service(host, namespace)
            if seen is not None and host not in known:
                found.setdefault(seen.namespace, {})[host] = {0}
    groups: dict[tuple[str, int], list[tuple[str, frozenset[int]]]] = {}
    for space, hosts in found.items():
        for host, ports in sorted(hosts.items()):
            visible = frozenset[int]() if 0 in ports else frozenset(ports)
            groups.setdefault((space, mesh.group_of(space, host)), []).append((host, visible))
    return Scope({k: tuple(v) for k, v in groups.items()}, frozenset(rules))


def reached(numbers: Sequence[int], port: int) -> int | None:
    """Which of a service's ports an egress listener at ``port`` leads to: that one, or the only one, as in Istio."""
    return port if port in numbers else numbers[0] if len(numbers) == 1 else None


def bound(
    mesh: Mesh, sidecar: Sidecar, namespace: str, captured: bool
) -> list[tuple[IstioEgressListener, list[o.Service]]]:
    """Listeners with an address of their own, and the services behind them. ``captured``: see ``Client``."""
    return [
        (listener, sorted(_matching(mesh, patterns, namespace), key=lambda s: s.host))
        for listener, patterns in _patterns(sidecar, namespace)
        if listener.port and (listener.bind or listener.capture_mode == "NONE" or not captured)
    ]


def _spaces(known: Iterable[str], patterns: list[Pattern]) -> list[str]:
    wanted = {space for space, _ in patterns}
    return [n for n in known if "*" in wanted or n in wanted]


def _matching(mesh: Mesh, patterns: list[Pattern], namespace: str) -> Iterator[o.Service]:
    hosts = {h for space in _spaces(mesh.spaces(), patterns) for h in mesh.hosts_in(space)}
    for host in sorted(hosts):
        seen = [
            s
            for s in mesh.candidates(host)
            if mesh.visible_to(s.export_to, s.namespace, namespace)
            and any(space in ("*", s.namespace) and covers(p, s.host) for space, p in patterns)
        ]
        own = next((s for s in seen if s.namespace == namespace), None)
        if seen:
            yield own or seen[0]


def _rules(mesh: Mesh, patterns: list[Pattern]) -> Iterator[tuple[o.Ref, tuple[str, ...]]]:
    """The VirtualServices that some pattern admits, with the hosts that they lead to."""
    for space in _spaces(mesh.rule_spaces(), patterns):
        mine = [p for n, p in patterns if n in ("*", space)]
        for ref, hosts, targets in mesh.rules_in(space):
            if any(overlap(p, h) for p in mine for h in hosts):
                yield ref, targets
