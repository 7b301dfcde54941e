"""The fields of the mesh configuration that have no effect; ``install`` and istiod warn about them.

Paths are written with ``[]`` for list items and ``{}`` for map values; ``.**`` stands for everything below. Every
other field of the types has an effect; a test tries each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lateen.api.effective import general, leaves
from lateen.api.mesh.config import MeshConfig
from lateen.api.mesh.provider_names import unused_defaults
from lateen.api.mesh.reading import canonical
from lateen.api.networking import ciphers
from lateen.api.networking.ciphers import CIPHER_SUITES
from lateen.api.networking.server_tls import ECDH_CURVES
from lateen.kit.jsons import dig

_SERVICE = "use an extension provider (envoyHttpAls, envoyOtelAls, zipkin, opentelemetry) and a Telemetry"
_LEGACY = "Istio has removed it or does not read it"
_FIXED = "the port is fixed"
_SHARED = "it would be part of routes, which proxies share; change the header in a VirtualService"
_PROVIDER = "Envoy no longer has it; use opentelemetry or zipkin"

IDLE: dict[str, str] = {
    "proxyListenPort": _FIXED,
    "proxyInboundListenPort": _FIXED,
    "hboneIdleTimeout": "ambient mode is not implemented",
    "enableEnvoyAccessLogService": _SERVICE,
    "outboundTrafficPolicy.tls.credentialName": "certificates of requests to unknown hosts come from files",
    "configSources[].**": "the only source is the Kubernetes API",
    "caCertificates[].spiffeBundleUrl": "give the certificates themselves, as pem",
    "rootNamespace": "it is the control plane's namespace",
    "zoneAwareLbSetting.**": "use localityLbSetting, which also balances by zone",
    "certificates[].**": _LEGACY,
    "serviceScopeConfigs[].**": "ambient mode is not implemented",
    "ca.**": "Istio does not read it either; EXTERNAL_CA names a signer of Kubernetes; SPIRE and mounted files work",
    "extensionProviders[].lightstep.**": _PROVIDER,
    "extensionProviders[].datadog.maxTagLength": "Envoy has no such setting for Datadog",
    "extensionProviders[].stackdriver.**": _PROVIDER,
    "extensionProviders[].opencensus.**": _PROVIDER,
    "extensionProviders[].opentelemetry.dynatraceSampler.**": "set randomSamplingPercentage in a Telemetry",
    "extensionProviders[].opentelemetry.serviceAttributeEnrichment": "spans carry Istio's canonical names",
    "extensionProviders[].sds.**": "certificates come from Secrets and files",
    "meshMTLS.ecdhCurves": "as in Istio; the curves of other TLS are set in tlsDefaults",
    "defaultHttpRetryPolicy.perTryTimeout": "as in Istio, it can only be set in a VirtualService",
    "defaultTrafficPolicy.**": "set it in a DestinationRule",
    "defaultConfig.configPath": _LEGACY,
    "defaultConfig.binaryPath": _LEGACY,
    "defaultConfig.serviceCluster": "the service cluster is derived from the workload's labels",
    "defaultConfig.discoveryAddress": "proxies connect to the istiod of their revision",
    "defaultConfig.discoveryRefreshDelay": _LEGACY,
    "defaultConfig.zipkinAddress": _LEGACY,
    "defaultConfig.envoyMetricsServiceAddress": _LEGACY,
    "defaultConfig.proxyAdminPort": _FIXED,
    "defaultConfig.availabilityZone": _LEGACY,
    "defaultConfig.controlPlaneAuthPolicy": _LEGACY,
    "defaultConfig.customConfigFile": "the agent generates the bootstrap; patch it with an EnvoyFilter (BOOTSTRAP)",
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
    "defaultConfig.extraStatTags": "metrics have Istio's standard labels",
    "defaultConfig.caCertificatesPem": "the mesh trusts only its own root",
    "defaultConfig.privateKeyProvider.**": "private keys never leave the pod",
    "defaultConfig.proxyHeaders.attemptCount.disabled": _SHARED,
    "defaultConfig.proxyHeaders.metadataExchangeHeaders.mode": "servers outside of the mesh never get these headers",
    "defaultConfig.proxyHeaders.preserveHttp1HeaderCase": "it would be part of clusters, which proxies share",
    "defaultConfig.proxyHeaders.xForwardedHost.enabled": _SHARED,
    "defaultConfig.statsCompression": "statistics are not compressed",
    "defaultConfig.connectionSettings.clusterPerConnectionBufferLimitBytes": "set it with an EnvoyFilter (CLUSTER)",
    "defaultConfig.connectionSettings.listenerConnectionLimit": "set it with runtimeValues",
}
"""Field -> why it has no effect, or what to use instead."""

SAME: dict[str, tuple[Any, ...]] = {
    "proxyListenPort": (15001,),
    "proxyInboundListenPort": (15006,),
    "enableEnvoyAccessLogService": (False,),
    "defaultConfig.proxyAdminPort": (15000,),
    "defaultConfig.controlPlaneAuthPolicy": ("MUTUAL_TLS",),
    "defaultConfig.proxyHeaders.attemptCount.disabled": (False,),
    "defaultConfig.proxyHeaders.metadataExchangeHeaders.mode": ("IN_MESH",),
    "defaultConfig.proxyHeaders.preserveHttp1HeaderCase": (False,),
    "defaultConfig.proxyHeaders.xForwardedHost.enabled": (False,),
}
"""Values of ineffective fields that ask for the present behaviour; there is no warning about them."""

INJECTED = (
    "enablePrometheusMerge",
    "defaultConfig.connectionSettings.globalDownstreamConnectionLimit",
    "defaultConfig.fileFlushInterval",
    "defaultConfig.fileFlushMinSizeKb",
    "defaultConfig.holdApplicationUntilProxyStarts",
    "defaultConfig.image.imageType",
    "defaultConfig.interceptionMode",
    "defaultConfig.meshId",
    "defaultConfig.proxyStatsMatcher.inclusionPrefixes",
    "defaultConfig.proxyStatsMatcher.inclusionRegexps",
    "defaultConfig.proxyStatsMatcher.inclusionSuffixes",
    *(
        f"defaultConfig.readinessProbe.{name}"
        for name in (
            *("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"),
            *("httpGet.path", "httpGet.port", "httpGet.host", "httpGet.scheme", "httpGet.httpHeaders[].name"),
            *("httpGet.httpHeaders[].value", "tcpSocket.host", "tcpSocket.port", "exec.command", "grpc.port"),
            "grpc.service",
        )
    ),
    "defaultConfig.runtimeValues{}",
    "defaultConfig.statsdUdpAddress",
    "defaultConfig.statusPort",
)
"""Fields that affect injected pods, not xDS resources."""

ADDS = "it can only add to pathNormalization, on which policies about paths rely"
ADDING: dict[str, Any] = {
    "defaultConfig.connectionSettings.httpMergeSlashes": False,
    "defaultConfig.connectionSettings.httpPathWithEscapedSlashesAction": "KEEP_UNCHANGED",
}
"""Fields that can only make the handling of requests stricter -> the value that would not."""

KNOWN: dict[str, frozenset[str]] = {
    "tlsDefaults.cipherSuites": CIPHER_SUITES,
    "tlsDefaults.ecdhCurves": frozenset(ECDH_CURVES),
    "meshMTLS.cipherSuites": CIPHER_SUITES,
}
"""Lists whose items are used only if Envoy knows them; it would reject all of a proxy's listeners otherwise."""


