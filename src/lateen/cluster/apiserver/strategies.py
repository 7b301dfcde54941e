"""What the API server itself adds to objects of its own kinds: addresses, ports, the token volume, accepted names."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from lateen.cluster.apiserver import (
    certificate_requests,
    claims,
    ingress_classes,
    limiting,
    node_ports,
    pod_warnings,
    priorities,
    quotas,
    rbac,
    service_accounts,
)
from lateen.cluster.apiserver.built_in import BUILT_IN
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.custom import definitions
from lateen.cluster.apiserver.errors import ApiError, forbidden
from lateen.cluster.apiserver.policies import checks, evaluation
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.validation.fields import Causes, bad
from lateen.cluster.apiserver.validation.networks import OF_ADDRESSES
from lateen.cluster.store.objects import Store
from lateen.kit import jsons, times
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

MAX_PODS = 1000
"""All pods share one machine: this limit stops a runaway controller."""


class Allocator:
    """Cluster addresses and node ports that are not used by any Service."""

    def __init__(self, store: Store, service_net: str, reserved: int = 20) -> None:
        self._store = store
        self._net = ipaddress.ip_network(service_net)
        self._next = reserved
        self._next_port = 30000

    def cluster_ip(self) -> str:
        used = {dig(e.obj, "spec", "clusterIP") for e in self._store.list("services")}
        size = self._net.num_addresses - 2
        for _ in range(size):
            self._next = self._next % size + 1
            address = str(self._net[self._next])
            if self._next > 20 and address not in used:
                return address
        raise ApiError(500, "InternalError", f"no free cluster address in {self._net}")

    def has(self, address: str) -> bool:
        """Whether an address is one of those that Services may have."""
        try:
            return ipaddress.ip_address(address) in self._net
        except ValueError:
            return True  # what is not an address is refused by validation

    def node_port(self) -> int:
        used = {
            p.get("nodePort") for e in self._store.list("services") for p in dig(e.obj, "spec", "ports", default=[])
        }
        for _ in range(2768):
            self._next_port = 30000 + (self._next_port - 30000 + 1) % 2768
            if self._next_port not in used:
                return self._next_port
        raise ApiError(500, "InternalError", "no free node port in 30000-32767")


def identify(c: Call, obj: Json, old: Json | None) -> None:
    """Record the requester in the object, in place."""
    if (c.resource.group, c.resource.kind) == ("certificates.k8s.io", "CertificateSigningRequest"):
        certificate_requests.stamp(c, obj, old)


def permit(c: Call, obj: Json, old: Json | None, store: Store, registry: Registry) -> None:
    """What a user may write depends on the content, too: nobody can write a role with more permissions than their own.
    Adds warnings. Raises ApiError."""
    r = c.resource
    if (r.group, r.kind) == ("certificates.k8s.io", "CertificateSigningRequest"):
        certificate_requests.permit(c, obj, old, store)
    if r.group == evaluation.GROUP and r.kind in evaluation.KINDS:
        checks.permit(c, obj, store, registry)
    if r.kind == "CustomResourceDefinition" and not r.custom:
        c.warnings += definitions.warnings(obj)
    if (r.group, r.kind) == ("storage.k8s.io", "CSIDriver") and old is None:
        c.warnings.append(
            f"the embedded cluster starts no CSI drivers: pods wait for volumes of {c.name or obj['metadata']['name']}"
        )
    if r.group in ("", "apps", "batch") and c.subresource == "":
        c.warnings += pod_warnings.of(r.kind, obj)
    if r.group != rbac.GROUP:
        return
    if more := rbac.exceeding(store, c.user, c.namespace, obj):
        name = str(obj["metadata"]["name"])
        listed = "\n".join(jsons.dumps(rule).decode() for rule in more)
        groups = " ".join(f'"{g}"' for g in c.user.groups)
        says = (
            f'{r.qualified} "{name}" is forbidden: user "{c.user.name}" (groups=[{groups}]) is attempting '
            f"to grant RBAC permissions not currently held:\n{listed}"
        )
        raise forbidden(says, r.plural, name, r.group)


def prepare(r: Resource, obj: Json, old: Json | None, store: Store) -> None:
    """What Kubernetes' mutating admission plugins add, in place: before webhooks, and again after one has changed the
    object. Raises ApiError."""
    if r.custom:
        return
    if r.kind == "Pod" and old is None:
        _room(obj, store)
        _runtime(obj)
        priorities.resolve(obj, store)
        limiting.complete(obj, store)
        service_accounts.complete(obj, store)
    elif r.kind == "Pod":
        priorities.tolerate(obj["spec"])
    elif r.kind in ("PersistentVolumeClaim", "PersistentVolume"):
        claims.complete(r.kind, obj, old, store)
    elif r.kind == "Ingress" and old is None:
        ingress_classes.complete(obj, store)


def complete(r: Resource, obj: Json, old: Json | None, allocator: Allocator, registry: Registry) -> None:
    """Fill in, in place, what only the server knows. Raises ApiError."""
    if r.custom:
        return
    if r.kind == "Service":
        _service(obj, old, allocator)
    elif r.kind == "DaemonSet":
        _generation(obj, old)
    elif r.kind == "Job" and old is None:
        _selected_by_uid(obj)
    elif r.kind == "CustomResourceDefinition":
        _names(obj, old)
    elif r.kind == evaluation.KINDS[0]:
        checks.complete(obj, old, registry)


def limit(r: Resource, obj: Json, old: Json | None, store: Store, subresource: str) -> None:
    """What a namespace allows. Raises ApiError. Nothing is awaited between this and the write."""
    if not r.custom:
        limiting.admit(r, obj, old, store, subresource)
    quotas.admit(r, obj, old, store)


def check(r: Resource, obj: Json, old: Json | None, store: Store, allocator: Allocator) -> Causes:
    """What depends on other objects, or on the kind's role in the cluster."""
    if r.kind == "Service" and not r.custom:
        return _taken(obj, old, store, allocator)
    if r.kind == "CustomResourceDefinition":
        return definitions.check(obj, {b.qualified for b in BUILT_IN}, old)
    if (r.group, r.kind) == (evaluation.GROUP, evaluation.KINDS[0]):
        return checks.policy(obj)
    if (r.group, r.kind) == (evaluation.GROUP, evaluation.KINDS[1]):
        return checks.binding(obj)
    if r.group == evaluation.GROUP:
        return checks.of_webhooks(obj)
    if r.kind == "PriorityClass" and not r.custom:
        return priorities.only_default(obj, store)
    return []


