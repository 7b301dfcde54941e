"""Where routes are attached: at hosts of the mesh, and at the listeners of gateways.

Each dialect has its own objects; they are combined here. ``Listener`` and ``Attached`` are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.domain import service_host
from lateen.api.ingress import Ingress
from lateen.api.networking import Gateway, TrafficPolicy
from lateen.kit.queries import query
from lateen.mesh import challenges, demands, policy, rivals
from lateen.mesh.challenges import Challenges
from lateen.mesh.dialects import gateway, ingress, istio, source
from lateen.mesh.dialects.gateway_api import templates
from lateen.mesh.dialects.gateway_api.listeners import FOR_REQUESTS
from lateen.mesh.objects import Key, Labels
from lateen.mesh.outcomes import Outcome, Problem
from lateen.mesh.protocols import HTTP, protocol
from lateen.mesh.rivals import Chosen
from lateen.mesh.routing import (
    Attached,
    Backend,
    ConnectionRoute,
    DatagramRoute,
    HostRoutes,
    Listener,
    PortRoutes,
    Route,
)
from lateen.mesh.rules import Rule
from lateen.mesh.securing import Securing
from lateen.mesh.selecting import has_labels


class Attachments(Securing):
    def listeners_of(self, pod: o.Pod) -> list[Listener]:
        """The listeners that a gateway workload serves, those of the oldest objects first."""
        found = [li for gw in self.gateways_for(pod) for li in gateway.listeners(gw)]
        found += self.kubernetes_listeners(pod)
        if pod.label_map.get("istio") == self.ingress.selector and self.objects.ingresses:
            found += [li for own in self.ingresses() for li in ingress.listeners(own, self.root_namespace)]
        return sorted(found, key=lambda li: li.age)

    def asked_listeners_of(self, pod: o.Pod) -> list[Listener]:
        """Like ``listeners_of``, including those that cannot be served because their certificates are missing."""
        return [*self.listeners_of(pod), *self.kubernetes_listeners(pod, closed=True)]

    @query
    def challenges(self) -> Challenges | None:
        """The ACME challenges, the same for all gateways; None without an ACME issuer, so that they cost nothing
        then."""
        issuers = (*self.objects.issuers.values(), *self.objects.cluster_issuers.values())
        if not any(i.spec.acme is not None for i in issuers):
            return None
        ref = kinds.SECRET.ref(self.root_namespace, challenges.SECRET)
        return challenges.read(self.objects.credentials.get((ref.namespace, ref.name)), str(ref))

    def requests_at(self, listeners: Sequence[Listener], pod: o.Pod, refused: demands.Refused = ()) -> list[Attached]:
        """The HTTP routes at listeners of one port of a workload, in order of precedence. ``refused``: hosts of other
        listeners (``demands``)."""
        find, changed = self._finder(pod.namespace), self._changes(pod.namespace, pod.labels, gateway=True)
        of_ingress = [(li, own) for li in listeners if (own := self._ingress_of(li)) is not None]
        of_gateway = [(li, self._rules_at(li, pod)) for li in listeners if li.source.group_kind == kinds.GATEWAY.id]
        found = [*gateway.requests(of_gateway, find)]
        found += [self.gateway_requests(li) for li in listeners if li.source.group_kind == kinds.KUBERNETES_GATEWAY.id]
        if of_ingress:
            found += ingress.requests(of_ingress, self._ingresses_by_host(), self._service_named)
        if changed:
            found = [Attached(a.age, tuple(replace(h, routes=changed(h.routes)) for h in a.hosts)) for a in found]
        if refused:
            mine = [h for li in listeners for h in demands.hosts(li)]
            found = [
                Attached(a.age, tuple(h for h in a.hosts if demands.belongs(h.host, mine, refused))) for a in found
            ]
            port = listeners[0].port
            wrong = (HostRoutes(host, port, (templates.misdirected(ref, port),)) for host, ref in refused)
            found.append(Attached(listeners[0].age, tuple(wrong)))
        return sorted(found, key=lambda a: a.age)

    def connections_at(self, listener: Listener, pod: o.Pod) -> tuple[ConnectionRoute, ...]:
        """The destinations of a listener's connections."""
        if listener.source.group_kind == kinds.KUBERNETES_GATEWAY.id:
            found = self.gateway_connections(listener)
        else:
            found = gateway.connections(listener, self._rules_at(listener, pod), self._finder(pod.namespace))
        return self._told_of_bytes(found, pod.namespace, pod.labels, gateway=True)

    def datagrams_at(self, listener: Listener) -> tuple[DatagramRoute, ...]:
        """The destinations of a UDP listener's datagrams. Only the Gateway API has such listeners."""
        return self.gateway_datagrams(listener)

    def routes_of(
        self, host: str, rules: tuple[Rule, ...], ports: dict[int, str], namespace: str, labels: Labels
    ) -> tuple[PortRoutes, ...]:
        """The routes of a mesh host's ports (number -> protocol) for some clients. If routes of the Gateway API have
        the host's service as their parent, VirtualServices do not apply to the port's requests, nor to its connections
        if some of these routes are for connections."""
        routed = ports if self.routes_for_host(host) else {}
        own = {port: self.mesh_requests(host, port, namespace) for port in routed}
        connected = {port: self.mesh_connections(host, port, namespace) for port in routed}
        if not rules and not any(found is not None for found in (*own.values(), *connected.values())):
            return ()
        find, changed = self._finder(namespace), self._changes(namespace, labels)
        mine = tuple(source.narrowed(vs, namespace, dict(labels)) for vs in rules)
        out = []
        for port, kind in ports.items():
            made, requests = istio.of_host(mine, port, kind, find), own.get(port)
            if requests is not None:
                made = replace(made, requests=requests, by_address=True)
            if changed:
                made = replace(made, requests=changed(made.requests))
            if (connections := connected.get(port)) is not None:
                made = replace(made, by_name=connections[0], by_place=connections[1])
            by_name = self._told_of_bytes(made.by_name, namespace, labels)
            out.append(replace(made, by_name=by_name, by_place=self._told_of_bytes(made.by_place, namespace, labels)))
        return tuple(out)

    def _changes(
        self, namespace: str, labels: Labels, gateway: bool = False
    ) -> Callable[[tuple[Route, ...]], tuple[Route, ...]] | None:
        """What policies for backends make of routes, for some clients; None if none of them matters to routes."""
        kept = bool(self.objects.x_backend_traffic_policies)
        told = self._originating.has(True) or (gateway and bool(self.objects.backend_tls_policies))
        hashing = self._hashing.has(True)
        if not (kept or told or hashing):
            return None

        def changed(backend: Backend) -> Backend:
            backend = self._kept(backend) if kept else backend
            if told and backend.sniffed and self._begins_tls(backend, namespace, labels, gateway):
                backend = replace(backend, sniffed=False)
            hashed = hashing and policy.hashes(self._policy_for(backend, namespace, labels))
            return replace(backend, hashed=True) if hashed else backend

        return lambda routes: tuple(_with(r, tuple(map(changed, r.backends))) for r in routes)

    def _told_of_bytes(
        self, routes: tuple[ConnectionRoute, ...], namespace: str, labels: Labels, gateway: bool = False
    ) -> tuple[ConnectionRoute, ...]:
        """With what servers must be told (see ``ConnectionRoute``), unless the clients begin TLS of the user's own."""

        def told(route: ConnectionRoute) -> bool:
            there = [b for b in route.backends if not b.broken]
            return any(self._takes_requests(b, namespace) for b in there) and not any(
                self._begins_tls(b, namespace, labels, gateway) for b in there
            )

        return tuple(replace(r, bytes_on_http=True) if told(r) else r for r in routes)

    def _takes_requests(self, backend: Backend, namespace: str) -> bool:
        service = self.service(backend.host, namespace) or self.service(backend.host)
        return service is not None and any(p.port == backend.port and protocol(p) in HTTP for p in service.ports)

    def _begins_tls(self, backend: Backend, namespace: str, labels: Labels, gateway: bool) -> bool:
        """Whether the clients begin TLS of the user's own towards a backend."""
        service = self.service(backend.host, namespace) if gateway else None
        if service and any(port == backend.port for port, _ in self.backend_tls(service)):
            return True
        return policy.originates(self._policy_for(backend, namespace, labels).tls)

    def _policy_for(self, backend: Backend, namespace: str, labels: Labels) -> TrafficPolicy:
        """What the clients' DestinationRules say about a backend."""
        rules = self.destination_rule(backend.host, namespace, labels)
        return policy.merged(rules, backend.subset, backend.port)

    def _kept(self, backend: Backend) -> Backend:
        """With the session persistence of its own policy. Backends of the Gateway API have it already."""
        service = None if backend.broken or backend.session else self.service(backend.host)
        found = self.sending_to(service) if service is not None else None
        if found is None or found.session is None:
            return backend
        return replace(backend, session=found.session, policy=str(found.source))

    def _finder(self, viewer: str) -> istio.Find:
        return lambda host, namespace: self.destination(host, namespace, viewer)

    # --- Istio's Gateways --------------------------------------------------------------------------------------

    def gateways_for(self, pod: o.Pod) -> tuple[o.Resource[Gateway], ...]:
        """The Gateways that select a pod, or that name one of its services, oldest first."""
        labels, scoped = pod.label_map, self.cluster.scoped
        buckets: Iterable[tuple[str, str] | None] = (*labels.items(), None)
        found = [g for b in buckets for g in self._gateways_by_label.get(b) if has_labels(g.spec.selector, labels)]
        found = [g for g in found if not scoped or g.ref.namespace == pod.namespace]
        return tuple(sorted(found, key=lambda g: g.age_order))

    @query
    def gateway_rules(self, gateway: Key, viewer: str) -> tuple[Rule, ...]:
        """VirtualServices bound to a gateway (namespace, name) and visible from its workload's namespace, oldest
        first."""
        found = [vs for vs in self._wholes(self._rules_of_gateway.get(gateway)) if self.visible_to(vs, viewer)]
        return tuple(sorted(found, key=lambda v: v.age_order))

    def _rules_at(self, listener: Listener, pod: o.Pod) -> list[Rule]:
        """The VirtualServices bound to the listener's Gateway, as the workload sees them."""
        found = self.gateway_rules((listener.source.namespace, listener.source.name), pod.namespace)
        return [source.narrowed(vs, pod.namespace, pod.label_map) for vs in found]

    # --- Ingresses ---------------------------------------------------------------------------------------------

    @query
    def ingresses(self) -> tuple[o.Resource[Ingress], ...]:
        """The Ingresses that the mesh's gateway serves, oldest first."""
        classes = {name: c.spec.controller for (_, name), c in self.objects.ingress_classes.items()}
        name, mode = self.ingress.class_name, self.ingress.mode
        found = (i for i in self.objects.ingresses.values() if ingress.ours(i, classes, name, mode))
        return tuple(sorted(found, key=lambda i: i.age_order))

    @query
    def _ingresses_by_host(self) -> dict[str, list[o.Resource[Ingress]]]:
        out: dict[str, list[o.Resource[Ingress]]] = {}
        for own in self.ingresses():
            for host in ingress.hosts(own):
                out.setdefault(host, []).append(own)
        return out

    def _ingress_of(self, listener: Listener) -> o.Resource[Ingress] | None:
        if listener.source.group_kind != kinds.INGRESS.id:
            return None
        found: o.Resource[Ingress] | None = self.objects.ingresses.get(
            (listener.source.namespace, listener.source.name)
        )
        return found

    def _service_named(self, name: str, namespace: str) -> tuple[str, o.Service | None]:
        host = service_host(name, namespace, self.cluster.domain)
        return host, self.service(self.stands_for(host))

    # --- outcomes ----------------------------------------------------------------------------------------------

    @query
    def ingress_outcome(self, namespace: str, name: str) -> Outcome:
        found = self.objects.ingresses[namespace, name]
        return ingress.outcome(found, self._service_named)

    @query
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes of all objects that could not be served as requested. Only what has changed is recomputed."""
        found = [self.ingress_outcome(i.ref.namespace, i.ref.name) for i in self.ingresses()]
        for chosen in self._gateways_alike.buckets():
            found += self.gateway_outcomes(chosen)
        found += self.limit_outcomes()
        found += self.security_outcomes()
        found += [self.delegation_outcome(vs.ref.namespace, vs.ref.name) for vs in self._delegations.get(True)]
        found += self.overridden()
        return tuple(outcome for outcome in found if outcome.problems)

    @query
    def gateway_outcomes(self, chosen: Chosen) -> tuple[Outcome, ...]:
        """Outcomes of Gateways with one selector: servers that are left out because an older Gateway uses the port for
        another protocol. The older one may have a wider selector, which has all pods of the narrower one, or one that
        some of the pods match."""
        mine = {gw.ref for gw in self._gateways_alike.get(chosen)}
        buckets = [s for s in self._gateways_alike.buckets() if rivals.overlap(s, chosen)]
        found = [(s, li) for s in buckets for gw in self._gateways_alike.get(s) for li in gateway.listeners(gw)]
        found.sort(key=lambda one: one[1].age)
        contested = rivals.contested(found, mine, self.cluster.scoped)
        others = frozenset(s for s, li in contested if not set(s) <= set(chosen))
        companies = self._companies(chosen, others) if others else rivals.NO_OTHERS
        out: dict[o.Ref, tuple[Problem, ...]] = {}
        for li, older, everywhere in rivals.lost(contested, mine, companies, chosen, self.cluster.scoped):
            text = f"port {li.port} is already {older.family.upper()} because of the older {older.source}"
            which = f"the server of {li.family.upper()}" if li.family != older.family else "the other server"
            where = "" if everywhere else " at the pods that both Gateways select"
            problem = Problem("OlderGateway", f"{text}; {which} is left out{where}")
            out[li.source] = (*out.get(li.source, ()), problem)
        return tuple(Outcome(ref, problems) for ref, problems in out.items())

    @query
    def _companies(self, chosen: Chosen, others: frozenset[Chosen]) -> frozenset[rivals.Company]:
        """Which of the other selectors the gateways of one selector match. It reads all pods, so it is only asked where
        selectors overlap and a port is contested; mostly the answer stays the same."""
        wanted = dict(chosen)
        return frozenset(
            (p.namespace if self.cluster.scoped else "", frozenset(s for s in others if has_labels(dict(s), labels)))
            for p in self.objects.pods.values()
            if p.gateway and has_labels(wanted, labels := p.label_map)
        )

    @query
    def overridden(self) -> tuple[Outcome, ...]:
        """Outcomes of VirtualServices that are overridden by routes of the Gateway API."""
        out: dict[o.Ref, list[Problem]] = {}
        for host in self.hosts_with_routes():
            for kind, (namespace, name), owner, _ in self.routes_for_host(host):
                for vs in self.mesh_rules(host, namespace) if namespace == owner else ():
                    if vs.spec.http if kind in FOR_REQUESTS else vs.spec.tls or vs.spec.tcp:
                        about = str(kinds.TABLE[kind].ref(namespace, name))
                        problem = Problem("OverriddenByRoute", host, ("spec", "hosts"), about)
                        out.setdefault(vs.ref, []).append(problem)
        return tuple(Outcome(ref, tuple(problems)) for ref, problems in out.items())


def _with(r: Route, backends: tuple[Backend, ...]) -> Route:
    if backends == r.backends:
        return r
    origins = dict.fromkeys((*r.origins, *(b.policy for b in backends if b.policy)))
    return replace(r, key=(r.key, backends), backends=backends, origins=tuple(origins))
