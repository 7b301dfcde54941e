"""Typed forms of the objects that the mesh model is built from."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lateen.api.config import Config
from lateen.api.domain import service_host
from lateen.api.kinds import Ref as Ref
from lateen.kit.jsons import Json, dig

S = TypeVar("S", bound=Config)


@dataclass(frozen=True)
class Resource(Generic[S]):
    """A mesh object. Equality and hash are those of its identity and version: it is never changed."""

    ref: Ref
    uid: str
    version: str
    created: str
    spec: S = field(compare=False)
    dry_run: bool = False
    """An AuthorizationPolicy that only counts what it would do (annotation istio.io/dry-run)."""
    parts: tuple[str, ...] = ()
    """Other objects whose content stands in this one (a VirtualService's delegates)."""
    labels: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    """Annotations of Istio's own; others say nothing to the mesh."""
    healthy: bool = True
    """False for a WorkloadEntry whose probe fails."""

    @property
    def origins(self) -> tuple[str, ...]:
        """The user's objects that whatever is made of this one comes from."""
        return (str(self.ref), *self.parts)

    @property
    def age_order(self) -> tuple[str, str, str]:
        """Oldest first, then by namespace and name: Istio's order of precedence."""
        return (self.created, self.ref.namespace, self.ref.name)


@dataclass(frozen=True)
class ServicePort:
    name: str
    port: int
    target: int | str
    protocol: str
    app_protocol: str = ""


@dataclass(frozen=True)
class Service:
    namespace: str
    name: str
    address: str
    ports: tuple[ServicePort, ...]
    selector: tuple[tuple[str, str], ...] = ()
    external_name: str = ""
    hostname: str = ""
    """Where it is not made of name and namespace: a ServiceEntry's host."""
    addresses: tuple[str, ...] = ()
    """More addresses than ``address``, also ranges (10.0.0.0/8)."""
    resolution: str = ""
    """How endpoints are found: empty for Kubernetes' own, else a ServiceEntry's (NONE, STATIC, DNS, …)."""
    external: bool = False
    """Outside of the mesh: never mutual TLS by itself."""
    export_to: tuple[str, ...] = ()
    created: str = ""
    sans: tuple[str, ...] = ()
    """Names that the servers' certificates have."""
    entries: tuple[Ref, ...] = ()
    """The ServiceEntries that it is made from."""

    @property
    def host(self) -> str:
        return self.hostname or service_host(self.name, self.namespace)

    @property
    def headless(self) -> bool:
        """Kubernetes' services without an address: clients call the endpoints by their own."""
        return not self.resolution and not self.external_name and self.address in ("None", "")

    @property
    def all_addresses(self) -> tuple[str, ...]:
        own = (self.address,) if self.address not in ("", "None") else ()
        return tuple(dict.fromkeys((*own, *self.addresses)))


def service(obj: Json) -> Service:
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
    exported = (meta.get("annotations") or {}).get("networking.istio.io/exportTo", "")
    return Service(
        meta["namespace"],
        meta["name"],
        str(spec.get("clusterIP") or ""),
        ports,
        tuple(sorted((spec.get("selector") or {}).items())),
        str(spec.get("externalName") or "") if spec.get("type") == "ExternalName" else "",
        addresses=tuple(str(a) for a in (spec.get("clusterIPs") or [])[1:]),
        export_to=tuple(e.strip() for e in exported.split(",") if e.strip()),
        created=str(meta.get("creationTimestamp") or ""),
    )


@dataclass(frozen=True)
class Pod:
    """What the mesh needs to know of a workload instance."""

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
    """region/zone/subzone, where the workload itself says so; else its node does."""
    weight: int = 1
    network: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    """Annotations of Istio's own."""

    @property
    def label_map(self) -> dict[str, str]:
        return dict(self.labels)

    @property
    def meshed(self) -> bool:
        return self.label_map.get("security.istio.io/tlsMode") == "istio"


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
        network=str((meta.get("labels") or {}).get("topology.istio.io/network") or ""),
        notes=notes(meta),
    )


def notes(meta: Json) -> tuple[tuple[str, str], ...]:
    """Annotations of Istio's own, sorted."""
    found = (meta.get("annotations") or {}).items()
    kept = (
        (k, str(v))
        for k, v in found
        if ("istio.io/" in k and k != "sidecar.istio.io/status") or k == "kubernetes.io/ingress.class"
    )
    return tuple(sorted(kept))


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
    """The workload's name: a ReplicaSet's Deployment by its hash suffix, else the owner, else the pod."""
    meta = obj["metadata"]
    ref = next((r for r in meta.get("ownerReferences") or [] if r.get("controller")), None)
    if ref is None:
        return str(meta.get("name") or meta.get("generateName", "").rstrip("-"))
    suffix = dig(meta, "labels", "pod-template-hash", default="")
    name = str(ref["name"])
    return name.removesuffix(f"-{suffix}") if ref["kind"] == "ReplicaSet" and suffix else name


@dataclass(frozen=True)
class Endpoint:
    address: str
    port: int
    pod: str
    """Name of the pod, empty for an address without one."""


def endpoints(obj: Json) -> dict[str, tuple[Endpoint, ...]]:
    """Port name -> ready addresses, of one EndpointSlice."""
    out: dict[str, tuple[Endpoint, ...]] = {}
    for p in obj.get("ports") or []:
        found = []
        for e in obj.get("endpoints") or []:
            if dig(e, "conditions", "ready", default=True) and p.get("port"):
                target = dig(e, "targetRef", "name", default="") if dig(e, "targetRef", "kind") == "Pod" else ""
                found += [Endpoint(a, int(p["port"]), target) for a in e.get("addresses") or []]
        out[str(p.get("name") or "")] = tuple(found)
    return out


@dataclass(frozen=True)
class Credential:
    """A secret with a certificate for a gateway, or with the certificates by which clients are verified."""

    namespace: str
    name: str
    chain: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    crl: str = field(default="", repr=False)


def credential(obj: Json) -> Credential | None:
    """In Kubernetes' spelling (``tls.crt``) or in Istio's own (``cert``); None for other secrets."""
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
    return Credential(meta["namespace"], meta["name"], chain, key, ca, crl) if (chain and key) or ca else None
