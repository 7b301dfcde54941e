"""What is refused about an object whose structure is valid: one function per kind, and the metadata of all kinds.

Kubernetes' own rules and wording (k8s.io/kubernetes, pkg/apis/*/validation), for the kinds that are served. Objects are
checked after defaults and admission, before they are written; the schema has been checked by then.
"""

from __future__ import annotations

from collections.abc import Callable

from lateen.cluster.apiserver.validation import (
    autoscaling,
    batch,
    certificates,
    configs,
    events,
    limits,
    meta,
    network_policies,
    networks,
    placing,
    pods,
    policies,
    storage,
    workloads,
)
from lateen.cluster.apiserver.validation.fields import Causes
from lateen.kit.jsons import Json

Rule = Callable[[Json, Json | None], Causes]
"""(the new object, the one before it or None) -> causes."""


def _pod(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    return pods.new(spec) if old is None else pods.spec(spec, "spec") + pods.unchanged(spec, old.get("spec") or {})


def _spec(rule: Callable[[Json], Causes]) -> Rule:
    return lambda obj, _: rule(obj.get("spec") or {})


def _node(spec: Json) -> Causes:
    out = placing.taints(spec.get("taints") or [], "metadata.taints")
    for i, net in enumerate([*(spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else []))]):
        out += networks.cidr(str(net), f"spec.podCIDRs[{i}]")
    return out


_RULES: dict[tuple[str, str], Rule] = {
    ("", "Pod"): _pod,
    ("", "Namespace"): lambda obj, _: meta.standing((obj.get("spec") or {}).get("finalizers") or [], "spec.finalizers"),
    ("", "Node"): _spec(_node),
    ("", "Event"): lambda obj, _: events.event(obj),
    ("", "ConfigMap"): configs.config_map,
    ("", "Secret"): configs.secret,
    ("", "Service"): _spec(networks.service),
    ("", "Endpoints"): lambda obj, _: networks.endpoints(obj),
    ("discovery.k8s.io", "EndpointSlice"): networks.endpoint_slice,
    ("networking.k8s.io", "Ingress"): _spec(networks.ingress),
    ("networking.k8s.io", "IngressClass"): policies.ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): _spec(network_policies.network_policy),
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.replica_set,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("apps", "ControllerRevision"): workloads.controller_revision,
    ("", "ReplicationController"): workloads.replication_controller,
    ("", "PodTemplate"): lambda obj, _: pods.template(obj.get("template") or {}, "template", pods.RESTART),
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaling.autoscaler,
    ("certificates.k8s.io", "CertificateSigningRequest"): certificates.request,
    ("batch", "Job"): batch.job,
    ("batch", "CronJob"): batch.cron_job,
    ("", "PersistentVolumeClaim"): storage.claim,
    ("", "PersistentVolume"): storage.volume,
    ("storage.k8s.io", "StorageClass"): storage.storage_class,
    ("storage.k8s.io", "CSIDriver"): storage.csi_driver,
    ("policy", "PodDisruptionBudget"): limits.disruption_budget,
    ("scheduling.k8s.io", "PriorityClass"): limits.priority_class,
    ("", "LimitRange"): limits.limit_range,
    ("", "ResourceQuota"): limits.quota,
    ("coordination.k8s.io", "Lease"): _spec(policies.lease),
    (meta.RBAC, "Role"): lambda obj, _: policies.role(obj, namespaced=True),
    (meta.RBAC, "ClusterRole"): lambda obj, _: policies.role(obj, namespaced=False),
    (meta.RBAC, "RoleBinding"): lambda obj, old: policies.binding(obj, old, namespaced=True),
    (meta.RBAC, "ClusterRoleBinding"): lambda obj, old: policies.binding(obj, old, namespaced=False),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): lambda obj, _: policies.webhooks(obj),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): lambda obj, _: policies.webhooks(obj),
}


def check(group: str, kind: str, obj: Json, old: Json | None) -> Causes:
    """All violations of the object; empty if it may be written."""
    rule = _RULES.get((group, kind))
    return meta.check(group, kind, obj["metadata"]) + (rule(obj, old) if rule else [])


def of_version(group: str, version: str, kind: str, obj: Json) -> Causes:
    """What a version refuses about a new object that is stored in another version."""
    return events.strict(obj) if (group, version, kind) == ("events.k8s.io", "v1", "Event") else []


def status(group: str, kind: str, obj: Json, old: Json, subresource: str) -> Causes:
    """What is refused about a status: addresses that become the node's NAT rules, decisions that contradict."""
    if (group, kind) == ("certificates.k8s.io", "CertificateSigningRequest"):
        return certificates.decided(obj, old, subresource)
    if (group, kind) != ("", "Pod"):
        return []
    found = obj.get("status") or {}
    out: Causes = pods.ip(found["podIP"], "status.podIP") if found.get("podIP") else []
    for i, entry in enumerate(found.get("podIPs") or []):
        out += pods.ip(str(entry.get("ip") or ""), f"status.podIPs[{i}].ip")
    return out
