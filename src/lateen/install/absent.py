"""Values of Istio's charts that Lateen does not have: its charts refuse them, ``lateen install`` warns about them."""

from __future__ import annotations

from typing import Any

from lateen.install.objects import NAMESPACE

_AMBIENT = "there is no ambient mode"
_VARIANT = "there is one variant of the images"
_REMOTE = "mesh objects are validated in the cluster of the control plane"
_PLATFORM = "there is no difference between platforms"
_COMPATIBILITY = "there is one behaviour, that of this version"
_PROFILE = "set the values of a profile one by one"
_NETWORK_POLICY = "its pods have the node's network, for which there are no NetworkPolicies"
_NFTABLES = "rules are written by iptables, which uses nftables where the kernel has them"
_WEBHOOK = "the webhooks have Istio's default settings"
VALUES: dict[str, dict[str, str]] = {
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
        "pilot.variant": _VARIANT,
        "pilot.memory": "an autoscaler goes by the CPU; write a HorizontalPodAutoscaler for another metric",
        "pilot.traceSampling": "`meshConfig.defaultConfig.tracing.sampling`",
        "pilot.extraContainerArgs": "istiod has no further arguments; `pilot.env` has its settings",
        "pilot.taint": "nodes do not wait for the CNI plugin; it deletes broken pods (`repair.enabled`)",
        "pilot.trustedZtunnelName": _AMBIENT,
        "pilot.jwksResolverExtraRootCA": "istiod trusts the authorities of its image",
        "pilot.keepaliveMaxServerConnectionAge": "proxies connect anew after 30 minutes",
        "pilot.configMap": "the ConfigMap is always made",
        "pilot.trustedZtunnelNamespace": _AMBIENT,
        "sidecarInjectorWebhook.reinvocationPolicy": _WEBHOOK,
        "sidecarInjectorWebhook.enableNamespacesByDefault": _WEBHOOK,
        "sidecarInjectorWebhookAnnotations": _WEBHOOK,
        "istiodRemote.injectionCABundle": "the control plane writes its roots into the webhook",
        "telemetry": "a Telemetry object switches metrics on and off",
        "ownerName": "only Helm uses it",
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
        "global.nativeNftables": _NFTABLES,
        "global.trustBundleName": "the ConfigMap is always istio-ca-root-cert",
        "global.resourceScope": "a release installs all its objects",
        "base.enableIstioConfigCRDs": "`base.enableCRDs` of the chart base",
        "deploymentAnnotations": "`lateen install` has `components.pilot.k8s.deploymentAnnotations`",
        "istiodRemote.enabledLocalInjectorIstiod": "the cluster of the control plane injects",
        "pdb": "`global.defaultPodDisruptionBudget.enabled`; write a PodDisruptionBudget for another one",
    },
    "gateway": {
        "kind": "a gateway is a Deployment",
        "rbac.enabled": "istiod may read the Secrets of a gateway's namespace",
        "autoscaling.targetMemoryUtilizationPercentage": "an autoscaler goes by the CPU; write one for another metric",
        "service.selectorLabels": "the pods are selected by `labels.app` and `labels.istio`",
        "lifecycle": "a gateway drains before it ends; `terminationGracePeriodSeconds` says how long it may",
        "compatibilityVersion": _COMPATIBILITY,
        "profile": _PROFILE,
        "runAsRoot": "gateways run without privileges; `containerSecurityContext`",
        "platform": _PLATFORM,
        "service.healthCheckNodePort": "Kubernetes chooses one",
        "dnsPolicy": "patch the Deployment after Helm (post-renderer)",
        "dnsConfig": "patch the Deployment after Helm (post-renderer)",
        "unprivilegedPort": "`service.ports[].targetPort`",
    },
    "cni": {
        "variant": _VARIANT,
        "ambient": _AMBIENT,
        "cniConfFileName": "it is the first file, by name, of `cniConfDir`, as runtimes choose it",
        "cniNetnsDir": "the runtime says where a pod's network is",
        "chained": "the plugin always comes after the one that connects pods",
        "provider": "the plugin always comes after the one that connects pods",
        **{
            f"repair.{name}": "`repair.enabled` deletes pods that are broken"
            for name in ("labelPods", "repairPods", "deletePods", "brokenPodLabelKey", "brokenPodLabelValue")
        },
        "repair.initContainerName": "it is istio-validation",
        "repair.hub": "`hub`: pods are repaired by the daemon",
        "repair.tag": "`tag`: pods are repaired by the daemon",
        "istioOwnedCNIConfig": "the plugin is appended to the cluster's own configuration",
        "istioOwnedCNIConfigFileName": "the plugin is appended to the cluster's own configuration",
        "global.logging.level": "the daemon always logs what it changes, and which pods it deletes",
        "global.logAsJson": "the daemon's log is text",
        "global.networkPolicy.enabled": _NETWORK_POLICY,
        "global.nativeNftables": _NFTABLES,
        "resourceQuotas": "write a ResourceQuota",
        "useAppArmorAnnotation": "the daemon needs no exception from AppArmor's profiles",
        "global.resourceScope": "a release installs all its objects",
        "logLevel": "the plugin's messages are in the daemon's log",
        "logging.level": "the plugin's messages are in the daemon's log",
        "privileged": "the daemon runs without privileges",
        "ownerName": "only Helm uses it",
        "global.variant": _VARIANT,
        "global.defaultResources": "`resources`",
        "psp_cluster_role": "Kubernetes has no such policies any more",
    },
}
"""Chart -> value -> what to use instead (in backticks), or why there is none."""


