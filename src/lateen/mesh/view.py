"""What the translator may know: frozen values, which are also what its results are kept by.

Values are shared between proxies, and between instants of the mesh, for as long as nothing in them changes. The
services that a proxy may call come in parts, one for each namespace, and apart by what is made of them: hosts (clusters
and listeners), endpoints, domains (virtual hosts). So a change makes few new values, whoever is concerned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lateen.api import objects as o
from lateen.api.mesh import ExtensionProvider
from lateen.api.networking.destination_rule import DestinationRule
from lateen.api.networking.envoy_filter import EnvoyConfigObjectPatch
from lateen.api.networking.server_tls import ServerTLS
from lateen.api.networking.traffic_policy import ConnectionPool, LocalityLb
from lateen.api.security import AuthorizationPolicy
from lateen.mesh.cached import Cached
from lateen.mesh.proxies import Place
from lateen.mesh.routing import NO_ROUTES, ConnectionRoute, HostRoutes, PortRoutes
from lateen.mesh.settings import DEFAULTS, Observability, OutboundPolicy, Transport
from lateen.mesh.workloads import Instances


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


@dataclass(frozen=True)
class Locality:
    """Where the client is, and what the service's rules say of places."""

    here: str
    labels: tuple[tuple[str, str], ...]
    """The client's labels that ``failoverPriority`` names."""
    setting: LocalityLb | None = field(hash=False)
    failover: bool
    """Only where failing hosts are ejected can another place take over."""


@dataclass(frozen=True, eq=False)
class EndpointsView(Cached):
    """The endpoints of one cluster."""

    cluster: str = field(kw_only=True)
    endpoints: Instances = field(kw_only=True)
    mtls: bool = field(kw_only=True)
    locality: Locality | None = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class HostView(Cached):
    """One service as some clients see it, or (without ports' clusters) a host that only rules name."""

    transport: Transport = field(kw_only=True)
    host: str = field(kw_only=True)
    namespace: str = field(kw_only=True)
    name: str = field(kw_only=True)
    addresses: tuple[str, ...] = field(kw_only=True)
    """Addresses that clients call it by, also ranges; empty where it has none."""
    ports: tuple[Port, ...] = field(kw_only=True)
    resolution: str = field(kw_only=True)
    """As of ServiceEntries; HEADLESS, and RULES for a host that only rules name."""
    external: bool = field(kw_only=True)
    sans: tuple[str, ...] = field(kw_only=True)
    aliases: tuple[tuple[str, str], ...] = field(kw_only=True)
    """(namespace, name) of ExternalName services that stand for it."""
    security: tuple[Security, ...] = field(kw_only=True)
    routes: tuple[PortRoutes, ...] = field(kw_only=True)
    """By port; empty where no rule says anything."""
    rules: tuple[o.Resource[DestinationRule], ...] = field(kw_only=True)
    onward: tuple[tuple[str, tuple[int, ...], tuple[o.Resource[DestinationRule], ...]], ...] = field(kw_only=True)
    """(host, its ports, its DestinationRules) of other hosts that connections are routed to."""
    inline: tuple[EndpointsView, ...] = field(kw_only=True)
    """Endpoints that stand in the clusters themselves: names that Envoy looks up."""
    instances: tuple[tuple[int, str], ...] = field(kw_only=True)
    """(port, address) of a headless service's endpoints, which clients call directly."""
    weighted: bool = field(kw_only=True)
    """Whether localities have a say in its load balancing."""
    origins: tuple[str, ...] = field(kw_only=True)
    """The user's objects that it comes from."""

    def secured(self, port: int, subset: str) -> Security:
        return next((s for s in self.security if s.port == port and s.subset == subset), Security(port, subset, "none"))

    def routed(self, port: int) -> PortRoutes:
        return next((r for r in self.routes if r.port == port), NO_ROUTES)


P = TypeVar("P", bound=Cached)
M = TypeVar("M")


@dataclass(frozen=True, eq=False)
class HostSpace(Cached):
    """The hosts of one namespace as some clients see them, by name; compared by the hosts' identity."""

    members: tuple[HostView, ...] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class EndpointSpace(Cached):
    """The endpoints of one namespace's clusters."""

    members: tuple[EndpointsView, ...] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class DomainSpace(Cached):
    """The names that one namespace's hosts have for some clients."""

    hosts: HostSpace = field(kw_only=True)
    viewer: str = field(kw_only=True)
    """The namespace whose bare short names count, where the hosts have some there; else empty."""
    silenced: frozenset[tuple[str, str]] = field(kw_only=True)
    """(host, spelling) that belongs to another host: Envoy allows each spelling once."""


@dataclass(frozen=True, eq=False)
class Spaces(Cached, Generic[P]):
    """All namespaces' parts; compared by the parts."""

    parts: tuple[P, ...] = field(kw_only=True)


