"""What clients may call: hosts, endpoints and domains, namespace by namespace."""

from __future__ import annotations

from dataclasses import replace

from lateen.api import objects as o
from lateen.api.domain import service_host
from lateen.api.networking import Sidecar, SidecarPort
from lateen.kit.derived import Shared, derived
from lateen.kit.queries import Queries, query
from lateen.mesh import hosts
from lateen.mesh.clients import Client
from lateen.mesh.model import Mesh
from lateen.mesh.objects import MeshConfig, protocol
from lateen.mesh.rules import Interest, Seen
from lateen.mesh.scope import Members, Scope, bound, covers, scope
from lateen.mesh.spelling import spellings
from lateen.mesh.view import (
    Bind,
    DomainSpace,
    EndpointSpace,
    EndpointsView,
    HostSpace,
    HostView,
    OutboundView,
    P,
    Port,
    Spaces,
)

RULES_ONLY = (Port(80, "http", "http"),)
"""Where hosts are routed that only rules name, as in Istio."""


class Outbound:
    mesh: Mesh
    queries: Queries
    shared: Shared

    @query
    def outbound_view(self, client: Client) -> OutboundView:
        mesh = self.mesh
        sidecar = self._sidecar(client)
        parts = [self._space(n, client) for n, _ in self._scope(client).spaces] if sidecar else None
        if parts is None:
            parts = [self._space(n, client) for n in mesh.spaces()]
        found, ends = [p[0] for p in parts if p[0].members], [p[1] for p in parts if p[1].members]
        if mesh.objects.virtual_services:
            found += [r for r in (self._rule_space(client),) if r.members]
        domains = [self._domains(part, client) for part in found]
        config = _with_policy(mesh, sidecar, client.namespace)
        binds = self._binds(client, sidecar) if sidecar else ()
        values = {
            "config": config,
            "host_spaces": self._spaces(found),
            "endpoint_spaces": self._spaces(ends),
            "domain_spaces": self._spaces(domains),
            "binds": binds,
            "origins": (str(sidecar.ref),) if sidecar else (),
        }
        key = tuple(values.values())
        return self.shared(("outbound", key), lambda: OutboundView(key, **values))  # type: ignore[arg-type]

    def _spaces(self, parts: list[P]) -> Spaces[P]:
        key = tuple(parts)
        return self.shared(("spaces", key), lambda: Spaces(key, parts=key))

    def _sidecar(self, client: Client) -> o.Resource[Sidecar] | None:
        ref = client.sidecar
        return self.mesh.objects.sidecars.get((ref.namespace, ref.name)) if ref else None

    # --- one namespace's services ------------------------------------------------------------------------------

    def _space(self, namespace: str, client: Client) -> tuple[HostSpace, EndpointSpace]:
        if client.sidecar is None:
            client = client.reduced(self._space_interest(namespace))
        return self._host_space(namespace, client), self._endpoint_space(namespace, client)

    @query
    def _space_interest(self, namespace: str) -> Interest:
        out = Interest()
        for host in self.mesh.hosts_in(namespace):
            out |= self.mesh.interest(host)
        return out

    @query
    def _members(self, namespace: str, client: Client) -> Members:
        """The hosts that clients reach in a namespace."""
        if client.sidecar is not None:
            return dict(self._scope(client).spaces).get(namespace, ())
        mesh = self.mesh
        out = []
        for host in mesh.hosts_in(namespace):
            found = mesh.service(host, client.namespace) if client.namespace else mesh.public_service(host)
            if found is not None and found.namespace == namespace:
                out.append((host, frozenset[int]()))
        return tuple(out)

    @query
    def _host_space(self, namespace: str, client: Client) -> HostSpace:
        made = (
            self._host(h, only, client.reduced(self.mesh.interest(h))) for h, only in self._members(namespace, client)
        )
        members = tuple(m for m in made if m is not None)
        return self.shared(("hosts", members), lambda: HostSpace(members, members=members))

    @query
    def _endpoint_space(self, namespace: str, client: Client) -> EndpointSpace:
        members = tuple(
            e for h, only in self._members(namespace, client) for e in self._made(h, only, self._of(client, h))[1]
        )
        return self.shared(("endpoint space", members), lambda: EndpointSpace(members, members=members))

    def _of(self, client: Client, host: str) -> Client:
        """The client as far as it makes a difference for a host."""
        return client.reduced(self.mesh.interest(host))

    @query
    def _host(self, host: str, only: frozenset[int], client: Client) -> HostView | None:
        """Stays the same while only endpoints change that the host itself does not show."""
        return self._made(host, only, client)[0]

    @query
    def _made(
        self, host: str, only: frozenset[int], client: Client
    ) -> tuple[HostView | None, tuple[EndpointsView, ...]]:
        mesh = self.mesh
        service = mesh.service(host, client.namespace) if client.namespace else mesh.public_service(host)
        if service is None or service.external_name:
            return None, ()
        return hosts.of_service(mesh, self.shared, client, service, only, self._seen(client))

    # --- what a Sidecar lets see -------------------------------------------------------------------------------

    def _scope(self, client: Client) -> Scope:
        return self._scope_of(client.sidecar, client.namespace)

    @query
    def _scope_of(self, ref: o.Ref | None, namespace: str) -> Scope:
        sidecar = self.mesh.objects.sidecars.get((ref.namespace, ref.name)) if ref else None
        return scope(self.mesh, sidecar.spec, namespace) if sidecar else Scope((), frozenset())

    def _seen(self, client: Client) -> Seen:
        return self._scope(client).rules if client.sidecar else None

    def _binds(self, client: Client, sidecar: o.Resource[Sidecar]) -> tuple[Bind, ...]:
        out = []
        for listener, services in bound(self.mesh, sidecar.spec, client.namespace):
            assert listener.port is not None
            made = (self._host(s.host, frozenset(), self._of(client, s.host)) for s in services)
            found = tuple(h for h in made if h is not None)
            free = listener.capture_mode == "NONE"
            address = listener.bind or "127.0.0.1"
            out.append(Bind(listener.port.number, address, not free, protocol(as_port(listener.port)), found))
        return tuple(out)

    # --- hosts that only rules name ------------------------------------------------------------------------------

    @query
    def _rule_space(self, client: Client) -> HostSpace:
        """Hosts that rules name and no visible service has. A wildcard that covers services stands for these alone. An
        alias with rules of its own is on its service's ports."""
        mesh = self.mesh
        known = self._known(client)
        members = []
        for host in mesh.ruled_hosts():
            if host in known or (host.startswith("*") and any(covers(host, name) for name in known)):
                continue
            found = mesh.visible_rules(host, client.namespace, self._seen(client))
            if found:
                target = mesh.stands_for(host)
                alias = mesh.service(host) if target != host else None
                of_target = self._host(target, known.get(target, frozenset()), self._of(client, target))
                ports = of_target.ports if alias and of_target else RULES_ONLY
                members.append(hosts.of_rules(mesh, self.shared, client, host, found, ports, alias))
        key = tuple(members)
        return self.shared(("hosts", key), lambda: HostSpace(key, members=key))

    @query
    def _known(self, client: Client) -> dict[str, frozenset[int]]:
        """Hosts of services that a client sees, with the only ports that it sees."""
        spaces = [n for n, _ in self._scope(client).spaces] if client.sidecar else self.mesh.spaces()
        out: dict[str, frozenset[int]] = {}
        for n in spaces:
            of = client if client.sidecar else client.reduced(self._space_interest(n))
            out |= {h: only for h, only in self._members(n, of) if not self.mesh.is_alias(h)}
        return out

    # --- names ---------------------------------------------------------------------------------------------------

    def _domains(self, part: HostSpace, client: Client) -> DomainSpace:
        viewer = client.namespace if client.namespace in spaces_of(part) else ""
        silenced = self._silenced(part, client)
        key = (part, viewer, silenced)
        return self.shared(("domains", key), lambda: DomainSpace(key, hosts=part, viewer=viewer, silenced=silenced))

    def _silenced(self, part: HostSpace, client: Client) -> frozenset[tuple[str, str]]:
        """(host, spelling) of spellings that a host must not claim, since Envoy allows each of them once. A full name
        stays with its host, an address with the first host; a bare short name means a service of the client's own
        namespace, as in its DNS."""
        out = []
        for h in part.members:
            for spelling, others in self._rivals(h):
                rivals = [r for r in others if self._sees(r, client)]
                if rivals and (spelling in rivals or (spelling != h.host and min(rivals) < h.host)):
                    out.append((h.host, spelling))
        return frozenset(out)

    def _sees(self, host: str, client: Client) -> bool:
        if host in self._known(client):
            return True
        return bool(self.mesh.visible_rules(host, client.namespace, self._seen(client)))

    @query
    def _rivals(self, view: HostView) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(spelling, other hosts of the mesh that claim it) for each spelling that is not this host's alone."""
        mesh = self.mesh
        found = [*all_spellings(view), *view.addresses]
        out = []
        for spelling in dict.fromkeys(found):
            others = {s.host for r in mesh.registries for s in r.services_at.get(spelling)}
            others |= mesh.entry_hosts_at(spelling)
            if mesh.knows(spelling) or mesh.rules_named(spelling):
                others.add(spelling)
            others.discard(view.host)
            if others:
                out.append((spelling, tuple(sorted(others))))
        return tuple(out)


