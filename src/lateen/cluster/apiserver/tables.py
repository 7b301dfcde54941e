"""The tables of ``kubectl get``: objects as metav1.Table rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lateen.cluster.apiserver.resources import Resource
from lateen.kit import duration, jsons, times
from lateen.kit.jsons import Json, dig

Row = Callable[[Json], list[Any]]


def table(resource: Resource, version: str, objects: list[Json], meta: Json, include: str) -> Json:
    """``meta`` is the Table's own metadata; ``include``: None, Metadata or Object for each row's object."""
    columns, row = _columns(resource, version)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns,
        "rows": [{"cells": row(obj), "object": _included(obj, include)} for obj in objects],
    }


def _included(obj: Json, include: str) -> Json | None:
    if include == "None":
        return None
    if include == "Object":
        return obj
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _ingress(o: Json) -> list[Any]:
    hosts = [str(r.get("host") or "*") for r in dig(o, "spec", "rules", default=[])] or ["*"]
    shown = ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "")
    found = dig(o, "status", "loadBalancer", "ingress", default=[])
    noted = dig(o, "metadata", "annotations", "kubernetes.io/ingress.class")
    return [
        _name(o),
        dig(o, "spec", "ingressClassName") or noted or "<none>",
        shown,
        ",".join(str(i.get("ip") or i.get("hostname") or "") for i in found),
        "80, 443" if dig(o, "spec", "tls") else "80",
        _age(o),
    ]


def _columns(resource: Resource, version: str) -> tuple[list[Json], Row]:
    if resource.custom:
        return _custom(resource.columns.get(version) or [])
    spec = _TABLES.get(resource.kind, (("Name", "Age"), lambda o: [_name(o), _age(o)]))
    names, row = spec
    definitions = []
    for name in names:
        wide = name.startswith("+")
        name = name.removeprefix("+")
        definitions.append(
            {
                "name": name,
                "type": "integer" if name in ("Desired", "Current") else "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": 1 if wide else 0,
            }
        )
    return definitions, row


def _custom(columns: list[Json]) -> tuple[list[Json], Row]:
    definitions: list[Json] = [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}]
    for c in columns:
        definitions.append(
            {
                "name": c["name"],
                "type": c["type"],
                "format": c.get("format", ""),
                "description": c.get("description", ""),
                "priority": c.get("priority", 0),
            }
        )
    if not columns:
        columns = [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
        definitions.append({"name": "Age", "type": "date", "format": "", "description": "", "priority": 0})

    def row(obj: Json) -> list[Any]:
        cells: list[Any] = [_name(obj)]
        for c in columns:
            value = json_path(obj, c["jsonPath"])
            if c["type"] == "date":
                value = _since(value) if isinstance(value, str) else "<unknown>"
            elif isinstance(value, (list, dict)):
                value = jsons.dumps(value).decode()
            cells.append(value)
        return cells

    return definitions, row


_STEP = re.compile(r"\.([A-Za-z0-9_\-\\.]+?)(?=[.\[]|$)|\[(\d+)\]|\[\?\(@\.(\w+)\s*==\s*['\"]([^'\"]*)['\"]\)\]")


def json_path(value: Any, path: str) -> Any:
    """The part of JSONPath that printer columns use: fields, indices, ``[?(@.type=='Ready')]``."""
    at = 0
    while at < len(path):
        m = _STEP.match(path, at)
        if m is None:
            return None
        if m[1] is not None:
            value = value.get(m[1].replace("\\", "")) if isinstance(value, dict) else None
        elif m[2] is not None:
            value = value[int(m[2])] if isinstance(value, list) and int(m[2]) < len(value) else None
        else:
            value = next((v for v in value or [] if isinstance(v, dict) and v.get(m[3]) == m[4]), None)
        if value is None:
            return None
        at = m.end()
    return value


def _name(obj: Json) -> str:
    return str(obj["metadata"]["name"])


def _since(text: str) -> str:
    return duration.age((times.now() - times.parse(text)).total_seconds())


def _age(obj: Json) -> str:
    created = dig(obj, "metadata", "creationTimestamp")
    return _since(created) if created else "<unknown>"


def _pod(o: Json) -> list[Any]:
    status, spec = o.get("status") or {}, o["spec"]
    containers = status.get("containerStatuses") or []
    ready = sum(1 for c in containers if c.get("ready"))
    restarts = sum(c.get("restartCount", 0) for c in containers)
    return [
        _name(o),
        f"{ready}/{len(spec['containers'])}",
        pod_phase(o),
        restarts,
        _age(o),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        "<none>",
        "<none>",
    ]


def pod_phase(o: Json) -> str:
    """kubectl's STATUS column: the phase, or the most informative reason of a container."""
    status = o.get("status") or {}
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    total = len(o["spec"].get("initContainers") or [])
    for i, c in enumerate(status.get("initContainerStatuses") or []):
        state = c.get("state") or {}
        if "terminated" in state and state["terminated"].get("exitCode") == 0:
            continue
        waiting = dig(state, "waiting", "reason", default="")
        if "terminated" in state:
            return f"Init:{state['terminated'].get('reason') or 'Error'}"
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        if o["metadata"].get("deletionTimestamp") is None:
            return f"Init:{i}/{total}"
    for c in status.get("containerStatuses") or []:
        state = c.get("state") or {}
        if dig(state, "waiting", "reason"):
            reason = state["waiting"]["reason"]
        elif "terminated" in state:
            reason = state["terminated"].get("reason") or f"ExitCode:{state['terminated'].get('exitCode')}"
    return "Terminating" if o["metadata"].get("deletionTimestamp") else reason


