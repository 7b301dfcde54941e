"""What the translator may know: frozen values, which are also its cache keys.

An OutboundView is the same object for all sidecars of a namespace; its HostViews are shared between namespaces and
between instants of the mesh for as long as nothing in them changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lateen.api import objects as o
from lateen.api.networking import Destination, DestinationRule, Gateway, Server, ServerTLS, VirtualService
from lateen.api.security import AuthorizationPolicy
from lateen.mesh import policy, source
from lateen.mesh.model import Mesh, MeshConfig, PortEndpoints, protocol


@dataclass(frozen=True)
class Port:
    number: int
    name: str
    protocol: str


@dataclass(frozen=True)
class Security:
    """Whether the endpoints of a cluster have sidecars: ``all``, ``none`` or ``some``."""

    port: int
    subset: str
    meshed: str
    accounts: tuple[tuple[str, str], ...] = ()
    """(namespace, service account) of the endpoints: the identities that a server may have"""


@dataclass(frozen=True, eq=False)
class Cached:
    """A frozen value that is compared by its ``key``, whose hash is worked out once."""

    key: tuple[object, ...]
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.key))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Cached)
            and type(self) is type(other)
            and self._hash == other._hash
            and self.key == other.key
        )


@dataclass(frozen=True, eq=False)
class HostView(Cached):
    """One service as clients of a namespace see it."""

    config: MeshConfig = field(kw_only=True)
    host: str = field(kw_only=True)
    namespace: str = field(kw_only=True)
    name: str = field(kw_only=True)
    address: str = field(kw_only=True)
    ports: tuple[Port, ...] = field(kw_only=True)
    security: tuple[Security, ...] = field(kw_only=True)
    virtual_services: tuple[o.Resource[VirtualService], ...] = field(kw_only=True)
    rules: tuple[o.Resource[DestinationRule], ...] = field(kw_only=True)
    destinations: tuple[tuple[str, str, tuple[int, ...]], ...] = field(kw_only=True)
    """(host as written, full host, its ports) of every destination of the VirtualServices"""

    def secured(self, port: int, subset: str) -> Security:
        return next((s for s in self.security if s.port == port and s.subset == subset), Security(port, subset, "none"))

    def resolved(self, host: str, namespace: str) -> tuple[str, tuple[int, ...]]:
        return next(
            ((full, ports) for written, full, ports in self.destinations if written == f"{namespace}/{host}"),
            (host, ()),
        )


@dataclass(frozen=True, eq=False)
class EndpointsView(Cached):
    """The endpoints of one cluster."""

    cluster: str = field(kw_only=True)
    endpoints: tuple[tuple[o.Endpoint, o.Pod | None], ...] = field(kw_only=True)
    mtls: bool = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class OutboundView(Cached):
    config: MeshConfig = field(kw_only=True)
    hosts: tuple[HostView, ...] = field(kw_only=True)
    endpoints: tuple[EndpointsView, ...] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class InboundView(Cached):
    """What is particular to one workload."""

    config: MeshConfig = field(kw_only=True)
    pod: o.Pod = field(kw_only=True)
    mtls: str = field(kw_only=True)
    mtls_ports: tuple[tuple[int, str], ...] = field(kw_only=True)
    """Ports with a mode of their own."""
    policy: o.Ref | None = field(kw_only=True)
    """The PeerAuthentication that ``mtls`` comes from."""
    authorization: tuple[o.Resource[AuthorizationPolicy], ...] = field(kw_only=True)
    ports: tuple[tuple[Port, o.Service | None], ...] = field(kw_only=True)
    """Container ports that services lead to, with the (first) service"""


HTTP_SERVERS = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
ENDS_TLS = ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")
Bound = tuple[o.Resource[Gateway], Server]


@dataclass(frozen=True, eq=False)
class GatewayServer(Cached):
    """One port of a gateway workload with what is routed there."""

    config: MeshConfig = field(kw_only=True)
    port: int = field(kw_only=True)
    target: int = field(kw_only=True)
    route: str = field(kw_only=True)
    """The name of its route configuration; empty where connections are forwarded, not requests."""
    tls: ServerTLS | None = field(kw_only=True)
    """How the gateway ends TLS; None for plain text and for TLS that passes through."""
    passthrough: bool = field(kw_only=True)
    sni: tuple[str, ...] = field(kw_only=True)
    """Names by which clients choose this server; empty for all."""
    redirect: bool = field(kw_only=True)
    hosts: tuple[str, ...] = field(kw_only=True)
    origins: tuple[str, ...] = field(kw_only=True)
    virtual_services: tuple[tuple[o.Resource[VirtualService], tuple[str, ...], tuple[str, ...]], ...] = field(
        kw_only=True
    )
    """(rule, its hosts here, names of the gateways by which it is bound here)"""
    destinations: tuple[tuple[str, str, tuple[int, ...]], ...] = field(kw_only=True)
    authorization: tuple[o.Resource[AuthorizationPolicy], ...] = field(kw_only=True)

    def resolved(self, host: str, namespace: str) -> tuple[str, tuple[int, ...]]:
        return next(
            ((full, ports) for written, full, ports in self.destinations if written == f"{namespace}/{host}"),
            (host, ()),
        )


@dataclass(frozen=True, eq=False)
class GatewayView(Cached):
    config: MeshConfig = field(kw_only=True)
    pod: o.Pod = field(kw_only=True)
    servers: tuple[GatewayServer, ...] = field(kw_only=True)
    credentials: tuple[o.Credential, ...] = field(kw_only=True)
    """Of the servers that end TLS; those without one are left out."""


@dataclass(frozen=True)
class View:
    """Everything for one proxy. Exactly one of ``inbound`` and ``gateway`` is there."""

    outbound: OutboundView
    inbound: InboundView | None = None
    gateway: GatewayView | None = None


class Views:
    """Makes views of one mesh, reusing those of the instant before where they are equal."""

    def __init__(self, mesh: Mesh, previous: Views | None = None) -> None:
        self.mesh = mesh
        self._interned: dict[object, Cached] = previous._interned if previous else {}
        if len(self._interned) > 50_000:
            self._interned = {}
        self._outbound: dict[tuple[str, str, tuple[tuple[str, str], ...]], OutboundView] = {}
        self._special = self._special_namespaces()
        self._source_keys, self._source_namespace = source.asks(mesh.objects.virtual_services.values())

    def _intern(self, view: Cached) -> Cached:
        return self._interned.setdefault(view, view)

    def _special_namespaces(self) -> set[str]:
        """Namespaces whose clients see other rules than everybody: all others share one view."""
        objects = self.mesh.objects
        own = {dr.ref.namespace for dr in objects.destination_rules.values()}
        exported: list[o.Resource[VirtualService] | o.Resource[DestinationRule]] = [
            *objects.virtual_services.values(),
            *objects.destination_rules.values(),
        ]
        for r in exported:
            if r.spec.export_to and "*" not in r.spec.export_to:
                own |= {r.ref.namespace, *(e for e in r.spec.export_to if e not in (".", "~"))}
        return own

    def of(self, pod: o.Pod, kind: str) -> View:
        out = self.outbound(pod.namespace, pod.label_map)
        if kind == "router":
            return View(out, gateway=self._gateway(pod))
        return View(out, inbound=self._inbound(pod))

    # --- outbound --------------------------------------------------------------------------------------------

    def outbound(self, namespace: str, labels: Mapping[str, str] | None = None) -> OutboundView:
        """What clients of a namespace see; ``labels`` count only where some rule asks for them."""
        shared = namespace if namespace in self._special else ""
        chosen = {k: labels[k] for k in sorted(self._source_keys) if labels and k in labels}
        client = (shared, namespace if self._source_namespace else "", tuple(chosen.items()))
        if client not in self._outbound:
            hosts, endpoints = [], []
            for service in sorted(self.mesh.hosts(), key=lambda s: s.host):
                if service.external_name or not service.address:
                    continue
                view, own = self._host(service, shared, namespace, chosen)
                hosts.append(view)
                endpoints += own
            key = (self.mesh.config, tuple(map(id, hosts)), tuple(map(id, endpoints)))
            made = OutboundView(key, config=self.mesh.config, hosts=tuple(hosts), endpoints=tuple(endpoints))
            self._outbound[client] = made
        return self._outbound[client]

    def _host(
        self, service: o.Service, namespace: str, client: str, labels: Mapping[str, str]
    ) -> tuple[HostView, list[EndpointsView]]:
        """``namespace`` decides which rules are seen; ``client`` and ``labels`` say who it is that sees them."""
        mesh = self.mesh
        rules = mesh.destination_rule(service.host, namespace)
        virtual = tuple(source.narrowed(v, client, labels) for v in mesh.mesh_rules(service.host, namespace))
        subsets: dict[str, Mapping[str, str]] = {"": {}} | {
            s.name: s.labels for dr in reversed(rules) for s in dr.spec.subsets
        }
        ports, security, endpoints = [], [], []
        for p in service.ports:
            kind = protocol(p)
            if kind == "udp":
                continue
            ports.append(Port(p.port, p.name, kind))
            found = mesh.endpoints(service, p.name)
            for subset, labels in subsets.items():
                chosen = _select(found, labels)
                tls = policy.merged(rules, subset, p.port).tls
                disabled = tls is not None and tls.mode == "DISABLE"
                meshed = "none" if disabled else _meshed(chosen, mesh)
                accounts = tuple(sorted({(pod.namespace, pod.service_account) for _, pod in chosen if pod}))
                security.append(Security(p.port, subset, meshed, accounts))
                cluster = f"outbound|{p.port}|{subset}|{service.host}"
                key = (cluster, chosen, not disabled)
                made = self._intern(EndpointsView(key, cluster=cluster, endpoints=chosen, mtls=not disabled))
                assert isinstance(made, EndpointsView)
                endpoints.append(made)
        destinations = _destinations(mesh, virtual)
        values = {
            "config": mesh.config,
            "host": service.host,
            "namespace": service.namespace,
            "name": service.name,
            "address": service.address,
            "ports": tuple(ports),
            "security": tuple(security),
            "virtual_services": virtual,
            "rules": rules,
            "destinations": destinations,
        }
        view = self._intern(HostView(tuple(values.values()), **values))  # type: ignore[arg-type]
        assert isinstance(view, HostView)
        return view, endpoints

    # --- inbound ---------------------------------------------------------------------------------------------

    def _inbound(self, pod: o.Pod) -> InboundView:
        ports: dict[int, tuple[Port, o.Service | None]] = {}
        for service in self.mesh.services_of(pod):
            for p in service.ports:
                kind = protocol(p)
                number = _container_port(pod, p)
                if number and kind != "udp" and number not in ports:
                    ports[number] = (Port(number, p.name, kind), service)
        mode, single, policy = self.mesh.mtls(pod.namespace, pod.label_map)
        values = {
            "config": self.mesh.config,
            "pod": pod,
            "mtls": mode,
            "mtls_ports": single,
            "policy": policy,
            "authorization": self.mesh.authorization(pod.namespace, pod.label_map),
            "ports": tuple(ports[n] for n in sorted(ports)),
        }
        made = self._intern(InboundView(tuple(values.values()), **values))  # type: ignore[arg-type]
        assert isinstance(made, InboundView)
        return made

    # --- gateways --------------------------------------------------------------------------------------------

    def _gateway(self, pod: o.Pod) -> GatewayView:
        """Plain HTTP servers of one port share their routes; all others stand for themselves."""
        plain: dict[int, list[Bound]] = {}
        rest: list[Bound] = []
        for gw in self.mesh.gateways_for(pod.label_map):
            for s in gw.spec.servers:
                if s.port.protocol.upper() in HTTP_SERVERS:
                    plain.setdefault(s.port.number, []).append((gw, s))
                else:
                    rest.append((gw, s))
        servers = [self._server(pod, port, f"http.{port}", plain[port]) for port in sorted(plain)]
        used: dict[str, o.Credential] = {}
        for gw, s in rest:
            found = self._credentials(pod, s)
            if found is not None:
                used |= {c.name: c for c in found}
                servers.append(self._server(pod, s.port.number, _route_name(gw, s), [(gw, s)]))
        credentials = tuple(used[n] for n in sorted(used))
        key = (self.mesh.config, pod, tuple(servers), credentials)
        made = self._intern(
            GatewayView(key, config=self.mesh.config, pod=pod, servers=tuple(servers), credentials=credentials)
        )
        assert isinstance(made, GatewayView)
        return made

    def _credentials(self, pod: o.Pod, server: Server) -> list[o.Credential] | None:
        """The secrets that a server needs, of the gateway's own namespace; None where one is missing: without its
        certificate the server cannot be there, and the port's other servers must not wait for it."""
        tls = server.tls
        if tls is None or tls.mode not in ENDS_TLS or not tls.credential_name:
            return []
        out = []
        own = self.mesh.objects.credentials.get((pod.namespace, tls.credential_name))
        if own is None or not own.chain:
            return None
        out.append(own)
        if tls.mode in ("MUTUAL", "OPTIONAL_MUTUAL"):
            name = tls.ca_cert_credential_name or f"{tls.credential_name}-cacert"
            ca = self.mesh.objects.credentials.get((pod.namespace, name)) or own
            if not ca.ca:
                return None
            out.append(o.Credential(ca.namespace, f"{tls.credential_name}-cacert", ca=ca.ca))
        return out

    def _server(self, pod: o.Pod, port: int, route: str, bound: list[Bound]) -> GatewayServer:
        virtual: dict[o.Ref, tuple[o.Resource[VirtualService], tuple[str, ...], tuple[str, ...]]] = {}
        for gw, server in bound:
            for found in self.mesh.gateway_rules(gw.ref):
                vs = source.narrowed(found, pod.namespace, pod.label_map)
                shared = tuple(
                    h
                    for h in vs.spec.hosts
                    if any(_server_takes(s, h, gw.ref.namespace, vs.ref.namespace) for s in server.hosts)
                )
                if shared:
                    names = (gw.ref.name, f"{gw.ref.namespace}/{gw.ref.name}")
                    before = virtual.get(vs.ref, (vs, (), ()))
                    virtual[vs.ref] = (vs, tuple(dict.fromkeys(before[1] + shared)), before[2] + names)
        chosen = tuple(sorted(virtual.values(), key=lambda v: v[0].age_order))
        tls = bound[0][1].tls
        protocol_ = bound[0][1].port.protocol.upper()
        hosts = tuple(dict.fromkeys(h.rpartition("/")[2] for _, s in bound for h in s.hosts))
        secure = protocol_ in ("HTTPS", "TLS")
        values = {
            "config": self.mesh.config,
            "port": port,
            "target": self._listen_port(pod, port),
            "route": route,
            "tls": tls if secure and tls and tls.mode in ENDS_TLS else None,
            "passthrough": secure and (tls is None or tls.mode == "PASSTHROUGH"),
            "sni": tuple(h for h in hosts if h != "*") if secure and "*" not in hosts else (),
            "redirect": any(s.tls.https_redirect if s.tls else False for _, s in bound),
            "hosts": hosts,
            "origins": tuple(dict.fromkeys(str(g.ref) for g, _ in bound)),
            "virtual_services": chosen,
            "destinations": _destinations(self.mesh, tuple(v for v, _, _ in chosen)),
            "authorization": self.mesh.authorization(pod.namespace, pod.label_map),
        }
        made = self._intern(GatewayServer(tuple(values.values()), **values))  # type: ignore[arg-type]
        assert isinstance(made, GatewayServer)
        return made

    def _listen_port(self, pod: o.Pod, port: int) -> int:
        """The port inside the pod: the gateway's own service maps 80 to 8080."""
        for service in self.mesh.services_of(pod):
            for p in service.ports:
                if p.port == port:
                    return _container_port(pod, p) or port
        return port


