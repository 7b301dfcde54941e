"""The mesh's inputs: settings and typed objects, as an immutable value and as the tables that queries read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar, overload

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.cert_manager import Certificate, ClusterIssuer, Issuer
from lateen.api.crds import Bundle
from lateen.api.envoy_gateway import BackendTrafficPolicy
from lateen.api.extensions import TrafficExtension, WasmPlugin
from lateen.api.gateway_api import (
    BackendTLSPolicy,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    ListenerSet,
    ReferenceGrant,
    TCPRoute,
    TLSRoute,
    UDPRoute,
    XBackendTrafficPolicy,
)
from lateen.api.gateway_api import Gateway as KubernetesGateway
from lateen.api.ingress import Ingress, IngressClass
from lateen.api.kinds import GroupKind, Kind
from lateen.api.networking import (
    DestinationRule,
    EnvoyFilter,
    Gateway,
    ProxyConfig,
    ServiceEntry,
    Sidecar,
    VirtualService,
    WorkloadEntry,
    WorkloadGroup,
)
from lateen.api.security import AuthorizationPolicy, PeerAuthentication, RequestAuthentication
from lateen.api.security_policy import SecurityPolicy
from lateen.api.telemetry import Telemetry
from lateen.kit.queries import Queries
from lateen.kit.tables import Table
from lateen.mesh.authentication import KeySource
from lateen.mesh.plugins import Module, ModuleSource
from lateen.mesh.settings import DEFAULTS, MeshConfig

Key = tuple[str, str]
Labels = tuple[tuple[str, str], ...]
V = TypeVar("V")


Slice = tuple[str, Mapping[str, tuple[o.Endpoint, ...]]]
"""An EndpointSlice: its service's name, and its endpoints by port name."""


