"""How a proxy treats the headers of requests and its clients' connections: ``proxyHeaders`` and ``connectionSettings``
of the mesh's ``defaultConfig``, each field can be overridden by the pod's own settings.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig-ProxyHeaders and
https://istio.io/latest/docs/ops/configuration/traffic-management/edge-proxy/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lateen.api.config import Config, Duration
from lateen.api.mesh import ProxyConfig
from lateen.api.mesh.proxy import ConnectionSettings, CurrentClientCertDetails, ProxyHeaders

SERVER = "istio-envoy"
"""The ``server`` header of responses, as in Istio."""
EDGE = ConnectionSettings(
    listener_per_connection_buffer_limit_bytes=32 << 10,
    http_idle_timeout=Duration("3600s"),
    http_request_timeout=Duration("300s"),
    http_request_headers_timeout=Duration("60s"),
    http_stream_idle_timeout=Duration("300s"),
    http_max_concurrent_streams=100,
    http2_initial_stream_window_size=64 << 10,
    http2_initial_connection_window_size=1 << 20,
    http_headers_with_underscores_action="HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
    http_merge_slashes=True,
    http_path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT",
)
"""The profile for proxies whose clients are not trusted."""


@dataclass(frozen=True)
class Handling:
    request_id: bool = True
    """Whether requests without x-request-id get one."""
    server: str = SERVER
    """Empty: the application's header is kept."""
    client_certificate: str = "APPEND_FORWARD"
    """How a sidecar treats X-Forwarded-Client-Cert, in Envoy's terms."""
    details: CurrentClientCertDetails = field(default=CurrentClientCertDetails(), hash=False)
    """The details of the client's certificate that are forwarded; None: as in Istio."""
    envoy_headers: bool = True
    """Whether x-envoy-* headers are added."""
    forwarded_port: bool = False
    http10: bool = False
    """Whether HTTP/1.0 is accepted (PILOT_HTTP10, ISTIO_META_HTTP10), which is answered with 426 otherwise."""
    connections: ConnectionSettings = field(default=ConnectionSettings(), hash=False)


PLAIN = Handling()


def handling(levels: Sequence[ProxyConfig]) -> Handling:
    """``levels``: the pod's own settings, then the mesh's."""
    headers = [h for level in levels if (h := level.proxy_headers) is not None]
    given = [c for level in levels if (c := level.connection_settings) is not None]
    if not headers and not given:
        return PLAIN
    server = ""
    if not _first(headers, "server", "disabled"):
        server = next((h.server.value for h in headers if h.server and h.server.value), SERVER)
    certificate = next((x for h in headers if (x := h.forwarded_client_cert) not in (None, "UNDEFINED")), None)
    return Handling(
        request_id=not _first(headers, "request_id", "disabled"),
        server=server,
        client_certificate=certificate or PLAIN.client_certificate,
        details=_details(headers),
        envoy_headers=not _first(headers, "envoy_debug_headers", "disabled"),
        forwarded_port=bool(_first(headers, "x_forwarded_port", "enabled")),
        connections=_connections(given),
    )


def _first(levels: Sequence[Config], *path: str) -> Any:
    """The value of the first level that has one."""
    for found in levels:
        value: Any = found
        for name in path:
            value = None if value is None else getattr(value, name)
        if value is not None:
            return value
    return None


def _details(headers: Sequence[ProxyHeaders]) -> CurrentClientCertDetails:
    asked = [d for h in headers if (d := h.set_current_client_cert_details) is not None]
    return CurrentClientCertDetails(**{n: _first(asked, n) for n in CurrentClientCertDetails.__struct_fields__})


def _connections(given: Sequence[ConnectionSettings]) -> ConnectionSettings:
    levels = [*given, EDGE] if _first(given, "profile") == "EDGE" else given
    return ConnectionSettings(**{name: _first(levels, name) for name in ConnectionSettings.__struct_fields__})
