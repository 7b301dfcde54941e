"""The instances behind the ports of services, and the services of a workload."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api import objects as o
from lateen.kit.queries import query
from lateen.mesh import registry
from lateen.mesh.base import Registry
from lateen.mesh.networks import Networks
from lateen.mesh.selecting import has_labels
from lateen.mesh.workloads import Instance, Instances, instance


class Endpoints(Networks):
    def endpoints(self, service: o.Service, port: o.ServicePort) -> Instances:
        """The ready instances of a port; the same object as long as nothing in it changes."""
        return self._instances(service.namespace, service.host, port.port)

    @query
    def _instances(self, namespace: str, host: str, number: int) -> Instances:
        service = next((s for s in self.candidates(host) if s.namespace == namespace), None)
        port = next((p for p in service.ports if p.port == number), None) if service else None
        if service is None or port is None:
            return ()
        if service.external_name:
            return (Instance(service.external_name, number),)
        found: list[Instance] = []
        if not service.resolution:
            for r in self.registries_of(host):
                found += self._listed(r, service, port)
            found += self._selected(service, port, {a for i in found if not i.cluster for a in (i.address, *i.more)})
        found += self._of_entries(service, port)
        return tuple(sorted(found, key=lambda i: (i.address, i.port, i.cluster)))

    def _listed(self, r: Registry, service: o.Service, port: o.ServicePort) -> Iterator[Instance]:
        """The instances in Kubernetes' EndpointSlices of one cluster. A pod that is in those of both families is one
        instance, with the pod's own address first."""
        of_pods: dict[tuple[str, int], dict[str, None]] = {}
        for _, ports in r.slices_of.get((service.namespace, service.name)):
            for e in ports.get(port.name, ()):
                if e.pod and (service.namespace, e.pod) in r.objects.pods:
                    of_pods.setdefault((e.pod, e.port), {})[e.address] = None
                else:
                    yield Instance(e.address, e.port, cluster=r.cluster, network=self.network("", e.address, r.cluster))
        for (name, number), addresses in of_pods.items():
            pod = r.objects.pods[service.namespace, name]
            first, *more = sorted(addresses, key=lambda a: (a != pod.address, a))
            network = self.network(pod.network, first, r.cluster)
            yield instance(pod, number, r.cluster, first, network, tuple(more))

    def _selected(self, service: o.Service, port: o.ServicePort, known: set[str]) -> Iterator[Instance]:
        """WorkloadEntries that a Kubernetes service selects."""
        if not service.selector or not self.objects.workload_entries:
            return
        for w in self._workloads(service.namespace):
            usable = w.ready and w.address not in known and registry.numeric(w.address)
            if usable and has_labels(dict(service.selector), w.label_map):
                named = next((n for name, n, _ in w.ports if name == port.name), 0)
                number = named or (port.target if isinstance(port.target, int) else port.port)
                yield instance(w, number, network=self.network(w.network, w.address))

    def _of_entries(self, service: o.Service, port: o.ServicePort) -> list[Instance]:
        out: list[Instance] = []
        for ref in service.entries:
            entry = self.objects.service_entries.get((ref.namespace, ref.name))
            if entry is None or not any(p.number == port.port for p in entry.spec.ports):
                continue
            selects = entry.spec.workload_selector is not None
            pods = self.own.pods_in.get(ref.namespace) if selects else ()
            workloads = self._workloads(ref.namespace) if selects else ()
            out += registry.of_entry(entry, service.host, port, pods, workloads)
        if service.resolution in registry.KNOWN_BY_NAME:
            return out
        return [
            i for i in out if registry.numeric(i.address)
        ]  # in Envoy, either all endpoints of a cluster are resolved by DNS, or none

    def _workloads(self, namespace: str) -> list[o.Pod]:
        return [registry.of_workload_entry(w) for w in self._workloads_in.get(namespace)]

    # --- from a workload to its services ---------------------------------------------------------------------

    def services_of(self, pod: o.Pod) -> list[o.Service]:
        """The Kubernetes services that select a pod, by name."""
        labels = pod.label_map
        selecting = self.own.selecting
        found = [s for item in pod.labels for s in selecting.get((pod.namespace, item))]
        return sorted((s for s in found if has_labels(dict(s.selector), labels)), key=lambda s: s.name)

    def entries_of(self, pod: o.Pod) -> list[tuple[o.Service, o.ServicePort, int]]:
        """The ports of ServiceEntries whose endpoint is a pod: (service, port, the pod's port)."""
        out = []
        for entry in sorted(self._entries_listing.get(pod.address), key=lambda e: e.age_order):
            for s in registry.services(entry, self.cluster.domain):
                for i, w in enumerate(registry.inline(entry)):
                    if w.address == pod.address:
                        own = dict(entry.spec.endpoints[i].ports)
                        out += [(s, p, own.get(p.name) or _target(p)) for p in s.ports]
        labels = pod.label_map
        for entry in sorted(self._entries_selecting.get(pod.namespace), key=lambda e: e.age_order):
            wanted = entry.spec.workload_selector
            if wanted is not None and has_labels(wanted.labels, labels):
                out += [(s, p, _target(p)) for s in registry.services(entry, self.cluster.domain) for p in s.ports]
        return out


def _target(port: o.ServicePort) -> int:
    return port.target if isinstance(port.target, int) else port.port
