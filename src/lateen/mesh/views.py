"""Makes the views of one mesh, reusing those of the instant before where nothing in them has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import re2

from lateen.api import objects as o
from lateen.api.networking import (
    DestinationRule,
    EnvoyFilter,
    IstioIngressListener,
    ProxyMatch,
    Sidecar,
    SidecarPort,
    VirtualService,
)
from lateen.mesh import credentials, gateways, places, policy, registry, source, spelling
from lateen.mesh.model import Mesh
from lateen.mesh.objects import HTTP, protocol
from lateen.mesh.scope import Scope, covers, destinations
from lateen.mesh.view import (
    Bind,
    Cached,
    EndpointsView,
    HostView,
    InboundPort,
    InboundView,
    OutboundView,
    Patch,
    Port,
    Security,
    View,
)
from lateen.wire.node import ROUTER

C = TypeVar("C", bound=Cached)
KNOWN_BY_NAME = registry.KNOWN_BY_NAME


@dataclass(frozen=True)
class Client:
    """Who looks, as far as it makes a difference; most proxies of a mesh are the same client."""

    namespace: str = ""
    """Empty where the namespace sees what everybody sees."""
    source: str = ""
    """The namespace, where some rule asks for it."""
    labels: tuple[tuple[str, str], ...] = ()
    """Those that some rule asks for."""
    sidecar: o.Ref | None = None
    version: str = ""
    """The Sidecar's."""
    locality: str = ""
    """Where some service's load balancing asks for it."""
    dns: bool = False
    gateway: bool = False
    """Where some rule names secrets, which sidecars do not have."""


Memo = dict[tuple[str, frozenset[int]], tuple[tuple[object, ...], HostView, tuple[EndpointsView, ...]]]


