"""The workload that a pod belongs to, and its name in the mesh."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lateen.api.canonical import WORKLOAD_NAME
from lateen.kit.jsons import Json, dig

_CRON_JOB = re.compile(r"^(.+)-\d{8,10}$")
"""The name of a Job created by a CronJob: the CronJob's name and the minute."""


@dataclass(frozen=True)
class Workload:
    """The object that owns pods; a pod without an owner is its own workload."""

    name: str
    namespace: str = ""
    kind: str = "Pod"
    api_version: str = "v1"

    @property
    def owner(self) -> str:
        """``kubernetes://apis/apps/v1/namespaces/default/deployments/reviews-v1``, as Istio writes it."""
        namespace = self.namespace or "default"
        return f"kubernetes://apis/{self.api_version}/namespaces/{namespace}/{self.kind.lower()}s/{self.name}"


def of_pod(pod: Json, namespace: str) -> Workload:
    """The workload by the controller that owns the pod. A ReplicaSet stands for its Deployment or Rollout, a Job for
    the CronJob that created it, a ReplicationController for its DeploymentConfig; they are recognized by names and
    labels, because their own objects are not available (as in Istio)."""
    meta = pod.get("metadata") or {}
    labels = meta.get("labels") or {}
    name = str(meta.get("name") or str(meta.get("generateName") or "").rstrip("-"))
    ref = next((r for r in meta.get("ownerReferences") or [] if r.get("controller")), None)
    if ref is None:
        return Workload(name, namespace)
    owner, kind, version = str(ref.get("name")), str(ref.get("kind")), str(ref.get("apiVersion"))
    if kind == "ReplicaSet":
        for label, parent, parent_version in (
            ("pod-template-hash", "Deployment", version),
            ("rollouts-pod-template-hash", "Rollout", "argoproj.io/v1alpha1"),
        ):
            suffix = f"-{labels.get(label)}"
            if labels.get(label) and owner.endswith(suffix):
                return Workload(owner.removesuffix(suffix), namespace, parent, parent_version)
    if kind == "ReplicationController" and labels.get("deploymentconfig"):
        return Workload(str(labels["deploymentconfig"]), namespace, "DeploymentConfig", version)
    if kind == "Job" and (found := _CRON_JOB.match(owner)):
        return Workload(found[1], namespace, "CronJob", "batch/v1")
    return Workload(owner, namespace, kind, version)


def display_name(labels: Mapping[str, str], workload: Workload) -> str:
    """The name shown in telemetry: the user's label, otherwise the workload's."""
    return str(labels.get(WORKLOAD_NAME) or workload.name)


def service_account(pod: Json) -> str:
    return str(dig(pod, "spec", "serviceAccountName", default="default"))
