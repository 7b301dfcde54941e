"""Routes of the Gateway API: their parents, where they are attached, and the resulting routes of hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.domain import service_host
from lateen.api.gateway_api.common import BackendObjectReference, ParentReference
from lateen.api.kinds import GroupKind
from lateen.kit.queries import query
from lateen.mesh import registry
from lateen.mesh.dialects.gateway_api import attaching, backends, connections, listeners, templates
from lateen.mesh.dialects.gateway_api.attaching import Attachment, set_parent
from lateen.mesh.dialects.gateway_api.shadows import Shadow, shadows
from lateen.mesh.dialects.gateway_api.templates import Translated
from lateen.mesh.gateway_listeners import GatewayListeners
from lateen.mesh.objects import Key
from lateen.mesh.routing import Attached, Backend, ConnectionRoute, DatagramRoute, HostRoutes, Listener, Route

REQUEST_KINDS, CONNECTION_KINDS = listeners.FOR_REQUESTS, listeners.FOR_CONNECTIONS
ROUTE_KINDS = (*REQUEST_KINDS, *CONNECTION_KINDS)
CONNECTIONS_IN_MESH = (kinds.TLS_ROUTE.id, kinds.TCP_ROUTE.id)
MESH_KINDS = (*REQUEST_KINDS, *CONNECTIONS_IN_MESH)
"""Kinds of routes that may have a Service or a ServiceEntry as their parent."""
Backends = tuple[Backend, ...]
Connections = tuple[tuple[ConnectionRoute, ...], tuple[ConnectionRoute, ...]]
"""(routes by server name, routes of all other connections)"""
NOWHERE = (Backend("", 0, broken="no route is attached here"),)
_Translate = Callable[[Any, backends.Find, bool], Translated]
_TRANSLATE: dict[GroupKind, _Translate] = {
    kinds.HTTP_ROUTE.id: templates.of_http,
    kinds.GRPC_ROUTE.id: templates.of_grpc,
}
GATEWAY_PARENT, SET_PARENT, SERVICE_PARENT, ENTRY_PARENT = (
    k.id for k in (kinds.KUBERNETES_GATEWAY, kinds.LISTENER_SET, kinds.SERVICE, kinds.SERVICE_ENTRY)
)


class _Member(NamedTuple):
    """A route at a listener."""

    kind: GroupKind
    key: Key
    hosts: tuple[str, ...]


class GatewayRoutes(GatewayListeners):
    # --- references ----------------------------------------------------------------------------------------------

    def _may_use_backend(self, ref: BackendObjectReference, kind: str, viewer: str) -> bool:
        source, target = (
            GroupKind(kinds.GATEWAY_API, kind),
            GroupKind("" if ref.group == "core" else ref.group, ref.kind),
        )
        return self._granted(source, viewer, target, ref.namespace or viewer, ref.name)

    def _service_at(self, namespace: str, name: str) -> o.Service | None:
        return self.service(self.stands_for(service_host(name, namespace, self.cluster.domain)))

    @property
    def _find(self) -> backends.Find:
        return backends.Find(
            self._service_at,
            lambda host, viewer: self.service(host, viewer),
            self._may_use_backend,
            self.sending_to,
        )

    # --- attachments ----------------------------------------------------------------------------------------

    def routes_of_kind(self, kind: GroupKind) -> Any:
        return self.objects.of(kinds.TABLE[kind])

    @query
    def attachments_of(self, kind: GroupKind, namespace: str, name: str) -> tuple[tuple[int, Attachment], ...]:
        """(position in ``parentRefs``, the attachment) for the parents that are ours."""
        route = self.routes_of_kind(kind)[namespace, name]
        out = []
        for i, parent in enumerate(route.spec.parent_refs):
            found = self._attachment(kind, route, parent)
            if found is not None:
                out.append((i, found))
        return tuple(out)

    def _attachment(self, kind: GroupKind, route: o.Resource[Any], parent: ParentReference) -> Attachment | None:
        group, of, space, name = next(attaching.parents((parent,), route.ref.namespace))
        if (group, of) in (GATEWAY_PARENT, SET_PARENT):
            key = self._gateway_of((group, of), space, name)
            if key is None:
                return None
            owner = kinds.TABLE[GroupKind(group, of)].ref(space, name)
            placed = [p for p in self._placed(*key) if p.owner == owner]
            hostnames = getattr(route.spec, "hostnames", ())
            labels = self._namespace_labels(route.ref.namespace)
            return attaching.to_listeners(kind, parent, placed, hostnames, route.ref.namespace, labels)
        if (group, of) not in (SERVICE_PARENT, ENTRY_PARENT):
            return None
        if kind not in MESH_KINDS:
            return attaching.no_service(kind)
        return attaching.to_service(kind, parent, self._parent_services(of, space, name))

    def _gateway_of(self, parent: tuple[str, str], namespace: str, name: str) -> Key | None:
        """The Gateway that a parent's listeners belong to, if it is of one of our classes."""
        key: Key | None = (namespace, name)
        if parent == SET_PARENT:
            found = self.objects.listener_sets.get((namespace, name))
            key = set_parent(found) if found else None
        return key if key is not None and self.kubernetes_gateway(*key) is not None else None

    def _parent_services(self, kind: str, namespace: str, name: str) -> tuple[o.Service, ...]:
        if kind == kinds.SERVICE_ENTRY.kind:
            entry = self.objects.service_entries.get((namespace, name))
            return registry.services(entry, self.cluster.domain) if entry else ()
        found = self.candidates(service_host(name, namespace, self.cluster.domain))
        return tuple(s for s in found if not s.hostname and s.namespace == namespace)

    @query
    def _attached_to(self, namespace: str, name: str) -> dict[str, tuple[_Member, ...]]:
        """The routes at each listener of a Gateway."""
        out: dict[str, list[_Member]] = {}
        owners = dict.fromkeys(p.owner for p in self._placed(namespace, name))
        for kind in ROUTE_KINDS:
            for owner in owners:
                parent = (owner.group, owner.kind, owner.namespace, owner.name)
                for route in self._routes_by_parent[kind].get(parent):
                    for listener, member in self._members(kind, route.ref.namespace, route.ref.name, parent):
                        out.setdefault(listener, []).append(member)
        return {listener: tuple(members) for listener, members in out.items()}

    @query
    def _members(
        self, kind: GroupKind, namespace: str, name: str, parent: tuple[str, str, str, str]
    ) -> tuple[tuple[str, _Member], ...]:
        """The parts of a route at each listener of a parent."""
        key = (namespace, name)
        refs = list(attaching.parents(self.routes_of_kind(kind)[key].spec.parent_refs, namespace))
        out: dict[str, dict[str, None]] = {}
        for i, found in self.attachments_of(kind, *key):
            for listener, hosts in found.at if refs[i] == parent else ():
                out.setdefault(listener, {}).update(dict.fromkeys(hosts))
        return tuple((listener, _Member(kind, key, tuple(hosts))) for listener, hosts in out.items())

    @query
    def translated(self, kind: GroupKind, namespace: str, name: str, mesh: bool) -> Translated:
        if kind in CONNECTION_KINDS:
            return Translated((), self._destinations(kind, namespace, name, mesh).problems)
        return _TRANSLATE[kind](self.routes_of_kind(kind)[namespace, name], self._find, not mesh)

    @query
    def _made(
        self, kind: GroupKind, namespace: str, name: str, mesh: bool, port: int, scheme: str
    ) -> tuple[tuple[templates.Rank, tuple[str, str, str], tuple[int, int, int], Route], ...]:
        route = self.routes_of_kind(kind)[namespace, name]
        found = self.translated(kind, namespace, name, mesh).templates
        return tuple((t.rank, route.age_order, t.place, templates.route(route, t, port, scheme)) for t in found)

    # --- at a gateway --------------------------------------------------------------------------------------------

    @query
    def _by_host(self, namespace: str, name: str, listener: str) -> dict[str, tuple[tuple[GroupKind, Key], ...]]:
        """The routes of each host that is exclusive to a listener."""
        written = self._listener(namespace, name, listener).written
        others = [p.written for p in self._placed(namespace, name)]
        out: dict[str, list[tuple[GroupKind, Key]]] = {written.hostname or "*": []}
        for member in self._attached_to(namespace, name).get(listener, ()):
            for host in listeners.isolated(written, others, member.hosts):
                out.setdefault(host, []).append((member.kind, member.key))
        return {host: tuple(found) for host, found in out.items()}

    @query
    def _host_requests(self, namespace: str, name: str, listener: str, host: str, port: int, scheme: str) -> HostRoutes:
        found = [
            r
            for kind, key in self._by_host(namespace, name, listener).get(host, ())
            for r in self._made(kind, *key, False, port, scheme)
        ]
        source = kinds.KUBERNETES_GATEWAY.ref(namespace, name)
        return HostRoutes(host, port, templates.in_order(found), ((source, listener),))

    def gateway_requests(self, at: Listener) -> Attached:
        """The HTTP routes at a listener. Every listener owns its hostname, even without routes. At a TLS listener,
        requests for a host of another listener of the port are misdirected (421)."""
        space, name = at.source.namespace, at.source.name
        scheme = "https" if at.secure else "http"
        hosts = self._by_host(space, name, at.name)
        made = [self._host_requests(space, name, at.name, host, at.port, scheme) for host in hosts]
        if at.secure:
            rivals = (p.written for p in self._placed(space, name) if p.id != at.name)
            others = {li.hostname or "*" for li in rivals if li.port == at.port}
            wrong = templates.misdirected(at.source, at.port)
            made += [HostRoutes(host, at.port, (wrong,)) for host in sorted(others - hosts.keys())]
        return Attached(at.age, tuple(made))

    @query
    def _destinations(self, kind: GroupKind, namespace: str, name: str, mesh: bool) -> connections.Destinations:
        return connections.destinations(self.routes_of_kind(kind)[namespace, name], self._find, not mesh)

    @query
    def _at(self, namespace: str, name: str, listener: str) -> tuple[tuple[o.Ref, str, tuple[str, ...], Backends], ...]:
        """(route, name of its rule, hosts exclusive to the listener, backends) of connection routes, oldest first."""
        written = self._listener(namespace, name, listener).written
        others = [p.written for p in self._placed(namespace, name)]
        found = []
        for member in self._attached_to(namespace, name).get(listener, ()):
            route = self.routes_of_kind(member.kind)[member.key]
            hosts = listeners.isolated(written, others, member.hosts)
            to = self._destinations(member.kind, *member.key, False)
            found.append((route.age_order, route.ref, to.rule, hosts, to.backends))
        return tuple(f[1:] for f in sorted(found, key=lambda f: f[0]))

    def gateway_connections(self, at: Listener) -> tuple[ConnectionRoute, ...]:
        """The destinations of a listener's connections: by server name for TLS, otherwise the oldest route gets them
        all. Without routes the port is open and connections are closed, so that the listener counts as programmed."""
        found = self._at(at.source.namespace, at.source.name, at.name)
        if not found:
            return (ConnectionRoute(at.hosts if at.secure and "*" not in at.hosts else (), (), NOWHERE, at.source),)
        if not at.secure:
            return tuple(ConnectionRoute((), (), backends, ref, rule) for ref, rule, _, backends in found[:1])
        return tuple(
            ConnectionRoute(() if "*" in hosts else hosts, (), backends, ref, rule)
            for ref, rule, hosts, backends in found
            if hosts
        )

    def gateway_datagrams(self, at: Listener) -> tuple[DatagramRoute, ...]:
        found = self._at(at.source.namespace, at.source.name, at.name)
        return tuple(DatagramRoute(backends, ref, rule) for ref, rule, _, backends in found[:1]) or (
            DatagramRoute(NOWHERE, at.source),
        )

    # --- in the mesh ---------------------------------------------------------------------------------------------

    @query
    def routes_for_host(self, host: str) -> tuple[tuple[GroupKind, Key, str, tuple[int, ...]], ...]:
        """(kind, route, namespace of its parent, ports) of the routes whose parent is a host's service."""
        out = []
        for s in self.candidates(host):
            parents = [(*ENTRY_PARENT, ref.namespace, ref.name) for ref in s.entries]
            parents += [] if s.hostname else [(*SERVICE_PARENT, s.namespace, s.name)]
            for kind in MESH_KINDS:
                for parent in parents:
                    for route in self._routes_by_parent[kind].get(parent):
                        key = (route.ref.namespace, route.ref.name)
                        refs = list(attaching.parents(route.spec.parent_refs, key[0]))
                        ports = [
                            p for i, found in self.attachments_of(kind, *key) if refs[i] == parent for p in found.ports
                        ]
                        if ports:
                            out.append((kind, key, s.namespace, tuple(dict.fromkeys(ports))))
        return tuple(out)

    @query
    def hosts_with_routes(self) -> tuple[str, ...]:
        """The hosts of Services that are parents of routes."""
        found = {parent for kind in MESH_KINDS for parent in self._routes_by_parent[kind].buckets()}
        services = sorted((name, space) for group, of, space, name in found if (group, of) == SERVICE_PARENT)
        return tuple(service_host(name, space, self.cluster.domain) for name, space in services)

    def shadowed(self) -> Iterator[Shadow]:
        """Shadowed rules, at the Gateways' hosts and in the mesh."""
        for key in self.objects.kubernetes_gateways:
            if self.kubernetes_gateway(*key) is None:
                continue
            for placed in self._placed(*key):
                for host, members in self._by_host(*key, placed.id).items():
                    at = f"listener {placed.id} of Gateway {'/'.join(key)}"
                    yield from self._shadows(members, False, f"{host} at {at}" if host != "*" else at)
        for host in self.hosts_with_routes():
            spaces: dict[str, list[tuple[GroupKind, Key]]] = {}
            for kind, route, owner, _ in self.routes_for_host(host):
                spaces.setdefault("" if route[0] == owner else route[0], []).append((kind, route))
            for found in spaces.values():
                yield from self._shadows(found, True, host)

    def _shadows(self, members: Iterable[tuple[GroupKind, Key]], mesh: bool, host: str) -> Iterator[Shadow]:
        made = [r for kind, key in members for r in self._made(kind, *key, mesh, 0, "http")]
        ordered = sorted(made, key=lambda f: f[:3])
        return shadows(host, ((place[:2], route) for _, _, place, route in ordered))

    def mesh_requests(self, host: str, port: int, viewer: str) -> tuple[Route, ...] | None:
        """The HTTP routes of a service's port for clients in a namespace; None if there are none."""
        chosen = self._for_clients(host, port, viewer, REQUEST_KINDS)
        made = [r for kind, key in chosen for r in self._made(kind, *key, True, port, "http")]
        return templates.in_order(made) if chosen else None

    def mesh_connections(self, host: str, port: int, viewer: str) -> Connections | None:
        """The destinations of connections to a service's port: by TLS server name, then all others, which the oldest
        TCPRoute gets. None if there are no such routes."""
        found = []
        for kind, key in self._for_clients(host, port, viewer, CONNECTIONS_IN_MESH):
            route, to = self.routes_of_kind(kind)[key], self._destinations(kind, *key, True)
            names = route.spec.hostnames if kind == kinds.TLS_ROUTE.id else ()
            found.append((route.age_order, ConnectionRoute(tuple(names), (), to.backends, route.ref, to.rule)))
        ordered = [made for _, made in sorted(found, key=lambda f: f[0])]
        by_name = tuple(made for made in ordered if made.sni)
        return (by_name, tuple(made for made in ordered if not made.sni)[:1]) if ordered else None

    def mesh_targets(self, host: str, requests: bool) -> frozenset[str]:
        """The hosts that a service's connections are routed to; ``requests``: its requests, too."""
        found: list[Backend] = []
        for kind, key, *_ in self.routes_for_host(host):
            if kind in CONNECTIONS_IN_MESH:
                found += self._destinations(kind, *key, True).backends
            elif requests:
                found += [b for t in self.translated(kind, *key, True).templates for b in t.part.backends]
        return frozenset(b.host for b in found if not b.broken)

    def route_targets(self, host: str, viewer: str) -> frozenset[str]:
        """The hosts that a service's routes have as backends for clients in a namespace, including mirrors."""
        found: list[Backend] = []
        for kind, key, owner, _ in self.routes_for_host(host):
            if key[0] not in (viewer, owner):
                continue
            if kind in CONNECTIONS_IN_MESH:
                found += self._destinations(kind, *key, True).backends
            for t in self.translated(kind, *key, True).templates:
                found += [*t.part.backends, *(m.backend for m in t.part.mirrors)]
        return frozenset(b.host for b in found if not b.broken)

    def _for_clients(
        self, host: str, port: int, viewer: str, wanted: tuple[GroupKind, ...]
    ) -> list[tuple[GroupKind, Key]]:
        """The routes of some kinds that apply to clients in a namespace: consumer routes (those in the clients'
        namespace, for a service of another one), otherwise producer routes (those in the service's own namespace)."""
        found = [(kind, key, owner) for kind, key, owner, ports in self.routes_for_host(host) if port in ports]
        found = [f for f in found if f[0] in wanted]
        consumer = [(kind, key) for kind, key, owner in found if key[0] == viewer != owner]
        return consumer or [(kind, key) for kind, key, owner in found if key[0] == owner]
