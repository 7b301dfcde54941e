"""How requests and connections are routed, in the mesh's own terms.

Dialects (``mesh.dialects``) turn what users write into these types; the translator sees nothing else. A route does not
restate its settings: ``Route`` refers to the user's own typed values (matches, retries, faults, …).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from lateen.api import objects as o
from lateen.api.networking.http import Headers, Percent, RequestMatch, RouteSettings
from lateen.api.networking.server_tls import ServerTLS
from lateen.mesh.cached import Cached
from lateen.wire import names


@dataclass(frozen=True)
class Session:
    """Requests of one client stay with the endpoint that its first one was sent to, for as long as that is there."""

    name: str
    """Of the cookie or header that says which."""
    header: bool
    """Whether it is a header, of responses and then of requests, instead of a cookie."""
    lifetime_s: float
    """Of a cookie that clients keep; 0 for one that ends with their session."""
    path: str = "/"
    """The requests that the cookie is for."""


@dataclass(frozen=True)
class Backend:
    """Where a share of the traffic goes."""

    host: str
    """Full name; an ExternalName service is replaced by the host that it is an alias for."""
    port: int
    subset: str = ""
    weight: int = 100
    """Relative to the other backends of the same route."""
    headers: Headers | None = field(default=None, compare=False)
    broken: str = ""
    """Why there is no such backend: its share of the requests is answered with ``status``."""
    status: int = 500
    session: Session | None = None
    """Of the backend's own, where the route has none."""
    policy: str = ""
    """The object that the session is from."""

    @property
    def cluster(self) -> str:
        return names.outbound(self.host, self.port, self.subset)


@dataclass(frozen=True)
class Sending:
    """How requests are sent to a backend, whoever sends them."""

    source: o.Ref
    retries: tuple[float, int | None] | None
    """(percentage of the active requests that may be retries, how many may be however few requests there are)"""
    session: Session | None


@dataclass(frozen=True)
class BackendTLS:
    """How a gateway speaks TLS to a backend."""

    name: str
    """The server name (SNI) that it asks for."""
    sans: tuple[tuple[str, str], ...]
    """(DNS or URI, name): the server's certificate must have one of them."""
    authorities: str
    """What the certificates of authorities are called that verify the server; empty for those of the proxy's system."""
    broken: str
    """Why servers cannot be verified: no connection is made."""
    source: o.Ref


@dataclass(frozen=True)
class Mirror:
    backend: Backend
    share: Percent | None = field(default=None, compare=False)
    """None matches all requests."""


@dataclass(frozen=True, eq=False)
class Route(Cached):
    """What happens to requests that match. The key identifies the rule, its version, and the position in it."""

    name: str = field(kw_only=True)
    match: RequestMatch | None = field(kw_only=True)
    """None for all requests."""
    below: str = field(default="", kw_only=True)
    """A path that requests must be for, by whole elements: /a takes /a and /a/b, not /ab. Empty where ``match`` says
    which paths."""
    settings: RouteSettings = field(kw_only=True)
    """The user's own; one with a redirect or a direct response has no backends."""
    backends: tuple[Backend, ...] = field(kw_only=True)
    mirrors: tuple[Mirror, ...] = field(kw_only=True)
    port: int = field(kw_only=True)
    """The port that clients use."""
    scheme: str = field(kw_only=True)
    rule: o.Ref = field(kw_only=True)
    origins: tuple[str, ...] = field(kw_only=True)
    """The user's objects that the route comes from."""
    session: Session | None = field(default=None, kw_only=True)
    """Of all its backends together."""
    split: bool = field(default=False, kw_only=True)
    """Whether a client also stays with the backend that it was sent to: its session says which."""
    follows: bool = field(default=False, kw_only=True)
    """Whether it is for clients that stay with its only backend."""
    before: int = field(default=0, kw_only=True)
    after: int = field(default=0, kw_only=True)
    """The weights of the routes before and after it that share the requests of its match."""

    @property
    def there(self) -> tuple[Backend, ...]:
        """The backends that are not broken."""
        return tuple(b for b in self.backends if not b.broken)


