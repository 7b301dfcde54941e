"""The defaults that the real API server writes into objects of its own kinds."""

from __future__ import annotations

from lateen.cluster.apiserver import workload_defaults
from lateen.cluster.apiserver.resources import Resource
from lateen.kit.jsons import Json


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
    if kind == "Secret":
        obj.setdefault("type", "Opaque")
    if kind == "Namespace":
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        obj.setdefault("status", {}).setdefault("phase", "Active")
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    if kind == "Pod":
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
            _request_limits(container)
        obj.setdefault("status", {}).setdefault("phase", "Pending")
        obj["status"].setdefault("qosClass", _qos(spec))


def _request_limits(container: Json) -> None:
    """A limit without a request is a request as well."""
    resources = container.get("resources") or {}
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def _at(obj: Json, *path: str) -> Json:
    for step in path:
        obj = obj.setdefault(step, {})
    return obj


def _deployment(spec: Json) -> None:
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    _pod(spec.setdefault("template", {}).setdefault("spec", {}))


def _replica_set(spec: Json) -> None:
    spec.setdefault("replicas", 1)
    _pod(spec.setdefault("template", {}).setdefault("spec", {}))


def _pod(spec: Json) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccount" in spec and "serviceAccountName" not in spec:
        spec["serviceAccountName"] = spec["serviceAccount"]
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(key) or []:
            _container(container)
    for volume in spec.get("volumes") or []:
        if claim := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"):
            claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
        if not set(volume) - {"name"}:
            volume["emptyDir"] = {}
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if isinstance(volume.get(source), dict):
                volume[source].setdefault("defaultMode", 420)


def _container(container: Json) -> None:
    image = str(container.get("image", ""))
    latest = ":" not in image.rpartition("/")[2] or image.endswith(":latest")
    container.setdefault("imagePullPolicy", "Always" if latest and "@" not in image else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for env in container.get("env") or []:
        ref = (env.get("valueFrom") or {}).get("fieldRef")
        if ref:
            ref.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            for key, value in (
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ):
                probe.setdefault(key, value)
            if "httpGet" in probe:
                probe["httpGet"].setdefault("path", "/")
                probe["httpGet"].setdefault("scheme", "HTTP")


def _service(spec: Json) -> None:
    spec.setdefault("type", "ClusterIP")
    if spec.setdefault("sessionAffinity", "None") == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800} | (config.get("clientIP") or {})}
    else:
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        if spec["type"] != "ExternalName":
            port.setdefault("targetPort", port.get("port"))
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    spec.setdefault("internalTrafficPolicy", "Cluster")


def _qos(spec: Json) -> str:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    resources = [c.get("resources") or {} for c in containers]
    if all(not r.get("limits") and not r.get("requests") for r in resources):
        return "BestEffort"
    full = all(
        set(r.get("limits") or {}) >= {"cpu", "memory"} and (r.get("requests") or r["limits"]) == r["limits"]
        for r in resources
    )
    return "Guaranteed" if full else "Burstable"


_SPECS = {"Deployment": _deployment, "ReplicaSet": _replica_set, "Pod": _pod, "Service": _service}