def all_spellings(view: HostView) -> list[str]:
    """Names by which clients call a host, whoever they are."""
    out = list(spellings(view.host, view.namespace, view.name))
    for namespace, name in view.aliases:
        out += spellings(service_host(name, namespace), namespace, name)
    return out


@derived
def spaces_of(part: HostSpace) -> frozenset[str]:
    """Namespaces in which the hosts have bare short names."""
    return frozenset({h.namespace for h in part.members} | {n for h in part.members for n, _ in h.aliases})


def as_port(p: SidecarPort) -> o.ServicePort:
    return o.ServicePort(p.name, p.number, p.target_port or p.number, "TCP", p.protocol.lower() or "auto")


def _with_policy(mesh: Mesh, sidecar: o.Resource[Sidecar] | None, namespace: str) -> MeshConfig:
    found = sidecar.spec.outbound_traffic_policy if sidecar else None
    if found is None:
        return mesh.config
    proxy = ""
    if found.egress_proxy:
        host = mesh.resolve(found.egress_proxy.host, namespace)
        port = found.egress_proxy.port.number if found.egress_proxy.port else 0
        proxy = f"outbound|{port}|{found.egress_proxy.subset}|{host}"
    return replace(mesh.config, outbound_policy=found.mode, egress_proxy=proxy)
