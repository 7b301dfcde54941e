"""The scope of a Sidecar: the services and rules visible to a workload, and its own listeners.

Source: https://istio.io/latest/docs/reference/config/networking/sidecar/ (IstioEgressListener).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.networking import IstioEgressListener, Sidecar
from lateen.mesh.clients import Client
from lateen.mesh.model import Mesh
from lateen.mesh.patterns import covers, overlap
from lateen.mesh.protocols import REQUESTS, of_listener, protocol

Pattern = tuple[str, str]
"""(namespace or ``*``, host pattern)"""


@dataclass(frozen=True)
class Imports:
    """What an egress listener's hosts admit: whatever some pattern includes and none excludes."""

    patterns: tuple[Pattern, ...]
    excluded: tuple[Pattern, ...] = ()

    def spaces(self, known: Iterable[str]) -> list[str]:
        wanted = {space for space, _ in self.patterns}
        return [n for n in known if "*" in wanted or n in wanted]

    def admits(self, namespace: str, host: str) -> bool:
        return _named(self.patterns, namespace, host) and not _named(self.excluded, namespace, host)

    def shows(self, namespace: str, host: str) -> bool:
        """Whether a rule's host is admitted: a wildcard also by patterns that it covers."""
        named = any(n in ("*", namespace) and overlap(p, host) for n, p in self.patterns)
        return named and not _named(self.excluded, namespace, host)


def _named(patterns: Iterable[Pattern], namespace: str, host: str) -> bool:
    return any(space in ("*", namespace) and covers(p, host) for space, p in patterns)


class Shown(NamedTuple):
    """What a client sees of a service's ports."""

    ports: frozenset[int] | None = None
    """Those that have clusters; None for all."""
    called: frozenset[int] | None = None
    """Those at which it calls the service by its own name or address; None for all. The others are reached by routes,
    or through a listener with an address of its own."""
    spoken: tuple[tuple[int, str], ...] = ()
    """(port, protocol) where the client's own listener says how it calls the service."""

    def protocol(self, port: o.ServicePort) -> str:
        """The one that the client speaks there."""
        return next((kind for number, kind in self.spoken if number == port.port), protocol(port))


ALL = Shown()
Members = tuple[tuple[str, Shown], ...]
"""(host, its visible ports), by host"""


@dataclass(frozen=True)
class Scope:
    """What is visible to clients in a namespace through a Sidecar's egress listeners."""

    groups: Mapping[tuple[str, int], Members]
    """By namespace and group (``chunks_in``): visible services, and destinations of visible rules and of a visible
    service's routes, which only have clusters."""
    rules: frozenset[o.Ref]
    """The visible VirtualServices for the mesh."""


def _listeners(sidecar: Sidecar, namespace: str) -> list[tuple[IstioEgressListener, Imports]]:
    everything = (IstioEgressListener(hosts=("*/*",)),)
    return [(e, _imports(e.hosts, namespace)) for e in sidecar.egress or everything]


def _imports(hosts: Iterable[str], namespace: str) -> Imports:
    """``~shop/*`` excludes what ``shop/*`` includes, and ``~/*`` excludes everything."""
    named = [_pattern(h, namespace) for h in hosts if not h.startswith("~")]
    excluded = [_pattern(h[1:], namespace) for h in hosts if h.startswith("~")]
    return Imports(tuple(named), tuple((space or "*", host) for space, host in excluded))


def _pattern(text: str, namespace: str) -> Pattern:
    space, slash, host = text.partition("/")
    if not slash:
        space, host = "*", text
    return (namespace if space == "." else space, host)


def scope(mesh: Mesh, sidecar: Sidecar, namespace: str) -> Scope:
    found: dict[tuple[str, str], tuple[set[int], set[int]]] = {}
    """(namespace, host) -> (ports with clusters, ports that are called); 0 for all"""
    spoken: dict[tuple[str, str], dict[int, str]] = {}
    """(namespace, host) -> protocols, by port"""
    listeners = _listeners(sidecar, namespace)
    rules: set[o.Ref] = set()
    led: dict[str, None] = {}
    for ref, targets in _rules(mesh, [imports for _, imports in listeners]):
        rules.add(ref)
        led |= dict.fromkeys(targets)
    for listener, imports in listeners:
        for s in _matching(mesh, imports, namespace):
            there, called = _shown(s, listener, listeners)
            if there:
                mine = found.setdefault((s.namespace, s.host), (set(), set()))
                mine[0].update(there)
                mine[1].update(called)
                spoken.setdefault((s.namespace, s.host), {}).update(_spoken(s, listener))
    for host in sorted({host for _, host in found}):
        led |= dict.fromkeys(sorted(mesh.route_targets(host, namespace)))
    for host in led:
        seen = mesh.service(host, namespace)
        if seen is not None:
            found.setdefault((seen.namespace, host), (set(), set()))[0].add(0)
    groups: dict[tuple[str, int], list[tuple[str, Shown]]] = {}
    for (space, host), numbers in sorted(found.items()):
        visible, addressed = (None if 0 in ports else frozenset(ports) for ports in numbers)
        shown = Shown(visible, addressed, tuple(sorted(spoken.get((space, host), {}).items())))
        groups.setdefault((space, mesh.group_of(space, host)), []).append((host, shown))
    return Scope({k: tuple(v) for k, v in groups.items()}, frozenset(rules))


