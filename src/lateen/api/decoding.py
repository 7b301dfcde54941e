"""Decodes Kubernetes' objects from JSON into the values of ``api.objects``. Pure.

The API server has validated its own kinds, so fields that it requires are assumed to be present; KeyError if not.
"""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

from msgspec.structs import replace

from lateen.api.annotations import TAP_BODIES
from lateen.api.cert_manager import BY_CLUSTER_ISSUER, BY_ISSUER
from lateen.api.envoy_gateway import FAIL_CLOSED
from lateen.api.networking import DestinationRule, ServiceEntry, Sidecar, VirtualService
from lateen.api.objects import LITERAL_PORTS, Credential, Endpoint, Namespace, Pod, Ref, Resource, Service, ServicePort
from lateen.api.reading import DISTRIBUTION, is_gateway, near
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

HOSTNAME = "kubernetes.io/hostname"
"""The label of nodes, and here of the pods on them, with the node's name"""
NETWORK, GATEWAY_PORT = "topology.istio.io/network", "networking.istio.io/gatewayPort"


def resource(ref: Ref, obj: Json, spec: Any) -> Resource[Any]:
    """An object of a kind that has a type; ``spec`` is its decoded spec."""
    meta = obj["metadata"]
    return Resource(
        ref,
        str(meta.get("uid")),
        f"{meta.get('uid')}/{meta.get('generation')}",
        str(meta.get("creationTimestamp")),
        with_lower_hosts(spec),
        dry_run=is_dry_run(meta),
        labels=tuple(sorted((meta.get("labels") or {}).items())),
        notes=notes(meta),
        healthy=is_healthy(obj),
    )


def with_lower_hosts(spec: Any) -> Any:
    """Host names in lower case, in which Envoy compares them: names that differ only in case are one host."""
    changed: dict[str, Any]
    match spec:
        case ServiceEntry() | VirtualService():
            changed = {"hosts": tuple(dict.fromkeys(map(str.lower, spec.hosts)))}
        case DestinationRule():
            changed = {"host": spec.host.lower()}
        case Sidecar():
            changed = {"egress": tuple(replace(e, hosts=tuple(map(str.lower, e.hosts))) for e in spec.egress)}
        case _:
            return spec
    return spec if all(getattr(spec, k) == v for k, v in changed.items()) else replace(spec, **changed)


def is_healthy(obj: Json) -> bool:
    """Whether a WorkloadEntry is healthy, by the condition ``Healthy`` that its health probe sets."""
    conditions = dig(obj, "status", "conditions", default=[])
    return not any(c.get("type") == "Healthy" and c.get("status") == "False" for c in conditions)


def is_dry_run(meta: Json) -> bool:
    """Whether an AuthorizationPolicy is only counted (https://istio.io/latest/docs/tasks/security/authorization/authz-dry-run/)."""
    return str((meta.get("annotations") or {}).get("istio.io/dry-run", "")).lower() in ("true", "t", "1")


def service(obj: Json, domain: str) -> Service:
    """``domain``: the DNS domain of its cluster."""
    spec = obj["spec"]
    ports = tuple(
        ServicePort(
            str(p.get("name") or ""),
            int(p["port"]),
            p.get("targetPort", p["port"]),
            str(p.get("protocol", "TCP")),
            str(p.get("appProtocol") or ""),
        )
        for p in spec.get("ports") or []
    )
    meta = obj["metadata"]
    labels = meta.get("labels") or {}
    annotations = meta.get("annotations") or {}
    exported = annotations.get("networking.istio.io/exportTo", "")
    return Service(
        meta["namespace"],
        meta["name"],
        str(spec.get("clusterIP") or ""),
        ports,
        tuple(sorted((spec.get("selector") or {}).items())),
        str(spec.get("externalName") or "").lower() if spec.get("type") == "ExternalName" else "",
        addresses=tuple(str(a) for a in (spec.get("clusterIPs") or [])[1:]),
        export_to=tuple(e.strip() for e in exported.split(",") if e.strip()),
        created=str(meta.get("creationTimestamp") or ""),
        domain=domain,
        literal_ports=LITERAL_PORTS in labels,
        outside=_outside(obj),
        network=str(labels.get(NETWORK) or ""),
        gateway_port=int(port) if digits(port := str(labels.get(GATEWAY_PORT, ""))) else Service.gateway_port,
        near=near(str(spec.get("trafficDistribution") or ""), str(annotations.get(DISTRIBUTION) or "")),
    )


def _outside(obj: Json) -> tuple[str, ...]:
    """The external addresses of a Service. Host names of load balancers are left out, because endpoints need addresses,
    and so are loopback addresses, which are not reachable from outside."""
    balanced = [str(i.get("ip") or "") for i in dig(obj, "status", "loadBalancer", "ingress", default=[])]
    found = dict.fromkeys((*balanced, *map(str, obj["spec"].get("externalIPs") or [])))
    return tuple(a for a in found if _is_reachable(a))


