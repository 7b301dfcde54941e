"""The protocol of a port."""

from __future__ import annotations

from functools import lru_cache

from lateen.api import objects as o
from lateen.api.reading import declared_protocol

_HANDLED = {"grpc-web": "http", "http_proxy": "http", "https": "tls", "mysql": "tcp", "hbone": "auto", "": "auto"}
"""What a port declares -> as what it is handled, where that differs."""
HTTP = ("http", "http2", "grpc")


@lru_cache(maxsize=16384)
def protocol(port: o.ServicePort) -> str:
    """``http``, ``http2``, ``grpc``, ``tcp``, ``tls``, ``mongo``, ``redis``, ``udp`` or ``auto`` (to be detected)."""
    if port.app_protocol == "auto":
        return "auto"
    declared = declared_protocol(port.port, port.protocol, port.name, port.app_protocol)
    return _HANDLED.get(declared, declared)
