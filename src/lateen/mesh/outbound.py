"""The outbound view of clients: hosts, endpoints and domains, namespace by namespace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lateen.api import objects as o
from lateen.api.networking import Sidecar
from lateen.kit.derived import Shared, derived
from lateen.kit.queries import Queries, query
from lateen.mesh import hosts
from lateen.mesh.binds import binds, binds_some, loopback
from lateen.mesh.cached import Cached
from lateen.mesh.clients import Client
from lateen.mesh.inbound_view import UNRESTRICTED
from lateen.mesh.model import Mesh
from lateen.mesh.outbound_view import (
    Bind,
    DomainSpace,
    EndpointSpace,
    EndpointsView,
    HostSpace,
    HostView,
    OutboundView,
    P,
    Spaces,
)
from lateen.mesh.patterns import covers
from lateen.mesh.ruled import policy, ports_beside
from lateen.mesh.rules import Interest, Seen
from lateen.mesh.scope import ALL, Scope, Shown, bound, scope
from lateen.mesh.settings import OutboundPolicy

HTTP_PROXY = "http_proxy"
"""Istio's name of the route configuration of ``proxyHttpPort``."""
BLOCK = 16
"""The number of groups that are combined for all clients: a change recomputes one block for everybody, and a client
only combines its blocks again."""


@dataclass(frozen=True, eq=False)
class Block(Cached):
    """Some groups as a client sees them; the same object for all clients with the same view of them."""

    groups: tuple[tuple[str, int, Client], ...] = field(kw_only=True)
    """(namespace, group of its hosts, the relevant properties of the client)"""


