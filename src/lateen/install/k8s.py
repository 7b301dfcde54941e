"""What ``k8s`` of a component, and the values of Istio's charts that ask for the same, change in its objects. Pure.

Source: https://istio.io/latest/docs/reference/config/istio.operator.v1alpha1/ (KubernetesResourcesSpec), and the values
of Istio's chart ``istio-discovery``.
"""

from __future__ import annotations

from collections.abc import Sequence

from lateen.api.config import fields
from lateen.install.options import PodValues
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

POD = ("affinity", "nodeSelector", "priorityClassName", "tolerations", "topologySpreadConstraints")
"""Fields that are those of the pod."""
CONTAINER = ("imagePullPolicy", "readinessProbe")
SERVICE = (
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "publishNotReadyAddresses",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
)
"""Fields of ``k8s.service`` that are those of the Service; its selector and its ports (by number) are merged."""
OF_SERVICE = (
    "externalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "type",
)
"""Values of Istio's charts that are fields of ``k8s.service``."""
ROLLING = {"maxSurge": "100%", "maxUnavailable": "25%"}
VALUES = (
    "affinity",
    "deploymentLabels",
    "envVarFrom",
    "initContainers",
    "nodeSelector",
    "podAnnotations",
    "podLabels",
    "replicaCount",
    "resources",
    "seccompProfile",
    "serviceAccountAnnotations",
    "serviceAnnotations",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
)
"""Values of Istio's charts that have the names and forms of ``k8s`` (or only exist as values)."""
LEAST, MOST = 1, 5
"""Replicas of a component that is scaled automatically, as in Istio's charts."""
CPU_PERCENT = 80
"""Of the requested CPU: Istio's ``cpu.targetAverageUtilization``."""


def merged(k8s: Json, values: Json, kind: type[PodValues], shared: Json) -> Json:
    """``k8s`` of a component over its ``values`` (``values.pilot``, ``values.gateways.NAME``), of which only those of
    ``kind`` are read, and over ``values.global``."""
    values = declared(values, kind)
    out = {name: values[name] for name in VALUES if values.get(name) is not None}
    if values.get("autoscaleEnabled"):
        out["hpaSpec"] = autoscaling(
            values.get("autoscaleMin") or LEAST,
            values.get("autoscaleMax") or MOST,
            dig(values, "cpu", "targetAverageUtilization") or CPU_PERCENT,
        ) | ({"behavior": values["autoscaleBehavior"]} if values.get("autoscaleBehavior") else {})
    named = {"maxSurge": "rollingMaxSurge", "maxUnavailable": "rollingMaxUnavailable"}
    if rolling := {k: values[v] for k, v in named.items() if values.get(v) is not None}:
        out["strategy"] = {"rollingUpdate": ROLLING | rolling}
    if dig(shared, "defaultPodDisruptionBudget", "enabled"):
        out["podDisruptionBudget"] = {"minAvailable": 1}
    for name in ("imagePullPolicy", "priorityClassName"):
        if shared.get(name):
            out[name] = shared[name]
    if annotations := dig(values, "serviceAccount", "annotations"):
        out["serviceAccountAnnotations"] = annotations
    own, over = {k: values[k] for k in OF_SERVICE if values.get(k)}, k8s.get("service") or {}
    if service := {**own, **{k: v for k, v in over.items() if v not in (None, "", [], {})}}:
        k8s = {**k8s, "service": service}
    if env := values.get("env"):
        k8s = {**k8s, "env": by_name([{"name": k, "value": v} for k, v in sorted(env.items())], k8s.get("env") or [])}
    if secrets := shared.get("imagePullSecrets"):
        out["imagePullSecrets"] = [{"name": name} for name in secrets]
    return {**out, **{k: v for k, v in k8s.items() if v not in (None, {}, [], "")}}


def declared(values: Json, kind: type[PodValues]) -> Json:
    """Those of a component's values that its type has."""
    return {name: value for name, value in values.items() if name in fields(kind)}


def by_name(below: list[Json], above: list[Json]) -> list[Json]:
    """Environment variables; of two with one name, the one above."""
    named = {e["name"] for e in above}
    return [*(e for e in below if e["name"] not in named), *above]


def autoscaling(least: object, most: object, percent: object) -> Json:
    """The ``spec`` of a HorizontalPodAutoscaler by CPU, without its target."""
    target = {"type": "Utilization", "averageUtilization": percent}
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    return {"minReplicas": least, "maxReplicas": most, "metrics": [metric]}


