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
SERVER_FIRST = (25, 53, 3306, 27017)
"""Ports of server-first protocols, where detection would wait in vain for the client's first bytes."""
HTTP = ("http", "http2", "grpc")


@lru_cache(maxsize=16384)
def protocol(port: o.ServicePort) -> str:
    """``http``, ``http2``, ``grpc``, ``tcp``, ``tls``, ``mongo``, ``redis``, ``udp`` or ``auto`` (to be detected):
    by appProtocol, else by the port's name, each up to its first hyphen.
    Source: ``ConvertProtocol`` in pkg/config/kube of Istio."""
    if port.protocol != "TCP":
        return "udp"
    name = (port.app_protocol or port.name).lower()
    found = _PROTOCOLS.get(name if name.startswith("kubernetes.io/") else _first(name))
    return found or ("auto" if port.port not in SERVER_FIRST else "tcp")


def _first(name: str) -> str:
    return "grpc-web" if name.startswith("grpc-web") else name.partition("-")[0]
