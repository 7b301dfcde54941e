"""What clients call, as the translator (``xds``) sees it: hosts, their endpoints and names, divided by namespace.

A namespace's hosts (clusters and listeners), endpoints and domains (virtual hosts) are parts of their own, by the
resources that are generated from them. A change therefore creates few new values, however many proxies it affects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from lateen.api import objects as o
from lateen.api.envoy_gateway import BackendTrafficPolicy
from lateen.api.networking.destination_rule import DestinationRule
from lateen.api.networking.traffic_policy import LocalityLb
from lateen.mesh.cached import Cached
from lateen.mesh.routing import NO_ROUTES, BackendTLS, PortRoutes, Sending
from lateen.mesh.settings import OutboundPolicy, Transport
from lateen.mesh.workloads import Instances


@dataclass(frozen=True)
class Port:
    number: int
    name: str
    protocol: str
    target: int = 0
    """Where connections that keep their destination's address go instead; 0: the port that they are for."""
    listener: str = ""
    """The protocol of the clients' own listener, where a Sidecar declares one; else empty."""

    @property
    def spoken(self) -> str:
        """What clients speak there. Clusters have the service's ``protocol``, whoever sends to them."""
        return self.listener or self.protocol


@dataclass(frozen=True)
class Security:
    """Whether the endpoints of a cluster have sidecars: ``all``, ``none`` or ``some``."""

    port: int
    subset: str
    meshed: str
    accounts: tuple[tuple[str, str], ...] = ()
    """(namespace, service account) of the endpoints: the identities expected of servers"""


@dataclass(frozen=True)
class Locality:
    """The client's locality, and the service's locality settings."""

    here: str
    labels: tuple[tuple[str, str], ...]
    """The client's labels that ``failoverPriority`` names."""
    setting: LocalityLb | None = field(hash=False)
    failover: bool
    """Whether other localities can take over, which requires outlier detection or a service that prefers near ones."""

    @property
    def weighted(self) -> bool:
        """Whether shares belong to localities; otherwise all endpoints of a priority are alike, as in Istio."""
        asked = self.setting
        return asked is not None and bool(
            asked.distribute or (self.failover and (asked.failover or asked.failover_priority))
        )


@dataclass(frozen=True, eq=False)
class EndpointsView(Cached):
    """The endpoints of one cluster."""

    cluster: str = field(kw_only=True)
    endpoints: Instances = field(kw_only=True)
    mtls: bool = field(kw_only=True)
    locality: Locality | None = field(kw_only=True)


class Name(NamedTuple):
    namespace: str
    spellings: tuple[str, ...]
    """All forms of the name there."""
    routed: frozenset[int] = frozenset()
    """The ports where an alias is a host of its own, because its own rules route requests."""


