"""Write the structure of Kubernetes' own kinds (no prose) to src/lateen/cluster/data/openapi.json.gz.

The input is the schema collection inside the ``kubernetes-validate`` wheel. Only definitions that the embedded
API server serves are kept, with everything that they refer to.

    python tools/openapi.py
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import kubernetes_validate

VERSION = "1.32"
ROOTS = (
    "api.core.v1.Namespace",
    "api.core.v1.Pod",
    "api.core.v1.Service",
    "api.core.v1.Endpoints",
    "api.core.v1.ConfigMap",
    "api.core.v1.Secret",
    "api.core.v1.ServiceAccount",
    "api.core.v1.Node",
    "api.core.v1.Event",
    "api.apps.v1.Deployment",
    "api.apps.v1.ReplicaSet",
    "api.apps.v1.StatefulSet",
    "api.apps.v1.DaemonSet",
    "api.apps.v1.ControllerRevision",
    "api.core.v1.ReplicationController",
    "api.core.v1.PodTemplate",
    "api.batch.v1.Job",
    "api.batch.v1.CronJob",
    "api.core.v1.PersistentVolumeClaim",
    "api.core.v1.PersistentVolume",
    "api.storage.v1.StorageClass",
    "api.storage.v1.CSIDriver",
    "api.scheduling.v1.PriorityClass",
    "api.core.v1.LimitRange",
    "api.core.v1.ResourceQuota",
    "api.discovery.v1.EndpointSlice",
    "api.networking.v1.Ingress",
    "api.networking.v1.IngressClass",
    "api.networking.v1.NetworkPolicy",
    "api.coordination.v1.Lease",
    "api.rbac.v1.Role",
    "api.rbac.v1.RoleBinding",
    "api.rbac.v1.ClusterRole",
    "api.rbac.v1.ClusterRoleBinding",
    "api.admissionregistration.v1.MutatingWebhookConfiguration",
    "api.admissionregistration.v1.ValidatingWebhookConfiguration",
    "api.admissionregistration.v1.ValidatingAdmissionPolicy",
    "api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    "api.autoscaling.v1.Scale",
    "api.autoscaling.v1.HorizontalPodAutoscaler",
    "api.certificates.v1.CertificateSigningRequest",
    "api.events.v1.Event",
    "kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    "api.policy.v1.Eviction",
    "api.policy.v1.PodDisruptionBudget",
    "api.autoscaling.v2.HorizontalPodAutoscaler",
    "api.authentication.v1.SelfSubjectReview",
    "api.authentication.v1.TokenReview",
    "api.authentication.v1.TokenRequest",
    "api.authorization.v1.LocalSubjectAccessReview",
    "api.authorization.v1.SelfSubjectAccessReview",
    "api.authorization.v1.SelfSubjectRulesReview",
    "api.authorization.v1.SubjectAccessReview",
    "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    "apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "apimachinery.pkg.apis.meta.v1.Status",
)
KEEP = (
    "type",
    "format",
    "required",
    "enum",
    "items",
    "properties",
    "additionalProperties",
    "$ref",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-group-version-kind",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
)
KEYS_WITH_DEFAULTS = ("ContainerPort", "ServicePort")
"""The collection has no defaults; elements of lists are told apart by their keys, defaults included."""
WITH_DEFAULTS = (
    ("apps.v1.StatefulSetSpec", "serviceName"),
    ("batch.v1.PodFailurePolicyOnPodConditionsPattern", "status"),
)
"""Fields that the collection calls required, though a server takes objects without them."""
PREFIX = "#/$defs/"


def clean(node: object, named: bool = False) -> object:
    """Drop prose and undo the collection's "or null" types; ``named``: the keys are field names."""
    if isinstance(node, list):
        return [clean(v) for v in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if named:
            out[key] = clean(value)
        elif key == "properties":
            out[key] = clean(value, named=True)
        elif key == "type" and isinstance(value, list):
            out[key] = next(t for t in value if t != "null")
        elif key == "$ref":
            out[key] = value.replace(PREFIX, "#/definitions/")
        elif key.startswith("x-") and key in KEEP:
            out[key] = value
        elif key in KEEP:
            out[key] = clean(value)
    return out


def refs(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"].rpartition("/")[2]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(refs(v) for v in node.values())) if node else own
    if isinstance(node, list):
        return set().union(*(refs(v) for v in node)) if node else set()
    return set()


def main() -> None:
    base = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    source = max(base.glob(f"v{VERSION}.*-local")) / "_definitions.json"
    everything = json.loads(source.read_text())["$defs"]
    wanted, todo = {}, [f"io.k8s.{root}" for root in ROOTS]
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted[name] = clean(everything[name])
            todo += refs(wanted[name])
    wanted["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": "string", "format": "quantity"}
    wanted["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": "string", "format": "int-or-string"}
    for name in KEYS_WITH_DEFAULTS:
        wanted[f"io.k8s.api.core.v1.{name}"]["properties"]["protocol"]["default"] = "TCP"
    for name, key in WITH_DEFAULTS:
        wanted[f"io.k8s.api.{name}"]["required"].remove(key)
    target = Path(__file__).parents[1] / "src/lateen/cluster/data/openapi.json.gz"
    raw = json.dumps(wanted, sort_keys=True, separators=(",", ":")).encode()
    target.write_bytes(gzip.compress(raw, mtime=0))
    print(f"{len(wanted)} definitions, {len(raw)} bytes, {target.stat().st_size} compressed: {target}")


if __name__ == "__main__":
    main()
