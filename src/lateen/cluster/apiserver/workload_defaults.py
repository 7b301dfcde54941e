"""The defaults of workloads other than Deployments, of storage and of policies (Kubernetes' pkg/apis/*/defaults.go).

What a pod template gets is left to ``defaults``, which finds it by ``TEMPLATES``.
"""

from __future__ import annotations

from collections.abc import Callable

from lateen.cluster.network import policies
from lateen.kit.jsons import Json, dig

_RBAC = "rbac.authorization.k8s.io"
TEMPLATES: dict[str, tuple[str, ...]] = {
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}
STATUSES: dict[str, Json] = {
    **{kind: {} for kind in ("Deployment", "Job", "CronJob", "ResourceQuota", "CertificateSigningRequest")},
    **{kind: {"replicas": 0} for kind in ("ReplicaSet", "ReplicationController")},
    "StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "DaemonSet": dict.fromkeys(
        ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"), 0
    ),
    "PodDisruptionBudget": dict.fromkeys(("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"), 0),
    "HorizontalPodAutoscaler": {"currentReplicas": 0, "desiredReplicas": 0},
}
"""Until a controller knows more: clients may read it as soon as there is an object."""


def fill(into: Json, **values: object) -> Json:
    """Set what is missing. An empty text counts as missing, as for a Go program, which cannot tell them apart."""
    for key, value in values.items():
        if into.get(key) is None or (into[key] == "" and isinstance(value, str)):
            into[key] = value
    return into


