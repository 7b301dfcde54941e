"""The values of the Helm charts with their defaults, which are those of Istio's charts, and their schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lateen import __version__
from lateen.inject import settings as injection
from lateen.install import cni
from lateen.install.objects import HUB, NAMESPACE
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
    "sidecarInjectorWebhook.injectedAnnotations",
    "sidecarInjectorWebhook.templates",
    "sidecarInjectorWebhook.aliases",
)
"""Mappings whose keys are the user's."""


def istiod_values() -> Json:
    out = jsons.copy(injection.DEFAULTS)
    out["global"] |= {"hub": HUB, "tag": __version__, "meshNetworks": {}}
    out["global"]["proxy"] |= {"capNetBindService": ""}
    return {"revision": DEFAULT, "meshConfig": {}, **out, "pilot": PILOT}


GATEWAY_VALUES: Json = {
    "name": "",
    "revision": DEFAULT,
    "replicaCount": 1,
    "serviceAccount": {"create": True, "name": "", "annotations": {}},
    "podAnnotations": {},
    "labels": {},
    "annotations": {},
    "env": {},
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}},
    "service": {
        "type": "LoadBalancer",
        "ports": [
            {"name": "status-port", "port": 15021, "protocol": "TCP", "targetPort": 15021},
            {"name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80},
            {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443},
        ],
        "annotations": {},
        "loadBalancerIP": "",
        "loadBalancerSourceRanges": [],
        "externalTrafficPolicy": "",
        "externalIPs": [],
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
    "nodeSelector", "affinity",
)  # fmt: skip


CNI_VALUES: Json = {
    "revision": DEFAULT,
    "global": {"hub": HUB, "tag": __version__},
    "cniBinDir": cni.BIN,
    "cniConfDir": cni.CONF,
    "excludeNamespaces": list(cni.EXCLUDED),
    "repair": {"enabled": True},
    "resources": cni.RESOURCES,
}
CNI_FREE = ("resources",)


FIXED: dict[str, Json] = {
    "global.istioNamespace": {"const": NAMESPACE},
    "pilot.env": {"type": "object", "properties": {name: {} for name in VARIABLES}, "additionalProperties": False},
}
"""Values of which only some are possible."""


_AUTOSCALING = "a number of replicas is set: write a HorizontalPodAutoscaler for the Deployment"
_BUDGET = "write a PodDisruptionBudget for the Deployment"
_AMBIENT = "the ambient mode is not there"
_VARIANT = "there is one variant of the images"
_REMOTE = "a cluster without a control plane is installed by `lateen install --set profile=remote`"
_WEBHOOK = "the webhooks are as they are: in Istio's default form"
_OWN_POD = "istiod's pod cannot be extended; patch the Deployment after Helm (post-renderer)"
REFUSED: dict[str, dict[str, str]] = {
    "base": {
        "base.excludedCRDs": "all definitions are installed, or none (`base.enableCRDs`)",
        "base.validationURL": _REMOTE,
        "base.validationCABundle": "istiod writes its own",
        "global.istioNamespace": f"it is {NAMESPACE}",
        "experimental.stableValidationPolicy": "istiod's webhook validates",
    },
    "istiod": {
        "autoscaleEnabled": _AUTOSCALING,
        "autoscaleMin": _AUTOSCALING,
        "autoscaleMax": _AUTOSCALING,
        "replicaCount": "`pilot.replicaCount`",
        "resources": "`pilot.resources`",
        "env": "`pilot.env`",
        "nodeSelector": "`pilot.nodeSelector`",
        "affinity": "`pilot.affinity`",
        "tolerations": "`pilot.tolerations`",
        "podAnnotations": "`pilot.podAnnotations`",
        "pilot.image": "the image is pilot, of `global.hub` and `global.tag`",
        "pilot.hub": "`global.hub`",
        "pilot.tag": "`global.tag`",
        "pilot.variant": _VARIANT,
        "pilot.autoscaleEnabled": _AUTOSCALING,
        "pilot.cpu.targetAverageUtilization": _AUTOSCALING,
        "pilot.traceSampling": "`meshConfig.defaultConfig.tracing.sampling`",
        "pilot.rollingMaxSurge": _OWN_POD,
        "pilot.rollingMaxUnavailable": _OWN_POD,
        "pilot.seccompProfile": _OWN_POD,
        "pilot.extraContainerArgs": _OWN_POD,
        "pilot.envVarFrom": _OWN_POD,
        "pilot.volumes": _OWN_POD,
        "pilot.volumeMounts": _OWN_POD,
        "pilot.initContainers": _OWN_POD,
        "pilot.podLabels": _OWN_POD,
        "pilot.deploymentLabels": _OWN_POD,
        "pilot.serviceAnnotations": _OWN_POD,
        "pilot.serviceAccountAnnotations": _OWN_POD,
        "pilot.topologySpreadConstraints": _OWN_POD,
        "pilot.taint.enabled": "there is no CNI plugin whose nodes would have to wait",
        "pilot.jwksResolverExtraRootCA": "istiod trusts the authorities of its image",
        "pilot.keepaliveMaxServerConnectionAge": "connections of proxies are kept",
        "pilot.configMap": "the ConfigMap is always made",
        "pilot.ipFamilyPolicy": "the Service is as the cluster's default",
        "pilot.trustedZtunnelNamespace": _AMBIENT,
        "sidecarInjectorWebhook.reinvocationPolicy": _WEBHOOK,
        "sidecarInjectorWebhook.enableNamespacesByDefault": _WEBHOOK,
        "sidecarInjectorWebhookAnnotations": _WEBHOOK,
        "istiodRemote.enabled": _REMOTE,
        "istiodRemote.injectionURL": _REMOTE,
        "istiodRemote.injectionPath": _REMOTE,
        "telemetry.enabled": "a Telemetry object switches metrics",
        "telemetry.v2.enabled": "a Telemetry object switches metrics",
        "revisionTags": "`lateen tag set`",
        "ownerName": "it is Helm's business alone",
        "experimental.stableValidationPolicy": "istiod's webhook validates",
        "global.certSigners": "it takes `lateen install`, which grants what approving takes",
        "global.configValidation": "configuration is always validated",
        "global.configCluster": _REMOTE,
        "global.externalIstiod": '`pilot.env.EXTERNAL_ISTIOD: "true"`',
        "global.remotePilotAddress": _REMOTE,
        "global.defaultPodDisruptionBudget.enabled": _BUDGET,
        "global.defaultResources": "`pilot.resources`, `global.proxy.resources`",
        "global.istiod.enableAnalysis": "istiod always analyzes, and writes conditions",
        "global.omitSidecarInjectorConfigMap": "the ConfigMap is always made",
        "global.operatorManageWebhooks": _WEBHOOK,
        "global.priorityClassName": _OWN_POD,
        "global.variant": _VARIANT,
        "global.mountMtlsCerts": "proxies get their certificates by files of the agent",
        "global.pilotCertProvider": "istiod signs its own certificate",
        "global.sds.token.aud": "the audience is istio-ca",
        "global.sts.servicePort": "there is no exchange of tokens",
        "global.caName": "`meshConfig.certificates` and `pilot.env` choose the authority",
        "global.proxy.tracer": "`meshConfig.extensionProviders` and a Telemetry object",
        "global.proxy.outlierLogPath": "Envoy's log of ejections is not written",
        "global.proxy_init.image": "the image is that of the proxy",
        "global.proxy_init.forceApplyIptables": "rules are applied again where they differ",
        "global.waypoint.resources": _AMBIENT,
        "gateways.securityContext": "gateways run without privileges",
        "gateways.seccompProfile": "gateways run without privileges",
        "gatewayClasses": "`Gateway.spec.infrastructure` has a `parametersRef`",
    },
    "gateway": {
        "kind": "a gateway is a Deployment",
        "rbac.enabled": "istiod may read the Secrets of a gateway's namespace",
        "securityContext": "gateways run without privileges",
        "containerSecurityContext": "gateways run without privileges",
        "autoscaling.enabled": _AUTOSCALING,
        "podDisruptionBudget": _BUDGET,
        "platform": "there is no difference between platforms",
        "unprivilegedPort": "targetPort says it",
        "volumes": "gateways get their files from the injector",
        "initContainers": "gateways get their containers from the injector",
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
        "repair.labelPods": "`repair.enabled` deletes pods that are broken",
        "repair.repairPods": "`repair.enabled` deletes pods that are broken",
        "repair.deletePods": "`repair.enabled` deletes pods that are broken",
        "resourceQuotas.enabled": "write a ResourceQuota",
        "rollingMaxUnavailable": "the plugin of one node is replaced after the other",
        "tolerations": "the daemon runs on every node of Linux",
        "affinity": "the daemon runs on every node of Linux",
        "podAnnotations": "patch the DaemonSet after Helm (post-renderer)",
        "env": "patch the DaemonSet after Helm (post-renderer)",
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