class Outbound:
    mesh: Mesh
    queries: Queries
    shared: Shared

    @query
    def outbound_view(self, client: Client) -> OutboundView:
        sidecar = self._sidecar(client)
        values: dict[str, Any] = {
            "policy": _for(client, policy(self.mesh, sidecar, client.namespace)),
            "connect_timeout_s": self.mesh.transport.connect_timeout_s,
            "detection_s": self.mesh.transport.detection_s,
            "paths": self.mesh.path_normalization or UNRESTRICTED.paths,
            "host_spaces": self._host_spaces(client),
            "endpoint_spaces": self._endpoint_spaces(client),
            "domain_spaces": self._domain_spaces(client),
            "binds": self._binds(client, sidecar),
            "captured": client.captured,
            "origins": (str(sidecar.ref),) if sidecar else (),
        }
        key = tuple(values.values())
        return self.shared(("outbound", key), lambda: OutboundView(key, **values))

    @query
    def _placed(self, client: Client) -> tuple[Block, ...]:
        """The groups that a client sees, each with the relevant properties of the client."""
        found = self._groups(client)
        if client.sidecar is not None:
            groups = [(n, i, client) for n, i in found]
        else:
            groups = [(n, i, client.reduced(self._group_interest(n, i))) for n, i in found]
        return tuple(self._block(tuple(groups[at : at + BLOCK])) for at in range(0, len(groups), BLOCK))

    def _block(self, groups: tuple[tuple[str, int, Client], ...]) -> Block:
        return self.shared(("block", groups), lambda: Block(groups, groups=groups))

    @query
    def _host_spaces(self, client: Client) -> Spaces[HostSpace]:
        found = [part for block in self._placed(client) for part in self._host_block(block)]
        if (rules := self._rules_of(client)) is not None:
            found.append(rules)
        return self._spaces(found)

    def _rules_of(self, client: Client) -> HostSpace | None:
        found = self._rule_space(client) if self.mesh.ruled_hosts() else None
        return found if found is not None and found.members else None

    @query
    def _endpoint_spaces(self, client: Client) -> Spaces[EndpointSpace]:
        return self._spaces([part for block in self._placed(client) for part in self._endpoint_block(block)])

    @query
    def _domain_spaces(self, client: Client) -> Spaces[DomainSpace]:
        contested = self.mesh.contested()
        if contested or client.sidecar is not None or not client.captured:
            return self._spaces([self._domains(part, client, contested) for part in self._host_spaces(client).parts])
        found: list[DomainSpace] = []
        for block in self._placed(client):
            viewer = client.namespace if client.namespace in self._block_spaces(block) else ""
            found += self._domain_block(block, viewer)
        if (rules := self._rules_of(client)) is not None:
            found.append(self._domains(rules, client, contested))
        return self._spaces(found)

    # --- blocks of groups, the same for most clients ----------------------------------------------------

    @query
    def _host_block(self, block: Block) -> tuple[HostSpace, ...]:
        made = (self._host_space(*g) for g in block.groups)
        return tuple(part for part in made if part.members)

    @query
    def _endpoint_block(self, block: Block) -> tuple[EndpointSpace, ...]:
        made = (self._endpoint_space(*g) for g in block.groups)
        return tuple(part for part in made if part.members)

    @query
    def _block_spaces(self, block: Block) -> frozenset[str]:
        return frozenset[str]().union(*map(spaces_of, self._host_block(block)))

    @query
    def _domain_block(self, block: Block, viewer: str) -> tuple[DomainSpace, ...]:
        """The domains of a block, for clients without a Sidecar, as long as no name is contested."""
        return tuple(self._domain_space(part, viewer) for part in self._host_block(block))

    def _groups(self, client: Client) -> list[tuple[str, int]]:
        """(namespace, group of its hosts) that a client may see."""
        if client.sidecar is not None:
            return sorted(self._scope(client).groups)
        return [(n, i) for n in self.mesh.spaces() for i in range(len(self.mesh.chunks_in(n)))]

    def _spaces(self, parts: list[P]) -> Spaces[P]:
        key = tuple(map(id, parts))
        return self.shared(("spaces", key), lambda: Spaces(key, parts=tuple(parts)))

    def _sidecar(self, client: Client) -> o.Resource[Sidecar] | None:
        ref = client.sidecar
        return self.mesh.objects.sidecars.get((ref.namespace, ref.name)) if ref else None

    # --- one group of a namespace's services ---------------------------------------------------------------------

    @query
    def _group_interest(self, namespace: str, group: int) -> Interest:
        out = Interest()
        for host in self._hosts_in(namespace, group):
            out |= self.mesh.interest(host)
        return out

    def _hosts_in(self, namespace: str, group: int) -> tuple[str, ...]:
        groups = self.mesh.chunks_in(namespace)
        return groups[group] if group < len(groups) else ()

    @query
    def _members(self, namespace: str, group: int, client: Client) -> tuple[tuple[str, Shown, Client], ...]:
        """(host, its visible ports, the relevant properties of the client) of a group's hosts that a client can
        reach."""
        if client.sidecar is not None:
            members = self._scope(client).groups.get((namespace, group), ())
            return tuple((h, only, self._of(client, h)) for h, only in members)
        mesh = self.mesh
        out = []
        for host in self._hosts_in(namespace, group):
            found = mesh.service(host, client.namespace) if client.namespace else mesh.public_service(host)
            if found is not None and found.namespace == namespace:
                out.append((host, ALL, self._of(client, host)))
        return tuple(out)

    @query
    def _host_space(self, namespace: str, group: int, client: Client) -> HostSpace:
        made = (self._host(*m) for m in self._members(namespace, group, client))
        return self._of_hosts(tuple(m for m in made if m is not None))

    def _of_hosts(self, members: tuple[HostView, ...]) -> HostSpace:
        key = tuple(map(id, members))
        return self.shared(("hosts", key), lambda: HostSpace(key, members=members))

    @query
    def _endpoint_space(self, namespace: str, group: int, client: Client) -> EndpointSpace:
        members = tuple(e for m in self._members(namespace, group, client) for e in self._made(*m)[1])
        key = tuple(map(id, members))
        return self.shared(("endpoint space", key), lambda: EndpointSpace(key, members=members))

    def _of(self, client: Client, host: str) -> Client:
        """The properties of a client that are relevant for a host."""
        return client.reduced(self.mesh.interest(host))

    @query
    def _host(self, host: str, only: Shown, client: Client) -> HostView | None:
        """The host's view; it stays the same when only endpoints change that are not part of it."""
        return self._made(host, only, client)[0]

    @query
    def _made(self, host: str, only: Shown, client: Client) -> tuple[HostView | None, tuple[EndpointsView, ...]]:
        mesh = self.mesh
        service = mesh.service(host, client.namespace) if client.namespace else mesh.public_service(host)
        if service is not None and service.external_name:
            service = self._outside(service, client)
        if service is None:
            return None, ()
        return hosts.of_service(mesh, self.shared, client, service, only, self._seen(client))

    def _outside(self, service: o.Service, client: Client) -> o.Service | None:
        """An ExternalName service as a destination of rules: it is outside of the mesh, and available only if unknown
        hosts may be called. Clients that call it by its own name are passed through, as for every unknown host."""
        if not self.mesh.leads_outside(service):
            return None
        allowed = policy(self.mesh, self._sidecar(client), client.namespace).open
        return replace(service, resolution="ALIAS", external=True) if allowed else None

    # --- the scope of a Sidecar -------------------------------------------------------------------------------

    def _scope(self, client: Client) -> Scope:
        return self._scope_of(client.sidecar, client.namespace)

    @query
    def _scope_of(self, ref: o.Ref | None, namespace: str) -> Scope:
        sidecar = self.mesh.objects.sidecars.get((ref.namespace, ref.name)) if ref else None
        return scope(self.mesh, sidecar.spec, namespace) if sidecar else Scope({}, frozenset())

    def _seen(self, client: Client) -> Seen:
        return self._scope(client).rules if client.sidecar else None

    def _binds(self, client: Client, sidecar: o.Resource[Sidecar] | None) -> tuple[Bind, ...]:
        own = self._http_proxy(client)
        taken = {(b.address, b.port) for b in own}
        return (*(b for b in self._of_sidecar(client, sidecar) if (b.address, b.port) not in taken), *own)

    def _http_proxy(self, client: Client) -> tuple[Bind, ...]:
        """The HTTP proxy of the mesh configuration, which leads to all that clients see."""
        if not client.proxy_port:
            return ()
        called = tuple(h for part in self._host_spaces(client).parts for h in part.members if h.called)
        return (
            Bind(
                client.proxy_port, loopback(client), False, "http", called, client.namespace, proxy=True, own=HTTP_PROXY
            ),
        )

    def _of_sidecar(self, client: Client, sidecar: o.Resource[Sidecar] | None) -> tuple[Bind, ...]:
        if sidecar is None and client.captured:
            return ()
        found = bound(self.mesh, sidecar.spec if sidecar else None, client)
        ruled = self._rule_space(client).members
        return binds(found, client, lambda s: self._host(s.host, ALL, self._of(client, s.host)), ruled)

    # --- hosts that only rules name ------------------------------------------------------------------------------

    @query
    def _rule_space(self, client: Client) -> HostSpace:
        """Hosts that rules name although no service is visible. A wildcard that covers services is added for the other
        names that it covers. An alias has those of its service's ports where rules of its own route requests."""
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
                of_target = self._host(target, known.get(target, ALL), self._of(client, target))
                ports = of_target.ports if alias and of_target else ports_beside(mesh, found, client, known)
                made = hosts.of_rules(mesh, self.shared, client, host, found, ports, alias)
                members += [made] if made.ports else []
        return self._of_hosts(tuple(members))

    @query
    def _known(self, client: Client) -> dict[str, Shown]:
        """The hosts of services that a client sees, with their visible ports."""
        found = (m for block in self._placed(client) for g in block.groups for m in self._members(*g))
        return {h: only for h, only, _ in found if not self.mesh.is_alias(h)}

    # --- names ---------------------------------------------------------------------------------------------------

    def _domains(self, part: HostSpace, client: Client, contested: frozenset[str]) -> DomainSpace:
        silenced = self._silenced(part, client, contested) if contested else frozenset()
        sidecar = self._sidecar(client)
        named = binds_some(sidecar.spec.egress if sidecar else (), client.captured)
        return self._domain_space(part, client.namespace, named, silenced)

    def _domain_space(
        self, part: HostSpace, namespace: str, bound: bool = False, silenced: frozenset[tuple[str, str]] = frozenset()
    ) -> DomainSpace:
        """The domains of one part. ``namespace``: the clients', or empty if it is irrelevant."""
        viewer = namespace if namespace in spaces_of(part) else ""
        key = (id(part), viewer, bound, silenced)
        values: dict[str, Any] = {"hosts": part, "viewer": viewer, "bound": bound, "silenced": silenced}
        return self.shared(("domains", key), lambda: DomainSpace(key, **values))

    def _silenced(self, part: HostSpace, client: Client, contested: frozenset[str]) -> frozenset[tuple[str, str]]:
        """(host, domain) pairs of domains that a host must not claim, because Envoy permits each domain only once. A
        full name belongs to its host, an address to the first host; a bare short name means a service of the client's
        own namespace, as in its DNS."""
        out = []
        for h, spelling in _claims(part, contested):
            rivals = [r for r in self.mesh.claimants(spelling) if r != h.host and self._sees(r, client)]
            if rivals and (spelling in rivals or (spelling != h.host and min(rivals) < h.host)):
                out.append((h.host, spelling))
        return frozenset(out)

    def _sees(self, host: str, client: Client) -> bool:
        return host in self._known(client) or any(h.host == host for h in self._rule_space(client).members)