class _Of(Generic[V]):
    """Typed access to the objects of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    @overload
    def __get__(self, holder: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, holder: Objects, owner: type[Any]) -> Mapping[Key, V]: ...
    @overload
    def __get__(self, holder: Tables, owner: type[Any]) -> Table[Key, V]: ...
    def __get__(self, holder: Objects | Tables | None, owner: type[Any]) -> Self | Mapping[Key, V] | Table[Key, V]:
        return self if holder is None else holder.of(self.kind)


class _ByKind:
    """The kinds that lookups read, each as an attribute: ``objects.virtual_services``. All others of the table of kinds
    are only available with ``of``."""

    services = _Of[o.Service](kinds.SERVICE)
    slices = _Of[Slice](kinds.ENDPOINT_SLICE)
    pods = _Of[o.Pod](kinds.POD)
    credentials = _Of[o.Credential](kinds.SECRET)
    virtual_services = _Of[o.Resource[VirtualService]](kinds.VIRTUAL_SERVICE)
    destination_rules = _Of[o.Resource[DestinationRule]](kinds.DESTINATION_RULE)
    gateways = _Of[o.Resource[Gateway]](kinds.GATEWAY)
    peer_authentications = _Of[o.Resource[PeerAuthentication]](kinds.PEER_AUTHENTICATION)
    request_authentications = _Of[o.Resource[RequestAuthentication]](kinds.REQUEST_AUTHENTICATION)
    authorization_policies = _Of[o.Resource[AuthorizationPolicy]](kinds.AUTHORIZATION_POLICY)
    service_entries = _Of[o.Resource[ServiceEntry]](kinds.SERVICE_ENTRY)
    workload_entries = _Of[o.Resource[WorkloadEntry]](kinds.WORKLOAD_ENTRY)
    workload_groups = _Of[o.Resource[WorkloadGroup]](kinds.WORKLOAD_GROUP)
    sidecars = _Of[o.Resource[Sidecar]](kinds.SIDECAR)
    envoy_filters = _Of[o.Resource[EnvoyFilter]](kinds.ENVOY_FILTER)
    proxy_configs = _Of[o.Resource[ProxyConfig]](kinds.PROXY_CONFIG)
    traffic_extensions = _Of[o.Resource[TrafficExtension]](kinds.TRAFFIC_EXTENSION)
    wasm_plugins = _Of[o.Resource[WasmPlugin]](kinds.WASM_PLUGIN)
    telemetries = _Of[o.Resource[Telemetry]](kinds.TELEMETRY)
    backend_traffic_policies = _Of[o.Resource[BackendTrafficPolicy]](kinds.BACKEND_TRAFFIC_POLICY)
    security_policies = _Of[o.Resource[SecurityPolicy]](kinds.SECURITY_POLICY)
    issuers = _Of[o.Resource[Issuer]](kinds.ISSUER)
    cluster_issuers = _Of[o.Resource[ClusterIssuer]](kinds.CLUSTER_ISSUER)
    certificates = _Of[o.Resource[Certificate]](kinds.CERTIFICATE)
    ingresses = _Of[o.Resource[Ingress]](kinds.INGRESS)
    ingress_classes = _Of[o.Resource[IngressClass]](kinds.INGRESS_CLASS)
    namespaces = _Of[o.Namespace](kinds.NAMESPACE)
    kubernetes_gateways = _Of[o.Resource[KubernetesGateway]](kinds.KUBERNETES_GATEWAY)
    gateway_classes = _Of[o.Resource[GatewayClass]](kinds.GATEWAY_CLASS)
    http_routes = _Of[o.Resource[HTTPRoute]](kinds.HTTP_ROUTE)
    grpc_routes = _Of[o.Resource[GRPCRoute]](kinds.GRPC_ROUTE)
    tls_routes = _Of[o.Resource[TLSRoute]](kinds.TLS_ROUTE)
    tcp_routes = _Of[o.Resource[TCPRoute]](kinds.TCP_ROUTE)
    udp_routes = _Of[o.Resource[UDPRoute]](kinds.UDP_ROUTE)
    listener_sets = _Of[o.Resource[ListenerSet]](kinds.LISTENER_SET)
    backend_tls_policies = _Of[o.Resource[BackendTLSPolicy]](kinds.BACKEND_TLS_POLICY)
    x_backend_traffic_policies = _Of[o.Resource[XBackendTrafficPolicy]](kinds.X_BACKEND_TRAFFIC_POLICY)
    authorities = _Of[str](kinds.CONFIG_MAP)
    """CA certificates in ConfigMaps (``ca.crt``), in PEM."""
    definitions = _Of[Bundle](kinds.CRD)
    """The release of each CRD of the Gateway API in the cluster, as far as CRDs could be read."""
    reference_grants = _Of[o.Resource[ReferenceGrant]](kinds.REFERENCE_GRANT)


_NONE: Mapping[Key, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Objects(_ByKind):
    """All typed objects of the mesh, by kind and (namespace, name).

    Never changed; ``put`` and ``replaced`` return a new one, which shares the mappings of all other kinds, so that
    ``a.of(kind) is b.of(kind)`` means that nothing of that kind differs.
    """

    config: MeshConfig = DEFAULTS
    by_kind: Mapping[GroupKind, Mapping[Key, Any]] = field(default_factory=dict)
    token_keys: Mapping[KeySource, str] = field(default_factory=dict)
    """The key sets (``kit.jwks``) that istiod has fetched to verify end users' tokens; empty if fetching failed."""
    others: Mapping[str, Objects] = field(default_factory=dict)
    """Services, endpoints, pods, namespaces and nodes of the other clusters of the mesh, by cluster name."""
    modules: Mapping[ModuleSource, Module] = field(default_factory=dict)
    """The Wasm modules that istiod has fetched; ``NO_MODULE`` if fetching failed."""

    def of(self, kind: Kind) -> Mapping[Key, Any]:
        return self.by_kind.get(kind.id, _NONE)

    def put(self, kind: Kind, key: Key, value: Any) -> Objects:
        """A copy with one object replaced, or removed if ``value`` is None."""
        found = dict(self.of(kind))
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
        return self.replaced(kind, found)

    def replaced(self, kind: Kind, found: Mapping[Key, Any]) -> Objects:
        """A copy with all objects of a kind replaced."""
        return self.with_kinds({kind: found})

    def with_kinds(self, found: Mapping[Kind, Mapping[Key, Any]]) -> Objects:
        """A copy with all objects of some kinds replaced."""
        return replace(self, by_kind={**self.by_kind, **{kind.id: objects for kind, objects in found.items()}})


class Tables(_ByKind):
    """The objects of one cluster in the form that queries read: a table for each kind."""

    def __init__(self, queries: Queries, objects: Objects) -> None:
        self._tables = {kind.id: Table(queries, objects.of(kind)) for kind in kinds.TABLE.values()}

    def of(self, kind: Kind) -> Table[Key, Any]:
        return self._tables[kind.id]

    def contents(self, objects: Objects) -> Iterator[tuple[Table[Key, Any], Mapping[Key, Any]]]:
        """The contents of each table at another instant, for ``Queries.replace``."""
        return ((table, objects.by_kind.get(id_, _NONE)) for id_, table in self._tables.items())


COLLECTIONS = {name: found.kind for name, found in vars(_ByKind).items() if isinstance(found, _Of)}
"""Attribute -> kind."""