def _room(obj: Json, store: Store) -> None:
    if store.count("pods") >= MAX_PODS:
        name = obj["metadata"]["name"]
        says = f'pods "{name}" is forbidden: this cluster has the maximum of {MAX_PODS} pods, and takes no more'
        raise forbidden(says, "pods", name)


def _runtime(obj: Json) -> None:
    """RuntimeClasses are not served: as in a cluster without any, no pod can name one."""
    name, spec = obj["metadata"]["name"], obj["spec"]
    why = ""
    if wanted := spec.get("runtimeClassName"):
        why = f'RuntimeClass "{wanted}" not found'
    elif spec.get("overhead"):
        why = "Pod Overhead set without corresponding RuntimeClass defined Overhead"
    if why:
        raise forbidden(f'pods "{name}" is forbidden: pod rejected: {why}', "pods", name)


def _service(obj: Json, old: Json | None, allocator: Allocator) -> None:
    spec, was = obj["spec"], (old or {}).get("spec") or {}
    _drop_unneeded(spec, was)
    if spec["type"] == "ExternalName":
        for key in [key for key in OF_ADDRESSES if not spec.get(key)]:
            spec.pop(key, None)
        return  # what is left is refused
    if old is None and spec.get("clusterIPs") and not spec.get("clusterIP"):
        return  # which is refused
    kept = was.get("clusterIP")
    if kept and (spec.get("clusterIPs") or [kept]) == [kept] != [spec.get("clusterIP") or kept]:
        spec["clusterIPs"] = [spec["clusterIP"]]  # a change of one is meant for the other, too
    if not spec.get("clusterIP"):
        spec["clusterIP"] = kept or allocator.cluster_ip()
        spec["clusterIPs"] = [spec["clusterIP"]]
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    node_ports.assign(spec, was if old is not None else None, allocator.node_port)


def _has_node_ports(spec: Json) -> bool:
    return spec.get("type") in node_ports.TYPES


def _is_balanced(spec: Json) -> bool:
    return spec.get("type") == "LoadBalancer"


def _has_address(spec: Json) -> bool:
    return spec.get("type") not in (None, "ExternalName")


_NEEDED: dict[str, Callable[[Json], bool]] = {
    **dict.fromkeys((*OF_ADDRESSES, "internalTrafficPolicy"), _has_address),
    "externalTrafficPolicy": lambda s: (
        _has_node_ports(s) or (s.get("type") == "ClusterIP" and bool(s.get("externalIPs")))
    ),
    "healthCheckNodePort": lambda s: _is_balanced(s) and s.get("externalTrafficPolicy") == "Local",
    "allocateLoadBalancerNodePorts": _is_balanced,
    "loadBalancerClass": _is_balanced,
}
"""The condition under which a field of a Service is meaningful."""