def _shown(
    service: o.Service, listener: IstioEgressListener, listeners: Sequence[tuple[IstioEgressListener, Imports]]
) -> tuple[set[int], set[int]]:
    """The ports of a service that a listener gives clusters, and those at which it lets clients call it: a listener
    for one port exposes that port only, whatever port it leads to."""
    numbers = [p.port for p in service.ports]
    if listener.port is None:
        left = _left(service, listeners)
        return left, left
    number = 0 if is_proxy(listener) else listener.port.number
    if not number:
        return {0}, set() if has_address(listener) else {0}
    there = {reached(numbers, number) or number}
    return there, there & {number}


def _spoken(service: o.Service, listener: IstioEgressListener) -> dict[int, str]:
    """The protocol of a captured listener, where the service's port has another one. For connections it precedes the
    service's, as in Istio; requests need a port that may have some: servers of others take no upgraded protocol."""
    port = listener.port
    if port is None or not port.protocol or is_proxy(listener) or has_address(listener):
        return {}
    kind = of_listener(port)
    own = next((protocol(p) for p in service.ports if p.port == port.number), kind)
    return (
        {}
        if kind in (own, "udp") or own == "udp" or (kind in REQUESTS and own not in REQUESTS)
        else {port.number: kind}
    )


def has_address(listener: IstioEgressListener) -> bool:
    """Whether applications connect to the listener itself, whatever is redirected."""
    return bool(listener.bind) or listener.capture_mode == "NONE"


def _left(service: o.Service, listeners: Sequence[tuple[IstioEgressListener, Imports]]) -> set[int]:
    """The ports of a service that a listener for every port leaves visible ({0} for all): what is exposed at a port
    that another listener names is what that one admits, as in Istio."""
    taken = {li.port.number for li, _ in listeners if li.port and not has_address(li)}
    left = {p.port for p in service.ports} - taken
    return {0} if len(left) == len(service.ports) else left


def is_proxy(listener: IstioEgressListener) -> bool:
    """Whether clients use it as an HTTP proxy, so that requests name their service's port."""
    return listener.port is not None and listener.port.protocol.upper() == "HTTP_PROXY"


def reached(numbers: Sequence[int], port: int) -> int | None:
    """The service port that an egress listener with an address of its own leads to: that of the same number, or the
    service's only one."""
    return port if port in numbers else numbers[0] if len(numbers) == 1 else None


class Bound(NamedTuple):
    """An egress listener with an address of its own."""

    listener: IstioEgressListener
    imports: Imports
    services: list[o.Service]
    """What it admits, the oldest first."""


def bound(mesh: Mesh, sidecar: Sidecar | None, client: Client) -> Iterator[Bound]:
    """Of a client's Sidecar, or without one of a client whose connections are not redirected."""
    for listener, imports in _listeners(sidecar or Sidecar(), client.namespace):
        if has_address(listener) or not client.captured:
            found = _matching(mesh, imports, client.namespace)
            yield Bound(listener, imports, sorted(found, key=lambda s: (s.created, s.host)))


def _matching(mesh: Mesh, imports: Imports, namespace: str) -> Iterator[o.Service]:
    hosts = {h for space in imports.spaces(mesh.spaces()) for h in mesh.hosts_in(space)}
    for host in sorted(hosts):
        seen = [
            s for s in mesh.candidates(host) if mesh.visible_to(s, namespace) and imports.admits(s.namespace, s.host)
        ]
        own = next((s for s in seen if s.namespace == namespace), None)
        if seen:
            yield own or seen[0]


def _rules(mesh: Mesh, listeners: Sequence[Imports]) -> Iterator[tuple[o.Ref, tuple[str, ...]]]:
    """The VirtualServices that some listener admits, with the hosts of their destinations."""
    known = list(mesh.rule_spaces())
    for space in dict.fromkeys(s for imports in listeners for s in imports.spaces(known)):
        for ref, hosts, targets in mesh.rules_in(space):
            if any(imports.shows(space, h) for imports in listeners for h in hosts):
                yield ref, targets
