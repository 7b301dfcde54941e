"""What a gateway serves, as the translator (``xds``) sees it: servers with their routes."""

from __future__ import annotations

from dataclasses import dataclass, field

from lateen.api import objects as o
from lateen.api.networking.server_tls import ServerTLS
from lateen.mesh.cached import Cached
from lateen.mesh.challenges import Challenges
from lateen.mesh.outbound_view import Limits
from lateen.mesh.proxies import Place
from lateen.mesh.routing import ConnectionRoute, DatagramRoute, HostRoutes
from lateen.mesh.secured import Secured
from lateen.mesh.settings import Transport
from lateen.mesh.workloads import Described, Instances


@dataclass(frozen=True)
class Datagrams:
    """The destinations of a UDP port's datagrams."""

    shares: tuple[tuple[int, Instances], ...]
    """(weight, instances) of the backends; a broken one has no instances, so that its share is dropped."""
    route: DatagramRoute | None


@dataclass(frozen=True, eq=False)
class GatewayServer(Cached):
    """One port of a gateway workload with its routes."""

    transport: Transport = field(kw_only=True)
    port: int = field(kw_only=True)
    target: int = field(kw_only=True)
    bind: str = field(kw_only=True)
    name: str = field(kw_only=True)
    """The server's name, which is also its filter chain's."""
    route: str = field(kw_only=True)
    """The name of its route configuration; empty if connections are forwarded, not requests."""
    tls: ServerTLS | None = field(kw_only=True)
    """How the gateway terminates TLS; None for plain text and for TLS that passes through."""
    passthrough: bool = field(kw_only=True)
    automatic: bool = field(kw_only=True)
    """AUTO_PASSTHROUGH: the server name selects the cluster (``outbound_.80_._.host``)."""
    sni: tuple[str, ...] = field(kw_only=True)
    """Server names by which clients select this server; empty for all."""
    redirects: tuple[tuple[str, int], ...] = field(kw_only=True)
    """(host, port) whose plain-text requests are redirected to HTTPS."""
    hosts: tuple[str, ...] = field(kw_only=True)
    origins: tuple[str, ...] = field(kw_only=True)
    requests: tuple[HostRoutes, ...] = field(kw_only=True)
    """Routes in order of precedence; several may be for the same host."""
    connections: tuple[ConnectionRoute, ...] = field(kw_only=True)
    datagrams: Datagrams | None = field(kw_only=True)
    """Set for a UDP port; None for a TCP port."""
    limits: tuple[tuple[o.Ref, Limits], ...] = field(kw_only=True)
    """The rate limits of the objects behind ``requests``: a route's rule, or its listener's object."""
    secured: tuple[tuple[int, int, Secured], ...] = field(kw_only=True)
    """(position in ``requests``, position of the route there, its SecurityPolicy)"""


@dataclass(frozen=True, eq=False)
class GatewayView(Cached):
    pod: o.Pod = field(kw_only=True)
    ipv6: bool = field(kw_only=True)
    """See ``Seat.ipv6``"""
    identity: Described = field(kw_only=True)
    place: Place = field(kw_only=True)
    servers: tuple[GatewayServer, ...] = field(kw_only=True)
    """The servers whose certificates exist."""
    challenges: Challenges | None = field(kw_only=True)
    """The ACME challenges that it answers; None if no certificates are ordered."""
    filtered: bool = field(kw_only=True)
    """Whether it gets only the clusters that its other resources name: not if something else may name them, such as
    clients (AUTO_PASSTHROUGH), or plugins, which compute names."""
