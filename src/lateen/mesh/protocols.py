"""The protocol of a port."""

from __future__ import annotations

from functools import lru_cache

from lateen.api import objects as o

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
"""Ports of server-first protocols, where detection would wait in vain for the client's first bytes."""
HTTP = ("http", "http2", "grpc")


@lru_cache(maxsize=16384)
def protocol(port: o.ServicePort) -> str:
    """``http``, ``http2``, ``grpc``, ``tcp``, ``tls``, ``mongo``, ``redis``, ``udp`` or ``auto`` (to be detected):
    by appProtocol, then by the port's name, as in Istio."""
    if port.protocol != "TCP":
        return "udp"
    if port.app_protocol:
        return _PROTOCOLS.get(port.app_protocol.lower(), "tcp")
    name = port.name.lower()
    for prefix in _BY_NAME:
        if name == prefix or name.startswith(prefix + "-"):
            return _PROTOCOLS[prefix]
    return "auto" if port.port not in SERVER_FIRST else "tcp"
