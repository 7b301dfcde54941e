"""Kubernetes service discovery, for a Prometheus that is built without it. Pure.

Names of labels: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#kubernetes_sd_config
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.kit.jsons import Json, dig

META = "__meta_kubernetes_"
ADDRESS = "__address__"
_UNSUITED = re.compile(r"[^a-zA-Z0-9_]")
KUBELET_PORT = 10250

Labels = dict[str, str]


@dataclass(frozen=True)
class Cluster:
    """The objects of each kind."""

    objects: Callable[[Kind], Iterable[Json]]

    def find(self, kind: Kind, namespace: str, name: str) -> Json | None:
        def wanted(obj: Json) -> bool:
            meta = obj["metadata"]
            return bool(meta["name"] == name and meta.get("namespace", "") == namespace)

        return next(filter(wanted, self.objects(kind)), None)


def host_port(address: str, port: object) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _described(prefix: str, obj: Json) -> Labels:
    """The object's labels and annotations."""
    out = {}
    for kind in ("label", "annotation"):
        for key, value in (dig(obj, "metadata", f"{kind}s", default=None) or {}).items():
            name = _UNSUITED.sub("_", key)
            out[f"{META}{prefix}_{kind}_{name}"] = str(value)
            out[f"{META}{prefix}_{kind}present_{name}"] = "true"
    return out


def _filled(prefix: str, **values: object) -> Labels:
    return {f"{META}{prefix}_{k}": str(v) for k, v in values.items() if v not in (None, "")}


def _namespace(obj: Json) -> Labels:
    return {f"{META}namespace": str(obj["metadata"].get("namespace", ""))}


# --- pods -------------------------------------------------------------------------------------------------------------


def _pod(pod: Json) -> Labels:
    meta, status = pod["metadata"], pod.get("status") or {}
    ready = next((c["status"] for c in status.get("conditions") or [] if c["type"] == "Ready"), "unknown")
    owner: Json = next((o for o in meta.get("ownerReferences") or [] if o.get("controller")), {})
    return {
        **_described("pod", pod),
        **_filled(
            "pod",
            name=meta["name"],
            ip=status.get("podIP"),
            ready=str(ready).lower(),
            phase=status.get("phase"),
            node_name=dig(pod, "spec", "nodeName", default=""),
            host_ip=status.get("hostIP"),
            uid=meta.get("uid"),
            controller_kind=owner.get("kind"),
            controller_name=owner.get("name"),
        ),
    }


def _containers(pod: Json) -> Iterator[tuple[Json, bool]]:
    """(container, whether it is an init container)."""
    for field, init in (("containers", False), ("initContainers", True)):
        for container in dig(pod, "spec", field, default=None) or []:
            yield container, init


def _container(pod: Json, container: Json, init: bool) -> Labels:
    states = dig(pod, "status", "initContainerStatuses" if init else "containerStatuses", default=None) or []
    found = next((s.get("containerID") for s in states if s["name"] == container["name"]), None)
    return _filled(
        "pod_container", name=container["name"], image=container.get("image"), init=str(init).lower(), id=found
    )


def _port(port: Json) -> Labels:
    number, protocol = port["containerPort"], port.get("protocol", "TCP")
    return _filled("pod_container_port", name=port.get("name"), number=number, protocol=protocol)


def pods(cluster: Cluster) -> Iterator[Labels]:
    """A target for each port of each container; one without a port where a container has none."""
    for pod in cluster.objects(kinds.POD):
        address = dig(pod, "status", "podIP", default="")
        if not address:
            continue
        shared = {**_namespace(pod), **_pod(pod)}
        for container, init in _containers(pod):
            own = {**shared, **_container(pod, container, init)}
            if not container.get("ports"):
                yield {**own, ADDRESS: address}
            for port in container.get("ports") or []:
                yield {**own, **_port(port), ADDRESS: host_port(address, port["containerPort"])}


# --- services and what is behind them ---------------------------------------------------------------------------------


def services(cluster: Cluster) -> Iterator[Labels]:
    for service in cluster.objects(kinds.SERVICE):
        meta, spec = service["metadata"], service.get("spec") or {}
        external = spec.get("type") == "ExternalName"
        shared = {
            **_namespace(service),
            **_described("service", service),
            **_filled(
                "service",
                name=meta["name"],
                type=spec.get("type", "ClusterIP"),
                cluster_ip=None if external else spec.get("clusterIP"),
                external_name=spec.get("externalName") if external else None,
            ),
        }
        for port in spec.get("ports") or []:
            more = _filled(
                "service_port", name=port.get("name"), number=port["port"], protocol=port.get("protocol", "TCP")
            )
            yield {**shared, **more, ADDRESS: f"{meta['name']}.{meta['namespace']}.svc:{port['port']}"}


