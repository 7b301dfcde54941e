"""Which fields of the mesh configuration have an effect: ``install`` and istiod warn about the others.

Paths are written with ``[]`` for list items and ``{}`` for map values; ``.**`` stands for everything below. Every
other field of the types has an effect; a test tries each of them.
"""

from __future__ import annotations

from typing import Any

from lateen.api.effective import general, leaves
from lateen.api.mesh.config import MeshConfig

_SERVICE = "use an extension provider (envoyHttpAls, envoyOtelAls, zipkin, opentelemetry) and a Telemetry"
_LEGACY = "Istio has removed it or does not read it"
_FIXED = "the port is fixed"
_PROVIDER = "Envoy no longer has it; use opentelemetry or zipkin"

IDLE: dict[str, str] = {
    "proxyListenPort": _FIXED,
    "proxyInboundListenPort": _FIXED,
    "proxyHttpPort": "the HTTP proxy listener is not implemented",
    "hboneIdleTimeout": "ambient mode is not implemented",
    "protocolDetectionTimeout": "the time is fixed (5 s inbound, none outbound)",
    "tcpKeepalive.**": "set it in a DestinationRule",
    "ingressService": "the gateways' Services are found by ingressSelector",
    "enableEnvoyAccessLogService": _SERVICE,
    "disableEnvoyListenerLog": "listeners write no access log of their own",
    "outboundTrafficPolicy.tls.**": "dynamic DNS is not implemented",
    "configSources[].**": "the only source is the Kubernetes API",
    "enableAutoMtls": "mutual TLS between sidecars is always automatic",
    "caCertificates[].spiffeBundleUrl": "give the certificates themselves, as pem",
    "defaultServiceExportTo": "set exportTo, or the annotation networking.istio.io/exportTo",
    "defaultVirtualServiceExportTo": "set spec.exportTo",
    "defaultDestinationRuleExportTo": "set spec.exportTo",
    "rootNamespace": "it is the control plane's namespace",
    "zoneAwareLbSetting.**": "use localityLbSetting, which decides by zones too",
    "inboundClusterStatName": "clusters have Envoy's names in statistics",
    "outboundClusterStatName": "clusters have Envoy's names in statistics",
    "certificates[].**": _LEGACY,
    "serviceScopeConfigs[].**": "ambient mode is not implemented",
    "verifyCertificateAtClient": _LEGACY,
    "ca.**": "istiod is the certificate authority",
    "extensionProviders[].lightstep.**": _PROVIDER,
    "extensionProviders[].datadog.maxTagLength": "Envoy has no such setting for Datadog",
    "extensionProviders[].stackdriver.**": _PROVIDER,
    "extensionProviders[].opencensus.**": _PROVIDER,
    "extensionProviders[].opentelemetry.dynatraceSampler.**": "set randomSamplingPercentage in a Telemetry",
    "extensionProviders[].opentelemetry.serviceAttributeEnrichment": "spans carry Istio's canonical names",
    "extensionProviders[].sds.**": "certificates come from Secrets and files",
    "discoverySelectors[].**": "all namespaces are watched",
    "defaultHttpRetryPolicy.**": "set retries in a VirtualService",
    "meshMTLS.**": "TLS between sidecars is 1.2 or 1.3 with Istio's ciphers",
    "tlsDefaults.**": "set TLS versions and ciphers in a Gateway",
    "defaultTrafficPolicy.**": "set it in a DestinationRule",
    "serviceEntryVisibility.**": "set exportTo in the ServiceEntry",
    "defaultConfig.configPath": _LEGACY,
    "defaultConfig.binaryPath": _LEGACY,
    "defaultConfig.serviceCluster": "the service cluster is made from the workload's labels",
    "defaultConfig.discoveryAddress": "proxies connect to the istiod of their revision",
    "defaultConfig.discoveryRefreshDelay": _LEGACY,
    "defaultConfig.zipkinAddress": _LEGACY,
    "defaultConfig.statsdUdpAddress": "metrics are scraped: every proxy serves them to Prometheus",
    "defaultConfig.envoyMetricsServiceAddress": _LEGACY,
    "defaultConfig.proxyAdminPort": _FIXED,
    "defaultConfig.availabilityZone": _LEGACY,
    "defaultConfig.controlPlaneAuthPolicy": _LEGACY,
    "defaultConfig.customConfigFile": "the bootstrap is made by the agent; patch it with an EnvoyFilter (BOOTSTRAP)",
    "defaultConfig.statNameLength": _LEGACY,
    "defaultConfig.proxyBootstrapTemplatePath": "patch the bootstrap with an EnvoyFilter (BOOTSTRAP)",
    "defaultConfig.tracing.lightstep.**": _PROVIDER,
    "defaultConfig.tracing.datadog.**": "use an extension provider (datadog) and a Telemetry",
    "defaultConfig.tracing.stackdriver.**": _PROVIDER,
    "defaultConfig.tracing.openCensusAgent.**": _PROVIDER,
    "defaultConfig.tracing.tlsSettings.**": "set TLS for the collector in a DestinationRule",
    "defaultConfig.sds.**": _LEGACY,
    "defaultConfig.envoyAccessLogService.**": _SERVICE,
    "defaultConfig.envoyMetricsService.**": "metrics are scraped: every proxy serves them to Prometheus",
    "defaultConfig.runtimeValues{}": "Envoy's runtime is fixed; patch the bootstrap with an EnvoyFilter (BOOTSTRAP)",
    "defaultConfig.extraStatTags": "metrics have Istio's standard labels",
    "defaultConfig.readinessProbe.**": "the proxy's readiness probe is fixed; machines have theirs in a WorkloadGroup",
    "defaultConfig.proxyStatsMatcher.**": "all of Envoy's statistics are served",
    "defaultConfig.caCertificatesPem": "the mesh trusts its own root only",
    "defaultConfig.privateKeyProvider.**": "private keys stay in the proxy",
    "defaultConfig.proxyHeaders.**": "headers are Istio's default ones",
    "defaultConfig.fileFlushInterval": "Envoy's default is used",
    "defaultConfig.fileFlushMinSizeKb": "Envoy's default is used",
    "defaultConfig.statsCompression": "statistics are not compressed",
    "defaultConfig.connectionSettings.**": "set them in a DestinationRule or with an EnvoyFilter",
}
"""Field -> why it has no effect, or what to use instead."""

