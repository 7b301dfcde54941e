"""Sidecar: https://istio.io/latest/docs/reference/config/networking/sidecar/"""

from __future__ import annotations

from typing import Literal

from lateen.api.config import Config
from lateen.api.networking.common import Destination, LabelSelector
from lateen.api.networking.server_tls import ServerTLS
from lateen.api.networking.traffic_policy import ConnectionPool


class SidecarPort(Config):
    number: int = 0
    protocol: str = ""
    name: str = ""
    target_port: int | None = None


CaptureMode = Literal["DEFAULT", "IPTABLES", "NONE"]


class IstioIngressListener(Config):
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    default_endpoint: str = ""
    tls: ServerTLS | None = None
    connection_pool: ConnectionPool | None = None


class IstioEgressListener(Config):
    hosts: tuple[str, ...]
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"


class OutboundTrafficPolicy(Config):
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"
    egress_proxy: Destination | None = None


class Sidecar(Config):
    workload_selector: LabelSelector | None = None
    ingress: tuple[IstioIngressListener, ...] = ()
    egress: tuple[IstioEgressListener, ...] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    inbound_connection_pool: ConnectionPool | None = None
