"""The parts of Istio's MeshConfig that have an effect, grouped by what they affect, and Lateen's own switches.

Each part is a separate input: what is derived from one does not change with another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lateen.api.domain import CLUSTER_DOMAIN, CLUSTER_NAME, TRUST_DOMAIN
from lateen.api.mesh import ExtensionProvider, ProxyConfig
from lateen.api.mesh.config import LabelSelector, ServiceEntryVisibility
from lateen.api.networking import ClientTLS, HTTPRetry, LocalityLb, TcpKeepalive
from lateen.mesh.observability import DEFAULT_REPORTING, Reporting


@dataclass(frozen=True)
class Handshakes:
    """TLS parameters; empty ones are left to the kind of connection."""

    minimum: str = "TLSv1_2"
    """The lowest version."""
    ciphers: tuple[str, ...] = ()
    """Cipher suites of TLS 1.2: those of 1.3 cannot be configured."""
    curves: tuple[str, ...] = ()


@dataclass(frozen=True)
class StatNames:
    """Templates of the names of clusters in statistics; empty for the clusters' own names."""

    inbound: str = ""
    outbound: str = ""


@dataclass(frozen=True)
class Transport:
    """How proxies connect to others."""

    trust_domain: str = TRUST_DOMAIN
    aliases: tuple[str, ...] = ()
    """Aliases of the trust domain: identities in these are treated as identities in it."""
    http2: bool = True
    """HTTP/2 between sidecars (Istio's default is HTTP/1.1)."""
    h2_upgrade: bool = False
    """HTTP/2 to every service unless its rule forbids it."""
    connect_timeout_s: float = 10.0
    dns_refresh_s: float = 60.0
    localhost: bool = False
    """Whether a proxy calls its application at 127.0.0.1, not at the original destination."""
    keepalive: TcpKeepalive | None = None
    """TCP keepalive of connections to services, unless rules set it."""
    retries: HTTPRetry | None = None
    """Retries of requests whose routes do not configure any."""
    detection_s: float | None = None
    """The timeout of protocol detection in seconds, 0 for none; None if it is not configured."""
    mutual_tls: Handshakes = Handshakes()
    """TLS parameters between proxies."""
    tls: Handshakes = Handshakes()
    """TLS parameters of all other connections."""
    stat_names: StatNames = StatNames()
    redis: bool = False
    """Whether ports of protocol redis get Envoy's Redis proxy instead of plain connections."""
    automatic: bool = True
    """Mutual TLS with servers that have sidecars; otherwise only where a DestinationRule asks for it."""
    verified: bool = True
    """Whether servers outside are verified where a rule names no authorities."""
    proxy_port: int = 0
    """The port of 127.0.0.1 where applications find an HTTP proxy (``proxyHttpPort``); 0 for none."""

    @property
    def trust_domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.trust_domain, *self.aliases)))


@dataclass(frozen=True)
class OutboundPolicy:
    """What happens to requests and connections to destinations that the mesh does not know."""

    mode: str = "ALLOW_ANY"
    egress_proxy: str = ""
    """The cluster to which they are sent (a Sidecar's outboundTrafficPolicy.egressProxy)."""
    tls: ClientTLS | None = field(default=None, hash=False)
    """TLS of requests whose host is resolved."""
    transport: Transport | None = None
    """How these connect; None for all other modes."""
    lookup: str = ""
    """The family of addresses for which these are looked up, as ``HostView.lookup``."""

    @property
    def open(self) -> bool:
        """Whether they are let through."""
        return self.mode != "REGISTRY_ONLY"

    @property
    def resolves(self) -> bool:
        """Whether the proxy resolves the hosts that requests name (ALLOW_ANY_DYNAMIC_DNS)."""
        return self.transport is not None


@dataclass(frozen=True)
class Anchor:
    """An additional root certificate that is trusted like the mesh's own."""

    pem: str
    signers: tuple[str, ...] = ()
    """The signers of Kubernetes CertificateSigningRequests whose root it is; empty: any."""


@dataclass(frozen=True)
class Trust:
    """Trusted identities, and the providers of external authorization."""

    aliases: tuple[str, ...] = ()
    """Aliases of the trust domain."""
    anchors: tuple[Anchor, ...] = ()
    """The additional roots for the trust domain."""
    domains: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The trust domain and its aliases, each with its additional roots (PEM); empty if they are the same for all."""
    providers: tuple[ExtensionProvider, ...] = field(default=(), hash=False)
    """The providers of AuthorizationPolicies with action CUSTOM."""


@dataclass(frozen=True)
class IngressSettings:
    """The Ingresses that are served, and the gateway that serves them."""

    class_name: str = "istio"
    mode: str = "STRICT"
    selector: str = "ingressgateway"
    """The value of the gateway pods' label ``istio``."""
    service: str = ""
    """The Service whose addresses Ingresses have; empty: the Services whose own selector has ``istio: <selector>``."""


@dataclass(frozen=True)
class NetworkSettings:
    """The settings of clusters and networks in MeshNetworks and ``serviceSettings``."""

    of_clusters: tuple[tuple[str, str], ...] = ()
    """(cluster, its network)"""
    ranges: tuple[tuple[str, str], ...] = ()
    """(address range, its network)"""
    gateways: tuple[tuple[str, str, str, int], ...] = ()
    """(network, host of a Service or empty, address or empty, port)"""
    local: tuple[tuple[tuple[str, ...], bool], ...] = ()
    """(hosts, whether their instances in other clusters are ignored); the first match counts."""


@dataclass(frozen=True)
class Exports:
    """The default ``exportTo`` by kind; empty: all namespaces. Services include ServiceEntries."""

    services: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """Default of VirtualServices."""
    traffic: tuple[str, ...] = ()
    """Default of DestinationRules."""
    entries: ServiceEntryVisibility | None = field(default=None, hash=False)
    """How far ServiceEntries can be exported at most, by the labels of their namespaces; None: without limits."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that istiod runs in, set when istiod starts; or the cluster from whose perspective the mesh is seen
    (``perspective``)."""

    name: str = CLUSTER_NAME
    domain: str = CLUSTER_DOMAIN
    """The DNS domain of its services."""
    experimental: bool = False
    """Whether its CRDs of the Gateway API are of the experimental channel."""
    filtered: bool = True
    """Whether gateways get only the clusters that their configuration names."""
    scoped: bool = False
    """Whether Istio's Gateways select only workloads in their own namespaces."""
    http10: bool = False
    """Whether every proxy accepts HTTP/1.0."""
    home: str = ""
    """The cluster with the rules and policies (its control plane's), if that is another one."""


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
    """Locality settings of services whose rules have none."""
    proxy: ProxyConfig = field(default=ProxyConfig(), hash=False)
    """``defaultConfig``; ``mesh.proxies`` applies it to a proxy."""
    networks: NetworkSettings = NetworkSettings()
    exports: Exports = Exports()
    discovery: tuple[LabelSelector, ...] = field(default=(), hash=False)
    """Selectors of the namespaces that belong to the mesh; empty: all."""
    root_namespace: str = "istio-system"
    paths: str = ""
    """``pathNormalization``; empty if it is not configured (see ``Authorization.paths``)."""


DEFAULTS = MeshConfig()
