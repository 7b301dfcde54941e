"""DestinationRules: whether they verify servers, and whether their hosts and subsets select anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.analysis.hosts import Hosts
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message, selects
from lateen.api import kinds
from lateen.kit.jsons import Json, dig

TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
HOSTNAME = "kubernetes.io/hostname"


@analyzer("destinationrule.CaCertificateAnalyzer", "Checks if caCertificates is set when TLS mode is SIMPLE/MUTUAL")
def ca_certificates(snapshot: Snapshot) -> Iterator[Message]:
    for dr in snapshot.all(kinds.DESTINATION_RULE):
        policy = dr.spec.get("trafficPolicy") or {}
        host = dr.spec.get("host")
        mode = _unverified(policy.get("tls"), dr)
        if mode:
            yield message("IST0128", dr, dr.full, dr.namespace, mode, host, path=("spec", "trafficPolicy", "tls"))
        for i, port in enumerate(policy.get("portLevelSettings") or []):
            mode = _unverified(port.get("tls"), dr)
            if mode:
                number = f"number:{dig(port, 'port', 'number')}"
                path = ("spec", "trafficPolicy", "portLevelSettings", i, "tls")
                yield message("IST0129", dr, dr.full, dr.namespace, mode, host, number, path=path)


def _unverified(tls: Json | None, dr: Source) -> str:
    """The mode, if TLS is originated without anything to verify the server with.

    Sidecars use a credential only in rules with a workloadSelector.
    """
    if not tls or tls.get("mode") not in ("SIMPLE", "MUTUAL") or tls.get("caCertificates"):
        return ""
    if tls.get("credentialName") and dr.spec.get("workloadSelector"):
        return ""
    return str(tls["mode"])


@analyzer("destinationrule.SubsetSelectPodAnalyzer", "Checks if pods are selected by subsets in destination rules.")
def subsets(snapshot: Snapshot) -> Iterator[Message]:
    hosts = Hosts.of(snapshot)
    for dr in snapshot.all(kinds.DESTINATION_RULE):
        name = str(dr.spec.get("host") or "")
        readers = snapshot.visible(dr, dr.spec["exportTo"]) if dr.spec.get("exportTo") else {dr.namespace}
        host = hosts.find(name, dr.namespace, readers) if name else None
        if name and host is None:
            yield message("IST0174", dr, name, path=("spec", "host"))
        if host is None or "*" in name:
            continue
        service = host.source
        given = _instances(snapshot, service) if dr.spec.get("subsets") else None
        for i, subset in enumerate(dr.spec["subsets"] if given is not None else ()):
            labels: Mapping[str, str] = subset.get("labels") or {}
            if not any(_has(labels, p) for p in given or ()):
                yield message("IST0173", dr, subset.get("name"), path=("spec", "subsets", i, "name"))


def _instances(snapshot: Snapshot, service: Source) -> list[Mapping[str, str]] | None:
    """The labels of the instances that a Service or a ServiceEntry selects or lists; None if some are in other
    clusters. Of one that does neither, any pod may be an instance, as in Istio, or one without labels."""
    if snapshot.in_other_clusters(service):
        return None
    if endpoints := service.spec.get("endpoints"):
        return [e.get("labels") or {} for e in endpoints]
    selector = (
        service.spec.get("selector")
        if service.id == kinds.SERVICE.id
        else dig(service.spec, "workloadSelector", "labels")
    )
    if not selector:
        return [{}, *(_with_topology(snapshot, p) for p in snapshot.all(kinds.POD))]
    pods = [_with_topology(snapshot, p) for p in snapshot.pods(selector, service.namespace)]
    entries = [w.spec.get("labels") or {} for w in snapshot.of_namespace(kinds.WORKLOAD_ENTRY, service.namespace)]
    return pods + [e for e in entries if selects(selector, e)]


def _has(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Empty topology labels denote no place and match nothing."""
    return all(labels.get(k) == v and not (k in TOPOLOGY and not v) for k, v in wanted.items())


def _with_topology(snapshot: Snapshot, pod: Source) -> Mapping[str, str]:
    name = str(pod.spec.get("nodeName") or "")
    node = snapshot.get(kinds.NODE, "", name)
    if node is None:
        return pod.labels
    return {HOSTNAME: name, **{k: node.labels[k] for k in TOPOLOGY if k in node.labels}, **pod.labels}
