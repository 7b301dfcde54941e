"""The parts of Istio's MeshConfig that have an effect, grouped by what they affect, and Lateen's own switches.

Each part is a separate input: what is derived from one does not change with another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lateen.api.domain import CLUSTER_DOMAIN, CLUSTER_NAME, TRUST_DOMAIN
from lateen.api.mesh import ExtensionProvider, ProxyConfig
from lateen.api.mesh.config import LabelSelector
from lateen.api.networking import HTTPRetry, LocalityLb, TcpKeepalive
from lateen.mesh.observability import DEFAULT_REPORTING, Reporting


@dataclass(frozen=True)
class Handshakes:
    """What TLS may agree on; what is empty is left to the kind of connection."""

    minimum: str = "TLSv1_2"
    """The lowest version."""
    ciphers: tuple[str, ...] = ()
    """Of TLS 1.2: those of 1.3 cannot be chosen."""
    curves: tuple[str, ...] = ()


@dataclass(frozen=True)
class StatNames:
    """Patterns of the names that clusters have in statistics; empty for the clusters' own names."""

    inbound: str = ""
    outbound: str = ""


@dataclass(frozen=True)
class Transport:
    """How proxies connect to others."""

    trust_domain: str = TRUST_DOMAIN
    aliases: tuple[str, ...] = ()
    """Other names of the trust domain: identities of these are taken for those of it."""
    http2: bool = True
    """HTTP/2 between sidecars (Istio's default is HTTP/1.1)."""
    h2_upgrade: bool = False
    """HTTP/2 to every service unless its rule forbids it."""
    connect_timeout_s: float = 10.0
    dns_refresh_s: float = 60.0
    localhost: bool = False
    """Whether a proxy calls its application at 127.0.0.1, not where the client wanted to go."""
    keepalive: TcpKeepalive | None = None
    """Of connections to services, where rules do not set it."""
    retries: HTTPRetry | None = None
    """Of requests whose routes do not say when they are repeated."""
    detection_s: float | None = None
    """How long the protocol of a connection is looked for, 0 for ever; None where nobody has chosen."""
    mutual_tls: Handshakes = Handshakes()
    """Between proxies."""
    tls: Handshakes = Handshakes()
    """With everybody else."""
    stat_names: StatNames = StatNames()
    redis: bool = False
    """Whether ports of protocol redis get Envoy's Redis proxy instead of plain connections."""

    @property
    def trust_domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.trust_domain, *self.aliases)))


@dataclass(frozen=True)
class OutboundPolicy:
    """What happens to requests and connections to destinations that the mesh does not know."""

    mode: str = "ALLOW_ANY"
    egress_proxy: str = ""
    """The cluster that they are sent to instead (a Sidecar's outboundTrafficPolicy.egressProxy)."""


@dataclass(frozen=True)
class Anchor:
    """A root of somebody else's that is trusted like the mesh's own."""

    pem: str
    signers: tuple[str, ...] = ()
    """The signers of Kubernetes' certificate requests whose root it is; empty: any."""


@dataclass(frozen=True)
class Trust:
    """Whose identities are trusted, and which external authorizers there are."""

    aliases: tuple[str, ...] = ()
    """Aliases of the trust domain."""
    anchors: tuple[Anchor, ...] = ()
    """Those that vouch for the trust domain."""
    domains: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The trust domain and its aliases, each with the anchors that vouch for it (PEM); empty where these are the same
    for all of them."""
    providers: tuple[ExtensionProvider, ...] = field(default=(), hash=False)
    """The providers of AuthorizationPolicies with action CUSTOM."""


@dataclass(frozen=True)
class IngressSettings:
    """Which Ingresses are served, and by which gateway."""

    class_name: str = "istio"
    mode: str = "STRICT"
    selector: str = "ingressgateway"
    """The value of the gateway pods' label ``istio``."""


@dataclass(frozen=True)
class NetworkSettings:
    """What MeshNetworks and ``serviceSettings`` say of clusters and networks."""

    of_clusters: tuple[tuple[str, str], ...] = ()
    """(cluster, its network)"""
    ranges: tuple[tuple[str, str], ...] = ()
    """(range of addresses, their network)"""
    gateways: tuple[tuple[str, str, str, int], ...] = ()
    """(network, host of a Service or empty, address or empty, port)"""
    local: tuple[tuple[tuple[str, ...], bool], ...] = ()
    """(hosts, whether their instances in other clusters are left out); the first match counts."""


@dataclass(frozen=True)
class Exports:
    """Whom objects are exported to that do not say it themselves; empty: everybody. Services include ServiceEntries."""

    services: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """Of VirtualServices."""
    traffic: tuple[str, ...] = ()
    """Of DestinationRules."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that istiod runs in, set when istiod starts; or the one that the mesh is seen from
    (``perspective``)."""

    name: str = CLUSTER_NAME
    domain: str = CLUSTER_DOMAIN
    """The DNS domain of its services."""
    experimental: bool = False
    """Whether its definitions of the Gateway API are those of the experimental channel."""
    filtered: bool = True
    """Whether gateways have the clusters alone that their configuration names."""
    scoped: bool = False
    """Whether Istio's Gateways select workloads of their own namespaces only."""
    home: str = ""
    """Where the rules and policies are, if that is another cluster: the one of its control plane."""


@dataclass(frozen=True)
class MeshConfig:
    """All settings of one instant."""

    cluster: Cluster = Cluster()

    transport: Transport = Transport()
    outbound: OutboundPolicy = OutboundPolicy()
    reporting: Reporting = DEFAULT_REPORTING
    trust: Trust = Trust()
    ingress: IngressSettings = IngressSettings()
    locality: LocalityLb | None = field(default=None, hash=False)
    """For services whose rules do not configure localities."""
    proxy: ProxyConfig = field(default=ProxyConfig(), hash=False)
    """``defaultConfig``; how it applies to one proxy is in ``mesh.proxies``."""
    networks: NetworkSettings = NetworkSettings()
    exports: Exports = Exports()
    discovery: tuple[LabelSelector, ...] = field(default=(), hash=False)
    """Which namespaces belong to the mesh: those that one of them selects; empty: all."""
    root_namespace: str = "istio-system"
    paths: str = ""
    """``pathNormalization``; empty where the installation leaves it to the mesh (``Authorization.paths``)."""


DEFAULTS = MeshConfig()
