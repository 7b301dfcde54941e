"""Validation of ``proxyHeaders`` and ``connectionSettings`` in a ProxyConfig: values that Envoy rejects.

Source:
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/core/v3/protocol.proto#config-core-v3-http2protocoloptions
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api.config import Duration
from lateen.api.mesh.proxy import ConnectionSettings, ProxyConfig
from lateen.api.validate import scalars

SMALLEST_WINDOW, LARGEST = 65535, 2**31 - 1
_COUNTS = ("http_max_concurrent_streams", "listener_connection_limit", "listener_per_connection_buffer_limit_bytes")


def problems(config: ProxyConfig) -> Iterator[tuple[str, str]]:
    """(path, what is wrong with it)"""
    if config.proxy_headers and config.proxy_headers.server:
        for found in scalars.plain_value(config.proxy_headers.server.value, "proxyHeaders.server.value"):
            yield found.path, found.says
    if config.connection_settings:
        for field, says in _connections(config.connection_settings):
            yield f"connectionSettings.{field}", says


def _connections(settings: ConnectionSettings) -> Iterator[tuple[str, str]]:
    for name, wire in zip(settings.__struct_fields__, settings.__struct_encode_fields__, strict=True):
        value = getattr(settings, name)
        if isinstance(value, Duration) and value.nanoseconds < 0:
            yield wire, f'"{value}" is negative'
        elif name.endswith("window_size") and value is not None and not SMALLEST_WINDOW <= value <= LARGEST:
            yield wire, f"{value} is not between {SMALLEST_WINDOW} and {LARGEST}"
        elif name in _COUNTS and value is not None and not 1 <= value <= LARGEST:
            yield wire, f"{value} is not between 1 and {LARGEST}"
