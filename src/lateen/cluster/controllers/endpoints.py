"""Endpoints and EndpointSlices of services with a selector. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lateen.cluster.controllers.ownership import is_ready, owner
from lateen.cluster.controllers.slices import MANAGED, SERVICE
from lateen.kit import selectors
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

HEADLESS = "service.kubernetes.io/headless"
MANAGER = "endpointslice-controller.k8s.io"


def target_port(pod: Json, port: Json) -> int | None:
    """The container port that a service port targets; None if this pod has no port of that name."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    sidecars = (c for c in pod["spec"].get("initContainers") or [] if c.get("restartPolicy") == "Always")
    for container in (*pod["spec"]["containers"], *sidecars):
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


Ports = tuple[tuple[str, int, str], ...]
"""(name, number, protocol) of each port."""


def objects(service: Json, pods: list[Json], zones: Mapping[str, str]) -> tuple[Json, list[Json]]:
    """The Endpoints and the EndpointSlices of a service: one for each combination of ports, without a name. ``zones``:
    of nodes."""
    groups: dict[Ports, list[Json]] = {}
    for pod in backing(service, pods):
        ports = tuple(
            (str(p.get("name") or ""), number, str(p.get("protocol", "TCP")))
            for p in service["spec"].get("ports") or []
            if (number := target_port(pod, p)) is not None
        )
        groups.setdefault(ports, []).append(pod)
    slices = [_slice(service, ports, found, zones) for ports, found in groups.items()]
    return _endpoints(service, groups), slices or [_slice(service, (), [], zones)]


def _meta(service: Json, labels: dict[str, str]) -> Json:
    meta = service["metadata"]
    headless = {HEADLESS: ""} if service["spec"].get("clusterIP") == "None" else {}
    return {"namespace": meta["namespace"], "labels": {**(meta.get("labels") or {}), **labels, **headless}}


def _target(pod: Json) -> Json:
    meta = pod["metadata"]
    return {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}


def _serving(pod: Json, service: Json) -> bool:
    """Whether it is listed as ready."""
    if dig(service, "spec", "publishNotReadyAddresses"):
        return True
    return is_ready(pod) and not pod["metadata"].get("deletionTimestamp")


def _hostname(pod: Json, service: Json) -> Json:
    """The name of a pod below its own headless service (``spec.hostname`` and ``spec.subdomain``)."""
    named = pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]
    return {"hostname": pod["spec"]["hostname"]} if named else {}


def _spoken(service: Json, name: str) -> dict[str, str]:
    """What is spoken on a port, if its service says so."""
    ports = service["spec"].get("ports") or []
    found = next((p.get("appProtocol") for p in ports if (p.get("name") or "") == name), None)
    return {"appProtocol": str(found)} if found else {}


def _endpoints(service: Json, groups: dict[tuple[tuple[str, int, str], ...], list[Json]]) -> Json:
    subsets = []
    for ports, pods in groups.items():
        if not ports and service["spec"].get("ports"):
            continue  # they have no port of the names that are wanted
        ready = [p for p in pods if _serving(p, service)]
        unready = [p for p in pods if not _serving(p, service) and not p["metadata"].get("deletionTimestamp")]
        subset: Json = {
            "ports": [
                ({"name": n} if n else {}) | {"port": port, "protocol": proto} | _spoken(service, n)
                for n, port, proto in ports
            ]
        }
        for key, found in (("addresses", ready), ("notReadyAddresses", unready)):
            if found:
                subset[key] = [
                    {"ip": dig(p, "status", "podIP"), "targetRef": _target(p)}
                    | ({"nodeName": p["spec"]["nodeName"]} if dig(p, "spec", "nodeName") else {})
                    | _hostname(p, service)
                    for p in found
                ]
        if ready or unready:
            subsets.append(subset)
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": service["metadata"]["name"]}
        | _meta(service, {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}),
        "subsets": subsets,
    }


def _slice(service: Json, ports: Ports, pods: list[Json], zones: Mapping[str, str]) -> Json:
    name = service["metadata"]["name"]
    endpoints = []
    for pod in pods:
        leaving, node = bool(pod["metadata"].get("deletionTimestamp")), dig(pod, "spec", "nodeName")
        endpoints.append(
            {
                "addresses": [dig(pod, "status", "podIP")],
                "targetRef": _target(pod),
                "conditions": {
                    "ready": _serving(pod, service),
                    "serving": is_ready(pod),
                    "terminating": leaving,
                },
            }
            | ({"nodeName": node} if node else {})
            | ({"zone": zones[node]} if zones.get(node) else {})
            | _hostname(pod, service)
        )
    labels = {SERVICE: name, MANAGED: MANAGER}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {**_meta(service, labels), "generateName": f"{name}-", "ownerReferences": [owner(service)]},
        "endpoints": endpoints,
        "ports": [{"name": n, "port": port, "protocol": proto} | _spoken(service, n) for n, port, proto in ports],
    }
