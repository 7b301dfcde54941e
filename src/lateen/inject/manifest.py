"""kube-inject: injects the pod templates of a manifest's workloads."""

from __future__ import annotations

from collections.abc import Callable

from lateen.inject import pods
from lateen.inject.notes import notes
from lateen.inject.settings import Settings
from lateen.inject.workload import Workload, of_pod
from lateen.kit.jsons import Json, dig

_KINDS = {
    "Deployment",
    "DaemonSet",
    "StatefulSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "DeploymentConfig",
    "Rollout",
}


Check = Callable[[Json, str], None]
"""Given a pod and a name for it in messages, raises ValueError if it is none."""


def any_pod(pod: Json, name: str) -> None:
    """No check."""


def into(obj: Json, namespace: str, settings: Settings, told: list[str], check: Check = any_pod) -> Json:
    """The object with its pod template injected; other kinds are returned as they are. Reasons why a workload is
    skipped, and warnings about annotations without effect, are appended to ``told``. Raises ValueError.

    A CronJob's metadata is copied to its jobs, as by Istio's kube-inject: pods get it only from the webhook."""
    kind, meta = str(obj.get("kind")), obj.get("metadata") or {}
    if kind == "List" or (kind.endswith("List") and isinstance(obj.get("items"), list)):
        return {**obj, "items": [into(i, namespace, settings, told, check) for i in obj.get("items") or []]}
    if not isinstance(meta, dict):
        raise ValueError(f"{kind}: metadata: expected an object")
    where, name = str(meta.get("namespace") or namespace), str(meta.get("name") or "")
    if kind == "Pod":
        check(obj, f"{kind} {name}")
        done = _injected(obj, where, settings, of_pod(obj, where), kind, told)
        return obj if done is None else done
    workload = Workload(name, where, kind, str(obj.get("apiVersion") or ""))
    if kind == "CronJob":
        job, template = dig(obj, "spec", "jobTemplate"), dig(obj, "spec", "jobTemplate", "spec", "template")
        if not isinstance(job, dict) or not isinstance(template, dict) or not template.get("spec"):
            return obj
        pod = {"metadata": job.get("metadata") or {}, "spec": template["spec"]}
        check(pod, f"{kind} {name}")
        done = _injected(pod, where, settings, workload, kind, told)
        if done is None:
            return obj
        inner = {**job["spec"], "template": {**template, "spec": done["spec"]}}
        return {**obj, "spec": {**obj["spec"], "jobTemplate": {**job, "metadata": done["metadata"], "spec": inner}}}
    template = dig(obj, "spec", "template")
    if kind not in _KINDS or not isinstance(template, dict) or not template.get("spec"):
        return obj
    check(template, f"{kind} {name}")
    done = _injected(template, where, settings, workload, kind, told)
    return obj if done is None else {**obj, "spec": {**obj["spec"], "template": done}}


def _injected(
    pod: Json, namespace: str, settings: Settings, workload: Workload, kind: str, told: list[str]
) -> Json | None:
    """The injected pod; None if it is not injected."""
    if not pods.wanted(pod, namespace, settings):
        why = "host networking enabled" if dig(pod, "spec", "hostNetwork") else "sidecar injection disabled"
        told.append(f'Skipping injection because {kind} "{namespace}/{workload.name}" has {why}')
        return None
    done = pods.inject(pod, namespace, settings, workload)
    told += notes(pod, settings)
    return done
