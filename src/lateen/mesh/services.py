"""Hosts: which exist, who sees them, and what their names refer to."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from lateen.api import objects as o
from lateen.api.domain import service_host, service_suffix
from lateen.kit.queries import query
from lateen.mesh import registry
from lateen.mesh.base import Base, Registry
from lateen.mesh.objects import Key


class Services(Base):
    @query
    def candidates(self, host: str) -> tuple[o.Service, ...]:
        """A host's services, at most one per namespace: Kubernetes' first, then by the age of their entries. The same
        service in several clusters counts once."""
        out: dict[str, o.Service] = {}
        for r in self.registries:
            for s in r.services_of_host.get(host):
                if s.namespace not in out:
                    out[s.namespace] = self._preferring(s if r is self.own else replace(s, elsewhere=True), r)
        for entry in sorted(self._entries_of_host.get(host), key=lambda e: e.age_order):
            for s in registry.services(entry, self.cluster.domain):
                if s.host == host:
                    there = out.get(s.namespace)
                    out[s.namespace] = self._preferring(s, self.own) if there is None else registry.joined(there, s)
        return tuple(out.values())

    def _preferring(self, service: o.Service, cluster: Registry) -> o.Service:
        """With what its namespace says of its clients' preferences, if it does not say it itself."""
        near = "" if service.near else self._near_in().get((cluster.cluster, service.namespace))
        return replace(service, near=near) if near else service

    @query
    def _near_in(self) -> Mapping[tuple[str, str], str]:
        """``Service.near`` by cluster and namespace."""
        chosen = [(r, near) for r in self.registries for near in r.spaces_preferring.buckets()]
        return {(r.cluster, n.name): n.near for r, near in chosen for n in r.spaces_preferring.get(near)}

    def knows(self, host: str) -> bool:
        return bool(self._entries_of_host.get(host)) or any(r.services_of_host.get(host) for r in self.registries)

    @query
    def spaces(self) -> tuple[str, ...]:
        """The namespaces that have services."""
        found = set(self._entries_in.buckets())
        for r in self.registries:
            found |= r.services_in.buckets()
        return tuple(sorted(found))

    @query
    def hosts_in(self, namespace: str) -> tuple[str, ...]:
        """The hosts with services in a namespace."""
        found = {s.host for r in self.registries for s in r.services_in.get(namespace)}
        found |= {h for e in self._entries_in.get(namespace) for h in e.spec.hosts}
        return tuple(sorted(found))

    def hosts(self) -> Iterable[o.Service]:
        """Every service of the mesh."""
        for namespace in self.spaces():
            for host in self.hosts_in(namespace):
                yield from (s for s in self.candidates(host) if s.namespace == namespace)

    @query
    def chunks_in(self, namespace: str) -> tuple[tuple[str, ...], ...]:
        """The hosts of a namespace in groups of a few dozen, assigned by name: values derived from a group are
        recomputed when one of its hosts changes."""
        found = self.hosts_in(namespace)
        out: list[list[str]] = [[] for _ in range(_groups(len(found)))]
        for host in found:
            out[_group(host, len(out))].append(host)
        return tuple(map(tuple, out))

    def group_of(self, namespace: str, host: str) -> int:
        return _group(host, len(self.chunks_in(namespace)))

    @query
    def service(self, host: str, viewer: str = "") -> o.Service | None:
        """The service that clients in a namespace reach: their own namespace's, otherwise the first that is visible to
        them. Without a viewer, the first of all."""
        found = self.candidates(host)
        return self._seen(found, viewer) if viewer else found[0] if found else None

    @query
    def public_service(self, host: str) -> o.Service | None:
        """The service that clients reach from a namespace that no object mentions."""
        return self._seen(self.candidates(host), "")

    def _seen(self, found: tuple[o.Service, ...], viewer: str) -> o.Service | None:
        mine = [s for s in found if self.visible_to(s, viewer)]
        return next((s for s in mine if s.namespace == viewer), mine[0] if mine else None)

    def visible(self, viewer: str) -> list[o.Service]:
        """All services that clients in a namespace may call, sorted by host."""
        hosts = sorted({h for n in self.spaces() for h in self.hosts_in(n)})
        found = (self.service(h, viewer) if viewer else self.public_service(h) for h in hosts)
        return [s for s in found if s is not None]

    # --- names -----------------------------------------------------------------------------------------------

    def resolve(self, name: str, namespace: str) -> str:
        """A host as written in a rule of ``namespace`` -> the full name (in Istio, short names belong to the rule's own
        namespace)."""
        name = name.lower()
        if name == "*" or name.startswith("*."):
            return name
        domain = self.cluster.domain
        if "." not in name:
            return name if self.knows(name) else service_host(name, namespace, domain)
        for suffix in ("", service_suffix(domain), f".{domain}"):
            if self.knows(f"{name}{suffix}"):
                return f"{name}{suffix}"
        return name

    @query
    def stands_for(self, host: str) -> str:
        """The target of an ExternalName service, if that is a host of the mesh; otherwise the host itself."""
        target, seen = host, {host}
        while (found := self.service(target)) is not None and found.external_name:
            target = found.external_name
            if target in seen or not self.knows(target):
                return host
            seen.add(target)
        return target

    def leads_outside(self, service: o.Service) -> bool:
        """Whether it is an ExternalName service whose target is not a host of the mesh."""
        return bool(service.external_name) and self.stands_for(service.host) == service.host

    def is_alias(self, host: str) -> bool:
        found = self.service(host)
        return found is not None and bool(found.external_name)

    @query
    def aliases(self, host: str) -> tuple[o.Service, ...]:
        """The ExternalName services that are aliases of a host, directly or indirectly."""
        out: dict[Key, o.Service] = {}
        todo = [host]
        while todo:
            target = todo.pop()
            for r in self.registries:
                for s in r.standing_for.get(target):
                    key = (s.namespace, s.name)
                    if key not in out and self.service(target) is not None and self._counts(s):
                        out[key] = s
                        todo.append(s.host)
        if self.is_alias(host):
            return ()
        return tuple(out[k] for k in sorted(out))

    def _counts(self, alias: o.Service) -> bool:
        """Whether the name of an ExternalName service is unambiguous: in another cluster it may be a service there, or
        have another target."""
        found = (s for s in self.candidates(alias.host) if s.namespace == alias.namespace)
        return any(s.external_name == alias.external_name for s in found)

    # --- addresses -------------------------------------------------------------------------------------------

    def addresses(self, service: o.Service, families: str) -> tuple[str, ...]:
        """A service's addresses; for a host without any, the automatic ones of ``families`` (``Proxy``), if any."""
        own = service.all_addresses
        if own or not families or not service.resolution:
            return own
        found = self.automatic_address(service.namespace, service.host)
        return registry.in_families(found, families) if found else ()

    @query
    def automatic(self) -> dict[Key, str]:
        """(namespace, host) -> its automatic address (``registry.in_families``)"""
        return registry.automatic(self.objects.service_entries.values())

    @query
    def automatic_address(self, namespace: str, host: str) -> str:
        return self.automatic().get((namespace, host), "")


GROUP = 48


def _groups(hosts: int) -> int:
    """The number of groups; a power of two, so that a growing namespace is rarely regrouped."""
    out = 1
    while hosts > GROUP * out:
        out *= 2
    return out


def _group(host: str, groups: int) -> int:
    return zlib.crc32(host.encode()) % groups if groups > 1 else 0