def _route_name(gw: o.Resource[Gateway], server: Server) -> str:
    """Of a server with requests of its own; empty for one that forwards connections."""
    ends = server.tls is not None and server.tls.mode in ENDS_TLS
    if server.port.protocol.upper() != "HTTPS" or not ends:
        return ""
    return f"https.{server.port.number}.{server.port.name}.{gw.ref.name}.{gw.ref.namespace}"


def _container_port(pod: o.Pod, port: o.ServicePort) -> int:
    if isinstance(port.target, int):
        return port.target
    return next((n for name, n, _ in pod.ports if name == port.target), 0)


def _select(found: PortEndpoints, labels: Mapping[str, str]) -> tuple[tuple[o.Endpoint, o.Pod | None], ...]:
    if not labels:
        return found.endpoints
    return tuple(
        (e, p) for e, p in found.endpoints if p is not None and all(p.label_map.get(k) == v for k, v in labels.items())
    )


def _meshed(endpoints: tuple[tuple[o.Endpoint, o.Pod | None], ...], mesh: Mesh) -> str:
    """An empty cluster counts as meshed: its first endpoints most likely will be, and are waited for then."""
    modes = {
        p is not None and p.meshed and mesh.mtls_mode(p.namespace, p.label_map, e.port) != "DISABLE"
        for e, p in endpoints
    }
    return "some" if len(modes) == 2 else "none" if modes == {False} else "all"


