"""The values of the Helm charts with their defaults, which are those of Istio's charts, and their schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lateen import __version__
from lateen.inject import settings as injection
from lateen.install import cni, k8s
from lateen.install.objects import HUB, NAMESPACE, UNPRIVILEGED
from lateen.install.options import VARIABLES
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.wire.revision import DEFAULT

OPEN = {"additionalProperties": True, "type": "object"}

BASE_VALUES: Json = {"defaultRevision": "default", "base": {"enableCRDs": True, "enableGatewayAPI": True}}


PILOT: Json = {
    "env": {},
    "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}},
    "replicaCount": 1,
    "nodeSelector": {},
    "affinity": {},
    "tolerations": [],
    "podAnnotations": {},
    "cni": {"enabled": False, "provider": "default"},
    "autoscaleEnabled": False,
    "autoscaleMin": 1,
    "autoscaleMax": 5,
    "autoscaleBehavior": {},
    "cpu": {"targetAverageUtilization": k8s.CPU_PERCENT},
    "rollingMaxSurge": k8s.ROLLING["maxSurge"],
    "rollingMaxUnavailable": k8s.ROLLING["maxUnavailable"],
    "topologySpreadConstraints": [],
    "seccompProfile": {},
    "envVarFrom": [],
    "volumes": [],
    "volumeMounts": [],
    "initContainers": [],
    "podLabels": {},
    "deploymentLabels": {},
    "serviceAnnotations": {},
    "serviceAccountAnnotations": {},
    "ipFamilyPolicy": "",
    "ipFamilies": [],
}
FREE = (
    "meshConfig",
    "global.meshNetworks",
    "global.proxy.resources",
    "global.proxy.lifecycle",
    "global.proxy.startupProbe",
    "pilot.resources",
    "pilot.nodeSelector",
    "pilot.affinity",
    "pilot.podAnnotations",
    "pilot.autoscaleBehavior",
    "pilot.seccompProfile",
    "pilot.podLabels",
    "pilot.deploymentLabels",
    "pilot.serviceAnnotations",
    "pilot.serviceAccountAnnotations",
    "global.proxy.seccompProfile",
    "gateways.securityContext",
    "gateways.seccompProfile",
    "sidecarInjectorWebhook.injectedAnnotations",
    "sidecarInjectorWebhook.templates",
    "sidecarInjectorWebhook.aliases",
)
"""Mappings whose keys are the user's."""


def istiod_values() -> Json:
    out = jsons.copy(injection.DEFAULTS)
    out["global"] |= {"hub": HUB, "tag": __version__, "meshNetworks": {}}
    out["global"] |= {"priorityClassName": "", "defaultPodDisruptionBudget": {"enabled": False}}
    out["global"] |= {"proxy_init": {"image": "proxyv2", "forceApplyIptables": False}}
    out["global"] |= {"externalIstiod": False, "remotePilotAddress": ""}
    out["global"]["proxy"] |= {"capNetBindService": "", "outlierLogPath": "", "seccompProfile": {}}
    remote = {"enabled": False, "injectionURL": "", "injectionPath": ""}
    more = {"istiodRemote": remote, "gateways": {"securityContext": {}, "seccompProfile": {}}}
    return {"revision": DEFAULT, "revisionTags": [], "meshConfig": {}, **out, "pilot": PILOT, **more}


GATEWAY_VALUES: Json = {
    "name": "",
    "revision": DEFAULT,
    "replicaCount": 1,
    "serviceAccount": {"create": True, "name": "", "annotations": {}},
    "podAnnotations": {},
    "labels": {},
    "annotations": {},
    "env": {},
    "envVarFrom": [],
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}},
    "autoscaling": {
        "enabled": False,
        "minReplicas": 1,
        "maxReplicas": 5,
        "targetCPUUtilizationPercentage": k8s.CPU_PERCENT,
        "autoscaleBehavior": {},
    },
    "podDisruptionBudget": {},
    "strategy": {"rollingUpdate": k8s.ROLLING},
    "minReadySeconds": 0,
    "readinessProbe": {},
    "securityContext": {},
    "containerSecurityContext": UNPRIVILEGED,
    "volumes": [],
    "volumeMounts": [],
    "initContainers": [],
    "additionalContainers": [],
    "imagePullPolicy": "",
    "service": {
        "type": "LoadBalancer",
        "ports": [
            {"name": "status-port", "port": 15021, "protocol": "TCP", "targetPort": 15021},
            {"name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80},
            {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443},
        ],
        "annotations": {},
        "loadBalancerIP": "",
        "loadBalancerClass": "",
        "loadBalancerSourceRanges": [],
        "externalTrafficPolicy": "",
        "externalIPs": [],
        "clusterIP": "",
        "internalTrafficPolicy": "",
        "ipFamilyPolicy": "",
        "ipFamilies": [],
    },
    "networkGateway": "",
    "nodeSelector": {},
    "tolerations": [],
    "affinity": {},
    "topologySpreadConstraints": [],
    "imagePullSecrets": [],
    "priorityClassName": "",
    "terminationGracePeriodSeconds": 30,
}
GATEWAY_FREE = (
    "podAnnotations", "labels", "annotations", "env", "resources", "service.annotations", "serviceAccount.annotations",
    "nodeSelector", "affinity", "podDisruptionBudget", "strategy", "readinessProbe", "securityContext",
    "containerSecurityContext", "autoscaling.autoscaleBehavior",
)  # fmt: skip


