"""The immutable values that the mesh model is built from; ``api.decoding`` creates them from users' objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from lateen.api.config import Config
from lateen.api.domain import CLUSTER_DOMAIN, service_host
from lateen.api.kinds import GATEWAY_APIS
from lateen.api.kinds import Ref as Ref

S = TypeVar("S", bound=Config)


@dataclass(frozen=True)
class Resource(Generic[S]):
    """A mesh object. It is immutable, and equal to another one with the same identity and version."""

    ref: Ref
    uid: str
    version: str
    created: str
    spec: S = field(compare=False)
    dry_run: bool = False
    """An AuthorizationPolicy that is evaluated and counted but not enforced (annotation ``istio.io/dry-run``)."""
    parts: tuple[str, ...] = ()
    """Other objects that are merged into this one (a VirtualService's delegates)."""
    labels: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    """The annotations that the mesh reads: Istio's own."""
    healthy: bool = True
    """False for a WorkloadEntry whose health probe fails."""

    @property
    def origins(self) -> tuple[str, ...]:
        """The user's objects that resources generated from this one originate in."""
        return (str(self.ref), *self.parts)

    @property
    def age_order(self) -> tuple[str, str, str]:
        """Oldest first. Those of one second are sorted by name and namespace, as in Istio (``sortConfigByCreationTime``
        in pilot/pkg/model); in the Gateway API by namespace and name, as it says."""
        if self.ref.group in GATEWAY_APIS:
            return (self.created, self.ref.namespace, self.ref.name)
        return (self.created, self.ref.name, self.ref.namespace)


@dataclass(frozen=True)
class ServicePort:
    name: str
    port: int
    target: int | str
    protocol: str
    app_protocol: str = ""


LITERAL_PORTS = "experimental.istio.io/disable-gateway-port-translation"
"""The label of a Service, or a ServiceEntry, whose ports do not count for Gateways with a selector"""


@dataclass(frozen=True)
class Service:
    namespace: str
    name: str
    address: str
    ports: tuple[ServicePort, ...]
    selector: tuple[tuple[str, str], ...] = ()
    external_name: str = ""
    hostname: str = ""
    """The host of a ServiceEntry; empty if the host follows from name and namespace."""
    addresses: tuple[str, ...] = ()
    """Further addresses; may contain ranges (10.0.0.0/8)."""
    resolution: str = ""
    """How endpoints are found: empty for a Kubernetes Service, otherwise its ServiceEntry's (NONE, STATIC, DNS, …)."""
    external: bool = False
    """Whether it is outside of the mesh: no automatic mutual TLS."""
    export_to: tuple[str, ...] = ()
    created: str = ""
    sans: tuple[str, ...] = ()
    """Subject alternative names expected in the servers' certificates."""
    entries: tuple[Ref, ...] = ()
    """The ServiceEntries that define it."""
    domain: str = CLUSTER_DOMAIN
    """The DNS domain of its cluster, the suffix of its host."""
    literal_ports: bool = False
    """Whether port numbers in Gateways that select its pods are the pods' own ports, not its ports (by
    ``LITERAL_PORTS``)."""
    outside: tuple[str, ...] = ()
    """The addresses at which other networks reach it: those of its load balancer, and its external IPs."""
    network: str = ""
    """The network that it is a gateway to (label ``topology.istio.io/network``)."""
    gateway_port: int = 15443
    """The port for connections from other networks (label ``networking.istio.io/gatewayPort``)."""
    elsewhere: bool = False
    """Whether it exists only in other clusters; its addresses are meaningful only there."""
    near: str = ""
    """Whose endpoints its clients prefer: those of their own ``zone`` or ``node``, or ``any``; empty for what its
    namespace says."""

    @property
    def host(self) -> str:
        return self.hostname or service_host(self.name, self.namespace, self.domain)

    @property
    def headless(self) -> bool:
        """Whether it is a Kubernetes Service without an address: clients connect to the endpoints directly."""
        return not self.resolution and not self.external_name and self.address in ("None", "")

    @property
    def all_addresses(self) -> tuple[str, ...]:
        if self.elsewhere:
            return ()
        own = (self.address,) if self.address not in ("", "None") else ()
        return tuple(dict.fromkeys((*own, *self.addresses)))


class Namespace(NamedTuple):
    name: str
    labels: tuple[tuple[str, str], ...] = ()
    near: str = ""
    """``Service.near`` of services that do not say it themselves."""


@dataclass(frozen=True)
class Pod:
    """A workload instance, as far as the mesh needs to know it."""

    namespace: str
    name: str
    uid: str
    address: str
    labels: tuple[tuple[str, str], ...]
    service_account: str
    owner: str
    ports: tuple[tuple[str, int, str], ...]
    ready: bool
    node: str = ""
    locality: str = ""
    """region/zone/subzone: from the workload's own label, otherwise from its node."""
    weight: int = 1
    network: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    """Istio's annotations."""
    gateway: bool = False
    """Whether its proxy is a gateway's."""

    def __hash__(self) -> int:
        """Hashes the identity only: pods are keys of many queries, and two states of a pod rarely exist at once."""
        return hash((self.namespace, self.name, self.uid))

    @property
    def label_map(self) -> dict[str, str]:
        return dict(self.labels)

    @property
    def meshed(self) -> bool:
        return self.label_map.get("security.istio.io/tlsMode") == "istio"


@dataclass(frozen=True)
class Endpoint:
    address: str
    port: int
    pod: str
    """Name of the pod, empty for an address without one."""


@dataclass(frozen=True)
class Credential:
    """A Secret with a gateway's server certificate, with CA certificates that verify clients, or with opaque
    entries."""

    namespace: str
    name: str
    chain: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    crl: str = field(default="", repr=False)
    entries: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The entries of an opaque Secret that SecurityPolicies read, such as clients' API keys."""