_SIDECARS = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
_DATAPLANE = "istio.io/dataplane-mode"
_OF_AMBIENT = [
    {"podSelector": {"matchLabels": {_DATAPLANE: "ambient"}}},
    {
        "podSelector": {"matchExpressions": [{"key": _DATAPLANE, "operator": "NotIn", "values": ["none"]}]},
        "namespaceSelector": {"matchLabels": {_DATAPLANE: "ambient"}},
    },
]
ANYWAY: dict[str, dict[str, Any]] = {
    "base": {
        "base.enableCRDTemplates": True,
        "base.enableIstioConfigCRDs": True,
        "base.excludedCRDs": [],
        "experimental.stableValidationPolicy": False,
    },
    "istiod": {
        "pilot.traceSampling": 1.0,
        "pilot.keepaliveMaxServerConnectionAge": "30m",
        "telemetry": {
            "enabled": True,
            "v2": {"enabled": True, "prometheus": {"enabled": True}, "stackdriver": {"enabled": False}},
        },
        "global.istiod.enableAnalysis": False,
        "global.nativeNftables": False,
        "global.waypoint": {
            "resources": _SIDECARS,
            "affinity": {},
            "topologySpreadConstraints": [],
            "nodeSelector": {},
            "tolerations": [],
            "toleration": [],
        },
        "pilot.configMap": True,
        "pilot.memory": {},
        "pilot.extraContainerArgs": [],
        "sidecarInjectorWebhookAnnotations": {},
        "deploymentAnnotations": {},
        "pdb": {"minAvailable": 1, "unhealthyPodEvictionPolicy": ""},
        "global.certSigners": [],
        "global.podDNSSearchNamespaces": [],
        "global.defaultResources": {"requests": {"cpu": "10m"}},
        "pilot.taint.enabled": False,
        "pilot.taint.name": "cni.istio.io/not-ready",
        "pilot.taint.namespace": "",
        "istiodRemote.enabledLocalInjectorIstiod": False,
        "sidecarInjectorWebhook.reinvocationPolicy": "Never",
        "sidecarInjectorWebhook.enableNamespacesByDefault": False,
        "experimental.stableValidationPolicy": False,
        "global.configValidation": True,
        "global.configCluster": False,
        "global.omitSidecarInjectorConfigMap": False,
        "global.operatorManageWebhooks": False,
        "global.mountMtlsCerts": False,
        "global.pilotCertProvider": "istiod",
        "global.sds.token.aud": "istio-ca",
        "global.sts.servicePort": 0,
        "global.proxy.tracer": "none",
        "global.trustBundleName": "istio-ca-root-cert",
        "global.resourceScope": "all",
        "base.enableIstioConfigCRDs": True,
    },
    "gateway": {
        "kind": "Deployment",
        "rbac.enabled": True,
        "runAsRoot": False,
        "autoscaling.targetMemoryUtilizationPercentage": {},
        "service.selectorLabels": {},
        "lifecycle": {},
        "dnsConfig": {},
    },
    "cni": {
        "ambient.enabled": False,
        "ambient.redirectMode": "iptables",
        "ambient.configDir": "",
        "ambient.dnsCapture": True,
        "ambient.ipv6": True,
        "ambient.enableAmbientDetectionRetry": False,
        "ambient.reconcileIptablesOnStartup": (True, False),
        "ambient.enablementSelectors": _OF_AMBIENT,
        "ambient.shareHostNetworkNamespace": False,
        "cniNetnsDir": "/var/run/netns",
        "global.defaultResources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
        "global.logging.level": ("info", "default:info,cni:info"),
        "global.nativeNftables": False,
        "logLevel": "debug",
        "chained": True,
        "provider": "default",
        "repair.labelPods": False,
        "repair.repairPods": False,
        "repair.deletePods": True,
        "repair.initContainerName": "istio-validation",
        "repair.brokenPodLabelKey": "cni.istio.io/uninitialized",
        "repair.brokenPodLabelValue": "true",
        "istioOwnedCNIConfig": False,
        "global.logAsJson": False,
        "global.networkPolicy.enabled": False,
        "global.resourceScope": "all",
        "resourceQuotas.enabled": False,
        "resourceQuotas.pods": 5000,
        "useAppArmorAnnotation": (True, False),
        "privileged": False,
    },
}
"""Chart -> what those values say where they ask for nothing that is not so anyway, and Istio's defaults: whoever brings
all of Istio's values with them brings these, too. Of a mapping, any part may be said; a tuple has the defaults of
several versions. Null and an empty text ask for nothing anywhere."""


def of_value(path: str) -> str:
    """Of a value of an installation, where the charts' values have one tree: why it has no effect, or what has. Empty
    for what Istio's charts do not have either."""
    chart, _, inner = path.partition(".")
    places = [("cni", inner), ("cni", path)] if chart == "cni" else [("istiod", path), ("base", path)]
    for name, wanted in places:
        for at, why in VALUES[name].items():
            if wanted == at or wanted.startswith(f"{at}."):
                return f"use {why}" if why.startswith("`") else why
    return ""