@dataclass(frozen=True, eq=False)
class HostView(Cached):
    """One service as some clients see it, or (without clusters for its ports) a host that only rules name."""

    transport: Transport = field(kw_only=True)
    host: str = field(kw_only=True)
    namespace: str = field(kw_only=True)
    name: str = field(kw_only=True)
    created: str = field(kw_only=True)
    """When its object was made: of services that share an address and a port, the oldest one gets the connections that
    nothing tells apart."""
    addresses: tuple[str, ...] = field(kw_only=True)
    """Addresses and ranges at which clients call it; empty if it has none."""
    ports: tuple[Port, ...] = field(kw_only=True)
    silent: tuple[int, ...] = field(kw_only=True)
    """Ports that only have clusters: clients do not call them by the host's name or address."""
    resolution: str = field(kw_only=True)
    """As in ServiceEntries; or HEADLESS; RULES for a host that only rules name; ALIAS for an ExternalName service that
    is only a destination of rules."""
    lookup: str = field(kw_only=True)
    """Which addresses of names its clients' proxies look up: Envoy's DnsLookupFamily."""
    external: bool = field(kw_only=True)
    sans: tuple[str, ...] = field(kw_only=True)
    names: tuple[Name, ...] = field(kw_only=True)
    """Its own name, and those of ExternalName services that are aliases of it."""
    security: tuple[Security, ...] = field(kw_only=True)
    routes: tuple[PortRoutes, ...] = field(kw_only=True)
    """Routes by port; empty without rules for it."""
    tls: tuple[tuple[int, BackendTLS], ...] = field(kw_only=True)
    """Ports with a BackendTLSPolicy, which takes precedence over DestinationRules at gateways."""
    certificate: str = field(kw_only=True)
    """The Secret (``namespace/name``) with the client certificate that the gateway presents there; empty if it has
    none."""
    sending: Sending | None = field(kw_only=True)
    """Settings for requests to it, unless a DestinationRule or route overrides them."""
    rules: tuple[o.Resource[DestinationRule], ...] = field(kw_only=True)
    onward: tuple[tuple[str, tuple[int, ...], tuple[o.Resource[DestinationRule], ...]], ...] = field(kw_only=True)
    """(host, its ports, its DestinationRules) of other hosts that connections are routed to."""
    inline: tuple[EndpointsView, ...] = field(kw_only=True)
    """Endpoints that are part of the clusters: host names that Envoy resolves."""
    forwarded: bool = field(kw_only=True)
    """Whether the clients are gateways, which send HTTP/1.1 to ports of undeclared protocol."""
    instances: tuple[tuple[int, str], ...] = field(kw_only=True)
    """(port, address) of a headless service's endpoints, to which clients connect directly."""
    weighted: bool = field(kw_only=True)
    """Whether localities matter for its load balancing."""
    origins: tuple[str, ...] = field(kw_only=True)
    """The user's objects that it is made from."""

    @property
    def seniority(self) -> tuple[str, str]:
        """The older one is less."""
        return self.created, self.host

    @property
    def called(self) -> bool:
        """Whether clients call it by its own name; otherwise it only has clusters."""
        return self.resolution != "ALIAS"

    @property
    def called_ports(self) -> tuple[Port, ...]:
        return tuple(p for p in self.ports if p.number not in self.silent) if self.silent else self.ports

    @property
    def server_names(self) -> tuple[str, ...]:
        """The names that TLS connections ask for: its own, and those of its aliases; but for bare ones, which mean
        another service in each namespace."""
        aliases = (n for name in self.names[1:] for n in name.spellings if "." in n and not n.endswith("."))
        return (self.host, *aliases)

    def secured(self, port: int, subset: str) -> Security:
        return next((s for s in self.security if s.port == port and s.subset == subset), Security(port, subset, "none"))

    def by_address(self, port: int) -> tuple[str, ...]:
        """The addresses at which a port's requests belong to this host, whatever host they name; empty if the named
        host decides."""
        return self._single if self.routed(port).by_address else ()

    def sniffed(self, port: Port) -> tuple[str, ...]:
        """The addresses at which whoever calls a port of unknown protocol means the host, whatever host requests name,
        unless other hosts have the address, too. As in Istio."""
        return self._single if port.spoken == "auto" and self.called else ()

    @property
    def _single(self) -> tuple[str, ...]:
        return () if self.resolution == "HEADLESS" or any("/" in a for a in self.addresses) else self.addresses

    def tls_to(self, port: int) -> BackendTLS | None:
        return next((found for number, found in self.tls if number == port), None)

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
    """The names (domains) of one namespace's hosts for some clients."""

    hosts: HostSpace = field(kw_only=True)
    viewer: str = field(kw_only=True)
    """The namespace whose bare short names apply, if the hosts have some there; otherwise empty."""
    bound: bool = field(kw_only=True)
    """Whether a Sidecar has bind addresses for requests, where only the named host identifies the destination."""
    silenced: frozenset[tuple[str, str]] = field(kw_only=True)
    """(host, domain) pairs whose domain belongs to another host: Envoy permits each domain only once."""


@dataclass(frozen=True, eq=False)
class Spaces(Cached, Generic[P]):
    """The parts of all namespaces; compared part by part."""

    parts: tuple[P, ...] = field(kw_only=True)


Limits = tuple[o.Resource[BackendTrafficPolicy], ...]
"""Policies whose rate limits apply together"""


@dataclass(frozen=True)
class Bind:
    """An egress listener of a Sidecar that applications connect to by its own address."""

    port: int
    address: str
    captured: bool
    """Whether it is reached through redirection; otherwise Envoy binds its address."""
    protocol: str
    hosts: tuple[HostView, ...]
    viewer: str
    """The namespace of the clients."""
    proxy: bool = False
    """Whether requests name their service's port: at Unix sockets, and if clients use it as an HTTP proxy."""
    own: str = ""
    """Its route configuration, if that is neither its port's nor named after its address: that of the host that all
    requests belong to, or of the mesh's HTTP proxy."""

    @property
    def routes(self) -> str:
        """The name of the route configuration."""
        if self.own:
            return self.own
        if not self.proxy:
            return str(self.port)
        return f"{self.address}_{self.port}" if self.port else self.address


@dataclass(frozen=True, eq=False)
class OutboundView(Cached):
    """What some clients may call."""

    policy: OutboundPolicy = field(kw_only=True)
    connect_timeout_s: float = field(kw_only=True)
    detection_s: float | None = field(kw_only=True)
    paths: str = field(kw_only=True)
    """How paths are normalized (``Authorization.paths``)."""
    host_spaces: Spaces[HostSpace] = field(kw_only=True)
    endpoint_spaces: Spaces[EndpointSpace] = field(kw_only=True)
    domain_spaces: Spaces[DomainSpace] = field(kw_only=True)
    binds: tuple[Bind, ...] = field(kw_only=True)
    captured: bool = field(kw_only=True)
    """Whether connections are redirected to the proxy; otherwise it listens only at ``binds``."""
    origins: tuple[str, ...] = field(kw_only=True)

    @property
    def hosts(self) -> Iterator[HostView]:
        for part in self.host_spaces.parts:
            yield from part.members

    @property
    def endpoints(self) -> Iterator[EndpointsView]:
        for part in self.endpoint_spaces.parts:
            yield from part.members
