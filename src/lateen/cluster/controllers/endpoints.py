"""Endpoints and EndpointSlices of services with a selector. Pure."""

from __future__ import annotations

from lateen.cluster.controllers.ownership import is_ready, owner
from lateen.kit import selectors
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig


def target_port(pod: Json, port: Json) -> int | None:
    """The container port that a service port targets; None if this pod has no port of that name."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for p in container.get("ports") or []:
            if p.get("name") == target and p.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(p["containerPort"])
    return int(str(target)) if digits(str(target)) else None


def backing(service: Json, pods: list[Json]) -> list[Json]:
    selector = dig(service, "spec", "selector", default={})
    if not selector:
        return []
    return sorted(
        (
            p
            for p in pods
            if p["metadata"]["namespace"] == service["metadata"]["namespace"]
            and dig(p, "status", "podIP")
            and dig(p, "status", "phase") not in ("Succeeded", "Failed")
            and selectors.subset(selector, dig(p, "metadata", "labels", default={}))
        ),
        key=lambda p: str(p["metadata"]["name"]),
    )


def objects(service: Json, pods: list[Json]) -> tuple[Json, Json]:
    """The Endpoints and the EndpointSlice of a service."""
    groups: dict[tuple[tuple[str, int, str], ...], list[Json]] = {}
    for pod in backing(service, pods):
        ports = tuple(
            (str(p.get("name") or ""), number, str(p.get("protocol", "TCP")))
            for p in service["spec"].get("ports") or []
            if (number := target_port(pod, p)) is not None
        )
        groups.setdefault(ports, []).append(pod)
    return _endpoints(service, groups), _slice(service, groups)


def _meta(service: Json, name: str, labels: Json) -> Json:
    meta = service["metadata"]
    return {"name": name, "namespace": meta["namespace"], "labels": {**(meta.get("labels") or {}), **labels}}


def _target(pod: Json) -> Json:
    meta = pod["metadata"]
    return {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}


def _serving(pod: Json, service: Json) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return is_ready(pod) or bool(dig(service, "spec", "publishNotReadyAddresses"))


def _hostname(pod: Json, service: Json) -> Json:
    """The name of a pod below its own headless service (``spec.hostname`` and ``spec.subdomain``)."""
    named = pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]
    return {"hostname": pod["spec"]["hostname"]} if named else {}


def _endpoints(service: Json, groups: dict[tuple[tuple[str, int, str], ...], list[Json]]) -> Json:
    subsets = []
    for ports, pods in groups.items():
        ready = [p for p in pods if _serving(p, service)]
        unready = [p for p in pods if not _serving(p, service) and not p["metadata"].get("deletionTimestamp")]
        subset: Json = {
            "ports": [({"name": n} if n else {}) | {"port": port, "protocol": proto} for n, port, proto in ports]
        }
        for key, found in (("addresses", ready), ("notReadyAddresses", unready)):
            if found:
                subset[key] = [
                    {"ip": dig(p, "status", "podIP"), "nodeName": dig(p, "spec", "nodeName"), "targetRef": _target(p)}
                    | _hostname(p, service)
                    for p in found
                ]
        if ready or unready:
            subsets.append(subset)
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": _meta(service, service["metadata"]["name"], {}),
        "subsets": subsets,
    }


def _slice(service: Json, groups: dict[tuple[tuple[str, int, str], ...], list[Json]]) -> Json:
    name = service["metadata"]["name"]
    largest = max(groups, key=lambda k: len(groups[k]), default=())
    endpoints = []
    for pod in groups.get(largest, []):
        ready, leaving = _serving(pod, service), bool(pod["metadata"].get("deletionTimestamp"))
        endpoints.append(
            {
                "addresses": [dig(pod, "status", "podIP")],
                "nodeName": dig(pod, "spec", "nodeName"),
                "targetRef": _target(pod),
                "zone": "local",
                "conditions": {"ready": ready, "serving": is_ready(pod), "terminating": leaving},
            }
            | _hostname(pod, service)
        )
    meta = _meta(
        service,
        f"{name}-lateen",
        {
            "kubernetes.io/service-name": name,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        },
    )
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {**meta, "ownerReferences": [owner(service)]},
        "endpoints": endpoints,
        "ports": [{"name": n, "port": port, "protocol": proto} for n, port, proto in largest],
    }
