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
from chart_values import NETWORK_PORTS

from lateen.install import gateways
from lateen.kit.jsons import Json
from lateen.wire import ports
from lateen.wire.revision import Revision

NAME = "(.Values.name | default .Release.Name)"
_LABELS = ".Values.labels | default dict"
_NAMED = {"app": NAME, "istio": f'({NAME} | trimPrefix "istio-")'}
"""Labels of gateways, which may be among the user's; Gateways select by them."""


def gateway(revision: str) -> list[Json]:
    account = f'.Values.serviceAccount.name | default (ternary {NAME} "default" .Values.serviceAccount.create)'
    name = mark(NAME)
    labels = {key: mark(value) for key, value in _NAMED.items()}
    labels |= {each(".Values.labels"): "x", "topology.istio.io/network": optional(".Values.networkGateway")}
    given = {"name": name, "namespace": mark(".Release.Namespace"), "label": labels, "k8s": _OF_GATEWAY}
    # not the user's other labels: the selector of a Deployment cannot be changed
    selector = {key: mark(f'get ({_LABELS}) "{key}" | default {value}') for key, value in _NAMED.items()}
    values = {"global": {"networkPolicy": {"enabled": True}}}
    made = gateways.objects(given, True, Revision(revision), "auto", values)
    out = []
    for obj in made:
        meta, spec = obj["metadata"], obj.get("spec", {})
        meta["annotations"] = optional(_annotations(obj["kind"]))
        if obj["kind"] in ("Role", "RoleBinding"):  # a release of its own may have another gateway in the namespace
            reader = mark(f'printf "%s-istiod-secrets" {NAME}')
            role = {"roleRef": obj["roleRef"] | {"name": reader}} if "roleRef" in obj else {}
            out.append({**obj, "metadata": {**meta, "name": reader}, **role})
        elif obj["kind"] == "ServiceAccount":
            meta["name"] = mark(account)
            out.append({**obj, IF: ".Values.serviceAccount.create"})
        elif obj["kind"] == "Service":
            spec |= {"type": mark(".Values.service.type"), "ports": line(_PORTS), "selector": selector}
            for field in _OF_SERVICE:
                spec[field] = optional(f".Values.service.{field}")
            spec[_NODE_PORTS] = when(_WITHOUT_NODE_PORTS, "false")
            out.append({**obj, IF: 'ne .Values.service.type "None"'})
        elif obj["kind"] == "NetworkPolicy":
            spec["podSelector"] = {"matchLabels": selector}
            (rule,) = spec["ingress"]
            rule["ports"] = [*(p for p in rule["ports"] if p["port"] in _OWN_PORTS), LISTENED]
            out.append({**obj, IF: ".Values.global.networkPolicy.enabled"})
        elif obj["kind"] == "HorizontalPodAutoscaler":
            out.append({**obj, IF: ".Values.autoscaling.enabled"})
        elif obj["kind"] == "PodDisruptionBudget":
            spec["selector"] = {"matchLabels": selector}
            out.append({**obj, IF: ".Values.podDisruptionBudget"})
        else:
            spec["selector"] = {"matchLabels": selector}
            out.append({**obj, "spec": _gateway_deployment(spec, account)})
    return out


def _annotations(kind: str) -> str:
    """Those of all objects, and over them those of a kind."""
    own = {"ServiceAccount": "serviceAccount", "Service": "service"}.get(kind)
    shared = ".Values.annotations"
    return f"merge (deepCopy (.Values.{own}.annotations | default dict)) ({shared} | default dict)" if own else shared


def _listed(*given: tuple[str, int]) -> str:
    """Ports of a Service, as an expression."""
    made = (f'(dict "name" "{n}" "port" {p} "protocol" "TCP" "targetPort" {p})' for n, p in given)
    return f"(list {' '.join(made)})"


def _of_network(port: str, key: str) -> str:
    return f'"{key}" (get (get .Values.networkGatewayPorts "{port}" | default dict) "{key}")'


DEFAULT_PORTS = (("status-port", ports.HEALTH), ("http2", 80), ("https", 443))
_OF_NETWORK = " ".join(
    f'(dict "name" "{name}" {" ".join(_of_network(name, key) for key in ("port", "protocol", "targetPort"))})'
    for name in NETWORK_PORTS
)
_CHOSEN = f"(eq (.Values.service.ports | toJson) ({_listed(*DEFAULT_PORTS)} | toJson))"
_PORTS = f"ternary (list {_OF_NETWORK}) .Values.service.ports (and (not (not .Values.networkGateway)) {_CHOSEN})"
_OWN_PORTS = (ports.HEALTH, ports.MERGED_METRICS, ports.ENVOY_METRICS)
LISTENED = "@ports@"
"""Stands for the ports of the Service's pods, in a list of a NetworkPolicy."""
OF_PODS = (
    f"    {{{{- range ({_PORTS}) }}}}\n"
    "    - port: {{ .targetPort | default .port | toJson }}\n"
    '      protocol: {{ .protocol | default "TCP" }}\n'
    "    {{- end }}"
)
_NODE_PORTS = "allocateLoadBalancerNodePorts"
_WITHOUT_NODE_PORTS = f'and (hasKey .Values.service "{_NODE_PORTS}") (not .Values.service.{_NODE_PORTS})'


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