def _known(form: str, item: str) -> bool:
    return item in KNOWN[form] or (KNOWN[form] is CIPHER_SUITES and bool(ciphers.suites(item)))


_KEYS = "keys are elliptic curves' (P-256)"
_MOUNTED = "use WORKLOAD_IDENTITY_SOCKET_FILE, or certificates of a Secret"
DANGEROUS: dict[str, tuple[Any, str]] = {
    "verifyCertificateAtClient": (
        False,
        "it is deprecated, and rules without caCertificates verify no servers; write insecureSkipVerify where needed",
    ),
    "enableAutoMtls": (
        False,
        "sidecars call each other in plain text unless a DestinationRule has the mode ISTIO_MUTUAL",
    ),
}
"""Fields that weaken the mesh -> the value that does, and what that means."""

METADATA = {
    "BOOTSTRAP_XDS_AGENT": _LEGACY,
    "CA_PROVIDER": "certificates come from istiod",
    "CA_ROOT_CA": "istiod is verified with the mesh's root",
    "CREDENTIAL_FETCHER_TYPE": "proxies prove who they are by their pod's token",
    "DNS_FORWARD_PARALLEL": "name servers are asked one after the other",
    "DNS_PROXY_ADDR": "the address is 127.0.0.1:15053",
    "ECC_CURVE": _KEYS,
    "ECC_SIGNATURE_ALGORITHM": _KEYS,
    "FILE_MOUNTED_CERTS": _MOUNTED,
    "ISTIO_META_DNS_AUTO_ALLOCATE": "it is deprecated: addresses are allocated wherever DNS is captured",
    "ISTIO_META_ENABLE_DNS_SERVER": "use ISTIO_META_DNS_CAPTURE",
    "ISTIO_META_ENABLE_HBONE": "ambient mode is not implemented",
    "ISTIO_META_ENABLE_SELF_DISCOVERY": "use localityLbSetting, which also balances by zone",
    "ISTIO_META_IDLE_TIMEOUT": "use connectionSettings.httpIdleTimeout",
    "ISTIO_META_REQUESTED_NETWORK_VIEW": "proxies see the instances of all networks",
    **{
        f"ISTIO_META_TLS_{side}_{name}": _MOUNTED
        for side in ("CLIENT", "SERVER")
        for name in ("CERT_CHAIN", "KEY", "ROOT_CERT")
    },
    "PKCS8_KEY": "keys are written as PKCS#8",
    "PROV_CERT": "a machine joins by its token",
    "PROXY_CONFIG_XDS_AGENT": _LEGACY,
    "PROXY_XDS_VIA_AGENT": _LEGACY,
    "SECRET_TTL": "set DEFAULT_WORKLOAD_CERT_TTL for istiod",
    "WORKLOAD_RSA_KEY_SIZE": _KEYS,
    "XDS_ROOT_CA": "istiod is verified with the mesh's root",
}
"""Variables of ``proxyMetadata`` that Istio's istiod and agent read, and ours do not."""


