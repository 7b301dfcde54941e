"""Networks: the network of each instance, and the gateways through which other networks are reached.

Instances on another network are reached through that network's gateways, which route connections by the SNI of mutual
TLS; so instances that do not accept mutual TLS are unreachable from other networks. Sources:
https://istio.io/latest/docs/setup/install/multicluster/multi-primary_multi-network/ and
``pilot/pkg/xds/endpoints/ep_filters.go`` in istio.io/istio.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from lateen.api import objects as o
from lateen.api.decoding import NETWORK
from lateen.kit.queries import query
from lateen.mesh.base import Registry
from lateen.mesh.services import Services
from lateen.mesh.settings import NetworkSettings
from lateen.mesh.workloads import UNKNOWN, Instance, Instances

Place = tuple[str, int]
"""(address, port) of a gateway"""


class Networks(Services):
    def _networks(self) -> NetworkSettings:
        found: NetworkSettings = self._settings["networks"]
        return found

    @query
    def network_of_cluster(self, cluster: str) -> str:
        """A cluster's network: by the label of the control plane's namespace there, otherwise by MeshNetworks; empty if
        neither names one."""
        registry = self.own if not cluster else self._others.get(cluster)
        root = registry.objects.namespaces.get(("", self.root_namespace)) if registry else None
        return dict(root.labels if root else ()).get(NETWORK) or dict(self._networks().of_clusters).get(
            cluster or self.cluster.name, ""
        )

    def network(self, workload_network: str, address: str, cluster: str = "") -> str:
        """The network of an address in a cluster; ``workload_network``: the one that the workload itself names."""
        found = workload_network or self.network_of_cluster(cluster)
        return found or (_in_range(self._networks().ranges, address) if self._networks().ranges else "")

    @query
    def network_gateways(self) -> Mapping[str, tuple[Place, ...]]:
        """By network: the Services labelled as its gateways, and the gateways in MeshNetworks."""
        out: dict[str, dict[Place, None]] = {}
        for r in self.registries:
            for network in r.gateways_of.buckets():
                for s in r.gateways_of.get(network):
                    out.setdefault(network, {}).update(dict.fromkeys((a, s.gateway_port) for a in s.outside))
        for network, host, address, port in self._networks().gateways:
            addresses = [address] if address else [a for s in self._everywhere(host) for a in s.outside]
            out.setdefault(network, {}).update(dict.fromkeys((a, port) for a in addresses))
        return {network: tuple(sorted(found)) for network, found in sorted(out.items()) if found}

    def _everywhere(self, name: str) -> list[o.Service]:
        host = self.resolve(name, self.root_namespace)
        return [s for r in self.registries for s in r.services_of_host.get(host)]

    @query
    def is_cluster_local(self, host: str) -> bool:
        """Whether instances of a host in other clusters are ignored (``serviceSettings``). That is the default
        for the API server and kube-system, as in Istio, and for istiod: in a cluster without its own, the Service of
        that name leads to another cluster's."""
        for patterns, local in self._networks().local:
            if any(host == p or (p.startswith("*") and host.endswith(p[1:])) for p in patterns):
                return local
        domain = self.cluster.domain
        if host.startswith("istiod") and host.endswith(f".{self.root_namespace}.svc.{domain}"):
            return True
        return host == f"kubernetes.default.svc.{domain}" or host.endswith(f".kube-system.svc.{domain}")

    def registries_of(self, host: str) -> list[Registry]:
        """The registries with the instances of a host."""
        return [self.own] if self.is_cluster_local(host) else list(self.registries)

    def reached(self, found: Instances, network: str, secured: Callable[[Instance], bool]) -> Instances:
        """The instances that clients on a network connect to: those on their own network, and gateways in place of
        those on other networks. ``secured``: whether an instance is called with mutual TLS."""
        gateways = self.network_gateways()
        if not network or all(i.network in ("", network) or i.network not in gateways for i in found):
            return found
        direct: list[Instance] = []
        behind: dict[tuple[str, str, str], list[Instance]] = {}
        for i in found:
            if i.network in ("", network) or i.network not in gateways:
                direct.append(i)
            elif secured(i):
                behind.setdefault((i.network, i.locality, i.cluster), []).append(i)
        scale = math.lcm(*(len(gateways[name]) for name, _, _ in behind))
        out = [replace(i, weight=i.weight * scale) for i in direct] if scale > 1 else direct
        for (name, _, _), hidden in sorted(behind.items()):
            share = sum(i.weight for i in hidden) * scale // len(gateways[name])
            out += [_onward(hidden, place, share) for place in gateways[name]]
        return tuple(sorted(out, key=lambda i: (i.address, i.port, i.cluster, i.locality)))


def _onward(hidden: list[Instance], place: Place, weight: int) -> Instance:
    """A gateway as an instance, with the common properties of the instances behind it."""
    first = hidden[0]
    workloads = [i.workload for i in hidden if i.workload is not None]
    labels = set.intersection(*(set(w.labels) for w in workloads)) if workloads else set()
    workload = workloads[0] if workloads else None
    if workload is not None and len({(w.owner, w.namespace) for w in workloads}) > 1:
        workload = replace(workload, owner=UNKNOWN)
    if workload is not None:
        workload = replace(workload, labels=tuple(sorted(labels)), name="", uid="", address=place[0], node="")
    return Instance(*place, workload, first.cluster, first.network, first.locality, weight, onward=True)


def _in_range(ranges: tuple[tuple[str, str], ...], address: str) -> str:
    """The network of the first range with the address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return next((network for text, network in ranges if found in ipaddress.ip_network(text, strict=False)), "")