def _drop_unneeded(spec: Json, was: Json) -> None:
    """Drop what only the Service's former type or policy has needed, unless it has been changed, too (as Kubernetes'
    ``dropTypeDependentFields``)."""
    unneeded = [key for key, needed in _NEEDED.items() if needed(was) and not needed(spec)]
    for key in unneeded:
        if key in was and spec.get(key) == was[key]:
            del spec[key]
    if not _has_node_ports(spec):
        before = {p.get("nodePort") for p in was.get("ports") or []}
        for p in spec.get("ports") or []:
            if p.get("nodePort") in before:
                p.pop("nodePort", None)


def _taken(obj: Json, old: Json | None, store: Store, allocator: Allocator) -> Causes:
    """Refuses addresses and node ports of other Services, and addresses of other networks; an address never changes."""
    spec, was, uid = obj["spec"], (old or {}).get("spec") or {}, obj["metadata"]["uid"]
    address = spec.get("clusterIP") or ""
    out: Causes = []
    if was.get("clusterIP") and spec["type"] != "ExternalName" and address != was["clusterIP"]:
        return [bad("spec.clusterIPs[0]", [address], "may not change once set")]
    if address not in ("", "None") and not allocator.has(address):
        says = f"failed to allocate IP {address}: the provided network does not match the current range"
        out.append(bad("spec.clusterIPs", [address], says))
    ports = {p["nodePort"] for p in spec.get("ports") or [] if p.get("nodePort")}
    for e in store.list("services"):
        if e.obj["metadata"]["uid"] == uid:
            continue
        if address not in ("", "None") and dig(e.obj, "spec", "clusterIP") == address:
            says = f"failed to allocate IP {address}: provided IP is already allocated"
            out.append(bad("spec.clusterIPs", [address], says))
        for p in dig(e.obj, "spec", "ports", default=[]):
            if p.get("nodePort") in ports:
                out.append(bad("spec.ports[0].nodePort", p["nodePort"], "provided port is already allocated"))
    return out


def _generation(ds: Json, old: Json | None) -> None:
    """How many templates a DaemonSet has had."""
    key = "deprecated.daemonset.template.generation"
    before = dig(old or {}, "metadata", "annotations", key, default="0")
    changed = old is None or old["spec"].get("template") != ds["spec"].get("template")
    count = (int(before) if digits(str(before)) else 0) + changed
    ds["metadata"].setdefault("annotations", {})[key] = str(count or 1)


def _selected_by_uid(job: Json) -> None:
    """A Job selects its pods by its own uid, unless it has a selector of the user's (``manualSelector``)."""
    meta, spec = job["metadata"], job["spec"]
    if spec.get("manualSelector"):
        return
    labels = spec.setdefault("template", {}).setdefault("metadata", {}).setdefault("labels", {})
    own = not meta.get("labels") or meta["labels"] == labels  # a Job without labels has its pods'
    for prefix in ("", "batch.kubernetes.io/"):
        labels.setdefault(f"{prefix}job-name", meta["name"])
        labels[f"{prefix}controller-uid"] = meta["uid"]
    if own:
        meta["labels"] = dict(labels)
    selector = {"batch.kubernetes.io/controller-uid": meta["uid"]}
    spec.setdefault("selector", {}).setdefault("matchLabels", {}).update(selector)


def _names(obj: Json, old: Json | None) -> None:
    """Default names of a CustomResourceDefinition, and the condition that they are accepted."""
    spec = obj.get("spec") or {}
    names = spec.setdefault("names", {})
    kind = str(names.get("kind") or "")
    names.setdefault("listKind", f"{kind}List")
    names.setdefault("singular", kind.lower())
    stored = [v.get("name") for v in spec.get("versions") or [] if v.get("storage")]
    before = {c["type"]: c for c in dig(old or {}, "status", "conditions", default=[])}
    now = times.stamp()
    reasons = {"NamesAccepted": "NoConflicts", "Established": "InitialNamesAccepted"}
    said = {"NamesAccepted": "no conflicts found", "Established": "the initial names have been accepted"}
    obj["status"] = {
        "acceptedNames": names,
        "storedVersions": list(dict.fromkeys([*dig(old or {}, "status", "storedVersions", default=[]), *stored])),
        "conditions": [
            before.get(t)
            or {"type": t, "status": "True", "reason": reasons[t], "message": said[t], "lastTransitionTime": now}
            for t in reasons
        ]
        + [condition for t, condition in before.items() if t not in reasons],
    }
