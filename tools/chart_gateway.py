"""The chart of a gateway."""

from __future__ import annotations

from chart_marks import (
    IF,
    autoscaled,
    each,
    items,
    line,
    mark,
    optional,
    when,
)

from lateen.install import gateways
from lateen.kit.jsons import Json
from lateen.wire.revision import Revision

NAME = "(.Values.name | default .Release.Name)"


def gateway(revision: str) -> list[Json]:
    account = f".Values.serviceAccount.name | default {NAME}"
    name = mark(NAME)
    labels = {"app": f"{name}", "istio": mark(f'{NAME} | trimPrefix "istio-"')}
    labels |= {each(".Values.labels"): "x", "topology.istio.io/network": optional(".Values.networkGateway")}
    given = {"name": name, "namespace": mark(".Release.Namespace"), "label": labels, "k8s": _OF_GATEWAY}
    made = gateways.objects(given, True, Revision(revision), "auto", {})
    out = []
    for obj in made:
        meta = obj["metadata"]
        if obj["kind"] in ("Role", "RoleBinding"):  # a release of its own may have another gateway in the namespace
            reader = mark(f'printf "%s-istiod-secrets" {NAME}')
            role = {"roleRef": obj["roleRef"] | {"name": reader}} if "roleRef" in obj else {}
            out.append({**obj, "metadata": {**meta, "name": reader}, **role})
        elif obj["kind"] == "ServiceAccount":
            meta |= {"name": mark(account), "annotations": optional(".Values.serviceAccount.annotations")}
            out.append({**obj, IF: ".Values.serviceAccount.create"})
        elif obj["kind"] == "Service":
            meta["annotations"] = optional(".Values.service.annotations")
            spec = obj["spec"] | {"type": mark(".Values.service.type"), "ports": line(".Values.service.ports")}
            for field in _OF_SERVICE:
                spec[field] = optional(f".Values.service.{field}")
            out.append({**obj, "spec": spec, IF: 'ne .Values.service.type "None"'})
        elif obj["kind"] == "HorizontalPodAutoscaler":
            out.append({**obj, IF: ".Values.autoscaling.enabled"})
        elif obj["kind"] == "PodDisruptionBudget":
            out.append({**obj, IF: ".Values.podDisruptionBudget"})
        else:
            meta["annotations"] = optional(".Values.annotations")
            out.append({**obj, "spec": _gateway_deployment(obj["spec"], account)})
    return out


_OF_SERVICE = (
    "loadBalancerIP",
    "loadBalancerClass",
    "loadBalancerSourceRanges",
    "externalTrafficPolicy",
    "externalIPs",
    "clusterIP",
    "internalTrafficPolicy",
    "ipFamilyPolicy",
    "ipFamilies",
)
_OF_GATEWAY = {
    "hpaSpec": autoscaled(
        "autoscaling.minReplicas",
        "autoscaling.maxReplicas",
        "autoscaling.targetCPUUtilizationPercentage",
        "autoscaling.autoscaleBehavior",
    ),
    "podDisruptionBudget": {
        name: when(f'hasKey .Values.podDisruptionBudget "{name}"', f".Values.podDisruptionBudget.{name}")
        for name in ("minAvailable", "maxUnavailable", "unhealthyPodEvictionPolicy")
    },
}


def _gateway_deployment(spec: Json, account: str) -> Json:
    """The pod as the injector completes it, so that its proxy has the settings of the control plane."""
    template = spec["template"]
    notes = {k: v for k, v in template["metadata"]["annotations"].items() if not k.startswith("prometheus.io/")}
    notes |= {"inject.istio.io/templates": "gateway", each(".Values.podAnnotations"): "x"}
    labels = {**template["metadata"]["labels"], "sidecar.istio.io/inject": "true"}
    container = {
        "name": "istio-proxy",
        "image": "auto",
        "imagePullPolicy": optional(".Values.imagePullPolicy"),
        "env": [{"name": each(".Values.env"), "value": "x"}, items(".Values.envVarFrom")],
        "ports": [{"containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom"}],
        "readinessProbe": optional(".Values.readinessProbe"),
        "resources": line(".Values.resources"),
        "securityContext": line(".Values.containerSecurityContext"),
        "volumeMounts": optional(".Values.volumeMounts"),
    }
    pod = {
        "serviceAccountName": mark(account),
        "containers": [container, items(".Values.additionalContainers")],
        "terminationGracePeriodSeconds": line(".Values.terminationGracePeriodSeconds"),
    }
    for field in (
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "imagePullSecrets",
        "priorityClassName",
        "securityContext",
        "volumes",
        "initContainers",
    ):
        pod[field] = optional(f".Values.{field}")
    made = {"metadata": {"labels": labels, "annotations": notes}, "spec": pod}
    return {
        **spec,
        "replicas": when("not .Values.autoscaling.enabled", ".Values.replicaCount"),
        "strategy": line(".Values.strategy"),
        "minReadySeconds": optional(".Values.minReadySeconds"),
        "template": made,
    }
