"""What a Sidecar lets a workload see: which services and rules, and the listeners of its own.

Facts: https://istio.io/latest/docs/reference/config/networking/sidecar/ (IstioEgressListener).
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api import objects as o
from lateen.api.networking import Destination, IstioEgressListener, Sidecar, VirtualService
from lateen.mesh.model import Mesh
from lateen.mesh.view import Destinations


def covers(pattern: str, host: str) -> bool:
    """Whether ``*``, ``*.example.com`` or a name stands for a host (which may itself have a wildcard)."""
    if pattern in ("*", host):
        return True
    return pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:])


def overlap(a: str, b: str) -> bool:
    return covers(a, b) or covers(b, a)


class Scope:
    """One Sidecar's egress as seen by a workload of ``namespace``."""

    def __init__(self, mesh: Mesh, sidecar: o.Resource[Sidecar], namespace: str) -> None:
        self._mesh, self._namespace = mesh, namespace
        self.listeners: list[tuple[IstioEgressListener, list[tuple[str, str]]]] = [
            (e, [self._pattern(h) for h in e.hosts]) for e in sidecar.spec.egress
        ] or [(IstioEgressListener(hosts=("*/*",)), [("*", "*")])]

    def _pattern(self, text: str) -> tuple[str, str]:
        namespace, slash, host = text.partition("/")
        if not slash:
            namespace, host = "*", text
        return (self._namespace if namespace == "." else namespace, host)

    def rule(self, vs: o.Resource[VirtualService]) -> bool:
        return any(self._rule(vs, patterns) for _, patterns in self.listeners)

    def _rule(self, vs: o.Resource[VirtualService], patterns: list[tuple[str, str]]) -> bool:
        hosts = [self._mesh.resolve(h, vs.ref.namespace) for h in vs.spec.hosts]
        return any(
            namespace in ("*", vs.ref.namespace) and any(overlap(pattern, h) for h in hosts)
            for namespace, pattern in patterns
        )

    def services(self) -> list[tuple[o.Service, frozenset[int]]]:
        """(service, the only ports that are seen; none for all), by host; also those that a visible rule leads to."""
        found: dict[str, tuple[o.Service, set[int]]] = {}
        for listener, patterns in self.listeners:
            only = listener.port.number if listener.port else 0
            for s in self._matching(patterns):
                known = found.setdefault(s.host, (s, set()))
                known[1].add(only)
        for vs in self._mesh.virtual_services():
            if (not vs.spec.gateways or "mesh" in vs.spec.gateways) and self.rule(vs):
                for host in _destinations(vs, self._mesh):
                    seen = self._mesh.service(host, self._namespace)
                    if host not in found and seen is not None:
                        found[host] = (seen, {0})
        return [(s, frozenset() if 0 in ports else frozenset(ports)) for _, (s, ports) in sorted(found.items())]

    def bound(self) -> list[tuple[IstioEgressListener, list[o.Service]]]:
        """Listeners that have an address of their own, with the services behind them."""
        return [
            (listener, sorted(self._matching(patterns), key=lambda s: s.host))
            for listener, patterns in self.listeners
            if listener.port and (listener.bind or listener.capture_mode == "NONE")
        ]

    def _matching(self, patterns: list[tuple[str, str]]) -> Iterator[o.Service]:
        for candidates in self._mesh.by_host().values():
            seen = [
                s
                for s in candidates
                if self._mesh.visible_to(s.export_to, s.namespace, self._namespace)
                and any(namespace in ("*", s.namespace) and covers(p, s.host) for namespace, p in patterns)
            ]
            own = next((s for s in seen if s.namespace == self._namespace), None)
            if seen:
                yield own or seen[0]


def _destinations(vs: o.Resource[VirtualService], mesh: Mesh) -> Iterator[str]:
    for d in destinations_of(vs.spec):
        yield mesh.resolve(d.host, vs.ref.namespace)


def destinations_of(spec: VirtualService) -> Iterator[Destination]:
    """All destinations of a rule, mirrors too."""
    for http in spec.http:
        yield from (r.destination for r in http.route)
        yield from (m.destination for m in http.mirrors)
        if http.mirror:
            yield http.mirror
    for tls in spec.tls:
        yield from (r.destination for r in tls.route)
    for tcp in spec.tcp:
        yield from (r.destination for r in tcp.route)


def destinations(mesh: Mesh, rules: tuple[o.Resource[VirtualService], ...]) -> Destinations:
    out = {}
    for vs in rules:
        for d in destinations_of(vs.spec):
            host = mesh.resolve(d.host, vs.ref.namespace)
            service = mesh.service(host)
            ports = tuple(p.port for p in service.ports) if service else ()
            out[f"{vs.ref.namespace}/{d.host}"] = (host, ports)
    return tuple((written, host, ports) for written, (host, ports) in sorted(out.items()))
