"""What a workload serves, as the translator (``xds``) sees it: its ports, and the policies for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from lateen.api import objects as o
from lateen.api.mesh import ExtensionProvider
from lateen.api.networking.server_tls import ServerTLS
from lateen.api.networking.traffic_policy import ConnectionPool
from lateen.api.security import AuthorizationPolicy
from lateen.mesh.authentication import Authentication
from lateen.mesh.cached import Cached
from lateen.mesh.outbound_view import Limits, Port
from lateen.mesh.plugins import Plugin
from lateen.mesh.secured import Secured
from lateen.mesh.settings import Transport
from lateen.mesh.workloads import Described, Seat

STRICT_PATHS = "DECODE_AND_MERGE_SLASHES"
"""The normalization where decisions depend on paths: a server that treats ``//admin`` or ``/%2fadmin`` as ``/admin``
would otherwise answer what a policy denies (Istio's bulletin 2021-005). Istio's default is BASE."""


@dataclass(frozen=True)
class InboundPort:
    """A port of the workload that a service or a Sidecar refers to."""

    port: Port
    service: o.Service | None = None
    target: str = ""
    """The application's address, if a Sidecar specifies it; otherwise the connection's original destination is used."""
    tls: ServerTLS | None = None
    pool: ConnectionPool | None = field(default=None, hash=False)
    bind: str = ""
    """Envoy's bind address for it, if traffic is not redirected."""
    scoped: bool = False
    """From a Sidecar."""
    limits: Limits = ()
    """The rate limits of the services with this target port."""
    secured: tuple[Secured, ...] = ()
    """The SecurityPolicies of these services."""
    origins: tuple[str, ...] = ()
    """The DestinationRules that ``pool`` is from."""


@dataclass(frozen=True)
class Authorization:
    """The authorization of requests to a workload, and what is needed to evaluate its policies."""

    policies: tuple[o.Resource[AuthorizationPolicy], ...] = ()
    domains: tuple[str, ...] = ()
    """The mesh's trust domain, then its aliases."""
    providers: tuple[ExtensionProvider, ...] = field(default=(), hash=False)
    """The providers that CUSTOM policies may use; empty if no policy uses one."""
    paths: str = "BASE"
    """How paths are normalized before policies are evaluated: a value of ``meshConfig.pathNormalization``."""
    strict_paths: str = STRICT_PATHS
    """The same where something else that is decided at a port depends on paths, such as rate limits."""
    askable: int = 0
    """The number of providers in the mesh configuration that policies could use, whether or not one does."""


UNRESTRICTED = Authorization()


@dataclass(frozen=True, eq=False)
class Checks(Cached):
    """The policies of one workload, apart from what it serves: most changes of them concern only their slots."""

    authentication: Authentication = field(kw_only=True)
    authorization: Authorization = field(kw_only=True)
    plugins: tuple[Plugin, ...] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class InboundView(Cached):
    """What one workload serves."""

    transport: Transport = field(kw_only=True)
    pod: o.Pod = field(kw_only=True)
    seat: Seat = field(kw_only=True)
    identity: Described = field(kw_only=True)
    interception: str = field(kw_only=True)
    """``REDIRECT``; ``TPROXY``, where connections go to the application with the client's own address; or ``NONE``."""
    mtls: str = field(kw_only=True)
    mtls_ports: tuple[tuple[int, str], ...] = field(kw_only=True)
    """Ports with their own mode."""
    policy: o.Ref | None = field(kw_only=True)
    """The PeerAuthentication that determines ``mtls``."""
    ports: tuple[InboundPort, ...] = field(kw_only=True)
    origins: tuple[str, ...] = field(kw_only=True)