SAME: dict[str, tuple[Any, ...]] = {
    "proxyListenPort": (15001,),
    "proxyInboundListenPort": (15006,),
    "proxyHttpPort": (0,),
    "protocolDetectionTimeout": ("0s",),
    "enableEnvoyAccessLogService": (False,),
    "disableEnvoyListenerLog": (True,),
    "enableAutoMtls": (True,),
    "defaultServiceExportTo": (["*"],),
    "defaultVirtualServiceExportTo": (["*"],),
    "defaultDestinationRuleExportTo": (["*"],),
    "meshMTLS.minProtocolVersion": ("TLS_AUTO", "TLSV1_2"),
    "tlsDefaults.minProtocolVersion": ("TLS_AUTO", "TLSV1_2"),
    "defaultConfig.proxyAdminPort": (15000,),
    "defaultConfig.controlPlaneAuthPolicy": ("MUTUAL_TLS",),
}
"""Values of ineffective fields that ask for the behaviour there is anyway; they are not warned about."""

INJECTED = (
    "enablePrometheusMerge",
    "defaultConfig.holdApplicationUntilProxyStarts",
    "defaultConfig.image.imageType",
    "defaultConfig.interceptionMode",
    "defaultConfig.meshId",
    "defaultConfig.statusPort",
)
"""Fields that affect injected pods instead of the resources that proxies are sent."""

VALUES: dict[str, tuple[str, ...]] = {
    "outboundTrafficPolicy.mode": ("REGISTRY_ONLY", "ALLOW_ANY"),
}
"""Fields of which only some values have an effect."""


def reason(path: str) -> str | None:
    """Why a field (in its general form) has no effect; None if it has one."""
    if path in IDLE:
        return IDLE[path]
    parts = path.split(".")
    return next((IDLE[p] for i in range(1, len(parts)) if (p := ".".join(parts[:i]) + ".**") in IDLE), None)


def ineffective(value: Any, root: str = "meshConfig") -> list[str]:
    """A sentence for each field that is set in a valid configuration and has no effect."""
    out = []
    for path, leaf in leaves(MeshConfig, value):
        form = general(path)
        allowed = VALUES.get(form)
        if allowed and leaf not in allowed:
            out.append(f"{root}.{path}: {leaf} is not implemented; unknown hosts are blocked as with REGISTRY_ONLY")
        elif (why := reason(form)) is not None and leaf not in SAME.get(form, ()):
            out.append(f"the field {root}.{path} has no effect in this version of Lateen: {why}")
    return out
