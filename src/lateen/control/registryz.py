"""Istio's debug page ``registryz``: the services of the mesh, in the JSON that Kiali reads.

Source: istio.io/istio, ``Service`` and ``ServiceAttributes`` in ``pilot/pkg/model/service.go``.
"""

from __future__ import annotations

from lateen.api import kinds
from lateen.api import objects as o
from lateen.kit.jsons import Json
from lateen.mesh.model import Mesh
from lateen.mesh.protocols import protocol

_SELF, _BY_NAME, _AS_ASKED, _ROUND_ROBIN, _ALIAS, _DYNAMIC = range(6)
"""Istio's ``Resolution``."""
_RESOLUTIONS = {"DNS": _BY_NAME, "NONE": _AS_ASKED, "DNS_ROUND_ROBIN": _ROUND_ROBIN, "DYNAMIC_DNS": _DYNAMIC}
_PROTOCOLS = {"mongo": "Mongo", "redis": "Redis", "auto": "UnsupportedProtocol"}
_NO_ADDRESS = "0.0.0.0"


def services(mesh: Mesh, cluster: str) -> list[Json]:
    """All services, by host. ``cluster``: the name of istiod's own."""
    found = sorted(mesh.hosts(), key=lambda s: (s.host, s.namespace))
    return [_service(s, mesh, cluster) for s in found]


def _service(s: o.Service, mesh: Mesh, cluster: str) -> Json:
    out: Json = {
        "Attributes": _attributes(s, mesh),
        "ports": [{"name": p.name, "port": p.port, "protocol": _protocol(p)} for p in s.ports],
        "creationTime": s.created or None,
        "hostname": s.host,
        "clusterVIPs": {"Addresses": _addresses(s, mesh, cluster)},
        "defaultAddress": s.address if s.address not in ("", "None") else _NO_ADDRESS,
        "Resolution": _resolution(s),
        "MeshExternal": s.external,
    }
    if s.sans:
        out["serviceAccounts"] = list(s.sans)
    return out


def _attributes(s: o.Service, mesh: Mesh) -> Json:
    """The name of an entry's service is its host, and the entry's own name is that of the object."""
    entries = [mesh.objects.of(kinds.SERVICE_ENTRY).get((ref.namespace, ref.name)) for ref in s.entries]
    entry = next((e for e in entries if e is not None), None)
    selector, labels = dict(s.selector), {}
    if entry is not None:
        labels = dict(entry.labels)
        selector = dict(entry.spec.workload_selector.labels) if entry.spec.workload_selector else {}
    return {
        "ServiceRegistry": "External" if s.entries else "Kubernetes",
        "Name": s.host if s.entries else s.name,
        "Namespace": s.namespace,
        "Labels": labels,
        "ExportTo": {where: {} for where in s.export_to},
        "LabelSelectors": selector,
        "ExternalName": s.external_name,
        "ObjectName": entry.ref.name if entry is not None else s.name,
    }


def _addresses(s: o.Service, mesh: Mesh, cluster: str) -> dict[str, list[str]] | None:
    """Of a Kubernetes Service, in each cluster that has it."""
    if s.entries:
        return {cluster: list(s.all_addresses)} if s.all_addresses else None
    return {
        r.cluster or cluster: list(one.all_addresses) or [_NO_ADDRESS]
        for r in mesh.registries
        for one in r.services_of_host.get(s.host)
        if one.namespace == s.namespace
    }


def _protocol(port: o.ServicePort) -> str:
    found = protocol(port)
    return _PROTOCOLS.get(found, found.upper())


def _resolution(s: o.Service) -> int:
    if s.external_name:
        return _ALIAS
    return _AS_ASKED if s.headless else _RESOLUTIONS.get(s.resolution, _SELF)
