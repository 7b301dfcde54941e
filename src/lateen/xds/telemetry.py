"""Access log and Istio's standard metrics, made by stock Envoy.

The stats access logger emits ``istio_requests_total`` and its relatives with Istio's labels; the values come from
the peer's headers (server side), the endpoint's metadata (client side) and Envoy's own environment (this workload).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2

from lateen.mesh.model import MeshConfig
from lateen.wire.node import peer_variable
from lateen.xds import pb

Reporter = Literal["source", "destination"]

FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""Istio's default text format."""

UNKNOWN = "unknown"
PEER = "lateen.peer"
"""Dynamic metadata with what the peer has told of itself."""


@lru_cache(maxsize=16)
def access_log(config: MeshConfig) -> tuple[Any, ...]:
    if not config.access_log_file or config.telemetry == "lean":
        return ()
    text = config.access_log_format or FORMAT
    source = substitution_format_string_pb2.SubstitutionFormatString()
    source.text_format_source.inline_string = text if text.endswith("\n") else text + "\n"
    log = file_pb2.FileAccessLog(path=config.access_log_file, log_format=source)
    return (accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=pb.any_of(log)),)


def _self(key: str) -> str:
    return f"%ENVIRONMENT({peer_variable(key)})%"


def _peer(key: str) -> str:
    return f"%DYNAMIC_METADATA({PEER}:{key})%"


def _endpoint(key: str) -> str:
    return f"%UPSTREAM_METADATA(lateen:{key})%"


def _service(key: str) -> str:
    return f"%CLUSTER_METADATA(lateen:{key})%"


def _labels(reporter: Reporter, http: bool) -> list[tuple[str, str]]:
    """Istio's labels in Istio's order."""
    client = reporter == "source"
    source, destination = (_self, _endpoint) if client else (_peer, _self)
    out = [
        ("reporter", reporter),
        ("source_workload", source("workload")),
        ("source_canonical_service", source("service")),
        ("source_canonical_revision", source("revision")),
        ("source_workload_namespace", source("namespace")),
        ("source_principal", _self("principal") if client else "%DOWNSTREAM_PEER_URI_SAN%"),
        ("source_app", source("app")),
        ("source_version", source("version")),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", destination("workload")),
        ("destination_workload_namespace", destination("namespace")),
        ("destination_principal", "%UPSTREAM_PEER_URI_SAN%" if client else "%DOWNSTREAM_LOCAL_URI_SAN%"),
        ("destination_app", destination("app")),
        ("destination_version", destination("version")),
        ("destination_service", _service("host")),
        ("destination_canonical_service", destination("service")),
        ("destination_canonical_revision", destination("revision")),
        ("destination_service_name", _service("name")),
        ("destination_service_namespace", _service("namespace")),
        ("destination_cluster", "Kubernetes"),
        ("request_protocol", "http" if http else "tcp"),
    ]
    if http:
        out += [("response_code", "%RESPONSE_CODE%"), ("grpc_response_status", "%GRPC_STATUS_NUMBER%")]
    out += [
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("connection_security_policy", UNKNOWN if client else "%DYNAMIC_METADATA(lateen:security)%"),
    ]
    return out


_LEAN = {
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "destination_workload",
    "destination_workload_namespace",
    "destination_service_name",
    "response_code",
    "response_flags",
}


def _stat(name: str, labels: list[tuple[str, str]]) -> Any:
    return stats_pb2.Config.Stat(name=name, tags=[stats_pb2.Config.Tag(name=n, value_format=v) for n, v in labels])


@lru_cache(maxsize=64)
def metrics(reporter: Reporter, http: bool, lean: bool, security: str = "") -> Any:
    """The stats logger of one listener. ``security``: mutual_tls or none, for the server side."""
    labels = [
        (n, security if n == "connection_security_policy" and security else v) for n, v in _labels(reporter, http)
    ]
    if lean:
        labels = [(n, v) for n, v in labels if n in _LEAN]
    config = stats_pb2.Config(stat_prefix="istio")
    add = config.histograms.add
    unit = stats_pb2.Config.Histogram.Unit
    if http:
        config.counters.add(stat=_stat("requests_total", labels), value_fixed={"value": 1})
        add(
            stat=_stat("request_duration_milliseconds", labels),
            unit=unit.Value("Milliseconds"),
            value_format="%DURATION%",
        )
        if not lean:
            add(stat=_stat("request_bytes", labels), unit=unit.Value("Bytes"), value_format="%BYTES_RECEIVED%")
            add(stat=_stat("response_bytes", labels), unit=unit.Value("Bytes"), value_format="%BYTES_SENT%")
    else:
        config.counters.add(stat=_stat("tcp_connections_opened_total", labels), value_fixed={"value": 1})
        config.counters.add(stat=_stat("tcp_connections_closed_total", labels), value_fixed={"value": 1})
        config.counters.add(stat=_stat("tcp_sent_bytes_total", labels), value_format="%BYTES_SENT%")
        config.counters.add(stat=_stat("tcp_received_bytes_total", labels), value_format="%BYTES_RECEIVED%")
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.stats", typed_config=pb.any_of(config))


def loggers(config: MeshConfig, reporter: Reporter, http: bool, security: str = "") -> list[Any]:
    return [*access_log(config), metrics(reporter, http, config.telemetry == "lean", security)]