def _is_reachable(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def namespace(obj: Json) -> Namespace:
    meta = obj["metadata"]
    labels = tuple(sorted((meta.get("labels") or {}).items()))
    return Namespace(meta["name"], labels, near("", str((meta.get("annotations") or {}).get(DISTRIBUTION) or "")))


def pod(obj: Json) -> Pod:
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
    ports = tuple(
        (str(p.get("name") or ""), int(p["containerPort"]), str(p.get("protocol", "TCP")))
        for c in spec.get("containers") or []
        for p in c.get("ports") or []
    )
    return Pod(
        meta["namespace"],
        meta["name"],
        str(meta.get("uid", "")),
        str(status.get("podIP") or ""),
        tuple(sorted((meta.get("labels") or {}).items())),
        str(spec.get("serviceAccountName") or "default"),
        owner(obj),
        ports,
        ready and not meta.get("deletionTimestamp"),
        node=str(spec.get("nodeName") or ""),
        locality=_own_locality(meta.get("labels") or {}),
        network=str((meta.get("labels") or {}).get(NETWORK) or ""),
        notes=notes(meta),
        gateway=is_gateway(obj),
    )


_OTHERS = ("kubernetes.io/ingress.class", FAIL_CLOSED, BY_ISSUER, BY_CLUSTER_ISSUER)


def notes(meta: Json) -> tuple[tuple[str, str], ...]:
    """The annotations that the mesh reads, sorted."""
    found = (meta.get("annotations") or {}).items()
    kept = ((k, str(v)) for k, v in found if _is_read(k))
    return tuple(sorted(kept))


def _is_read(annotation: str) -> bool:
    if "istio.io/" in annotation:
        return annotation != "sidecar.istio.io/status"
    return annotation in _OTHERS or annotation.startswith(TAP_BODIES)


def _own_locality(labels: Json) -> str:
    """Labels cannot contain slashes, so Istio's label has dots."""
    found = str(labels.get("topology.istio.io/locality") or labels.get("istio-locality") or "")
    return found if "/" in found else found.replace(".", "/")


def node_locality(obj: Json) -> str:
    """region/zone/subzone of a node, by its well-known labels."""
    labels = obj["metadata"].get("labels") or {}
    region = labels.get("topology.kubernetes.io/region") or labels.get("failure-domain.beta.kubernetes.io/region") or ""
    zone = labels.get("topology.kubernetes.io/zone") or labels.get("failure-domain.beta.kubernetes.io/zone") or ""
    return "/".join((region, zone, labels.get("topology.istio.io/subzone") or "")).rstrip("/")


def owner(obj: Json) -> str:
    """The workload's name: the Deployment's (its ReplicaSet's without the hash), else the owner's, else the pod's."""
    meta = obj["metadata"]
    ref = next((r for r in meta.get("ownerReferences") or [] if r.get("controller")), None)
    if ref is None:
        return str(meta.get("name") or meta.get("generateName", "").rstrip("-"))
    suffix = dig(meta, "labels", "pod-template-hash", default="")
    name = str(ref["name"])
    return name.removesuffix(f"-{suffix}") if ref["kind"] == "ReplicaSet" and suffix else name


def endpoints(obj: Json) -> dict[str, tuple[Endpoint, ...]]:
    """Port name -> ready addresses of one EndpointSlice. As in Istio, slices of host names (FQDN) are ignored: EDS
    carries only addresses."""
    if obj.get("addressType") == "FQDN":
        return {}
    out: dict[str, tuple[Endpoint, ...]] = {}
    for p in obj.get("ports") or []:
        found = []
        for e in obj.get("endpoints") or []:
            if dig(e, "conditions", "ready", default=True) and p.get("port"):
                target = dig(e, "targetRef", "name", default="") if dig(e, "targetRef", "kind") == "Pod" else ""
                found += [Endpoint(a, int(p["port"]), target) for a in e.get("addresses") or [] if _numeric(a)]
        out[str(p.get("name") or "")] = tuple(found)
    return out


def _numeric(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


OPAQUE = "Opaque"
"""The type of Secrets whose entries have no meaning to Kubernetes"""


def credential(obj: Json) -> Credential | None:
    """The certificate in a Secret, under Kubernetes' keys (``tls.crt``) or Istio's (``cert``), or else the entries of
    an opaque Secret; None for other Secrets."""
    data = obj.get("data") or {}

    def value(*names: str) -> str:
        for name in names:
            if name in data:
                return base64.b64decode(str(data[name])).decode(errors="replace")
        return ""

    chain, key = value("tls.crt", "cert"), value("tls.key", "key")
    ca = value("ca.crt", "cacert")
    meta = obj["metadata"]
    crl = value("ca.crl")
    if (chain and key) or ca:
        return Credential(meta["namespace"], meta["name"], chain, key, ca, crl)
    if obj.get("type", OPAQUE) != OPAQUE or "tls.crt" in data:
        return None
    entries = tuple((name, value(name)) for name in sorted(data))
    return Credential(meta["namespace"], meta["name"], entries=entries)