@dataclass(frozen=True)
class Bind:
    """An egress listener of a Sidecar that applications connect to by its own address."""

    port: int
    address: str
    captured: bool
    """Reached through redirection; else Envoy listens there itself."""
    protocol: str
    hosts: tuple[HostView, ...]


@dataclass(frozen=True, eq=False)
class OutboundView(Cached):
    """What some clients may call."""

    policy: OutboundPolicy = field(kw_only=True)
    connect_timeout_s: float = field(kw_only=True)
    host_spaces: Spaces[HostSpace] = field(kw_only=True)
    endpoint_spaces: Spaces[EndpointSpace] = field(kw_only=True)
    domain_spaces: Spaces[DomainSpace] = field(kw_only=True)
    binds: tuple[Bind, ...] = field(kw_only=True)
    origins: tuple[str, ...] = field(kw_only=True)

    @property
    def hosts(self) -> Iterator[HostView]:
        for part in self.host_spaces.parts:
            yield from part.members

    @property
    def endpoints(self) -> Iterator[EndpointsView]:
        for part in self.endpoint_spaces.parts:
            yield from part.members


@dataclass(frozen=True)
class InboundPort:
    """A port of the workload that something leads to."""

    port: Port
    service: o.Service | None = None
    target: str = ""
    """Where the application listens, where a Sidecar says so; else where the client wanted to go."""
    tls: ServerTLS | None = None
    pool: ConnectionPool | None = field(default=None, hash=False)
    bind: str = ""
    """Envoy's own address for it, where it is not captured."""
    scoped: bool = False
    """From a Sidecar."""


@dataclass(frozen=True)
class Authorization:
    """Who may reach a workload, and what its policies are read with."""

    policies: tuple[o.Resource[AuthorizationPolicy], ...] = ()
    domains: tuple[str, ...] = ()
    """The trust domain and its aliases, where it has any."""
    providers: tuple[ExtensionProvider, ...] = field(default=(), hash=False)
    """Who may be asked; empty where no policy asks."""


UNRESTRICTED = Authorization()


@dataclass(frozen=True, eq=False)
class InboundView(Cached):
    """What is particular to one workload."""

    transport: Transport = field(kw_only=True)
    pod: o.Pod = field(kw_only=True)
    mtls: str = field(kw_only=True)
    mtls_ports: tuple[tuple[int, str], ...] = field(kw_only=True)
    """Ports with a mode of their own."""
    policy: o.Ref | None = field(kw_only=True)
    """The PeerAuthentication that ``mtls`` comes from."""
    authorization: Authorization = field(kw_only=True)
    ports: tuple[InboundPort, ...] = field(kw_only=True)
    origins: tuple[str, ...] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class GatewayServer(Cached):
    """One port of a gateway workload with what is routed there."""

    trust_domain: str = field(kw_only=True)
    port: int = field(kw_only=True)
    target: int = field(kw_only=True)
    bind: str = field(kw_only=True)
    name: str = field(kw_only=True)
    """The server's own; its filter chain is called so."""
    route: str = field(kw_only=True)
    """The name of its route configuration; empty where connections are forwarded, not requests."""
    tls: ServerTLS | None = field(kw_only=True)
    """How the gateway ends TLS; None for plain text and for TLS that passes through."""
    passthrough: bool = field(kw_only=True)
    automatic: bool = field(kw_only=True)
    """AUTO_PASSTHROUGH: by names that say which cluster (``outbound_.80_._.host``)."""
    sni: tuple[str, ...] = field(kw_only=True)
    """Names by which clients choose this server; empty for all."""
    redirects: tuple[tuple[str, int], ...] = field(kw_only=True)
    """(host, port) whose plain requests are sent to HTTPS."""
    hosts: tuple[str, ...] = field(kw_only=True)
    origins: tuple[str, ...] = field(kw_only=True)
    requests: tuple[HostRoutes, ...] = field(kw_only=True)
    """In order of precedence; several may be for the same host."""
    connections: tuple[ConnectionRoute, ...] = field(kw_only=True)
    authorization: Authorization = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class GatewayView(Cached):
    pod: o.Pod = field(kw_only=True)
    place: Place = field(kw_only=True)
    servers: tuple[GatewayServer, ...] = field(kw_only=True)
    """Without those whose certificate is missing."""


@dataclass(frozen=True)
class Patch:
    """One entry of an EnvoyFilter. Compared by where it stands."""

    ref: o.Ref
    version: str
    index: int
    spec: EnvoyConfigObjectPatch = field(compare=False)


@dataclass(frozen=True)
class View:
    """Everything for one proxy. Exactly one of ``inbound`` and ``gateway`` is there."""

    outbound: OutboundView
    inbound: InboundView | None = None
    gateway: GatewayView | None = None
    credentials: tuple[o.Credential, ...] = ()
    """Of a gateway's servers that end TLS, and of the rules that begin it."""
    observability: Observability = DEFAULTS.observability
    patches: tuple[Patch, ...] = ()
    """On the finished resources, in their order."""
