"""Access log and Istio's standard metrics, made by stock Envoy.

The stats access logger emits ``istio_requests_total`` and its relatives with Istio's labels; the values come from
the peer's headers (server side), the endpoint's metadata (client side) and, for the proxy's own workload, from the
connection's filter state (client side, see ``filters.workload``) or from the configuration itself (server side).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2
from envoy.extensions.formatter.req_without_query.v3 import req_without_query_pb2

from lateen.mesh.settings import Observability
from lateen.mesh.workloads import UNKNOWN, Described
from lateen.wire.node import PEER_FALLBACK, PEER_HEADERS, own_key
from lateen.xds import pb

FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""Istio's default text format."""


@lru_cache(maxsize=16)
def access_log(seen: Observability) -> tuple[Any, ...]:
    if not seen.access_log_file or seen.telemetry == "lean":
        return ()
    text = seen.access_log_format or FORMAT
    source = substitution_format_string_pb2.SubstitutionFormatString()
    source.text_format_source.inline_string = text if text.endswith("\n") else text + "\n"
    if "%REQ_WITHOUT_QUERY(" in text:  # the only operator in Istio's documentation that Envoy does not have built in
        formatter = req_without_query_pb2.ReqWithoutQuery()
        source.formatters.add(name="envoy.formatter.req_without_query", typed_config=pb.any_of(formatter))
    log = file_pb2.FileAccessLog(path=seen.access_log_file, log_format=source)
    return (accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=pb.any_of(log)),)


def _caller(key: str) -> str:
    return f"%FILTER_STATE({own_key(key)}:PLAIN)%"


def _peer(key: str) -> str:
    """Read from the request's headers, so that no filter has to copy them first."""
    headers = dict(PEER_HEADERS)
    fallback = f"?{headers[PEER_FALLBACK[key]]}" if key in PEER_FALLBACK else ""
    return f"%REQ({headers[key]}{fallback})%"


def _nobody(_: str) -> str:
    """Without mutual TLS the headers could be forged."""
    return UNKNOWN


def _endpoint(key: str) -> str:
    return f"%UPSTREAM_METADATA(lateen:{key})%"


def _cluster(key: str) -> str:
    return f"%CLUSTER_METADATA(lateen:{key})%"


@dataclass(frozen=True)
class Server:
    """What a server's sidecar knows of a port; constant, so that no request needs a lookup."""

    security: str
    host: str
    name: str
    namespace: str
    workload: Described
    """The one that serves the port."""

    def own(self, key: str) -> str:
        return dict(self.workload)[key].replace("%", "%%")


def _labels(server: Server | None, http: bool, cluster: str) -> list[tuple[str, str]]:
    """Istio's labels in Istio's order; ``server`` is None for the reporter ``source``."""
    source: Callable[[str], str]
    destination: Callable[[str], str]
    if server is None:
        source, destination = _caller, _endpoint
        service = {key: _cluster(key) for key in ("host", "name", "namespace")}
    else:
        source, destination = (_peer if server.security == "mutual_tls" else _nobody), server.own
        service = {"host": server.host, "name": server.name, "namespace": server.namespace}
    out = [
        ("reporter", "destination" if server else "source"),
        ("source_workload", source("workload")),
        ("source_canonical_service", source("service")),
        ("source_canonical_revision", source("revision")),
        ("source_workload_namespace", source("namespace")),
        ("source_principal", "%DOWNSTREAM_PEER_URI_SAN%" if server else _caller("principal")),
        ("source_app", source("app")),
        ("source_version", source("version")),
        ("source_cluster", cluster),
        ("destination_workload", destination("workload")),
        ("destination_workload_namespace", destination("namespace")),
        ("destination_principal", _server_principal(server)),
        ("destination_app", destination("app")),
        ("destination_version", destination("version")),
        ("destination_service", service["host"]),
        ("destination_canonical_service", destination("service")),
        ("destination_canonical_revision", destination("revision")),
        ("destination_service_name", service["name"]),
        ("destination_service_namespace", service["namespace"]),
        ("destination_cluster", cluster),
        ("request_protocol", "http" if http else "tcp"),
    ]
    if http:
        out += [("response_code", "%RESPONSE_CODE%"), ("grpc_response_status", "%GRPC_STATUS_NUMBER%")]
    return [
        *out,
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("connection_security_policy", server.security if server else UNKNOWN),
    ]


def _server_principal(server: Server | None) -> str:
    if server is None:
        return "%UPSTREAM_PEER_URI_SAN%"
    return server.own("principal") if server.security == "mutual_tls" else UNKNOWN


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


def _stat(name: str, labels: list[tuple[str, str]]) -> stats_pb2.Config.Stat:
    return stats_pb2.Config.Stat(name=name, tags=[stats_pb2.Config.Tag(name=n, value_format=v) for n, v in labels])


@lru_cache(maxsize=4096)
def metrics(server: Server | None, http: bool, lean: bool, cluster: str) -> accesslog_pb2.AccessLog:
    """The stats logger of one filter chain."""
    labels = _labels(server, http, cluster)
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


def loggers(seen: Observability, http: bool, server: Server | None = None) -> list[Any]:
    return [*access_log(seen), metrics(server, http, seen.telemetry == "lean", seen.cluster)]
