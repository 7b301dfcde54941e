"""The mesh's intermediate form of routes for requests and connections.

Dialects (``mesh.dialects``) translate users' objects to these types; ``xds`` sees nothing else. A route does not
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
    """Session persistence: a client's requests stay with the endpoint of its first one, as long as that exists."""

    name: str
    """The name of the cookie or header that identifies the endpoint."""
    header: bool
    """Whether it is a header (set in responses, returned in requests), not a cookie."""
    lifetime_s: float
    """The lifetime of a persistent cookie in seconds; 0 for a session cookie."""
    path: str = "/"
    """The cookie's path."""


@dataclass(frozen=True)
class Backend:
    """The destination of a share of the traffic."""

    host: str
    """Full name; an ExternalName service is replaced by its target."""
    port: int
    subset: str = ""
    weight: int = 100
    """Relative to the other backends of the same route."""
    headers: Headers | None = field(default=None, compare=False)
    broken: str = ""
    """Why the backend is broken: its share of the requests is answered with ``status``."""
    status: int = 500
    session: Session | None = None
    """The backend's own session persistence, if the route has none."""
    policy: str = ""
    """The object that ``session`` derives from."""
    sniffed: bool = False
    """Whether nobody has named the protocol of its port, so that its sidecar must be told that requests come. Not where
    the client begins TLS of the user's own: such servers might refuse the mesh's ALPN values."""
    hashed: bool = False
    """Whether requests with one key go to one endpoint (consistent hashing), also when they are repeated."""

    @property
    def cluster(self) -> str:
        return names.outbound(self.host, self.port, self.subset)


@dataclass(frozen=True)
class Sending:
    """Settings for requests to a backend, whoever sends them."""

    source: o.Ref
    retries: tuple[float, int | None] | None
    """The retry budget: (percentage of the active requests, minimum number of concurrent retries)"""
    session: Session | None


@dataclass(frozen=True)
class BackendTLS:
    """How a gateway originates TLS to a backend."""

    name: str
    """The server name (SNI)."""
    sans: tuple[tuple[str, str], ...]
    """(DNS or URI, name): the server's certificate must have one of these."""
    authorities: str
    """The name of the SDS resource with the CA certificates that verify the server; empty for the system's roots."""
    broken: str
    """Why servers cannot be verified, so that no connection is made; empty if they can."""
    source: o.Ref


@dataclass(frozen=True)
class Mirror:
    backend: Backend
    share: Percent | None = field(default=None, compare=False)
    """None matches all requests."""


def takes_all(m: RequestMatch | None) -> bool:
    """Whether every request matches."""
    if m is None:
        return True
    narrow = (m.method, m.authority, m.scheme, m.headers, m.without_headers, m.query_params)
    return not any(narrow) and (m.uri is None or m.uri.prefix == "/" or m.uri.regex == ".*")


@dataclass(frozen=True, eq=False)
class Route(Cached):
    """What happens to matching requests. The key identifies the rule, its version, and the position in it."""

    name: str = field(kw_only=True)
    match: RequestMatch | None = field(kw_only=True)
    """None for all requests."""
    below: str = field(default="", kw_only=True)
    """A path prefix, matched by whole elements: /a matches /a and /a/b, not /ab. Empty if ``match`` has the paths."""
    settings: RouteSettings = field(kw_only=True)
    """The user's own settings; a route with a redirect or a direct response has no backends."""
    backends: tuple[Backend, ...] = field(kw_only=True)
    mirrors: tuple[Mirror, ...] = field(kw_only=True)
    port: int = field(kw_only=True)
    """The port that clients use."""
    scheme: str = field(kw_only=True)
    rule: o.Ref = field(kw_only=True)
    origins: tuple[str, ...] = field(kw_only=True)
    """The user's objects that the route derives from."""
    session: Session | None = field(default=None, kw_only=True)
    """Session persistence over all its backends together."""
    split: bool = field(default=False, kw_only=True)
    """Whether a client is also pinned to a backend, which its session identifies."""
    follows: bool = field(default=False, kw_only=True)
    """Whether it applies to clients that are pinned to its only backend."""
    before: int = field(default=0, kw_only=True)
    after: int = field(default=0, kw_only=True)
    """The weights of the routes before and after it that share its match."""

    @property
    def takes_all(self) -> bool:
        """Whether no request is left for later routes."""
        return not (self.below or self.follows) and takes_all(self.match)

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
    """For rules of the Gateway API: the name given by the user, otherwise ``namespace.name.number``."""
    bytes_on_http: bool = False
    """Whether it leads to a port of HTTP, whose sidecar must be told that connections may hold anything."""


