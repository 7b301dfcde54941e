"""The kinds that our own programs read and write, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind is addressed in the API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return "/".join(p for p in (f"{base}{where}/{self.plural}", name, subresource) if p)


NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
POD = Kind("", "v1", "pods", "Pod")
SERVICE = Kind("", "v1", "services", "Service")
ENDPOINTS = Kind("", "v1", "endpoints", "Endpoints")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
SECRET = Kind("", "v1", "secrets", "Secret")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
EVENT = Kind("", "v1", "events", "Event")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
REPLICA_SET = Kind("apps", "v1", "replicasets", "ReplicaSet")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
MUTATING_WEBHOOK = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
VALIDATING_WEBHOOK = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)
INGRESS = Kind("networking.k8s.io", "v1", "ingresses", "Ingress")
INGRESS_CLASS = Kind("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False)
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)

VIRTUAL_SERVICE = Kind("networking.istio.io", "v1", "virtualservices", "VirtualService")
DESTINATION_RULE = Kind("networking.istio.io", "v1", "destinationrules", "DestinationRule")
GATEWAY = Kind("networking.istio.io", "v1", "gateways", "Gateway")
SERVICE_ENTRY = Kind("networking.istio.io", "v1", "serviceentries", "ServiceEntry")
WORKLOAD_ENTRY = Kind("networking.istio.io", "v1", "workloadentries", "WorkloadEntry")
WORKLOAD_GROUP = Kind("networking.istio.io", "v1", "workloadgroups", "WorkloadGroup")
SIDECAR = Kind("networking.istio.io", "v1", "sidecars", "Sidecar")
ENVOY_FILTER = Kind("networking.istio.io", "v1alpha3", "envoyfilters", "EnvoyFilter")
PROXY_CONFIG = Kind("networking.istio.io", "v1beta1", "proxyconfigs", "ProxyConfig")
REQUEST_AUTHENTICATION = Kind("security.istio.io", "v1", "requestauthentications", "RequestAuthentication")
AUTHORIZATION_POLICY = Kind("security.istio.io", "v1", "authorizationpolicies", "AuthorizationPolicy")
TELEMETRY = Kind("telemetry.istio.io", "v1", "telemetries", "Telemetry")
WASM_PLUGIN = Kind("extensions.istio.io", "v1alpha1", "wasmplugins", "WasmPlugin")
TRAFFIC_EXTENSION = Kind("extensions.istio.io", "v1alpha1", "trafficextensions", "TrafficExtension")
PEER_AUTHENTICATION = Kind("security.istio.io", "v1", "peerauthentications", "PeerAuthentication")

KUBERNETES_GATEWAY = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway")

BUILT_IN = (
    NAMESPACE,
    POD,
    SERVICE,
    ENDPOINTS,
    CONFIG_MAP,
    SECRET,
    SERVICE_ACCOUNT,
    NODE,
    EVENT,
    DEPLOYMENT,
    REPLICA_SET,
    ENDPOINT_SLICE,
    ROLE,
    ROLE_BINDING,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CRD,
    MUTATING_WEBHOOK,
    VALIDATING_WEBHOOK,
    INGRESS,
    INGRESS_CLASS,
)
MESH = (
    VIRTUAL_SERVICE,
    DESTINATION_RULE,
    GATEWAY,
    SERVICE_ENTRY,
    WORKLOAD_ENTRY,
    WORKLOAD_GROUP,
    SIDECAR,
    ENVOY_FILTER,
    PROXY_CONFIG,
    PEER_AUTHENTICATION,
    REQUEST_AUTHENTICATION,
    AUTHORIZATION_POLICY,
    TELEMETRY,
    WASM_PLUGIN,
    TRAFFIC_EXTENSION,
)
