"""The defaults that the real API server writes into objects of its own kinds."""

from __future__ import annotations

import base64

from lateen.cluster.apiserver import workload_defaults
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.workload_defaults import fill
from lateen.cluster.rules import amounts
from lateen.kit import times
from lateen.kit.jsons import Json

GATED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}
"""What a pod with scheduling gates says of itself from the start."""


def apply(r: Resource, obj: Json) -> None:
    """Fill in place. Kinds that users define have no defaults but their schema's, whatever they are called."""
    if r.custom:
        return
    kind = r.kind
    spec = obj.setdefault("spec", {}) if kind in _SPECS else {}
    if handler := _SPECS.get(kind):
        handler(spec)
    if kind in workload_defaults.OBJECTS:
        workload_defaults.OBJECTS[kind](obj)
    if path := workload_defaults.TEMPLATES.get(kind):
        _pod(_at(obj, *path, "spec"))
    if kind in workload_defaults.STATUSES:
        obj.setdefault("status", dict(workload_defaults.STATUSES[kind]))
    if kind in ("Service", "Ingress"):
        obj.setdefault("status", {}).setdefault("loadBalancer", {})
    if kind == "Secret":
        fill(obj, type="Opaque")
        _encode(obj)
    if kind == "Namespace":
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        obj.setdefault("status", {}).setdefault("phase", "Active")
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    if kind == "Pod":
        fill(spec, enableServiceLinks=True)
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
            _request_limits(container)
            for port in (container.get("ports") or []) if spec.get("hostNetwork") else ():
                port["hostPort"] = port.get("hostPort") or port.get("containerPort")
        obj.setdefault("status", {}).setdefault("phase", "Pending")
        obj["status"].setdefault("qosClass", amounts.qos(spec))
        if spec.get("schedulingGates"):
            obj["status"].setdefault("conditions", [GATED | {"lastTransitionTime": times.stamp()}])


def _request_limits(container: Json) -> None:
    """A limit without a request is a request as well."""
    resources = container.get("resources") or {}
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def _encode(secret: Json) -> None:
    """``stringData`` can only be written: everybody reads it as ``data``."""
    if (texts := secret.pop("stringData", None)) is not None:
        data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        secret["data"] = {**(secret.get("data") or {}), **data}


def _at(obj: Json, *path: str) -> Json:
    for step in path:
        obj = obj.setdefault(step, {})
    return obj


def _deployment(spec: Json) -> None:
    fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    if fill(strategy, type="RollingUpdate")["type"] == "RollingUpdate":
        fill(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
    _pod(spec.setdefault("template", {}).setdefault("spec", {}))


def _replica_set(spec: Json) -> None:
    fill(spec, replicas=1)
    _pod(spec.setdefault("template", {}).setdefault("spec", {}))


def _pod(spec: Json) -> None:
    fill(spec, restartPolicy="Always", terminationGracePeriodSeconds=30, dnsPolicy="ClusterFirst", securityContext={})
    fill(spec, schedulerName="default-scheduler")
    if spec["terminationGracePeriodSeconds"] < 0:  # nothing that ends in the past, but the shortest time
        spec["terminationGracePeriodSeconds"] = 1
    if spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(key) or []:
            _container(container)
    for volume in spec.get("volumes") or []:
        if claim := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"):
            fill(claim.setdefault("spec", {}), volumeMode="Filesystem")
        if not set(volume) - {"name"}:
            volume["emptyDir"] = {}
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if isinstance(volume.get(source), dict):
                fill(volume[source], defaultMode=420)
        for source in (volume.get("projected") or {}).get("sources") or []:
            if token := source.get("serviceAccountToken"):
                fill(token, expirationSeconds=3600)
        if (path := volume.get("hostPath")) is not None:
            fill(path, type="")


def _container(container: Json) -> None:
    image = str(container.get("image", ""))
    latest = ":" not in image.rpartition("/")[2] or image.endswith(":latest")
    fill(container, imagePullPolicy="Always" if latest and "@" not in image else "IfNotPresent", resources={})
    fill(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    for port in container.get("ports") or []:
        fill(port, protocol="TCP")
    for env in container.get("env") or []:
        ref = (env.get("valueFrom") or {}).get("fieldRef")
        if ref:
            fill(ref, apiVersion="v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            for key, value in (
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ):
                probe[key] = probe.get(key) or value
            _http_get(probe)
    for hook in (container.get("lifecycle") or {}).values():
        if hook:
            _http_get(hook)


def _http_get(handler: Json) -> None:
    if handler.get("httpGet"):
        fill(handler["httpGet"], path="/", scheme="HTTP")


def _service(spec: Json) -> None:
    fill(spec, type="ClusterIP", sessionAffinity="None")
    if spec["type"] != "ExternalName":
        fill(spec, internalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        fill(spec, allocateLoadBalancerNodePorts=True)
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800} | (config.get("clientIP") or {})}
    else:
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports") or []:
        fill(port, protocol="TCP")
        if spec["type"] != "ExternalName":
            port["targetPort"] = port.get("targetPort") or port.get("port")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        fill(spec, externalTrafficPolicy="Cluster")


_SPECS = {"Deployment": _deployment, "ReplicaSet": _replica_set, "Pod": _pod, "Service": _service}