def _destinations(
    mesh: Mesh, rules: tuple[o.Resource[VirtualService], ...]
) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    out = {}
    for vs in rules:
        for d in (*_of_http(vs.spec), *_of_connections(vs.spec)):
            host = mesh.resolve(d.host, vs.ref.namespace)
            service = mesh.service(host)
            ports = tuple(p.port for p in service.ports) if service else ()
            out[f"{vs.ref.namespace}/{d.host}"] = (host, ports)
    return tuple((written, host, ports) for written, (host, ports) in sorted(out.items()))


def _of_http(spec: VirtualService) -> Iterator[Destination]:
    for http in spec.http:
        yield from (r.destination for r in http.route)
        yield from (m.destination for m in http.mirrors)
        if http.mirror:
            yield http.mirror


def _of_connections(spec: VirtualService) -> Iterator[Destination]:
    for tls in spec.tls:
        yield from (r.destination for r in tls.route)
    for tcp in spec.tcp:
        yield from (r.destination for r in tcp.route)


def _server_takes(server_host: str, host: str, gateway_namespace: str, rule_namespace: str) -> bool:
    """Whether a server's ``hosts`` entry (``ns/host``, ``./host``, ``*``) admits a VirtualService's host."""
    namespace, slash, pattern = server_host.rpartition("/")
    if (
        slash
        and namespace not in ("*", rule_namespace)
        and not (namespace == "." and rule_namespace == gateway_namespace)
    ):
        return False
    if pattern == "*" or host == "*" or pattern == host:
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host.startswith("*.") and pattern.endswith(host[1:])
