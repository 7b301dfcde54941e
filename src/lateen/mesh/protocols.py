"""The protocol of a port."""

from __future__ import annotations

from functools import lru_cache

from lateen.api import objects as o
from lateen.api.networking import SidecarPort
from lateen.api.reading import declared_protocol

_HANDLED = {"grpc-web": "http", "http_proxy": "http", "https": "tls", "mysql": "tcp", "hbone": "auto", "": "auto"}
"""What a port declares -> as what it is handled, where that differs."""
HTTP = ("http", "http2", "grpc")
REQUESTS = (*HTTP, "auto")
"""Those of ports that may have requests."""


@lru_cache(maxsize=16384)
def protocol(port: o.ServicePort) -> str:
    """``http``, ``http2``, ``grpc``, ``tcp``, ``tls``, ``mongo``, ``redis``, ``udp`` or ``auto`` (to be detected)."""
    if port.app_protocol == "auto":
        return "auto"
    declared = declared_protocol(port.port, port.protocol, port.name, port.app_protocol)
    return _HANDLED.get(declared, declared)


def of_listener(port: SidecarPort) -> str:
    """The protocol of a Sidecar's listener, likewise."""
    target, declared = port.target_port or port.number, port.protocol.lower() or "auto"
    return protocol(o.ServicePort(port.name, port.number, target, "TCP", declared))