def _service(o: Json) -> list[Any]:
    spec = o["spec"]
    external = "<none>"
    if spec["type"] == "LoadBalancer":
        ingress = dig(o, "status", "loadBalancer", "ingress", default=[])
        external = ",".join(i.get("hostname") or i.get("ip", "") for i in ingress) or "<pending>"
    elif spec["type"] == "ExternalName":
        external = spec.get("externalName", "")
    ports = (
        ",".join(
            f"{p['port']}:{p['nodePort']}/{p['protocol']}" if p.get("nodePort") else f"{p['port']}/{p['protocol']}"
            for p in spec.get("ports") or []
        )
        or "<none>"
    )
    return [
        _name(o),
        spec["type"],
        spec.get("clusterIP") or "<none>",
        external,
        ports,
        _age(o),
        _labels(spec.get("selector")),
    ]


def _labels(labels: Json | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or "<none>"


def _images(spec: Json) -> tuple[str, str]:
    containers = dig(spec, "template", "spec", "containers", default=[])
    return ",".join(c["name"] for c in containers), ",".join(c.get("image", "") for c in containers)


def _deployment(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    return [
        _name(o),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _age(o),
        *_images(spec),
        _labels(dig(spec, "selector", "matchLabels")),
    ]


def _replica_set(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    return [
        _name(o),
        spec.get("replicas", 1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        _age(o),
        *_images(spec),
        _labels(dig(spec, "selector", "matchLabels")),
    ]


def _endpoints(o: Json) -> list[Any]:
    found = [
        f"{a['ip']}:{p['port']}"
        for s in o.get("subsets") or []
        for p in s.get("ports") or []
        for a in s.get("addresses") or []
    ]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return [_name(o), ",".join(found[:3]) + more or "<none>", _age(o)]


def _slice(o: Json) -> list[Any]:
    ports = ",".join(str(p.get("port")) for p in o.get("ports") or []) or "<unset>"
    found = [a for e in o.get("endpoints") or [] for a in e.get("addresses") or []]
    return [_name(o), o.get("addressType"), ports, ",".join(found[:3]) or "<unset>", _age(o)]


def _node(o: Json) -> list[Any]:
    info = dig(o, "status", "nodeInfo", default={})
    conditions = {c["type"]: c["status"] for c in dig(o, "status", "conditions", default=[])}
    address = next((a["address"] for a in dig(o, "status", "addresses", default=[]) if a["type"] == "InternalIP"), "")
    return [
        _name(o),
        "Ready" if conditions.get("Ready") == "True" else "NotReady",
        "control-plane",
        _age(o),
        info.get("kubeletVersion", ""),
        address,
        "<none>",
        info.get("osImage", ""),
        info.get("kernelVersion", ""),
        info.get("containerRuntimeVersion", ""),
    ]


def _event(o: Json) -> list[Any]:
    about = o.get("involvedObject") or {}
    last = o.get("lastTimestamp") or o.get("eventTime") or o["metadata"].get("creationTimestamp")
    subject = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    return [
        _since(last) if last else "<unknown>",
        o.get("type"),
        o.get("reason"),
        subject,
        str(o.get("message", "")).strip(),
        dig(o, "source", "component", default=""),
        o.get("count", 1),
        _name(o),
    ]


_TABLES: dict[str, tuple[tuple[str, ...], Row]] = {
    "Pod": (
        ("Name", "Ready", "Status", "Restarts", "Age", "+IP", "+Node", "+Nominated Node", "+Readiness Gates"),
        _pod,
    ),
    "Service": (("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"), _service),
    "Deployment": (
        ("Name", "Ready", "Up-to-date", "Available", "Age", "+Containers", "+Images", "+Selector"),
        _deployment,
    ),
    "Ingress": (("Name", "Class", "Hosts", "Address", "Ports", "Age"), _ingress),
    "IngressClass": (
        ("Name", "Controller", "Parameters", "Age"),
        lambda o: [_name(o), dig(o, "spec", "controller", default=""), "<none>", _age(o)],
    ),
    "ReplicaSet": (("Name", "Desired", "Current", "Ready", "Age", "+Containers", "+Images", "+Selector"), _replica_set),
    "Namespace": (("Name", "Status", "Age"), lambda o: [_name(o), dig(o, "status", "phase", default=""), _age(o)]),
    "Endpoints": (("Name", "Endpoints", "Age"), _endpoints),
    "EndpointSlice": (("Name", "AddressType", "Ports", "Endpoints", "Age"), _slice),
    "Node": (
        (
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "+Internal-IP",
            "+External-IP",
            "+OS-Image",
            "+Kernel-Version",
            "+Container-Runtime",
        ),
        _node,
    ),
    "ConfigMap": (
        ("Name", "Data", "Age"),
        lambda o: [_name(o), len(o.get("data") or {}) + len(o.get("binaryData") or {}), _age(o)],
    ),
    "Secret": (("Name", "Type", "Data", "Age"), lambda o: [_name(o), o.get("type"), len(o.get("data") or {}), _age(o)]),
    "ServiceAccount": (("Name", "Secrets", "Age"), lambda o: [_name(o), len(o.get("secrets") or []), _age(o)]),
    "Event": (("Last Seen", "Type", "Reason", "Object", "Message", "+Source", "+Count", "+Name"), _event),
    "CustomResourceDefinition": (
        ("Name", "Created At"),
        lambda o: [_name(o), dig(o, "metadata", "creationTimestamp", default="")],
    ),
    "MutatingWebhookConfiguration": (
        ("Name", "Webhooks", "Age"),
        lambda o: [_name(o), len(o.get("webhooks") or []), _age(o)],
    ),
    "ValidatingWebhookConfiguration": (
        ("Name", "Webhooks", "Age"),
        lambda o: [_name(o), len(o.get("webhooks") or []), _age(o)],
    ),
}