@dataclass(frozen=True)
class PortRoutes:
    """The routes of one port of a host, in order of precedence."""

    port: int
    requests: tuple[Route, ...] = ()
    by_name: tuple[ConnectionRoute, ...] = ()
    by_place: tuple[ConnectionRoute, ...] = ()
    by_address: bool = False
    """Whether requests belong to the host of their destination address, whatever host they name."""


NO_ROUTES = PortRoutes(0)


@dataclass(frozen=True)
class DatagramRoute:
    """The destination of a UDP port's datagrams."""

    backends: tuple[Backend, ...]
    rule: o.Ref
    name: str = ""
    """See ``ConnectionRoute.name``."""


# --- gateways ----------------------------------------------------------------------------------------------------

Age = tuple[str, str, str]
"""What ``age_order`` says: the oldest object has precedence."""


@dataclass(frozen=True)
class Listener:
    """A port of a gateway workload, as requested by one object."""

    source: o.Ref
    age: Age
    port: int
    """The port of the gateway's Service."""
    label: str
    """``port's name.object's name.namespace``, the name of its own route configuration."""
    hosts: tuple[str, ...]
    """Its hosts, possibly with wildcards; ``*`` for all."""
    bind: str = ""
    name: str = ""
    requests: bool = True
    """Whether requests are routed, not connections."""
    datagrams: bool = False
    """Whether it is a UDP port."""
    secure: bool = False
    """Whether clients begin with TLS."""
    tls: ServerTLS | None = None
    """How TLS is terminated; None for passthrough, and without TLS."""
    automatic: bool = False
    """Whether the server name selects the cluster (AUTO_PASSTHROUGH)."""
    redirects: bool = False
    """Whether requests are sent to HTTPS instead of being routed."""
    services: tuple[str, ...] = ()
    """The Services whose ports it is limited to; empty for all of the workload's."""

    @property
    def address(self) -> str:
        """Where it listens: no ``bind`` is all addresses."""
        return self.bind or "0.0.0.0"

    @property
    def family(self) -> str:
        """Listeners of one port must be of one family; UDP and TCP ports are separate."""
        if self.datagrams:
            return "udp"
        return "tls" if self.secure else "http" if self.requests else "tcp"

    def beside(self, older: Listener) -> bool:
        """Whether it can share a port with an older listener. Connections without a server name cannot be told apart,
        so the older listener gets them all, even if it has no routes."""
        return self is older or (self.family == older.family and self.family != "tcp")

    @property
    def plain(self) -> bool:
        """Plain HTTP: all such listeners of a port share their routes."""
        return self.requests and not self.secure


@dataclass(frozen=True)
class HostRoutes:
    """The routes of a host at a listener."""

    host: str
    port: int
    """The listener's port."""
    routes: tuple[Route, ...]
    places: tuple[tuple[o.Ref, str], ...] = ()
    """(a listener's object, the listener's name in it): several if a rule applies to the same host at listeners of
    several Gateways, whose requests cannot be told apart."""

    def __hash__(self) -> int:
        """Cached: comparing a gateway's ports hashes all of its hosts."""
        return self._kept_hash

    @cached_property
    def _kept_hash(self) -> int:
        return hash((self.host, self.port, self.routes, self.places))


@dataclass(frozen=True)
class Attached:
    """The routes that one object, or several merged ones, have at a listener."""

    age: Age
    hosts: tuple[HostRoutes, ...]