def applied(objects: list[Json], k8s: Json) -> list[Json]:
    """A component's objects as ``k8s`` wants them, and those that it adds."""
    out = [jsons.copy(o) for o in objects]
    added: list[Json] = []
    for obj in out:
        if obj["kind"] == "Service":
            _service(obj, k8s)
        elif obj["kind"] == "ServiceAccount":
            _add(obj["metadata"], "annotations", k8s.get("serviceAccountAnnotations"))
        elif obj["kind"] in ("Deployment", "DaemonSet"):
            _workload(obj, k8s)
            added += _added(obj, k8s)
    return [*out, *added]


def _service(obj: Json, k8s: Json) -> None:
    given = k8s.get("service") or {}
    spec = obj["spec"]
    spec |= {name: given[name] for name in SERVICE if given.get(name) not in (None, "", [])}
    spec["selector"] = {**spec["selector"], **(given.get("selector") or {})}
    spec["ports"] = list(ports(spec["ports"], given.get("ports") or []).values())
    _add(obj["metadata"], "annotations", k8s.get("serviceAnnotations"))


def number(port: Json) -> tuple[int, str]:
    return port["port"], port.get("protocol") or "TCP"


def ports(own: Sequence[Json], given: Sequence[Json]) -> dict[tuple[int, str], Json]:
    """The ports of a Service by number and protocol: its own ones, over them those that are asked for."""
    out = {number(p): p for p in own}
    for port in given:
        key = number(port)
        out[key] = {**out.get(key, {"protocol": key[1], "targetPort": port["port"]}), **port}
    return out


def _workload(obj: Json, k8s: Json) -> None:
    meta, spec = obj["metadata"], obj["spec"]
    template = spec["template"]
    pod, container = template["spec"], template["spec"]["containers"][0]
    _add(meta, "annotations", k8s.get("deploymentAnnotations"))
    meta["labels"] = {**(k8s.get("deploymentLabels") or {}), **meta["labels"]}
    _add(template["metadata"], "annotations", k8s.get("podAnnotations"))
    template["metadata"]["labels"] = {**(k8s.get("podLabels") or {}), **template["metadata"]["labels"]}
    pod |= {name: k8s[name] for name in (*POD, "imagePullSecrets", "initContainers") if k8s.get(name)}
    container |= {name: k8s[name] for name in CONTAINER if k8s.get(name)}
    if k8s.get("seccompProfile"):
        container["securityContext"] = {**container.get("securityContext", {}), "seccompProfile": k8s["seccompProfile"]}
    container["env"] = by_name(container["env"], k8s.get("envVarFrom") or [])
    if k8s.get("securityContext"):
        pod["securityContext"] = {**pod.get("securityContext", {}), **k8s["securityContext"]}
    for at, name in ((pod, "volumes"), (container, "volumeMounts")):
        if k8s.get(name):
            at[name] = [*at.get(name, []), *k8s[name]] if isinstance(k8s[name], (list, tuple)) else k8s[name]
    if obj["kind"] == "Deployment":
        if k8s.get("strategy"):
            spec["strategy"] = k8s["strategy"]
        if k8s.get("replicaCount") is not None:
            spec["replicas"] = k8s["replicaCount"]
        if k8s.get("hpaSpec"):
            spec.pop("replicas", None)  # it is the autoscaler's


def _add(at: Json, name: str, given: Json | None) -> None:
    if given:
        at[name] = {**at.get(name, {}), **given}


def _added(workload: Json, k8s: Json) -> list[Json]:
    """The autoscaler and the budget of a Deployment."""
    name, meta = workload["metadata"]["name"], workload["metadata"]
    about = {"name": name, "namespace": meta["namespace"], "labels": meta["labels"]}
    out = []
    if (given := k8s.get("hpaSpec")) and workload["kind"] == "Deployment":
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        spec = {**autoscaling(LEAST, MOST, CPU_PERCENT), **given, "scaleTargetRef": target}
        out.append({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": about, "spec": spec})
    if (given := k8s.get("podDisruptionBudget")) and workload["kind"] == "Deployment":
        spec = {"selector": workload["spec"]["selector"], **given}
        out.append({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": about, "spec": spec})
    return out
