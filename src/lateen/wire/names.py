"""The names of Envoy resources, with which they refer to each other. They are Istio's."""

from __future__ import annotations

from lateen.kit.digits import digits


def outbound(host: str, port: int, subset: str = "") -> str:
    return f"outbound|{port}|{subset}|{host}"


def login(host: str, port: int, tls: bool) -> str:
    """The cluster of an OIDC provider outside of the mesh."""
    return f"login|{port}|{'https' if tls else 'http'}|{host}"


def datagrams(port: int) -> str:
    """The cluster of a gateway's UDP port."""
    return f"udp|{port}||"


def inbound(port: int, workload: str = "") -> str:
    """``workload``: one of several of a proxy (``mesh.workloads.Seat``)."""
    return f"inbound|{port}||{workload}"


def of_workload(name: str, workload: str) -> str:
    """The name of a resource that each workload of a proxy has separately."""
    return f"{name}~{workload}" if workload else name


def sni(host: str, port: int, subset: str = "") -> str:
    return f"outbound_.{port}_.{subset}_.{host}"


def host(routes: str, name: str) -> str:
    """The resource name of a virtual host (VHDS) in a route configuration."""
    return f"{routes}/{name}"


def plain_host(name: str) -> str:
    """A virtual host's name for users, as in Istio."""
    head, slash, rest = name.partition("/")
    return rest if slash and (digits(head) or head.startswith(("http.", "https."))) else name


SECURITY = "lateen.security"
"""The slots and filters of SecurityPolicies"""
KEYS, BASIC, LOGIN = f"{SECURITY}.keys", f"{SECURITY}.basic", f"{SECURITY}.oidc"


def secured(part: str, namespace: str, policy: str) -> str:
    """The filter of one part of a SecurityPolicy."""
    return f"{part}/{namespace}/{policy}"


PASSTHROUGH = "PassthroughCluster"
DYNAMIC = "AllowAnyDynamicDNSCluster"  # requests to unknown hosts, which Envoy resolves
BLACK_HOLE = "BlackHoleCluster"
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"


def credential(name: str) -> str:
    """A gateway's certificate, from its Secret."""
    return f"kubernetes://{name}"


def file_certificate(chain: str, key: str) -> str:
    """A certificate in files of the pod."""
    return f"file-cert:{chain}~{key}"


def file_authorities(ca: str, crl: str = "") -> str:
    """CA certificates in files of the pod, for verifying peers."""
    return f"file-root:{ca}" + (f"~{crl}" if crl else "")


def client_ca(name: str) -> str:
    """The CA certificates with which a gateway verifies its clients."""
    return f"kubernetes://{name}-cacert"


SEVERAL_HOSTS, UNVERIFIED, UNVERIFIED_COOKIES = "several-hosts", "unverified-tokens", "unverified-tokens-in-cookies"
BUILT_IN = SEVERAL_HOSTS, UNVERIFIED, UNVERIFIED_COOKIES
"""The built-in RBAC rules: they reject requests with more than one Host header, and such with tokens, or claims, that a
RequestAuthentication did not verify because they are not quite where it looks for them."""
NO_HTTP = "-deny-what-is-no-http"
"""The end of the names of RBAC rules for connections about which a policy's provider, which speaks HTTP, cannot be
asked."""
VIRTUAL_OUTBOUND = "virtualOutbound"
VIRTUAL_INBOUND = "virtualInbound"
GRPC_SERVER = "xds.istio.io/grpc/lds/inbound/"
"""The prefix of the names by which gRPC servers without a proxy ask for their listeners; an address follows"""

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
RDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
VHDS = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
SDS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
ECDS = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
ORDER = (CDS, EDS, SDS, ECDS, LDS, RDS, VHDS)
"""Make before break: a resource is sent before those that refer to it."""
NAMING = (LDS, RDS, VHDS, ECDS)
"""Resource types that name clusters."""
SHORT = {CDS: "CDS", EDS: "EDS", SDS: "SDS", ECDS: "ECDS", LDS: "LDS", RDS: "RDS", VHDS: "VHDS"}
DEBUG = "istio.io/debug"
"""The type URL of debug requests, also as a prefix (istioctl's protocol)."""
SOTW_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
DELTA_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def at_address(host: str, port: int) -> str:
    """The route configuration of a host that owns all requests to its addresses."""
    return f"{host}:{port}"
