"""Instances of services, and the workloads that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from lateen.api import canonical
from lateen.api import objects as o
from lateen.wire import labels

Workload = o.Pod
"""A pod, a WorkloadEntry, or an inline endpoint of a ServiceEntry: something with labels and an identity."""

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Instance:
    """One endpoint of a service's port. ``port`` is 0 for a Unix socket (``address`` begins with
    ``unix://``); ``weight`` is relative to the other instances of the same service."""

    address: str
    port: int
    workload: Workload | None = None
    """None for an address without a known workload."""
    cluster: str = ""
    """The cluster that it was found in; empty for the mesh's own cluster."""
    network: str = ""
    locality: str = ""
    """region/zone/subzone"""
    weight: int = 1
    more: tuple[str, ...] = ()
    """Further addresses of the same workload, of the other family."""
    plain: bool = False
    """Whether the port does not accept mutual TLS although its workload has a proxy."""
    onward: bool = False
    """Whether it is a gateway to another network that stands in for the instances behind it."""

    @property
    def labels(self) -> dict[str, str]:
        return self.workload.label_map if self.workload else {}


Instances = tuple[Instance, ...]
"""Ready instances, sorted by address and port."""


def instance(
    workload: Workload,
    port: int,
    cluster: str = "",
    address: str = "",
    network: str = "",
    more: tuple[str, ...] = (),
) -> Instance:
    """The instance for a workload and one of its ports. ``network``: used if the workload does not name its own."""
    return Instance(
        address or workload.address,
        port,
        workload,
        cluster,
        workload.network or network,
        workload.locality,
        workload.weight,
        more,
    )


Described = tuple[tuple[str, str], ...]
"""(key, value): the description of a workload in metrics, which is also in its certificate."""


def described(workload: Workload) -> dict[str, str]:
    """The description by the keys of ``wire.labels.PARTS``, as in Istio (canonical service and revision)."""
    own = workload.label_map
    name = own.get(canonical.WORKLOAD_NAME) or workload.owner
    return {
        "workload": name,
        "namespace": workload.namespace,
        "app": canonical.first(own, canonical.APPS) or UNKNOWN,
        "version": canonical.first(own, canonical.VERSIONS) or UNKNOWN,
        "service": canonical.canonical_name(own, name),
        "revision": canonical.canonical_revision(own),
    }


NOBODY = {
    "workload": UNKNOWN,
    "namespace": UNKNOWN,
    "app": UNKNOWN,
    "version": UNKNOWN,
    "service": UNKNOWN,
    "revision": canonical.LATEST,
}
"""The description of an address without a known workload."""


def spoken(described: Described) -> str:
    """A description in one text, see ``wire.labels``."""
    values = dict(described)
    return labels.joined(tuple(values[key] for key in labels.PARTS))


def said(workload: Workload | None, cluster: str = "") -> str:
    """The description of a workload in one text, see ``wire.labels``; empty without a workload. ``cluster``: where it
    is known, the name of the workload's."""
    if workload is None:
        return ""
    own = spoken(tuple(described(workload).items()))
    return labels.PART.join((own, cluster)) if own and cluster else own


def identity(workload: Workload, trust_domain: str) -> Described:
    """The description together with the SPIFFE ID in the workload's certificate."""
    principal = f"spiffe://{trust_domain}/ns/{workload.namespace}/sa/{workload.service_account}"
    return (*described(workload).items(), ("principal", principal))


@dataclass(frozen=True)
class Seat:
    """Where a proxy serves a workload. What distinguishes the workloads of one proxy is empty if it has only one."""

    name: str = ""
    """The suffix of the names of its resources."""
    network_namespace: str = ""
    """The path of the network namespace where its listeners are."""
    account: str = ""
    """``namespace/service account`` of the certificate that its listeners present."""
    ipv6: bool = False
    """Whether others reach it by IPv6: its listeners for all IPv4 addresses are for all IPv6 addresses, too."""


ALONE, ALONE_V6 = Seat(), Seat(ipv6=True)


IPV4, IPV6, BOTH = "4", "6", "46"
"""The families of addresses that a proxy has"""


@dataclass(frozen=True)
class Proxy:
    """An Envoy of some kind (``wire.node``) and the workloads that it serves. A gateway serves one."""

    kind: str
    workloads: tuple[Workload, ...]
    network_namespaces: tuple[str, ...] = ()
    """The workloads' network namespaces; empty for a proxy in the network namespace of its only workload."""
    families: str = IPV4
    """Those of its addresses; IPV4 with ``network_namespaces``, whose addresses nobody reports."""

    @property
    def ipv6(self) -> bool:
        return self.families != IPV4

    @property
    def seats(self) -> tuple[tuple[Workload, Seat], ...]:
        if not self.network_namespaces:
            (only,) = self.workloads
            return ((only, ALONE_V6 if self.ipv6 else ALONE),)
        return tuple(
            (w, Seat(f"{w.name}.{w.namespace}", path, f"{w.namespace}/{w.service_account}"))
            for w, path in zip(self.workloads, self.network_namespaces, strict=True)
        )


def container_port(pod: o.Pod, port: o.ServicePort) -> int:
    """The container port of a service's port in a pod; 0 if the pod has no port of that name."""
    if isinstance(port.target, int):
        return port.target
    return next((n for name, n, _ in pod.ports if name == port.target), 0)
