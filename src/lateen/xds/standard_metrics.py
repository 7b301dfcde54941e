"""Istio's standard metrics, and how Envoy measures them. Source:
https://istio.io/latest/docs/reference/config/metrics/."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    name: str
    value: str
    """A format; empty for a counter of events."""
    unit: str = ""
    """Of histograms."""
    help: str = ""
    lean: bool = False
    """Also there when telemetry is lean."""


HTTP_METRICS = {
    "REQUEST_COUNT": Metric("requests_total", "", help="Requests.", lean=True),
    "REQUEST_DURATION": Metric(
        "request_duration_milliseconds", "%DURATION%", "Milliseconds", help="Request durations.", lean=True
    ),
    "REQUEST_SIZE": Metric("request_bytes", "%BYTES_RECEIVED%", "Bytes", help="Sizes of request bodies."),
    "RESPONSE_SIZE": Metric("response_bytes", "%BYTES_SENT%", "Bytes", help="Sizes of response bodies."),
}
GRPC_FILTER = "envoy.filters.http.grpc_stats"
GRPC_MESSAGES = f"%FILTER_STATE({GRPC_FILTER}:PLAIN)%"
"""What the filter has counted: messages of the request, a comma, messages of the response."""
GRPC_METRICS = {
    "GRPC_REQUEST_MESSAGES": Metric("request_messages_total", "", help="Messages of requests of gRPC."),
    "GRPC_RESPONSE_MESSAGES": Metric("response_messages_total", "", help="Messages of responses of gRPC."),
}
"""Counted when a request has ended."""
TCP_METRICS = {
    "TCP_OPENED_CONNECTIONS": Metric(
        "tcp_connections_opened_total",
        "",
        help="Connections, counted once they are connected or have failed to.",
        lean=True,
    ),
    "TCP_CLOSED_CONNECTIONS": Metric(
        "tcp_connections_closed_total", "", help="Connections, counted when they end.", lean=True
    ),
    "TCP_SENT_BYTES": Metric(
        "tcp_sent_bytes_total",
        "%BYTES_SENT%",
        help="Bytes sent to the client, counted while the connection is open.",
        lean=True,
    ),
    "TCP_RECEIVED_BYTES": Metric(
        "tcp_received_bytes_total",
        "%BYTES_RECEIVED%",
        help="Bytes received from the client, counted while the connection is open.",
        lean=True,
    ),
}