def reason(path: str) -> str | None:
    """Why a field (in its general form) has no effect; None if it has one."""
    if path in IDLE:
        return IDLE[path]
    parts = path.split(".")
    return next((IDLE[p] for i in range(1, len(parts)) if (p := ".".join(parts[:i]) + ".**") in IDLE), None)


def weaker(path: str, value: Any) -> str | None:
    """Why a value does not relax the handling of requests, as one might expect; None if that does not apply."""
    if path not in ADDING or value != ADDING[path]:
        return None
    return f"{str(value).lower() if value is False else value} does not undo path normalization: {ADDS}"


def variable(path: str) -> str | None:
    """Why a variable ``defaultConfig.proxyMetadata[NAME]`` has no effect; None if it has one, or is unknown."""
    at, _, name = path.partition("[")
    return METADATA.get(name.rstrip("]")) if at == "defaultConfig.proxyMetadata" else None


def ineffective(value: Any, root: str = "meshConfig") -> list[str]:
    """A sentence for each field of a valid configuration that has no effect, or another one than one might expect."""
    value = canonical(MeshConfig, value, root)  # fields may be written in snake_case
    out = []
    seen = value.get("serviceEntryVisibility")
    if isinstance(seen, dict) and not seen.get("applyToSidecars"):
        out.append(f"{root}.serviceEntryVisibility is for ambient mode alone without applyToSidecars: true")
    for path, leaf in leaves(MeshConfig, value):
        form = general(path)
        if form in DANGEROUS and DANGEROUS[form][0] is leaf:
            out.append(f"{root}.{path}: {DANGEROUS[form][1]}")
        elif (says := weaker(form, leaf)) is not None:
            out.append(f"{root}.{path}: {says}")
        elif form in KNOWN and (strange := [v for v in leaf if not _known(form, v)]):
            known = ", ".join(sorted(KNOWN[form]))
            out.append(f"{root}.{path}: Envoy does not know {', '.join(strange)}, which is left out; it knows {known}")
        elif (why := reason(form) or variable(path)) is not None and leaf not in SAME.get(form, ()):
            out.append(f"the field {root}.{path} has no effect in this version of Lateen: {why}")
    out += [f"{root}.{path}: {says}" for path, says in unused_defaults(value)]
    out += [f"{root}.{path}: {says}" for path, says in (*_files(value), *_open(value))]
    return out


def _open(mesh: Any) -> Iterator[tuple[str, str]]:
    """Headers that nobody has written where a provider of authorization does not answer."""
    for i, provider in enumerate(mesh.get("extensionProviders") or []):
        asked = dig(provider, "envoyExtAuthzHttp", default={})
        if asked.get("failOpen") and asked.get("headersToUpstreamOnAllow"):
            says = (
                "while the authorization service does not answer, requests pass with what clients write into the "
                "headers of headersToUpstreamOnAllow"
            )
            yield f"extensionProviders[{i}].envoyExtAuthzHttp.failOpen", says


def _files(mesh: Any) -> Iterator[tuple[str, str]]:
    """Access logs in files that a proxy may not be able to open."""
    files = [("accessLogFile", mesh.get("accessLogFile"))]
    for i, provider in enumerate(mesh.get("extensionProviders") or []):
        files.append((f"extensionProviders[{i}].envoyFileAccessLog.path", dig(provider, "envoyFileAccessLog", "path")))
    for path, file in files:
        if file and not file.startswith("/dev/"):  # the root directory of sidecars and gateways is read-only
            yield path, f"{file}: where a proxy cannot open this file, it takes no listener at all; use /dev/stdout"