def _for(client: Client, policy: OutboundPolicy) -> OutboundPolicy:
    """Gateways resolve no hosts."""
    if not policy.resolves:
        return policy
    return OutboundPolicy() if client.gateway else replace(policy, lookup=hosts.lookup(client))


@derived
def _claims(part: HostSpace, contested: frozenset[str]) -> tuple[tuple[HostView, str], ...]:
    """(host, domain) of the contested domains that these hosts claim."""
    return tuple((h, s) for h in part.members for s in (*all_spellings(h), *h.addresses) if s in contested)


def all_spellings(view: HostView) -> list[str]:
    """All names under which clients call a host, independent of the client."""
    if not view.called:
        return []
    return [spelling for name in view.names for spelling in name.spellings]


@derived
def spaces_of(part: HostSpace) -> frozenset[str]:
    """Namespaces in which the hosts have bare short names."""
    return frozenset(n.namespace for h in part.members for n in h.names)


@derived
def _served_ports(part: HostSpace) -> frozenset[tuple[str, int]]:
    return frozenset((h.host, p.number) for h in part.members if h.resolution != "RULES" for p in h.ports)


def serves(view: OutboundView, host: str, port: int) -> bool:
    """Whether clients have a cluster for the port."""
    return any((host, port) in _served_ports(part) for part in view.host_spaces.parts)