class Views:
    def __init__(self, mesh: Mesh, previous: Views | None = None) -> None:
        self.mesh = mesh
        self._interned: dict[object, Cached] = previous._interned if previous else {}
        if len(self._interned) > 50_000:
            self._interned = {}
        self._outbound: dict[Client, OutboundView] = {}
        self._names: dict[str, dict[str, list[str]]] = {}
        self._memo: dict[Client, Memo] = {}
        self._before: dict[Client, Memo] = previous._memo if previous else {}
        self._silenced: dict[Client, tuple[object, frozenset[tuple[str, str]]]] = {}
        self._silenced_before = previous._silenced if previous else {}
        self._special = self._special_namespaces()
        self._peers, self._by_host, self._aliases = mesh.peers(), mesh.by_host(), mesh.aliases()
        objects = mesh.objects
        self._source_keys, self._source_namespace = source.asks(objects.virtual_services.values())
        for dr in objects.destination_rules.values():
            if dr.spec.workload_selector:
                self._source_keys |= dr.spec.workload_selector.match_labels.keys()
        self._by_place = places.asked(mesh)
        self._source_keys |= self._by_place[1]

    def intern(self, view: C) -> C:
        found = self._interned.setdefault(view, view)
        assert type(found) is type(view)
        return found

    def _special_namespaces(self) -> set[str]:
        """Namespaces whose clients see other things than everybody: all others share one view."""
        objects = self.mesh.objects
        own = {dr.ref.namespace for dr in objects.destination_rules.values()}
        exported: list[tuple[str, tuple[str, ...]]] = [
            *((r.ref.namespace, r.spec.export_to) for r in objects.virtual_services.values()),
            *((r.ref.namespace, r.spec.export_to) for r in objects.destination_rules.values()),
        ]
        by_name: dict[str, str] = {}
        for s in objects.services.values():
            # Two namespaces with a service of one name: each means its own by it.
            first = by_name.setdefault(s.name, s.namespace)
            if first != s.namespace:
                own |= {first, s.namespace}
        for found in self.mesh.by_host().values():
            if len(found) > 1:
                own |= {s.namespace for s in found}
            exported += [(s.namespace, s.export_to) for s in found if s.export_to]
        for namespace, export_to in exported:
            if export_to and "*" not in export_to:
                own |= {namespace, *(e for e in export_to if e not in (".", "~"))}
        return own

    def of(self, pod: o.Pod, kind: str, metadata: Mapping[str, str] | None = None) -> View:
        """``metadata``: what the proxy says of itself."""
        dns = (metadata or {}).get("DNS_CAPTURE") == "true"
        gateway = kind == ROUTER
        out = self.outbound(pod.namespace, pod.label_map, pod.locality, dns, gateway)
        named = credentials.of_rules(self.mesh, pod.namespace, pod.label_map, gateway)
        found = self.mesh.envoy_filters(pod.namespace, pod.label_map)
        filters = patches(found, metadata or {}) if found else ()
        if not gateway:
            return View(out, inbound=self._inbound(pod), credentials=_by_name(named), patches=filters)
        served, used = gateways.view(self.mesh, pod, self.intern)
        return View(out, gateway=served, credentials=_by_name([*used, *named]), patches=filters)

    # --- outbound --------------------------------------------------------------------------------------------

    def outbound(
        self,
        namespace: str,
        labels: Mapping[str, str] | None = None,
        locality: str = "",
        dns: bool = False,
        gateway: bool = False,
    ) -> OutboundView:
        """What clients of a namespace see; ``labels`` and ``locality`` count only where some rule asks for them."""
        labels = labels or {}
        sidecar = None if gateway else self.mesh.sidecar(namespace, labels)
        chosen = {k: labels[k] for k in sorted(self._source_keys) if k in labels}
        client = Client(
            namespace if namespace in self._special or sidecar else "",
            namespace if self._source_namespace else "",
            tuple(chosen.items()),
            sidecar.ref if sidecar else None,
            sidecar.version if sidecar else "",
            locality if self._by_place[0] else "",
            dns,
            gateway and bool(self.mesh.secret_rules()),
        )
        if client not in self._outbound:
            self._outbound[client] = self._made(client, namespace, sidecar)
        return self._outbound[client]

    def _made(self, client: Client, namespace: str, sidecar: o.Resource[Sidecar] | None) -> OutboundView:
        mesh = self.mesh
        scope = Scope(mesh, sidecar, namespace) if sidecar else None
        memo = self._memo[client] = {}
        before = self._before.get(client, {})
        hosts: list[HostView] = []
        endpoints: list[EndpointsView] = []
        every = frozenset[int]()
        for service, only in scope.services() if scope else ((s, every) for s in mesh.visible(client.namespace)):
            if service.external_name:
                continue
            made, own = self._host(client, service, only, scope, memo, before)
            hosts.append(made)
            endpoints += own
        if mesh.rules_by_host():
            hosts += self._rule_hosts(client, hosts, scope)
        config = _with_policy(mesh, sidecar, namespace)
        silenced = self._shared_spellings(client, hosts)
        binds = self._binds(client, scope, memo, before) if scope else ()
        origins = (str(sidecar.ref),) if sidecar else ()
        key = (config, tuple(map(id, hosts)), tuple(map(id, endpoints)), silenced, binds, origins)
        return OutboundView(
            key,
            config=config,
            hosts=tuple(hosts),
            endpoints=tuple(endpoints),
            silenced=silenced,
            binds=binds,
            origins=origins,
        )

    def _shared_spellings(self, client: Client, hosts: list[HostView]) -> frozenset[tuple[str, str]]:
        """Worked out again only where some host's spellings are others."""
        spelled = tuple((h.host, h.namespace, h.name, h.addresses, h.aliases) for h in hosts)
        before = self._silenced_before.get(client)
        found = before[1] if before and before[0] == spelled else spelling.silenced(hosts, client.namespace)
        self._silenced[client] = (spelled, found)
        return found

    def _binds(self, client: Client, scope: Scope, memo: Memo, before: Memo) -> tuple[Bind, ...]:
        out = []
        for listener, services in scope.bound():
            assert listener.port is not None
            hosts = tuple(
                self._host(client, s, frozenset(), scope, memo, before)[0] for s in services if not s.external_name
            )
            free = listener.capture_mode == "NONE"
            address = listener.bind or "127.0.0.1"
            kind = protocol(_as_port(listener.port))
            out.append(Bind(listener.port.number, address, not free, kind, hosts))
        return tuple(out)

    def _host(
        self,
        client: Client,
        service: o.Service,
        only: frozenset[int],
        scope: Scope | None,
        memo: Memo,
        before: Memo,
    ) -> tuple[HostView, tuple[EndpointsView, ...]]:
        mesh = self.mesh
        seen = scope.rule if scope else None
        rules = (
            mesh.destination_rule(service.host, client.namespace, client.labels) if mesh.has_destination_rules else ()
        )
        if rules and not client.gateway and mesh.secret_rules():
            rules = tuple(map(credentials.for_sidecars, rules))
        virtual = mesh.mesh_rules(service.host, client.namespace, seen)
        if virtual and (self._source_keys or self._source_namespace):
            labels = dict(client.labels)
            virtual = tuple(source.narrowed(v, client.source, labels) for v in virtual)
        ports = [p for p in service.ports if p.port in only] if only else service.ports
        behind = tuple([mesh.endpoints(service, p) for p in ports])
        aliases = self._own_aliases(service, client, seen)
        inputs: tuple[object, ...] = (
            mesh.config,
            service,
            rules,
            virtual,
            behind,
            aliases,
            self._peers,
            self._by_host if virtual else None,
            mesh.destination_rules() if any(v.spec.tls or v.spec.tcp for v in virtual) else None,
            mesh.automatic() if client.dns and service.resolution else None,
        )
        key = (service.host, only)
        was = before.get(key)
        if was is None or not _same(was[0], inputs):
            was = (inputs, *self._make_host(client, service, ports, inputs))
        memo[key] = was
        return was[1], was[2]

    def _own_aliases(
        self, service: o.Service, client: Client, seen: Callable[[o.Resource[VirtualService]], bool] | None
    ) -> tuple[o.Service, ...]:
        """An alias with rules of its own is a host of its own."""
        found = self._aliases.get(service.host, ()) if self._aliases else ()
        return tuple(a for a in found if not self.mesh.mesh_rules(a.host, client.namespace, seen)) if found else ()

    def _make_host(
        self, client: Client, service: o.Service, ports: Sequence[o.ServicePort], inputs: tuple[Any, ...]
    ) -> tuple[HostView, tuple[EndpointsView, ...]]:
        mesh = self.mesh
        _, _, rules, virtual, behind, aliases, *_ = inputs
        subsets: dict[str, Mapping[str, str]] = {"": {}} | {
            s.name: s.labels for dr in reversed(rules) for s in dr.spec.subsets
        }
        shown, security, endpoints = [], [], []
        weighted = False
        for p, found in zip(ports, behind, strict=True):
            kind = protocol(p)
            if kind == "udp":
                continue
            shown.append(Port(p.port, p.name, kind))
            for subset, wanted in subsets.items():
                chosen = _select(found, wanted)
                settings = policy.merged(rules, subset, p.port)
                disabled = settings.tls is not None and settings.tls.mode != "ISTIO_MUTUAL"
                meshed = "none" if disabled or service.external else _meshed(chosen, service, mesh)
                accounts = tuple(sorted({(w.namespace, w.service_account) for _, w in chosen if w}))
                security.append(Security(p.port, subset, meshed, () if service.external else accounts))
                place = places.place(client.locality, client.labels, settings, mesh)
                weighted = weighted or place is not None
                cluster = f"outbound|{p.port}|{subset}|{service.host}"
                secure = not disabled and not service.external
                entry = (cluster, chosen, secure, place)
                endpoints.append(
                    self.intern(EndpointsView(entry, cluster=cluster, endpoints=chosen, mtls=secure, locality=place))
                )
        headless = service.headless
        named = service.resolution in KNOWN_BY_NAME
        instances = [
            (p.port, e.address)
            for p, found in zip(ports, behind, strict=True)
            if headless and protocol(p) not in HTTP
            for e, _ in found
        ]
        values: dict[str, Any] = {
            "config": mesh.config,
            "host": service.host,
            "namespace": service.namespace,
            "name": service.name,
            "addresses": mesh.addresses(service, client.dns),
            "ports": tuple(shown),
            "resolution": "HEADLESS" if headless else service.resolution,
            "external": service.external,
            "sans": service.sans,
            "aliases": tuple((a.namespace, a.name) for a in aliases),
            "security": tuple(security),
            "virtual_services": virtual,
            "rules": rules,
            "destinations": destinations(mesh, virtual),
            "onward": _onward(mesh, client, virtual),
            "inline": tuple(endpoints) if named else (),
            "instances": tuple(dict.fromkeys(instances)),
            "weighted": weighted,
            "origins": tuple(map(str, service.entries)),
        }
        view = self.intern(HostView(tuple(values.values()), **values))
        by_eds = not named and not headless and service.resolution != "NONE"
        return view, tuple(endpoints) if by_eds else ()

    def _rule_hosts(self, client: Client, known: list[HostView], scope: Scope | None) -> list[HostView]:
        """Hosts that rules name and no visible service has: routed on port 80, as in Istio. A wildcard that covers
        services stands for these alone. An alias with rules of its own is on its service's ports."""
        mesh = self.mesh
        names = {h.host for h in known}
        aliased = {a.host: (target, a) for target, found in mesh.aliases().items() for a in found}
        ports = {h.host: h.ports for h in known}
        out = []
        for host in mesh.rules_by_host():
            if host in names or (host.startswith("*") and any(covers(host, name) for name in names)):
                continue
            found = mesh.rules_named(host, client.namespace, scope.rule if scope else None)
            if not found:
                continue
            virtual = tuple(source.narrowed(v, client.source, dict(client.labels)) for v in found)
            target, alias = aliased.get(host, ("", None))
            values: dict[str, Any] = {
                "config": mesh.config,
                "host": host,
                "namespace": alias.namespace if alias else found[0].ref.namespace,
                "name": alias.name if alias else host,
                "addresses": (),
                "ports": ports.get(target, (Port(80, "http", "http"),)),
                "resolution": "RULES",
                "external": True,
                "sans": (),
                "aliases": (),
                "security": (),
                "virtual_services": virtual,
                "rules": (),
                "destinations": destinations(mesh, virtual),
                "onward": (),
                "inline": (),
                "instances": (),
                "weighted": False,
                "origins": (),
            }
            out.append(self.intern(HostView(tuple(values.values()), **values)))
        return out

    def names(self, namespace: str) -> dict[str, list[str]]:
        """Hosts that ServiceEntries add for clients of a namespace, with their addresses: what their DNS answers."""
        if namespace not in self._names:
            self._names[namespace] = self._named(namespace)
        return self._names[namespace]

    def _named(self, namespace: str) -> dict[str, list[str]]:
        out = {}
        for s in self.mesh.visible(namespace):
            if s.resolution:
                found = [a for a in self.mesh.addresses(s, automatic=True) if "/" not in a]
                if found:
                    out[s.host.lower()] = found
        return out

    # --- inbound ---------------------------------------------------------------------------------------------

    def _inbound(self, pod: o.Pod) -> InboundView:
        mesh = self.mesh
        sidecar = mesh.sidecar(pod.namespace, pod.label_map)
        pool = sidecar.spec.inbound_connection_pool if sidecar else None
        if sidecar and sidecar.spec.ingress:
            found = [_ingress(i, pod, mesh, pool) for i in sidecar.spec.ingress]
        else:
            found = [InboundPort(port, service, pool=pool) for port, service in self._served(pod)]
        mode, single, chosen = mesh.mtls(pod.namespace, pod.label_map)
        values: dict[str, Any] = {
            "config": mesh.config,
            "pod": pod,
            "mtls": mode,
            "mtls_ports": single,
            "policy": chosen,
            "authorization": mesh.authorization(pod.namespace, pod.label_map),
            "ports": tuple(sorted(found, key=lambda i: i.port.number)),
            "origins": (str(sidecar.ref),) if sidecar else (),
        }
        version = sidecar.version if sidecar and (sidecar.spec.ingress or pool) else ""
        return self.intern(InboundView((*values.values(), version), **values))

    def _served(self, pod: o.Pod) -> list[tuple[Port, o.Service]]:
        """The pod's ports that services and entries lead to, each with the first of them."""
        out: dict[int, tuple[Port, o.Service]] = {}
        found = [
            (s, p, gateways.container_port(pod, p)) for s in self.mesh.services_of(pod) for p in s.ports
        ] + self.mesh.entries_of(pod)
        for service, p, number in found:
            kind = protocol(p)
            known = out.get(number)
            # A service that says its protocol goes before one that does not.
            if number and kind != "udp" and (known is None or (known[0].protocol == "auto" and kind != "auto")):
                out[number] = (Port(number, p.name, kind), service)
        return list(out.values())


