"""Where requests end: instances of services, and the workloads that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from lateen.api import objects as o

Workload = o.Pod
"""A pod, a WorkloadEntry, or an endpoint that a ServiceEntry lists: something with labels and an identity."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One place where a port of a service is served. ``port`` is 0 for a Unix socket (``address`` begins with
    ``unix://``); ``weight`` is relative to the other instances of the same service."""

    address: str
    port: int
    workload: Workload | None = None
    """None for an address about which nothing else is known."""
    cluster: str = ""
    """The cluster that it was found in; empty for the mesh's own cluster."""
    network: str = ""
    locality: str = ""
    """region/zone/subzone"""
    weight: int = 1

    @property
    def labels(self) -> dict[str, str]:
        return self.workload.label_map if self.workload else {}


Instances = tuple[Instance, ...]
"""Ready ones, by address and port."""


def instance(workload: Workload, port: int, cluster: str = "", address: str = "") -> Instance:
    """The instance that a workload is for one of its ports."""
    return Instance(
        address or workload.address,
        port,
        workload,
        cluster,
        workload.network,
        workload.locality,
        workload.weight,
    )
