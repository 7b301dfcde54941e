"""A proxy's ``proxyHeaders`` and ``connectionSettings`` (``mesh.handling``) in an HTTP connection manager."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.api.mesh.proxy import ConnectionSettings
from lateen.mesh.handling import PLAIN, Handling

_DETAILED = (hcm.HttpConnectionManager.APPEND_FORWARD, hcm.HttpConnectionManager.SANITIZE_SET)
_TIMES = (
    ("http_drain_timeout", "drain_timeout"),
    ("http_request_timeout", "request_timeout"),
    ("http_request_headers_timeout", "request_headers_timeout"),
    ("http_stream_idle_timeout", "stream_idle_timeout"),
)
_COMMON = (
    ("http_idle_timeout", "idle_timeout"),
    ("http_max_connection_duration", "max_connection_duration"),
    ("http_max_stream_duration", "max_stream_duration"),
)
_STREAMS = (
    ("http_max_concurrent_streams", "max_concurrent_streams"),
    ("http2_initial_stream_window_size", "initial_stream_window_size"),
    ("http2_initial_connection_window_size", "initial_connection_window_size"),
)
_ESCAPED = ("KEEP_UNCHANGED", "UNESCAPE_AND_FORWARD", "UNESCAPE_AND_REDIRECT", "REJECT_REQUEST")
"""From the weakest to the strictest"""
_UNDERSCORES = "HEADERS_WITH_UNDERSCORES_"


def apply(out: Any, wanted: Handling) -> None:
    """Apply the settings to an HTTP connection manager."""
    if wanted is PLAIN:
        return
    if not wanted.request_id:
        out.generate_request_id.value = False
        out.preserve_external_request_id = True
    if not wanted.server:
        out.server_header_transformation = hcm.HttpConnectionManager.PASS_THROUGH
    out.append_x_forwarded_port = wanted.forwarded_port
    if wanted.http10:
        out.http_protocol_options.accept_http_10 = True
    _connections(out, wanted.connections)


def _connections(out: Any, given: ConnectionSettings) -> None:
    common, streams = out.common_http_protocol_options, out.http2_protocol_options
    for target, names in ((out, _TIMES), (common, _COMMON)):
        for name, field in names:
            if (time := getattr(given, name)) is not None:
                getattr(target, field).FromNanoseconds(time.nanoseconds)
    for name, field in _STREAMS:
        if (number := getattr(given, name)) is not None:
            getattr(streams, field).value = number
    action = (given.http_headers_with_underscores_action or "").removeprefix(_UNDERSCORES)
    if action not in ("", "UNSPECIFIED"):
        chosen = protocol_pb2.HttpProtocolOptions.HeadersWithUnderscoresAction.Value(action)
        common.headers_with_underscores_action = chosen
    _paths(out, given)


def _paths(out: Any, given: ConnectionSettings) -> None:
    """Policies about paths rely on how the manager normalizes them, so the settings can only add to that."""
    actions = hcm.HttpConnectionManager.PathWithEscapedSlashesAction
    out.merge_slashes = out.merge_slashes or bool(given.http_merge_slashes)
    asked, present = given.http_path_with_escaped_slashes_action, actions.Name(out.path_with_escaped_slashes_action)
    if asked in _ESCAPED and (present not in _ESCAPED or _ESCAPED.index(asked) > _ESCAPED.index(present)):
        out.path_with_escaped_slashes_action = actions.Value(asked)


def client_certificate(out: Any, wanted: Handling, mode: str) -> None:
    """The ``server`` header, and X-Forwarded-Client-Cert. Of what the settings leave open, it has what Istio gives: the
    subject and the names, and at gateways also the certificate itself. Changes the manager."""
    out.server_name = wanted.server
    chosen = hcm.HttpConnectionManager.ForwardClientCertDetails.Value(mode)
    out.forward_client_cert_details = chosen
    if chosen not in _DETAILED:
        return
    details, asked = out.set_current_client_cert_details, wanted.details
    details.subject.value = asked.subject is not False
    details.dns = asked.dns is not False
    details.uri = asked.uri is not False
    details.cert = out.use_remote_address.value if asked.cert is None else asked.cert
    details.chain = bool(asked.chain)
