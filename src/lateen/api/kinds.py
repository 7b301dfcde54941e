"""The one table of kinds: how each is addressed, and for those that the mesh reads, their types and rules.

Schemas, CRDs, validation, the ledger of effective fields, RBAC, what istiod watches, analysis and documentation loop
over ``TABLE``. Types and rules are named (``module:attribute``) and imported when first used, so that
programs that only talk to the API (the node daemon, ``lateen get``) do not load them.
"""

from __future__ import annotations

from lateen.api.kind import TABLE as TABLE
from lateen.api.kind import GroupKind as GroupKind
from lateen.api.kind import Kind as Kind
from lateen.api.kind import Ref as Ref
from lateen.api.kind import find as find
from lateen.api.kind import group_kind as group_kind
from lateen.api.kind import groups as groups
from lateen.api.kind import named as named
from lateen.api.kind import of as of
from lateen.api.kind import owned as owned
from lateen.api.kind import row
from lateen.api.kind import stranger as stranger
from lateen.api.kind import watched as watched

RBAC = "rbac.authorization.k8s.io"
ADMISSION = "admissionregistration.k8s.io"

NAMESPACE = row(Kind("", "v1", "namespaces", "Namespace", namespaced=False, watched=True))
POD = row(Kind("", "v1", "pods", "Pod", watched=True))
SERVICE = row(Kind("", "v1", "services", "Service", watched=True))
ENDPOINTS = row(Kind("", "v1", "endpoints", "Endpoints"))
CONFIG_MAP = row(Kind("", "v1", "configmaps", "ConfigMap", watched=True))
SECRET = row(Kind("", "v1", "secrets", "Secret"))
SERVICE_ACCOUNT = row(Kind("", "v1", "serviceaccounts", "ServiceAccount"))
NODE = row(Kind("", "v1", "nodes", "Node", namespaced=False, watched=True))
EVENT = row(Kind("", "v1", "events", "Event"))
DEPLOYMENT = row(Kind("apps", "v1", "deployments", "Deployment"))
REPLICA_SET = row(Kind("apps", "v1", "replicasets", "ReplicaSet"))
STATEFUL_SET = row(Kind("apps", "v1", "statefulsets", "StatefulSet"))
DAEMON_SET = row(Kind("apps", "v1", "daemonsets", "DaemonSet"))
CONTROLLER_REVISION = row(Kind("apps", "v1", "controllerrevisions", "ControllerRevision"))
REPLICATION_CONTROLLER = row(Kind("", "v1", "replicationcontrollers", "ReplicationController"))
POD_TEMPLATE = row(Kind("", "v1", "podtemplates", "PodTemplate"))
JOB = row(Kind("batch", "v1", "jobs", "Job"))
CRON_JOB = row(Kind("batch", "v1", "cronjobs", "CronJob"))
PERSISTENT_VOLUME_CLAIM = row(Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"))
PERSISTENT_VOLUME = row(Kind("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False))
STORAGE_CLASS = row(Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False))
CSI_DRIVER = row(Kind("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False))
POD_DISRUPTION_BUDGET = row(Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"))
AUTOSCALER = row(Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"))
LIMIT_RANGE = row(Kind("", "v1", "limitranges", "LimitRange"))
RESOURCE_QUOTA = row(Kind("", "v1", "resourcequotas", "ResourceQuota"))
PRIORITY_CLASS = row(Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False))
ENDPOINT_SLICE = row(Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", watched=True))
ROLE = row(Kind(RBAC, "v1", "roles", "Role"))
ROLE_BINDING = row(Kind(RBAC, "v1", "rolebindings", "RoleBinding"))
CLUSTER_ROLE = row(Kind(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False))
CLUSTER_ROLE_BINDING = row(Kind(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False))
CRD = row(Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False))
MUTATING_WEBHOOK = row(
    Kind(ADMISSION, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", namespaced=False)
)
VALIDATING_WEBHOOK = row(
    Kind(ADMISSION, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced=False)
)
ADMISSION_POLICY = row(
    Kind(ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
)
ADMISSION_POLICY_BINDING = row(
    Kind(ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False)
)
INGRESS = row(
    Kind("networking.k8s.io", "v1", "ingresses", "Ingress", spec_at="lateen.api.ingress:Ingress", watched=True)
)
INGRESS_CLASS = row(
    Kind(
        "networking.k8s.io",
        "v1",
        "ingressclasses",
        "IngressClass",
        namespaced=False,
        spec_at="lateen.api.ingress:IngressClass",
        watched=True,
    )
)
NETWORK_POLICY = row(Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"))
CERTIFICATE_REQUEST = row(
    Kind("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False)
)
LEASE = row(Kind("coordination.k8s.io", "v1", "leases", "Lease"))
BUILT_IN = tuple(TABLE.values())
"""Kubernetes' own kinds that the embedded cluster serves."""
TOKEN_REVIEW = row(Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False))
API_SERVICE = row(Kind("apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False))


def _mesh(
    group: str,
    versions: tuple[str, ...],
    plural: str,
    kind: str,
    spec: str,
    rules: str,
    *,
    short: tuple[str, ...] = (),
    columns: tuple[tuple[str, str], ...] = (),
    idle: str = "",
    namespaced: bool = True,
) -> Kind:
    """A row for one of the mesh's own kinds; the first version is the stored one."""
    return row(
        Kind(
            group,
            versions[0],
            plural,
            kind,
            namespaced=namespaced,
            versions=versions,
            short=short,
            spec_at=f"lateen.api.{spec}:{kind}",
            rules_at=f"lateen.api.validate.{rules}",
            columns=columns,
            owned=True,
            watched=True,
            idle=idle,
        )
    )


NETWORKING, SECURITY = "networking.istio.io", "security.istio.io"
EXTENSIONS = "extensions.istio.io"
_ALL, _NEW = ("v1", "v1beta1", "v1alpha3"), ("v1", "v1beta1")

VIRTUAL_SERVICE = _mesh(
    NETWORKING,
    _ALL,
    "virtualservices",
    "VirtualService",
    "networking",
    "virtual_service:virtual_service",
    short=("vs",),
    columns=(("Gateways", ".spec.gateways"), ("Hosts", ".spec.hosts")),
)
DESTINATION_RULE = _mesh(
    NETWORKING,
    _ALL,
    "destinationrules",
    "DestinationRule",
    "networking",
    "destination_rule:destination_rule",
    short=("dr",),
    columns=(("Host", ".spec.host"),),
)
GATEWAY = _mesh(NETWORKING, _ALL, "gateways", "Gateway", "networking", "gateway:gateway", short=("gw",))
SERVICE_ENTRY = _mesh(
    NETWORKING,
    _ALL,
    "serviceentries",
    "ServiceEntry",
    "networking",
    "service_entry:service_entry",
    short=("se",),
    columns=(("Hosts", ".spec.hosts"), ("Location", ".spec.location"), ("Resolution", ".spec.resolution")),
)
WORKLOAD_ENTRY = _mesh(
    NETWORKING,
    _ALL,
    "workloadentries",
    "WorkloadEntry",
    "networking",
    "workload:workload_entry",
    short=("we",),
    columns=(("Address", ".spec.address"),),
)
WORKLOAD_GROUP = _mesh(
    NETWORKING, _ALL, "workloadgroups", "WorkloadGroup", "networking", "workload:workload_group", short=("wg",)
)
SIDECAR = _mesh(NETWORKING, _ALL, "sidecars", "Sidecar", "networking", "sidecar:sidecar")
ENVOY_FILTER = _mesh(
    NETWORKING, ("v1alpha3",), "envoyfilters", "EnvoyFilter", "networking", "envoy_filter:envoy_filter"
)
PROXY_CONFIG = _mesh(NETWORKING, ("v1beta1",), "proxyconfigs", "ProxyConfig", "networking", "envoy_filter:proxy_config")
PEER_AUTHENTICATION = _mesh(
    SECURITY,
    _NEW,
    "peerauthentications",
    "PeerAuthentication",
    "security",
    "security:peer_authentication",
    short=("pa",),
    columns=(("Mode", ".spec.mtls.mode"),),
)
REQUEST_AUTHENTICATION = _mesh(
    SECURITY,
    _NEW,
    "requestauthentications",
    "RequestAuthentication",
    "security",
    "security:request_authentication",
    short=("ra",),
)
AUTHORIZATION_POLICY = _mesh(
    SECURITY,
    _NEW,
    "authorizationpolicies",
    "AuthorizationPolicy",
    "security",
    "authorization_policy:authorization_policy",
    short=("ap",),
    columns=(("Action", ".spec.action"),),
)
TELEMETRY = _mesh(
    "telemetry.istio.io",
    ("v1", "v1alpha1"),
    "telemetries",
    "Telemetry",
    "telemetry",
    "telemetry:telemetry",
    short=("telemetry",),
)
WASM_PLUGIN = _mesh(EXTENSIONS, ("v1alpha1",), "wasmplugins", "WasmPlugin", "extensions", "telemetry:wasm_plugin")
TRAFFIC_EXTENSION = _mesh(
    EXTENSIONS, ("v1alpha1",), "trafficextensions", "TrafficExtension", "extensions", "telemetry:traffic_extension"
)

ENVOY_GATEWAY = "gateway.envoyproxy.io"
BACKEND_TRAFFIC_POLICY = _mesh(
    ENVOY_GATEWAY,
    ("v1alpha1",),
    "backendtrafficpolicies",
    "BackendTrafficPolicy",
    "envoy_gateway",
    "backend_traffic:backend_traffic_policy",
    short=("btp",),
)

SECURITY_POLICY = _mesh(
    ENVOY_GATEWAY,
    ("v1alpha1",),
    "securitypolicies",
    "SecurityPolicy",
    "security_policy",
    "security_policy:security_policy",
    short=("sp",),
)

CERT_MANAGER = "cert-manager.io"
"""The group of cert-manager: its kinds are ours only if cert-manager is not installed."""
_READY = (("Ready", '.status.conditions[?(@.type=="Ready")].status'),)
ISSUER = _mesh(CERT_MANAGER, ("v1",), "issuers", "Issuer", "cert_manager", "cert_manager:issuer", columns=_READY)
CLUSTER_ISSUER = _mesh(
    CERT_MANAGER,
    ("v1",),
    "clusterissuers",
    "ClusterIssuer",
    "cert_manager",
    "cert_manager:issuer",
    columns=_READY,
    namespaced=False,
)
CERTIFICATE = _mesh(
    CERT_MANAGER,
    ("v1",),
    "certificates",
    "Certificate",
    "cert_manager",
    "cert_manager:certificate",
    short=("cert",),
    columns=(*_READY, ("Secret", ".spec.secretName"), ("Issuer", ".spec.issuerRef.name")),
)

# After Istio's, so that a bare ``Gateway`` is Istio's.
GATEWAY_API, GATEWAY_API_X = "gateway.networking.k8s.io", "gateway.networking.x-k8s.io"
GATEWAY_APIS = (GATEWAY_API, GATEWAY_API_X)
OTHERS = (*GATEWAY_APIS, CERT_MANAGER)
"""Groups whose CRDs may be missing, or installed by somebody else."""
SHARED = (*OTHERS, ENVOY_GATEWAY)
"""API groups of other projects: an object may be for another controller."""


def _gateway_api(
    versions: tuple[str, ...],
    plural: str,
    kind: str,
    rules: str,
    *,
    short: tuple[str, ...] = (),
    columns: tuple[tuple[str, str], ...] = (),
    pending: tuple[str, ...] = (),
    namespaced: bool = True,
    idle: str = "",
    group: str = GATEWAY_API,
) -> Kind:
    """A row for a kind of the Gateway API, with the versions that release 1.6 serves; the first is the stored one."""
    return row(
        Kind(
            group,
            versions[0],
            plural,
            kind,
            namespaced=namespaced,
            versions=versions,
            short=short,
            spec_at=f"lateen.api.gateway_api:{kind}",
            rules_at=f"lateen.api.validate.gateway_api.{rules}",
            columns=columns,
            owned=True,
            watched=True,
            idle=idle,
            pending=pending,
            experimental=group == GATEWAY_API_X,
        )
    )


def _condition(name: str) -> tuple[str, str]:
    return (name, f'.status.conditions[?(@.type=="{name}")].status')


_PENDING = ("Accepted", "Programmed")
_HOSTNAMES = (("Hostnames", ".spec.hostnames"),)
KUBERNETES_GATEWAY = _gateway_api(
    ("v1", "v1beta1"),
    "gateways",
    "Gateway",
    "gateway:gateway",
    short=("gtw",),
    columns=(("Class", ".spec.gatewayClassName"), ("Address", ".status.addresses[*].value"), _condition("Programmed")),
    pending=_PENDING,
)
GATEWAY_CLASS = _gateway_api(
    ("v1", "v1beta1"),
    "gatewayclasses",
    "GatewayClass",
    "gateway:gateway_class",
    short=("gc",),
    columns=(("Controller", ".spec.controllerName"), _condition("Accepted")),
    pending=("Accepted",),
    namespaced=False,
)
LISTENER_SET = _gateway_api(
    ("v1",),
    "listenersets",
    "ListenerSet",
    "gateway:listener_set",
    short=("lset",),
    columns=tuple(map(_condition, _PENDING)),
    pending=_PENDING,
)
HTTP_ROUTE = _gateway_api(("v1", "v1beta1"), "httproutes", "HTTPRoute", "routes:http_route", columns=_HOSTNAMES)
GRPC_ROUTE = _gateway_api(("v1",), "grpcroutes", "GRPCRoute", "routes:grpc_route", columns=_HOSTNAMES)
TLS_ROUTE = _gateway_api(("v1",), "tlsroutes", "TLSRoute", "routes:tls_route")
TCP_ROUTE = _gateway_api(("v1",), "tcproutes", "TCPRoute", "routes:plain_route")
UDP_ROUTE = _gateway_api(("v1",), "udproutes", "UDPRoute", "routes:plain_route")
REFERENCE_GRANT = _gateway_api(
    ("v1beta1", "v1"), "referencegrants", "ReferenceGrant", "policies:reference_grant", short=("refgrant",)
)
EVERYBODYS = (GATEWAY_CLASS, REFERENCE_GRANT)
"""The mesh's own kinds that every revision reads, whatever the object's revision label, because objects of all
revisions refer to them."""
BACKEND_TLS_POLICY = _gateway_api(
    ("v1",), "backendtlspolicies", "BackendTLSPolicy", "policies:backend_tls_policy", short=("btlspolicy",)
)
X_BACKEND_TRAFFIC_POLICY = _gateway_api(
    ("v1alpha1",),
    "xbackendtrafficpolicies",
    "XBackendTrafficPolicy",
    "policies:x_backend_traffic_policy",
    short=("xbtrafficpolicy",),
    group=GATEWAY_API_X,
)