@dataclass(frozen=True)
class ConnectionRoute:
    """The destination of connections."""

    sni: tuple[str, ...]
    """Server names (SNI) to match; empty for all connections."""
    subnets: tuple[str, ...]
    """Destination addresses to match; empty for all."""
    backends: tuple[Backend, ...]
    rule: o.Ref
    name: str = ""
    """Of the Gateway API's rules: as the user has named it, else ``namespace.name.number``."""


@dataclass(frozen=True)
class PortRoutes:
    """The routes of one port of a host, in order of precedence."""

    port: int
    requests: tuple[Route, ...] = ()
    by_name: tuple[ConnectionRoute, ...] = ()
    by_place: tuple[ConnectionRoute, ...] = ()
    ruled: bool = False
    """Whether some rule concerns requests, even if none of its routes applies here."""
    by_address: bool = False
    """Whether requests belong to the host that they are sent to, whatever host they name."""


NO_ROUTES = PortRoutes(0)


@dataclass(frozen=True)
class DatagramRoute:
    """The destination of a UDP port's datagrams."""

    backends: tuple[Backend, ...]
    rule: o.Ref
    name: str = ""
    """As a ``ConnectionRoute``'s."""


# --- gateways ----------------------------------------------------------------------------------------------------

Age = tuple[str, str, str]
"""(created, namespace, name): the oldest object has precedence."""


@dataclass(frozen=True)
class Listener:
    """A port of a gateway workload, as one object asks for it."""

    source: o.Ref
    age: Age
    port: int
    """As clients of the gateway's Service know it."""
    label: str
    """``port's name.object's name.namespace``, by which its own route configuration is called."""
    hosts: tuple[str, ...]
    """Names that it is for, maybe with a wildcard; ``*`` for all."""
    bind: str = ""
    name: str = ""
    requests: bool = True
    """Whether requests are routed; else connections are."""
    datagrams: bool = False
    """Whether the port is one of UDP."""
    secure: bool = False
    """Whether clients begin with TLS."""
    tls: ServerTLS | None = None
    """How TLS is terminated; None where it passes through, or where there is none."""
    automatic: bool = False
    """Whether the name that clients ask for says which cluster (AUTO_PASSTHROUGH)."""
    redirects: bool = False
    """Whether requests are sent to HTTPS instead of being routed."""
    services: tuple[str, ...] = ()
    """Hosts of the only Services whose ports count; none for all of the workload's."""

    @property
    def family(self) -> str:
        """Listeners of one port must be of one family; UDP ports are others than TCP ports."""
        if self.datagrams:
            return "udp"
        return "tls" if self.secure else "http" if self.requests else "tcp"

    def beside(self, older: Listener) -> bool:
        """Whether it can have a port that an older one has. Connections that say nothing about where they want to go
        cannot be told apart, so that the older one has them all, even if it routes none."""
        return self is older or (self.family == older.family and self.family != "tcp")

    @property
    def plain(self) -> bool:
        """Plain HTTP: all such listeners of a port share their routes."""
        return self.requests and not self.secure


@dataclass(frozen=True)
class HostRoutes:
    """The requests for a host at a listener."""

    host: str
    port: int
    """Of the listener that it belongs to."""
    routes: tuple[Route, ...]
    places: tuple[tuple[o.Ref, str], ...] = ()
    """(the object that a listener is of, the listener's name there): several where a rule is for the same host at
    listeners of several Gateways, whose requests nobody can tell apart."""

    def __hash__(self) -> int:
        """Kept: a gateway's port is compared with all of its hosts."""
        return self._kept_hash

    @cached_property
    def _kept_hash(self) -> int:
        return hash((self.host, self.port, self.routes, self.places))


@dataclass(frozen=True)
class Attached:
    """What one object, or several that are merged, have routed at a listener."""

    age: Age
    hosts: tuple[HostRoutes, ...]
