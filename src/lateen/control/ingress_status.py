"""The statuses of Ingresses: the addresses of the mesh's gateway. Pure.

Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/ingress-v1/#IngressStatus
"""

from __future__ import annotations

from collections.abc import Mapping

from lateen.api import kinds
from lateen.kit.jsons import Json, dig
from lateen.kube.bulk import Change
from lateen.kube.informer import Key
from lateen.mesh.model import Mesh


def changes(mesh: Mesh, services: Mapping[Key, Json], ingresses: Mapping[Key, Json]) -> list[Change]:
    """The statuses to write, for Ingresses that the mesh serves; others belong to other controllers."""
    ours = {(i.ref.namespace, i.ref.name) for i in mesh.ingresses()}
    if not ours:
        return []
    wanted = mesh.ingress
    gateways = [
        s
        for (namespace, name), s in services.items()
        if namespace == mesh.root_namespace
        if (name == wanted.service if wanted.service else dig(s, "spec", "selector", "istio") == wanted.selector)
    ]
    at: list[Json] = [i for s in gateways for i in _outside(s)]
    status = {"loadBalancer": {"ingress": at}}
    return [
        Change(kinds.INGRESS, *key, {"status": status})
        for key, obj in ingresses.items()
        if key in ours and _addresses(obj) != at
    ]


def _outside(service: Json) -> list[Json]:
    """Where clients outside reach a Service, as in Istio."""
    if name := dig(service, "spec", "externalName"):
        return [{"hostname": name}]
    found: list[Json] = [{"ip": i["ip"]} if "ip" in i else i for i in _addresses(service)]
    found += [{"ip": ip} for ip in dig(service, "spec", "externalIPs", default=[])]
    return [one for i, one in enumerate(found) if one not in found[:i]]


def _addresses(obj: Json) -> list[Json]:
    """The load balancer's addresses in the status of a Service or an Ingress."""
    found: list[Json] = dig(obj, "status", "loadBalancer", "ingress", default=[])
    return found
