"""Istio's environment variables of istiod: which of them have no effect here, and what to use instead; and the values
that those with an effect may have. Pure; ``effects`` has the list of the latter.

Source: ``pilot/pkg/features``, ``pilot/pkg/bootstrap`` and ``pkg/security`` of Istio 1.31, and the notes of its
releases for those that are gone.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lateen.kit import duration
from lateen.kit.booleans import boolean
from lateen.kit.digits import digits

_TUNING = "it tunes the insides of Istio's istiod, which this one does not have"
_AMBIENT = "ambient mode is not implemented"
_ON = "it is always on"
_OFF = "it is not implemented"
_MCS = "the multi-cluster services API is not implemented"
_SAFE = "this protection is always on"
_FIXED = "the name is fixed"
_GONE = "Istio has removed it"
_DEFAULT = "Istio's default holds"
_SESSIONS = "set sessionPersistence in an HTTPRoute, or consistentHash in a DestinationRule"
_BOTH = "proxies have both families where their pods do"

_GROUPS: tuple[tuple[str, str, str], ...] = (
    (
        _TUNING,
        "",
        """
        ENABLE_LAZY_SIDECAR_EVALUATION ENABLE_LEADER_ELECTION ENABLE_VTPROTOBUF GRPC_KEEPALIVE_INTERVAL
        GRPC_KEEPALIVE_TIMEOUT ISTIO_DELTA_XDS ISTIO_ENABLE_CONTROLLER_QUEUE_METRICS ISTIO_GPRC_MAXRECVMSGSIZE
        ISTIO_GPRC_MAXSTREAMS ISTIO_KUBE_CLIENT_CONTENT_TYPE K_REVISION MUTEX_PROFILE_FRACTION
        PILOT_CONVERT_SIDECAR_SCOPE_CONCURRENCY PILOT_DEBOUNCE_AFTER PILOT_DEBOUNCE_MAX
        PILOT_DISTRIBUTION_HISTORY_RETENTION PILOT_ENABLE_CDS_CACHE PILOT_ENABLE_CONFIG_DISTRIBUTION_TRACKING
        PILOT_ENABLE_EDS_DEBOUNCE PILOT_ENABLE_RDS_CACHE PILOT_ENABLE_ROUTE_COLLAPSE_OPTIMIZATION
        PILOT_ENABLE_XDS_CACHE PILOT_ENVOY_FILTER_STATS PILOT_MAX_REQUESTS_PER_SECOND PILOT_PUSH_THROTTLE
        PILOT_STATUS_BURST PILOT_STATUS_MAX_WORKERS PILOT_STATUS_QPS PILOT_STATUS_UPDATE_INTERVAL
        PILOT_UNIFIED_SIDECAR_SCOPE PILOT_XDS_CACHE_INDEX_CLEAR_INTERVAL PILOT_XDS_CACHE_SIZE PILOT_XDS_CACHE_STATS
        PILOT_XDS_SEND_TIMEOUT UNSAFE_PILOT_ENABLE_RUNTIME_ASSERTIONS
        """,
    ),
    (
        _AMBIENT,
        "false",
        """
        AMBIENT_ENABLE_MULTI_NETWORK AMBIENT_SCOPED_ADDRESS_PUSHES CA_TRUSTED_NODE_ACCOUNTS
        ENABLE_LAYERED_WAYPOINT_AUTHORIZATION_POLICIES PILOT_ENABLE_AMBIENT PILOT_ENABLE_AMBIENT_CONTROLLERS
        PILOT_ENABLE_AMBIENT_WAYPOINTS PILOT_ENABLE_HBONE PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS
        PILOT_ENABLE_SENDING_HBONE PILOT_NODE_UNTAINT_CONTROLLERS_TAINT_NAME
        """,
    ),
    (
        _ON,
        "true",
        """
        ENABLE_AUTO_SNI ENABLE_DEBUG_ON_HTTP ENABLE_ENHANCED_DESTINATIONRULE_MERGE ENABLE_EXTERNAL_NAME_ALIAS
        ENABLE_MULTICLUSTER_HEADLESS ENABLE_SELECTOR_BASED_K8S_GATEWAY_POLICY
        ISTIO_AGENT_ENABLE_WASM_REMOTE_LOAD_CONVERSION PILOT_ENABLE_ANALYSIS
        PILOT_ENABLE_CROSS_CLUSTER_WORKLOAD_ENTRY PILOT_ENABLE_GATEWAY_API
        PILOT_ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER
        PILOT_ENABLE_GATEWAY_API_STATUS PILOT_ENABLE_IP_AUTOALLOCATE PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES
        PILOT_ENABLE_METADATA_EXCHANGE PILOT_ENABLE_SERVICEENTRY_SELECT_PODS PILOT_ENABLE_STATUS
        PILOT_ENABLE_TELEMETRY_LABEL PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION
        PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS PILOT_ENDPOINT_TELEMETRY_LABEL PILOT_USE_ENDPOINT_SLICE
        """,
    ),
    (
        _SAFE,
        "true",
        """
        ENABLE_DEBUG_ENDPOINT_AUTH ENABLE_XDS_API_GENERATOR_AUTH ISTIO_WORKLOAD_ENTRY_VALIDATE_IDENTITY
        PILOT_ENABLE_STRICT_GATEWAY_MERGING PILOT_ENABLE_XDS_IDENTITY_CHECK XDS_AUTH
        """,
    ),
    (
        _OFF,
        "false",
        """
        ENABLE_CLUSTER_TRUST_BUNDLE_API ENABLE_GATEWAY_API_INFERENCE_EXTENSION ENABLE_HCM_INTERNAL_NETWORKS
        ENABLE_LOCALITY_WEIGHTED_LB_CONFIG ENABLE_PROXY_FIND_POD_BY_IP ENABLE_WILDCARD_HOST_SERVICE_ENTRIES_FOR_TLS
        ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL LABEL_CANONICAL_SERVICES_FOR_MESH_EXTERNAL_SERVICE_ENTRIES
        LOCAL_CLUSTER_SECRET_WATCHER METRICS_LOCALHOST_ACCESS_ONLY
        PILOT_ALLOW_SIDECAR_SERVICE_INBOUND_LISTENER_MERGE PILOT_DISABLE_MX_ALPN PILOT_ENABLE_AGENTGATEWAY
        PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES PILOT_ENABLE_MYSQL_FILTER PILOT_ENABLE_QUIC_LISTENERS
        PILOT_SEND_UNHEALTHY_ENDPOINTS PILOT_SIDECAR_USE_REMOTE_ADDRESS UNSAFE_ENABLE_ADMIN_ENDPOINTS
        USE_CACERTS_FOR_SELF_SIGNED_CA USE_REMOTE_CERTS
        """,
    ),
    (
        _MCS,
        "false",
        """
        ENABLE_MCS_AUTO_EXPORT ENABLE_MCS_CLUSTER_LOCAL ENABLE_MCS_HOST ENABLE_MCS_SERVICE_DISCOVERY
        """,
    ),
    (_MCS, "", "MCS_API_GROUP MCS_API_VERSION"),
    (_BOTH, "true", "ISTIO_DUAL_STACK ISTIO_ENABLE_IPV4_OUTBOUND_LISTENER_FOR_IPV6_CLUSTERS"),
    (
        _FIXED,
        "",
        """
        INJECTION_WEBHOOK_CONFIG_NAME PILOT_CA_CERT_CONFIGMAP PILOT_CRL_CONFIGMAP PILOT_GATEWAY_API_CONTROLLER_NAME
        PILOT_GATEWAY_API_DEFAULT_GATEWAYCLASS_NAME VALIDATION_WEBHOOK_CONFIG_NAME
        """,
    ),
    (
        _GONE,
        "",
        """
        ENABLE_AUTO_MTLS_CHECK_POLICIES ENABLE_DEFERRED_CLUSTER_CREATION ENABLE_DEFERRED_STATS_CREATION
        ENABLE_DELIMITED_STATS_TAG_REGEX ENABLE_INBOUND_RETRY_POLICY ENABLE_LEGACY_FSGROUP_INJECTION
        ENABLE_LEGACY_LB_ALGORITHM_DEFAULT ENABLE_OPTIMIZED_CONFIG_REBUILD ENABLE_RESOLUTION_NONE_TARGET_PORT
        ISTIO_DEFAULT_REQUEST_TIMEOUT PERSIST_OLDEST_WINS_HEURISTIC_FOR_VIRTUAL_SERVICE_HOST_MATCHING
        PILOT_ENABLED_SERVICE_APIS PILOT_ENABLE_HEADLESS_SERVICE_POD_LISTENERS PILOT_ENABLE_INBOUND_PASSTHROUGH
        PILOT_ENABLE_LEGACY_ISTIO_MUTUAL_CREDENTIAL_NAME PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_INBOUND
        PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND PILOT_ENABLE_VIRTUAL_SERVICE_DELEGATE
        PILOT_SIDECAR_ENABLE_INBOUND_TLS_V2 PILOT_VERIFY_CERTIFICATE_AT_CLIENT UNSAFE_PILOT_ENABLE_DELTA_TEST
        """,
    ),
)
_ONE_BY_ONE: dict[str, tuple[str, str]] = {
    "AUDIENCE": ("", "tokens are for istio-ca"),
    "CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE": ("", "the key of the root is an elliptic curve's (P-256)"),
    "CLUSTER_ID": ("", "use values.global.multiCluster.clusterName"),
    "COMPLIANCE_POLICY": ("", "set meshConfig.tlsDefaults and meshConfig.meshMTLS"),
    "DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES": ("", "accounts of the control plane's namespace see everything"),
    "DISABLE_SHADOW_HOST_SUFFIX": ("true", "mirrored requests keep their host name"),
    "DISABLE_TRACK_REMAINING_CB_METRICS": ("false", "what circuit breakers have left is always counted"),
    "ENABLE_100_CONTINUE_HEADERS": ("true", "100 Continue is passed on"),
    "ENABLE_CA_SERVER": ("true", "istiod is the authority, or EXTERNAL_CA names one"),
    "ENABLE_GATEWAY_API_MANUAL_DEPLOYMENT": ("true", "Gateways may be bound to workloads by their addresses"),
    "ENABLE_TLS_ON_SIDECAR_INGRESS": ("true", "the TLS settings of a Sidecar's ingress always count"),
    "ISTIOD_CUSTOM_HOST": ("", "the certificate has the names of istiod's Services"),
    "ISTIO_MULTIROOT_MESH": ("true", "set meshConfig.caCertificates; proxies trust every root of the mesh"),
    "ISTIO_WATCH_NAMESPACE": ("", "use meshConfig.discoverySelectors"),
    "INJECT_ENABLED": ("true", "pods are injected wherever labels ask for it"),
    "JWKS_RESOLVER_INSECURE_SKIP_VERIFY": ("false", "the servers of token keys are always verified"),
    "MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP": ("1", _DEFAULT),
    "PILOT_AGENT_MERGE_ENVOY_STATS": ("true", "use meshConfig.enablePrometheusMerge"),
    "PILOT_ALLOW_ANY_DYNAMIC_DNS_MAX_HOSTS": ("", "Envoy keeps 1,024 hosts, its default"),
    "PILOT_ANALYSIS_INTERVAL": ("", "objects are analyzed when they change"),
    "PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS": ("", "endpoints that are not ready get no requests"),
    "PILOT_CERT_PROVIDER": ("istiod", "istiod signs its own certificate"),
    "PILOT_DRAINING_LABEL": ("", "endpoints drain when their pods end"),
    "PILOT_PERSISTENT_SESSION_HEADER_LABEL": ("", _SESSIONS),
    "PILOT_PERSISTENT_SESSION_LABEL": ("", _SESSIONS),
    "PILOT_DNS_CARES_UDP_MAX_QUERIES": ("", "Envoy's default is used"),
    "PILOT_DNS_JITTER_DURATION": ("", "use meshConfig.dnsRefreshRate"),
    "PILOT_ENABLE_ALPN_FILTER": ("true", "the application protocol is announced by filter state"),
    "PILOT_ENABLE_CA_CRL": ("true", "revocation lists are distributed where the CA's Secret has one"),
    "PILOT_ENABLE_MONGO_FILTER": ("true", "ports of protocol mongo get Envoy's proxy for it"),
    "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS": ("true", "a workload may have several providers"),
    "PILOT_ENABLE_PERSISTENT_SESSION_FILTER": ("false", _SESSIONS),
    "PILOT_ENABLE_REDIS_FILTER": ("", "use meshConfig.lateen.redisFilter"),
    "PILOT_ENABLE_REMOTE_CREDENTIALS_CONTROLLER": ("true", "certificates are read in the proxy's cluster"),
    "PILOT_GATEWAY_TRANSPORT_SOCKET_CONNECT_TIMEOUT": ("", "Envoy's default is used"),
    "PILOT_IGNORE_RESOURCES": ("", "every kind is served"),
    "PILOT_INCLUDE_RESOURCES": ("", "every kind is served"),
    "PILOT_IP_AUTOALLOCATE_IPV4_PREFIX": ("240.240.0.0/16", "addresses are allocated in 240.240.0.0/16"),
    "PILOT_IP_AUTOALLOCATE_IPV6_PREFIX": ("2001:2::/48", "addresses are allocated in 2001:2::/48"),
    "PILOT_JWT_ENABLE_REMOTE_JWKS": ("false", "istiod fetches the keys of tokens"),
    "PILOT_MULTICLUSTER_KUBECONFIG_PATH": ("", "other clusters are known by Secrets (create-remote-secret)"),
    "PILOT_MULTI_NETWORK_DISCOVER_GATEWAY_API": (
        "",
        "use values.global.meshNetworks, or the label of a Service",
    ),
    "PILOT_MX_ADDITIONAL_LABELS": ("", "metrics have Istio's standard labels"),
    "PILOT_REMOTE_CLUSTER_TIMEOUT": ("", "istiod does not wait for other clusters"),
    "PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE": ("true", _DEFAULT),
    "PILOT_SKIP_VALIDATE_TRUST_DOMAIN": ("false", "list the other domains in meshConfig.trustDomainAliases"),
    "PILOT_TRACE_SAMPLING": ("", "use meshConfig.defaultConfig.tracing.sampling, or a Telemetry"),
    "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD": ("", "WorkloadEntries of machines that have gone are kept for 10s"),
    "PREFER_DESTINATIONRULE_TLS_FOR_EXTERNAL_SERVICES": ("true", "the DestinationRule's settings count"),
    "RESOLVE_HOSTNAME_GATEWAYS": ("true", _DEFAULT),
    "ROOT_CA_DIR": ("", "the CA is the Secret cacerts"),
    "SHARED_MESH_CONFIG": ("", "the ConfigMap istio is the only source"),
    "TOKEN_AUDIENCES": ("istio-ca", "tokens are for istio-ca"),
    "TOKEN_ISSUER": ("", "tokens are reviewed by the API server"),
    "TRUSTED_GATEWAY_CIDR": ("", "proxies connect to istiod directly"),
    "VERIFY_CERTIFICATE_AT_CLIENT": ("true", "use meshConfig.verifyCertificateAtClient"),
    "ISTIO_WASM_MAX_BINARY_SIZE_BYTES": ("", "modules may have 32 MiB"),
}
IDLE: dict[str, tuple[str, str]] = {
    name: (same, why) for why, same, names in _GROUPS for name in names.split()
} | _ONE_BY_ONE
"""Variable -> (the value that asks for the present behaviour, empty if there is none; why it has no
effect, or what to use)."""


def _flag(text: str) -> None:
    boolean(text)


def _period(text: str) -> None:
    if duration.seconds(text) < 1:
        raise ValueError("it must be at least 1s")


def _sidecars(text: str) -> None:
    try:
        if text != "auto":
            boolean(text)
    except ValueError as e:
        raise ValueError(f"{e}, nor auto") from None


def _percent(text: str) -> None:
    if not digits(text) or not 0 < int(text) < 100:
        raise ValueError(f'"{text}" is not between 0 and 100')


CHECKS: dict[str, Callable[[str], None]] = {
    **dict.fromkeys(
        (
            "CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR",
            "EXTERNAL_ISTIOD",
            "PILOT_ENABLE_ALPHA_GATEWAY_API",
            "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER",
            "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG",
            "PILOT_HTTP10",
            "PILOT_SCOPE_GATEWAY_TO_NAMESPACE",
        ),
        _flag,
    ),
    **dict.fromkeys(
        (
            "CITADEL_SELF_SIGNED_CA_CERT_TTL",
            "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL",
            "DEFAULT_WORKLOAD_CERT_TTL",
            "LATEEN_ROOT_ANNOUNCED_FOR",
            "MAX_WORKLOAD_CERT_TTL",
            "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL",
        ),
        _period,
    ),
    "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE": _percent,
    "ENABLE_NATIVE_SIDECARS": _sidecars,
}
"""Variables that have an effect -> raises ValueError for a value with which istiod would not start."""


def text(value: Any) -> str:
    """A value of an installation as a container gets it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def wrong(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(variable, what is wrong with its value)"""
    for name, value in given.items():
        if (check := CHECKS.get(name)) is not None and value not in (None, ""):
            try:
                check(text(value))
            except ValueError as e:
                yield name, str(e)


def reason(name: str, value: Any, effective: tuple[str, ...]) -> str | None:
    """Why a variable without an effect has none; None if its value asks for what happens anyway."""
    if name not in IDLE:
        near = difflib.get_close_matches(name, [*effective, *IDLE], 1)
        return "istiod has no such variable" + (f'; did you mean "{near[0]}"?' if near else "")
    same, why = IDLE[name]
    given = text(value).lower()
    if same in ("true", "false"):
        try:
            return None if boolean(given) == (same == "true") else why
        except ValueError:
            return why
    return None if same and given == same else why
