"""Which hosts exist and who can see them; how host names with wildcards overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lateen.analysis.snapshot import Snapshot, Source
from lateen.api import kinds
from lateen.api.reading import full_host
from lateen.kit.jsons import Json

EXPORT_TO = "networking.istio.io/exportTo"


class Host(NamedTuple):
    """A host that requests can be sent to, with the numbers of its ports and the namespaces that see it."""

    source: Source
    ports: tuple[int, ...]
    visible: frozenset[str]


def matches(a: str, b: str) -> bool:
    """Whether two names, each possibly starting with a wildcard, can mean the same host."""
    if a == b or a == "*" or b == "*":
        return True
    if a.startswith("*") and b.startswith("*"):
        return a.endswith(b[1:]) or b.endswith(a[1:])
    if a.startswith("*"):
        return b.endswith(a[1:])
    return b.startswith("*") and a.endswith(b[1:])


class Hosts:
    def __init__(self, snapshot: Snapshot) -> None:
        self._domain = snapshot.domain
        self._exact: dict[str, list[Host]] = {}
        self._wild: dict[str, list[Host]] = {}
        for s in snapshot.everywhere(kinds.SERVICE):
            given = [e.strip() for e in s.annotations.get(EXPORT_TO, "").split(",") if e.strip()]
            ports = tuple(p["port"] for p in s.spec.get("ports") or [] if "port" in p and p.get("protocol") != "UDP")
            host = Host(s, ports, frozenset(snapshot.visible(s, given)))
            self._exact.setdefault(full_host(s.name, s.namespace, self._domain), []).append(host)
        for s in snapshot.all(kinds.SERVICE_ENTRY):
            ports = tuple(p["number"] for p in s.spec.get("ports") or [] if "number" in p)
            host = Host(s, ports, frozenset(snapshot.visible(s, s.spec.get("exportTo") or [])))
            for name in s.spec.get("hosts") or []:
                if name.startswith("*"):
                    self._wild.setdefault(name, []).append(host)
                else:
                    self._exact.setdefault(full_host(name, s.namespace, self._domain), []).append(host)

    @staticmethod
    def of(snapshot: Snapshot) -> Hosts:
        """The hosts of a snapshot, computed once."""
        return snapshot.index("hosts", lambda: Hosts(snapshot))

    def find(self, name: str, namespace: str, readers: Iterable[str]) -> Host | None:
        """The host, if one of the reading namespaces can see it, or None. Several ServiceEntries of one name make one
        host, with the ports of all."""
        wanted = set(readers)
        for alike in self._named(full_host(name, namespace, self._domain)):
            seen = [host for host in alike if "*" in host.visible or wanted & host.visible]
            if seen:
                return seen[0]._replace(ports=tuple(dict.fromkeys(p for host in seen for p in host.ports)))
        return None

    def entry(self, name: str, namespace: str) -> Source | None:
        """The Service or ServiceEntry of a host, whatever its visibility."""
        found = next(self._named(full_host(name, namespace, self._domain)), None)
        return found[0].source if found else None

    def _named(self, full: str) -> Iterator[list[Host]]:
        """The hosts that a name means, those of one name together."""
        if full in self._exact:
            yield self._exact[full]
        if full.startswith("*"):
            for known in (self._exact, self._wild):
                for name, hosts in known.items():
                    if matches(full, name):
                        yield hosts
        elif self._wild:
            for at in range(len(full) + 1):
                if alike := self._wild.get(f"*{full[at:]}"):
                    yield alike


def destinations(spec: Json) -> Iterator[tuple[tuple[str | int, ...], Json, bool]]:
    """(path, destination, whether it is a mirror) of everything that a VirtualService sends requests to."""
    for kind in ("http", "tls", "tcp"):
        for i, rule in enumerate(spec.get(kind) or []):
            if not isinstance(rule, dict):
                continue
            for j, route in enumerate(rule.get("route") or []):
                if isinstance(route, dict):
                    yield ("spec", kind, i, "route", j, "destination"), route.get("destination") or {}, False
            if isinstance(rule.get("mirror"), dict):
                yield ("spec", kind, i, "mirror"), rule["mirror"], True
            for j, mirror in enumerate(rule.get("mirrors") or []):
                if isinstance(mirror, dict) and isinstance(mirror.get("destination"), dict):
                    yield ("spec", kind, i, "mirrors", j, "destination"), mirror["destination"], True
