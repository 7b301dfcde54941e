"""What the mesh is made of: its configuration, every typed object, and the protocols of ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from lateen.api import objects as o
from lateen.api.ingress import Ingress, IngressClass
from lateen.api.mesh import ExtensionProvider
from lateen.api.mesh import ProxyConfig as ProxySettings
from lateen.api.networking import (
    DestinationRule,
    EnvoyFilter,
    Gateway,
    LocalityLb,
    ProxyConfig,
    ServiceEntry,
    Sidecar,
    VirtualService,
    WorkloadEntry,
    WorkloadGroup,
)
from lateen.api.security import AuthorizationPolicy, PeerAuthentication

Key = tuple[str, str]
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MeshConfig:
    """The parts of Istio's MeshConfig that have an effect, and Lateen's own switches."""

    access_log_file: str = ""
    access_log_format: str = ""
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    extension_providers: tuple[ExtensionProvider, ...] = field(default=(), hash=False)
    """Who is asked by AuthorizationPolicies with action CUSTOM."""
    root_namespace: str = "istio-system"
    outbound_policy: str = "ALLOW_ANY"
    telemetry: str = "full"
    """``full``: Istio's standard metrics with all labels; ``lean``: fewer histograms and tags, no per-request log."""
    http2: bool = True
    """HTTP/2 between sidecars (Istio's default is HTTP/1.1)."""
    connect_timeout_s: float = 10.0
    egress_proxy: str = ""
    """The cluster that unknown hosts are reached through (a Sidecar's outboundTrafficPolicy.egressProxy)."""
    locality: LocalityLb | None = field(default=None, hash=False)
    """For services whose rules say nothing of localities."""
    concurrency: int = 2
    """Of proxies: threads of Envoy."""
    environment: tuple[tuple[str, str], ...] = ()
    """Of proxies: ``defaultConfig.proxyMetadata``."""
    proxy: ProxySettings = field(default=ProxySettings(), hash=False)
    """``defaultConfig``; what it means for one proxy is in ``mesh.proxies``."""
    redis_filter: bool = False
    """Whether ports of protocol redis get Envoy's Redis proxy instead of plain connections."""
    h2_upgrade: bool = False
    """HTTP/2 to every service whose rule does not forbid it."""
    dns_refresh_s: float = 60.0
    ingress_class: str = "istio"
    ingress_mode: str = "STRICT"
    ingress_selector: str = "ingressgateway"


@dataclass(frozen=True)
class Objects:
    """Every typed object that the mesh is made of."""

    config: MeshConfig = MeshConfig()
    services: Mapping[Key, o.Service] = field(default_factory=dict)
    slices: Mapping[Key, tuple[str, Mapping[str, tuple[o.Endpoint, ...]]]] = field(default_factory=dict)
    """EndpointSlice -> (service name, endpoints by port name)"""
    pods: Mapping[Key, o.Pod] = field(default_factory=dict)
    virtual_services: Mapping[Key, o.Resource[VirtualService]] = field(default_factory=dict)
    destination_rules: Mapping[Key, o.Resource[DestinationRule]] = field(default_factory=dict)
    gateways: Mapping[Key, o.Resource[Gateway]] = field(default_factory=dict)
    peer_authentications: Mapping[Key, o.Resource[PeerAuthentication]] = field(default_factory=dict)
    authorization_policies: Mapping[Key, o.Resource[AuthorizationPolicy]] = field(default_factory=dict)
    credentials: Mapping[Key, o.Credential] = field(default_factory=dict)
    service_entries: Mapping[Key, o.Resource[ServiceEntry]] = field(default_factory=dict)
    workload_entries: Mapping[Key, o.Resource[WorkloadEntry]] = field(default_factory=dict)
    workload_groups: Mapping[Key, o.Resource[WorkloadGroup]] = field(default_factory=dict)
    sidecars: Mapping[Key, o.Resource[Sidecar]] = field(default_factory=dict)
    envoy_filters: Mapping[Key, o.Resource[EnvoyFilter]] = field(default_factory=dict)
    proxy_configs: Mapping[Key, o.Resource[ProxyConfig]] = field(default_factory=dict)
    ingresses: Mapping[Key, o.Resource[Ingress]] = field(default_factory=dict)
    ingress_classes: Mapping[Key, o.Resource[IngressClass]] = field(default_factory=dict)

    def put(self, collection: str, key: Key, value: Any) -> Objects:
        """With one object replaced, or removed where ``value`` is None."""
        found = dict(getattr(self, collection))
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
        return replace(self, **{collection: found})  # type: ignore[arg-type]


COLLECTIONS = tuple(f.name for f in fields(Objects) if f.name != "config")

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