def _stateful_set(obj: Json) -> None:
    spec = fill(obj.setdefault("spec", {}), replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady")
    strategy = fill(spec.setdefault("updateStrategy", {}), type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        fill(strategy.setdefault("rollingUpdate", {}), partition=0)
    fill(spec.setdefault("persistentVolumeClaimRetentionPolicy", {}), whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.get("volumeClaimTemplates") or []:
        fill(claim, apiVersion="v1", kind="PersistentVolumeClaim")
        _claim(claim)


def _daemon_set(obj: Json) -> None:
    spec = fill(obj.setdefault("spec", {}), revisionHistoryLimit=10)
    strategy = fill(spec.setdefault("updateStrategy", {}), type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        fill(strategy.setdefault("rollingUpdate", {}), maxUnavailable=1, maxSurge=0)


def _replication_controller(obj: Json) -> None:
    spec = fill(obj.setdefault("spec", {}), replicas=1)
    _of_template(obj, selector=True)
    fill(spec, selector={})


def _of_template(obj: Json, selector: bool = False) -> None:
    """The object's labels default to those of its pods."""
    labels = dig(obj, "spec", "template", "metadata", "labels", default={})
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    if labels and selector and not obj["spec"].get("selector"):
        obj["spec"]["selector"] = dict(labels)


def _job(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    replaced = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    limit = (1 << 31) - 1 if spec.get("backoffLimitPerIndex") is not None else 6
    fill(spec, parallelism=1, backoffLimit=limit, completionMode="NonIndexed", suspend=False, manualSelector=False)
    fill(spec, podReplacementPolicy=replaced)
    for rule in dig(spec, "podFailurePolicy", "rules", default=[]):
        for pattern in rule.get("onPodConditions") or []:
            fill(pattern, status="True")
    _of_template(obj)


def _cron_job(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)


def _claim(obj: Json) -> None:
    fill(obj.setdefault("spec", {}), volumeMode="Filesystem")
    fill(obj.setdefault("status", {}), phase="Pending")


def _volume(obj: Json) -> None:
    if (path := obj.setdefault("spec", {}).get("hostPath")) is not None:
        fill(path, type="")
    fill(obj.setdefault("spec", {}), volumeMode="Filesystem", persistentVolumeReclaimPolicy="Retain")
    fill(obj.setdefault("status", {}), phase="Pending")


def _storage_class(obj: Json) -> None:
    fill(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _csi_driver(obj: Json) -> None:
    spec = fill(obj.setdefault("spec", {}), attachRequired=True, podInfoOnMount=False, storageCapacity=False)
    fill(spec, fsGroupPolicy="ReadWriteOnceWithFSType", requiresRepublish=False, seLinuxMount=False)
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def _priority_class(obj: Json) -> None:
    fill(obj, preemptionPolicy="PreemptLowerPriority", value=0)


def _autoscaler(obj: Json) -> None:
    spec = fill(obj.setdefault("spec", {}), minReplicas=1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if behavior := spec.get("behavior"):
        each = {"value": 100, "periodSeconds": 15}
        pods = [{**each, "type": "Pods", "value": 4}]
        for way, policies, more in (("scaleUp", pods, {"stabilizationWindowSeconds": 0}), ("scaleDown", [], {})):
            rules = fill(behavior.setdefault(way, {}), selectPolicy="Max", **more)
            if rules.get("policies") is None:
                rules["policies"] = [*policies, {**each, "type": "Percent"}]


def _limit_range(obj: Json) -> None:
    """A container's maximum is its default limit, its default limit its default request."""
    for limit in obj.setdefault("spec", {}).get("limits") or []:
        if limit.get("type") != "Container":
            continue
        default = limit.setdefault("default", {})
        fill(default, **(limit.get("max") or {}))
        fill(limit.setdefault("defaultRequest", {}), **{**(limit.get("min") or {}), **default})
        for key in ("default", "defaultRequest"):
            if not limit[key]:
                del limit[key]


def _network_policy(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = policies.directions(obj)
    for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
        for port in rule.get("ports") or []:
            fill(port, protocol="TCP")


def _admission_policy(obj: Json) -> None:
    spec = fill(obj.setdefault("spec", {}), failurePolicy="Fail")
    if spec.get("matchConstraints"):
        _matches(spec["matchConstraints"])


def _admission_binding(obj: Json) -> None:
    if found := obj.setdefault("spec", {}).get("matchResources"):
        _matches(found)


def _matches(found: Json) -> None:
    fill(found, matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})
    for key in ("resourceRules", "excludeResourceRules"):
        for rule in found.get(key) or []:
            fill(rule, scope="*")


def _webhooks(obj: Json) -> None:
    mutating = obj["kind"].startswith("Mutating")
    for hook in obj.get("webhooks") or []:
        if service := (hook.get("clientConfig") or {}).get("service"):
            fill(service, port=443)
        fill(hook, failurePolicy="Fail", matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})
        fill(hook, timeoutSeconds=10, **({"reinvocationPolicy": "Never"} if mutating else {}))
        for rule in hook.get("rules") or []:
            fill(rule, scope="*")


def _definition(obj: Json) -> None:
    conversion = fill(obj.setdefault("spec", {}).setdefault("conversion", {}), strategy="None")
    if service := dig(conversion, "webhook", "clientConfig", "service"):
        fill(service, port=443)


def _role_binding(obj: Json) -> None:
    """The API groups of subjects and of roleRef: RBAC's, or the core group for service accounts."""
    fill(obj.setdefault("roleRef", {}), apiGroup=_RBAC)
    for subject in obj.get("subjects") or []:
        if subject.get("kind") in ("User", "Group"):
            fill(subject, apiGroup=_RBAC)


def _endpoints(obj: Json) -> None:
    for subset in obj.get("subsets") or []:
        for port in subset.get("ports") or []:
            fill(port, protocol="TCP")


def _endpoint_slice(obj: Json) -> None:
    for endpoint in obj.get("endpoints") or []:
        fill(endpoint, conditions={})
    for port in obj.get("ports") or []:
        fill(port, name="", protocol="TCP")


OBJECTS: dict[str, Callable[[Json], None]] = {
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "ReplicationController": _replication_controller,
    "Job": _job,
    "CronJob": _cron_job,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "StorageClass": _storage_class,
    "CSIDriver": _csi_driver,
    "MutatingWebhookConfiguration": _webhooks,
    "ValidatingWebhookConfiguration": _webhooks,
    "CustomResourceDefinition": _definition,
    "RoleBinding": _role_binding,
    "ClusterRoleBinding": _role_binding,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoint_slice,
    "PriorityClass": _priority_class,
    "LimitRange": _limit_range,
    "HorizontalPodAutoscaler": _autoscaler,
    "NetworkPolicy": _network_policy,
    "ValidatingAdmissionPolicy": _admission_policy,
    "ValidatingAdmissionPolicyBinding": _admission_binding,
}