CNI_VALUES: Json = {
    "revision": DEFAULT,
    "global": {"hub": HUB, "tag": __version__, "imagePullPolicy": "", "imagePullSecrets": []},
    "cniBinDir": cni.BIN,
    "cniConfDir": cni.CONF,
    "excludeNamespaces": list(cni.EXCLUDED),
    "repair": {"enabled": True},
    "resources": cni.RESOURCES,
    "affinity": {},
    "tolerations": [{"operator": "Exists", "effect": e} for e in ("NoSchedule", "NoExecute")],
    "podAnnotations": {},
}
CNI_FREE = ("resources", "affinity", "podAnnotations")


FIXED: dict[str, Json] = {
    "global.istioNamespace": {"const": NAMESPACE},
    "pilot.env": {"type": "object", "properties": {name: {} for name in VARIABLES}, "additionalProperties": False},
}
"""Values of which only some are possible."""


_AMBIENT = "the ambient mode is not there"
_VARIANT = "there is one variant of the images"
_REMOTE = "mesh objects are validated in the cluster of the control plane"
_PLATFORM = "there is no difference between platforms"
_COMPATIBILITY = "there is one behaviour, that of this version"
_PROFILE = "set the values of a profile one by one"
_NETWORK_POLICY = "write a NetworkPolicy (the production checklist says for which ports)"
_NFTABLES = "rules are written by iptables, which uses nftables where the kernel has them"
_PATCH = "patch the DaemonSet after Helm (post-renderer)"
_WEBHOOK = "the webhooks are as they are: in Istio's default form"
REFUSED: dict[str, dict[str, str]] = {
    "base": {
        "base.enableCRDTemplates": "`base.enableCRDs`",
        "base.enableIstioConfigCRDs": "`base.enableCRDs`",
        "base.excludedCRDs": "all definitions are installed, or none (`base.enableCRDs`)",
        "base.validationURL": _REMOTE,
        "base.validationCABundle": "istiod writes its own",
        "global.istioNamespace": f"it is {NAMESPACE}",
        "experimental.stableValidationPolicy": "istiod's webhook validates",
    },
    "istiod": {
        **{name: f"`pilot.{name}`" for name in PILOT if name not in ("cni", "cpu")},
        "cpu.targetAverageUtilization": "`pilot.cpu.targetAverageUtilization`",
        "cni.enabled": "`pilot.cni.enabled`",
        "pilot.image": "the image is pilot, of `global.hub` and `global.tag`",
        "pilot.hub": "`global.hub`",
        "pilot.tag": "`global.tag`",
        "pilot.variant": _VARIANT,
        "pilot.memory": "an autoscaler goes by the CPU; write a HorizontalPodAutoscaler for another metric",
        "pilot.traceSampling": "`meshConfig.defaultConfig.tracing.sampling`",
        "pilot.extraContainerArgs": "istiod has no further arguments; `pilot.env` has its settings",
        "pilot.taint": "nodes do not wait for the CNI plugin; it deletes broken pods (`repair.enabled`)",
        "pilot.trustedZtunnelName": _AMBIENT,
        "pilot.jwksResolverExtraRootCA": "istiod trusts the authorities of its image",
        "pilot.keepaliveMaxServerConnectionAge": "connections of proxies are kept",
        "pilot.configMap": "the ConfigMap is always made",
        "pilot.trustedZtunnelNamespace": _AMBIENT,
        "sidecarInjectorWebhook.reinvocationPolicy": _WEBHOOK,
        "sidecarInjectorWebhook.enableNamespacesByDefault": _WEBHOOK,
        "sidecarInjectorWebhookAnnotations": _WEBHOOK,
        "istiodRemote.injectionCABundle": "the control plane writes its roots into the webhook",
        "telemetry": "a Telemetry object switches metrics",
        "ownerName": "it is Helm's business alone",
        "experimental.stableValidationPolicy": "istiod's webhook validates",
        "global.certSigners": "it takes `lateen install`, which grants what approving takes",
        "global.configValidation": "configuration is always validated",
        "global.configCluster": "a control plane has its configuration in its own cluster",
        "global.podDNSSearchNamespaces": "`dnsConfig` of the pod, or a custom injection template",
        "global.defaultResources": "`pilot.resources`, `global.proxy.resources`",
        "global.istiod.enableAnalysis": "istiod always analyzes, and writes conditions",
        "global.omitSidecarInjectorConfigMap": "the ConfigMap is always made",
        "global.operatorManageWebhooks": _WEBHOOK,
        "global.variant": _VARIANT,
        "global.mountMtlsCerts": "proxies get their certificates by files of the agent",
        "global.pilotCertProvider": "istiod signs its own certificate",
        "global.sds.token.aud": "the audience is istio-ca",
        "global.sts.servicePort": "there is no exchange of tokens",
        "global.caName": "`meshConfig.certificates` and `pilot.env` choose the authority",
        "global.proxy.tracer": "`meshConfig.extensionProviders` and a Telemetry object",
        "global.waypoint": _AMBIENT,
        "global.platform": _PLATFORM,
        "global.networkPolicy.enabled": _NETWORK_POLICY,
        "global.nativeNftables": _NFTABLES,
        "global.trustBundleName": "it is istio-ca-root-cert",
        "global.resourceScope": "a release installs all its objects",
        "base.enableIstioConfigCRDs": "`base.enableCRDs` of the chart base",
        "gatewayClasses": "`Gateway.spec.infrastructure` has a `parametersRef`",
    },
    "gateway": {
        "kind": "a gateway is a Deployment",
        "rbac.enabled": "istiod may read the Secrets of a gateway's namespace",
        "autoscaling.targetMemoryUtilizationPercentage": "an autoscaler goes by the CPU; write one for another metric",
        "service.selectorLabels": "the selector is `labels`",
        "lifecycle": "a gateway drains before it ends; `terminationGracePeriodSeconds` says how long it may",
        "compatibilityVersion": _COMPATIBILITY,
        "profile": _PROFILE,
        "runAsRoot": "gateways run without privileges; `containerSecurityContext`",
        "platform": _PLATFORM,
        "unprivilegedPort": "targetPort says it",
    },
    "cni": {
        "hub": "`global.hub`",
        "tag": "`global.tag`",
        "variant": _VARIANT,
        "image": "the image is install-cni, of `global.hub` and `global.tag`",
        "ambient.enabled": _AMBIENT,
        "cniConfFileName": "it is the first file, by name, of `cniConfDir`, as runtimes choose it",
        "cniNetnsDir": "the runtime says where a pod's network is",
        "chained": "the plugin always comes after the one that connects pods",
        "provider": "the plugin always comes after the one that connects pods",
        **{
            f"repair.{name}": "`repair.enabled` deletes pods that are broken"
            for name in ("labelPods", "repairPods", "deletePods", "brokenPodLabelKey", "brokenPodLabelValue")
        },
        "repair.initContainerName": "it is istio-validation",
        "repair.hub": "`global.hub`",
        "repair.tag": "`global.tag`",
        "istioOwnedCNIConfig": "the plugin is appended to the cluster's own configuration",
        "istioOwnedCNIConfigFileName": "the plugin is appended to the cluster's own configuration",
        "updateStrategy": "the plugin of one node is replaced after the other",
        "podLabels": _PATCH,
        "daemonSetLabels": _PATCH,
        "serviceAccountAnnotations": _PATCH,
        "global.logging.level": "the daemon writes what it changes, and why pods are deleted",
        "global.logAsJson": "the daemon's log is text",
        "global.networkPolicy.enabled": _NETWORK_POLICY,
        "global.nativeNftables": _NFTABLES,
        "resourceQuotas.enabled": "write a ResourceQuota",
        "rollingMaxUnavailable": "the plugin of one node is replaced after the other",
        "pullPolicy": "`global.imagePullPolicy`",
        "logLevel": "the plugin's words are in the daemon's log",
        "logging.level": "the plugin's words are in the daemon's log",
        "privileged": "the daemon runs without privileges",
        "seccompProfile": _PATCH,
        "env": _PATCH,
        "ownerName": "it is Helm's business alone",
        "global.variant": _VARIANT,
        "global.defaultResources": "`resources`",
        "psp_cluster_role": "Kubernetes has no such policies any more",
    },
}
"""Values of Istio's charts that these refuse (chart -> value -> why, or what to use instead)."""


def leaves(value: Any, free: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, default) of each value of a chart that can be set by itself."""
    if isinstance(value, dict) and value and path not in free:
        for key, inner in value.items():
            yield from leaves(inner, free, f"{path}.{key}" if path else key)
    else:
        yield path, value


CHARTS: dict[str, tuple[Callable[[], Json], tuple[str, ...]]] = {
    "base": (lambda: BASE_VALUES, ()),
    "istiod": (istiod_values, FREE),
    "gateway": (lambda: GATEWAY_VALUES, GATEWAY_FREE),
    "cni": (lambda: CNI_VALUES, CNI_FREE),
}
"""Charts that Istio has, too -> their values, and which of these are the user's own mappings."""


def schema(value: Any, free: tuple[str, ...], path: str = "") -> Json:
    """Which values there are; a mapping in ``free`` may have any keys."""
    if path in FIXED:
        return FIXED[path]
    if path in free:
        return OPEN
    if isinstance(value, dict):
        found = {k: schema(v, free, f"{path}.{k}" if path else k) for k, v in value.items()}
        if not path:
            found["global"] = found.get("global", OPEN)  # a chart that includes this one may set them
        return {"type": "object", "properties": found, "additionalProperties": False}
    return {}