def endpoints(cluster: Cluster) -> Iterator[Labels]:
    """Each address of each port, and the further ports of the containers of the pods that are behind them."""
    for found in cluster.objects(kinds.ENDPOINTS):
        meta = found["metadata"]
        service = cluster.find(kinds.SERVICE, meta["namespace"], meta["name"])
        shared = {**_namespace(found), **_described("endpoints", found), **_filled("endpoints", name=meta["name"])}
        if service is not None:
            shared |= {**_described("service", service), **_filled("service", name=meta["name"])}
        bound: dict[str, set[int]] = {}
        backing: dict[str, Json] = {}
        for subset in found.get("subsets") or []:
            for ready, address in _addresses(subset):
                pod = _behind(cluster, address)
                for port in subset.get("ports") or []:
                    yield {**shared, **_endpoint(address, port, ready), **_backed(pod, int(port["port"]))}
                    if pod is not None:
                        backing[pod["metadata"]["name"]] = pod
                        bound.setdefault(pod["metadata"]["name"], set()).add(int(port["port"]))
        for name, pod in backing.items():
            for container, init in _containers(pod):
                for port in container.get("ports") or []:
                    if port["containerPort"] not in bound[name]:
                        own = {**_pod(pod), **_container(pod, container, init), **_port(port)}
                        yield {**shared, **own, ADDRESS: host_port(pod["status"]["podIP"], port["containerPort"])}


def _addresses(subset: Json) -> Iterator[tuple[bool, Json]]:
    for field, ready in (("addresses", True), ("notReadyAddresses", False)):
        for address in subset.get(field) or []:
            yield ready, address


def _behind(cluster: Cluster, address: Json) -> Json | None:
    target = address.get("targetRef") or {}
    return cluster.find(kinds.POD, target["namespace"], target["name"]) if target.get("kind") == "Pod" else None


def _endpoint(address: Json, port: Json, ready: bool) -> Labels:
    target = address.get("targetRef") or {}
    return {
        ADDRESS: host_port(address["ip"], port["port"]),
        **_filled("endpoint_port", name=port.get("name"), protocol=port.get("protocol", "TCP")),
        **_filled(
            "endpoint",
            ready=str(ready).lower(),
            hostname=address.get("hostname"),
            node_name=address.get("nodeName"),
            address_target_kind=target.get("kind"),
            address_target_name=target.get("name"),
        ),
    }


def _backed(pod: Json | None, port: int) -> Labels:
    """Of an endpoint that is a pod's: the pod's labels, and those of its container with that port."""
    if pod is None:
        return {}
    for container, init in _containers(pod):
        for one in container.get("ports") or []:
            if one["containerPort"] == port:
                return {**_pod(pod), **_container(pod, container, init), **_port(one)}
    return _pod(pod)


def nodes(cluster: Cluster) -> Iterator[Labels]:
    for node in cluster.objects(kinds.NODE):
        status = node.get("status") or {}
        known = {a["type"]: a["address"] for a in reversed(status.get("addresses") or [])}
        address = known.get("InternalIP") or known.get("ExternalIP") or known.get("Hostname")
        if not address:
            continue
        port = dig(status, "daemonEndpoints", "kubeletEndpoint", "Port", default=None) or KUBELET_PORT
        own = {f"{META}node_address_{_UNSUITED.sub('_', k)}": v for k, v in known.items()}
        name = str(node["metadata"]["name"])
        shared = {**_described("node", node), **own, **_filled("node", name=name)}
        yield {**shared, ADDRESS: host_port(address, port), "instance": name}


ROLES: dict[str, tuple[Callable[[Cluster], Iterator[Labels]], tuple[Kind, ...]]] = {
    "pod": (pods, (kinds.POD,)),
    "service": (services, (kinds.SERVICE,)),
    "endpoints": (endpoints, (kinds.ENDPOINTS, kinds.SERVICE, kinds.POD)),
    "node": (nodes, (kinds.NODE,)),
}
"""(the targets, the kinds that are read for them)."""


def groups(role: str, cluster: Cluster, namespaces: list[str]) -> list[Json]:
    """As HTTP service discovery has them: https://prometheus.io/docs/prometheus/latest/http_sd/. ``namespaces``: only
    of these, if any are named."""
    out = []
    for labels in ROLES[role][0](cluster):
        if not namespaces or labels.get(f"{META}namespace", namespaces[0]) in namespaces:
            rest = {k: v for k, v in labels.items() if k != ADDRESS}
            out.append({"targets": [labels[ADDRESS]], "labels": rest})
    return out