def _by_name(found: list[o.Credential]) -> tuple[o.Credential, ...]:
    """Each once, in an order of their own; what a server names goes before what a rule names."""
    named = {c.name: c for c in reversed(found)}
    return tuple(named[n] for n in sorted(named))


def patches(found: tuple[o.Resource[EnvoyFilter], ...], metadata: Mapping[str, str]) -> tuple[Patch, ...]:
    """Those for a proxy of this version and with this metadata."""
    return tuple(
        Patch(f.ref, f.version, i, spec)
        for f in found
        for i, spec in enumerate(f.spec.config_patches)
        if _for_proxy(spec.match.proxy if spec.match else None, metadata)
    )


def _for_proxy(wanted: ProxyMatch | None, metadata: Mapping[str, str]) -> bool:
    if wanted is None:
        return True
    if wanted.proxy_version and re2.search(wanted.proxy_version, metadata.get("ISTIO_VERSION", "")) is None:
        return False
    return all(metadata.get(k) == v for k, v in wanted.metadata.items())


def _same(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    """Whether two tuples (of tuples) hold the same objects."""
    for x, y in zip(a, b, strict=True):
        if x is y:
            continue
        if not (type(x) is tuple and type(y) is tuple and len(x) == len(y) and all(map(_is, x, y))):
            return False
    return True


def _is(a: object, b: object) -> bool:
    return a is b


def _with_policy(mesh: Mesh, sidecar: o.Resource[Sidecar] | None, namespace: str) -> Any:
    found = sidecar.spec.outbound_traffic_policy if sidecar else None
    if found is None:
        return mesh.config
    proxy = ""
    if found.egress_proxy:
        host = mesh.resolve(found.egress_proxy.host, namespace)
        port = found.egress_proxy.port.number if found.egress_proxy.port else 0
        proxy = f"outbound|{port}|{found.egress_proxy.subset}|{host}"
    return replace(mesh.config, outbound_policy=found.mode, egress_proxy=proxy)


def _as_port(p: SidecarPort) -> o.ServicePort:
    return o.ServicePort(p.name, p.number, p.target_port or p.number, "TCP", p.protocol.lower() or "auto")


def _ingress(i: IstioIngressListener, pod: o.Pod, mesh: Mesh, pool: Any) -> InboundPort:
    assert i.port is not None
    service = next(
        (
            s
            for s in mesh.services_of(pod)
            for p in s.ports
            if p.port == i.port.number or gateways.container_port(pod, p) == i.port.number
        ),
        None,
    )
    port = Port(i.port.number, i.port.name, protocol(_as_port(i.port)))
    bind = (i.bind or pod.address) if i.capture_mode == "NONE" else ""
    return InboundPort(port, service, i.default_endpoint, i.tls, pool=i.connection_pool or pool, bind=bind, scoped=True)


def _select(found: registry.Found, labels: Mapping[str, str]) -> registry.Found:
    if not labels:
        return found
    return tuple((e, p) for e, p in found if p is not None and all(p.label_map.get(k) == v for k, v in labels.items()))


def _meshed(endpoints: registry.Found, service: o.Service, mesh: Mesh) -> str:
    """An empty cluster of Kubernetes counts as meshed: its first endpoints most likely will be, and are waited for."""
    modes = {
        p is not None and p.meshed and mesh.mtls_mode(p.namespace, p.label_map, e.port) != "DISABLE"
        for e, p in endpoints
    }
    if not modes:
        return "none" if service.resolution else "all"
    return "some" if len(modes) == 2 else "none" if modes == {False} else "all"


def _onward(
    mesh: Mesh, client: Client, rules: tuple[o.Resource[VirtualService], ...]
) -> tuple[tuple[str, tuple[o.Resource[DestinationRule], ...]], ...]:
    """The DestinationRules of the hosts that connections are routed to."""
    out = {}
    for vs in rules:
        routes = [r for tls in vs.spec.tls for r in tls.route] + [r for tcp in vs.spec.tcp for r in tcp.route]
        for r in routes:
            host = mesh.resolve(r.destination.host, vs.ref.namespace)
            out[host] = mesh.destination_rule(host, client.namespace, client.labels)
    return tuple((host, found) for host, found in sorted(out.items()) if found)
