"""What the mesh is made of: its configuration, every typed object, and the protocols of ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar, overload

from lateen.api import kinds
from lateen.api import objects as o
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
from lateen.api.security import AuthorizationPolicy, PeerAuthentication
from lateen.mesh.settings import DEFAULTS, MeshConfig

Key = tuple[str, str]
Labels = tuple[tuple[str, str], ...]
V = TypeVar("V")


class _Of(Generic[V]):
    """Typed access to the objects of one kind: ``objects.virtual_services``."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    @overload
    def __get__(self, objects: None, owner: type[Objects]) -> Self: ...
    @overload
    def __get__(self, objects: Objects, owner: type[Objects]) -> Mapping[Key, V]: ...
    def __get__(self, objects: Objects | None, owner: type[Objects]) -> Self | Mapping[Key, V]:
        return self if objects is None else objects.of(self.kind)


_NONE: Mapping[Key, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Objects:
    """Every typed object that the mesh is made of, by kind and (namespace, name).

    Never changed; ``put`` and ``replaced`` give another one, which shares the mappings of all other kinds, so that
    ``a.of(kind) is b.of(kind)`` says that nothing of the kind differs.
    """

    config: MeshConfig = DEFAULTS
    by_kind: Mapping[GroupKind, Mapping[Key, Any]] = field(default_factory=dict)

    services = _Of[o.Service](kinds.SERVICE)
    slices = _Of[tuple[str, Mapping[str, tuple[o.Endpoint, ...]]]](kinds.ENDPOINT_SLICE)
    """(service's name, endpoints by port name)"""
    pods = _Of[o.Pod](kinds.POD)
    credentials = _Of[o.Credential](kinds.SECRET)
    virtual_services = _Of[o.Resource[VirtualService]](kinds.VIRTUAL_SERVICE)
    destination_rules = _Of[o.Resource[DestinationRule]](kinds.DESTINATION_RULE)
    gateways = _Of[o.Resource[Gateway]](kinds.GATEWAY)
    peer_authentications = _Of[o.Resource[PeerAuthentication]](kinds.PEER_AUTHENTICATION)
    authorization_policies = _Of[o.Resource[AuthorizationPolicy]](kinds.AUTHORIZATION_POLICY)
    service_entries = _Of[o.Resource[ServiceEntry]](kinds.SERVICE_ENTRY)
    workload_entries = _Of[o.Resource[WorkloadEntry]](kinds.WORKLOAD_ENTRY)
    workload_groups = _Of[o.Resource[WorkloadGroup]](kinds.WORKLOAD_GROUP)
    sidecars = _Of[o.Resource[Sidecar]](kinds.SIDECAR)
    envoy_filters = _Of[o.Resource[EnvoyFilter]](kinds.ENVOY_FILTER)
    proxy_configs = _Of[o.Resource[ProxyConfig]](kinds.PROXY_CONFIG)
    ingresses = _Of[o.Resource[Ingress]](kinds.INGRESS)
    ingress_classes = _Of[o.Resource[IngressClass]](kinds.INGRESS_CLASS)

    def of(self, kind: Kind) -> Mapping[Key, Any]:
        return self.by_kind.get(kind.id, _NONE)

    def put(self, kind: Kind, key: Key, value: Any) -> Objects:
        """With one object replaced, or removed where ``value`` is None."""
        found = dict(self.of(kind))
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
        return self.replaced(kind, found)

    def replaced(self, kind: Kind, found: Mapping[Key, Any]) -> Objects:
        """With all objects of a kind replaced."""
        return replace(self, by_kind={**self.by_kind, kind.id: found})


COLLECTIONS = {name: found.kind for name, found in vars(Objects).items() if isinstance(found, _Of)}
"""Attribute -> its kind."""

_PROTOCOLS = {
    "http": "http",
    "http2": "http2",
    "grpc": "grpc",
    "grpc-web": "http",
    "http_proxy": "http",
    "https": "tls",
    "tcp": "tcp",
    "tls": "tls",
    "mongo": "mongo",
    "mysql": "tcp",
    "redis": "redis",
    "auto": "auto",
    "kubernetes.io/h2c": "http2",
    "kubernetes.io/ws": "http",
    "kubernetes.io/wss": "tls",
}
_BY_NAME = sorted((k for k in _PROTOCOLS if "/" not in k and k != "auto"), key=len, reverse=True)
SERVER_FIRST = (25, 53, 3306, 27017)
"""Ports where the server speaks first, so that looking at what the client sends would wait in vain."""
HTTP = ("http", "http2", "grpc")


@lru_cache(maxsize=16384)
def protocol(port: o.ServicePort) -> str:
    """``http``, ``http2``, ``grpc``, ``tcp``, ``tls``, ``mongo``, ``redis``, ``udp`` or ``auto`` (look at the bytes):
    by appProtocol and then by the port's name, as in Istio."""
    if port.protocol != "TCP":
        return "udp"
    if port.app_protocol:
        return _PROTOCOLS.get(port.app_protocol.lower(), "tcp")
    name = port.name.lower()
    for prefix in _BY_NAME:
        if name == prefix or name.startswith(prefix + "-"):
            return _PROTOCOLS[prefix]
    return "auto" if port.port not in SERVER_FIRST else "tcp"
