"""Istio's standard metrics with stock Envoy.

Of requests, a file logger tells the agent, which counts them (``wire.requests``); connections, and requests where the
agent is older, are counted by Envoy's stats logger. The values of Istio's labels come from the peer's certificate
(server side), the endpoint's metadata (client side) and, for the proxy's own workload, from the connection's filter
state (client side, see ``filters.workload``) or from the configuration itself (server side). They are joined to one
label, which the agent takes apart (``wire.labels``), unless a Telemetry changes one of them or the agent is older.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2

from lateen.api.tags import label
from lateen.mesh import observability
from lateen.mesh.observability import MetricRule, Metrics, Side
from lateen.mesh.workloads import UNKNOWN, Described, spoken
from lateen.wire import connections, labels, requests
from lateen.wire.node import own_key
from lateen.xds import access_log, pb
from lateen.xds.standard_metrics import GRPC_MESSAGES, GRPC_METRICS, HTTP_METRICS, TCP_METRICS, Metric


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _caller(key: str) -> str:
    return f"%FILTER_STATE({own_key(key)}:PLAIN)%"


def _certified(_: str) -> str:
    """The peer's description from its certificate; the agent extracts each label's part."""
    return "%DOWNSTREAM_PEER_OTHERNAME_SAN%"


def _remembered(_: str) -> str:
    """The same, as ``filters.workload.caller`` keeps it."""
    return _caller(labels.OF_DESCRIPTION)


def _nobody(_: str) -> str:
    """Without mutual TLS nothing is known of the client."""
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
        return _literal(dict(self.workload)[key])

    @property
    def own_principal(self) -> str:
        return self.own("principal") if self.security == "mutual_tls" else ""


def tags(
    server: Server | None, http: bool, cluster: str, apart: bool = True, remembered: bool = False, protocol: str = ""
) -> list[tuple[str, str]]:
    """Istio's labels in Istio's order, with formats; ``server`` is None for the reporter ``source``. ``apart``:
    whether the agent takes descriptions apart; an older one can tell neither callers nor their clusters.
    ``remembered``: whether the connection's filter state has the caller; ``protocol``: of the requests, if it is known
    to be a special one."""
    source: Callable[[str], str]
    destination: Callable[[str], str]
    if server is None:
        source, destination = _caller, _endpoint
        service = {key: _cluster(key) for key in ("host", "name", "namespace")}
    else:
        known = _remembered if remembered else _certified
        source = known if apart and server.security == "mutual_tls" else _nobody
        destination = server.own
        service = {"host": server.host, "name": server.name, "namespace": server.namespace}
    here = _literal(cluster)
    of_source = f"{source(labels.OF_DESCRIPTION)}{labels.PIECE}{here}" if apart else here
    of_destination = f"{_endpoint(labels.OF_DESCRIPTION)}{labels.PIECE}{here}" if apart and server is None else here
    out = [
        ("reporter", "destination" if server else "source"),
        ("source_workload", source("workload")),
        ("source_canonical_service", source("service")),
        ("source_canonical_revision", source("revision")),
        ("source_workload_namespace", source("namespace")),
        ("source_principal", "%DOWNSTREAM_PEER_URI_SAN%" if server else _caller("principal")),
        ("source_app", source("app")),
        ("source_version", source("version")),
        ("source_cluster", of_source),
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
        ("destination_cluster", of_destination),
        ("request_protocol", protocol or ("http" if http else "tcp")),
    ]
    if http:
        out += [("response_code", "%RESPONSE_CODE%"), ("grpc_response_status", "%GRPC_STATUS_NUMBER%")]
    return [
        *out,
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("connection_security_policy", server.security if server else UNKNOWN),
    ]


MEANINGS = {
    "reporter": "`source`: reported by the client's proxy; `destination`: by the server's; gateways are sources",
    "source_workload": "the client's Deployment, StatefulSet …; `unknown` without a proxy or a description",
    "source_canonical_service": "label `service.istio.io/canonical-name`, otherwise the client's app",
    "source_canonical_revision": "`service.istio.io/canonical-revision`, otherwise its version, otherwise `latest`",
    "source_workload_namespace": "the client's namespace",
    "source_principal": "the client's identity (SPIFFE), with mutual TLS",
    "source_app": "the client's label `app.kubernetes.io/name`, otherwise `app`",
    "source_version": "its label `app.kubernetes.io/version`, otherwise `version`",
    "source_cluster": "the client's cluster",
    "destination_workload": "the server's workload",
    "destination_workload_namespace": "its namespace",
    "destination_principal": "the server's identity, with mutual TLS",
    "destination_app": "as for the source",
    "destination_version": "as for the source",
    "destination_service": "the host of the called service",
    "destination_canonical_service": "as for the source",
    "destination_canonical_revision": "as for the source",
    "destination_service_name": "the name of the service, or its host if it is outside of the mesh",
    "destination_service_namespace": "its namespace",
    "destination_cluster": "the server's cluster",
    "request_protocol": "`http`, `grpc` (if there is a gRPC status) or `tcp`",
    "response_code": "the status; 0 without a response (HTTP only)",
    "grpc_response_status": "gRPC's status (HTTP only)",
    "response_flags": "why the proxy answered or ended it: see `lateen logs --explain`",
    "connection_security_policy": "`mutual_tls`, `none`, or `unknown` where nobody answered",
}
"""For the documentation."""


def _server_principal(server: Server | None) -> str:
    if server is None:
        return "%UPSTREAM_PEER_URI_SAN%"
    return server.own_principal or UNKNOWN


def joined(server: Server | None, http: bool, cluster: str, remembered: bool = False, protocol: str = "") -> str:
    """All labels in one format, see ``wire.labels``. ``remembered``: whether the connection's filter state has whose it
    is in one text; ``protocol``: as for ``tags``."""
    identity = [_caller(labels.OF_IDENTITY)] if remembered else []
    if server is None:
        who = identity or [_caller(labels.OF_DESCRIPTION), _caller("principal")]
        who += [_endpoint(labels.OF_DESCRIPTION), "%UPSTREAM_PEER_URI_SAN%"]
        service = _cluster(labels.OF_SERVICE)
    else:
        secure = server.security == "mutual_tls"
        who = (identity or [_certified(""), "%DOWNSTREAM_PEER_URI_SAN%"]) if secure else ["", ""]
        who += [_literal(spoken(server.workload)), server.own_principal]
        service = _literal(labels.joined((server.host, server.name, server.namespace)))
    pieces = ["destination" if server else "source", _literal(cluster), *who, service]
    pieces += [protocol or "http", "%RESPONSE_CODE%", "%GRPC_STATUS_NUMBER%"] if http else ["tcp", "", ""]
    pieces += ["%RESPONSE_FLAGS%", server.security if server else ""]
    return labels.PIECE.join(pieces)


def _stat(name: str, found: list[tuple[str, str]]) -> stats_pb2.Config.Stat:
    return stats_pb2.Config.Stat(name=name, tags=[stats_pb2.Config.Tag(name=n, value_format=v) for n, v in found])


MARK = f"%ENVIRONMENT({requests.MARK})%"
VALUES = " ".join(m.value for m in HTTP_METRICS.values() if m.name in requests.HISTOGRAMS)
OF_BYTES = ("TCP_SENT_BYTES", "TCP_RECEIVED_BYTES")
NEVER_CONNECTED = "!has(upstream.local_address)"

NO_TLS = "connection.transport_failure_reason != '' && request.size == 0"
"""True of connections on which TLS with the client has failed. The inspector says of plain text, too, that it is no
TLS; but where that is taken, some of it has passed."""


@lru_cache(maxsize=4096)
def metrics(
    server: Server | None, http: bool, wanted: Metrics, cluster: str, grpc: bool = False
) -> tuple[accesslog_pb2.AccessLog, ...]:
    """The loggers of one filter chain that metrics are made of. Connections count as opened once they are connected, or
    have failed to; the bytes of those that stay open are told to the agent (``wire.connections``), or count at their
    end where it takes no reports."""
    if http:
        config = _config(server, HTTP_METRICS, True, wanted, cluster)
        if not wanted.requests:
            return (_stats(config),)
        found = [*_lines(config, VALUES)]
        if grpc:
            messages = _config(server, GRPC_METRICS, True, wanted, cluster)
            found += _lines(messages, GRPC_MESSAGES, access_log.of_grpc())
        return tuple(found)
    some = {k: _config(server, {k: m}, False, wanted, cluster) for k, m in TCP_METRICS.items()}
    opened, closed = some["TCP_OPENED_CONNECTIONS"], some["TCP_CLOSED_CONNECTIONS"]
    carried = stats_pb2.Config(stat_prefix="istio")
    for key in OF_BYTES:
        carried.counters.extend(some[key].counters)
    end = access_log.moment(connections.END)
    counted = end
    if wanted.every_s is not None:
        counted = access_log.all_of(end, access_log.lasting(connections.long_ms(wanted.every_s), longer=False))
    loggers = (
        (opened, access_log.moment("TcpUpstreamConnected")),
        (opened, access_log.all_of(end, access_log.expression(NEVER_CONNECTED))),
        (closed, end),
        (carried, counted),
    )
    out = [_stats(config, when) for config, when in loggers if config.counters]
    if carried.counters and wanted.every_s is not None:
        out.append(_told(carried, wanted.every_s))
    return tuple(out)


def _lines(
    config: stats_pb2.Config, values: str, when: accesslog_pb2.AccessLogFilter | None = None
) -> Iterator[accesslog_pb2.AccessLog]:
    """The same for an agent that counts requests: one logger for all metrics of equal labels."""
    groups: dict[tuple[tuple[str, str], ...], str] = {}
    for stat in (*(c.stat for c in config.counters), *(h.stat for h in config.histograms)):
        pairs = tuple((tag.name, tag.value_format) for tag in stat.tags)
        groups[pairs] = groups.get(pairs, "") + str(requests.KINDS.index(stat.name))
    for pairs, kinds in groups.items():
        fields = [values, kinds, *(f"{label(name)}={value}" for name, value in pairs)]
        source = substitution_format_string_pb2.SubstitutionFormatString()
        source.text_format_source.inline_string = MARK + "".join(field + MARK for field in fields) + "\n"
        made = file_pb2.FileAccessLog(path=requests.PIPE, log_format=source)
        yield accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=pb.any_of(made), filter=when)


def _told(carried: stats_pb2.Config, every_s: float) -> accesslog_pb2.AccessLog:
    """The same of connections that stay open, now and then and at their end, for the agent."""
    source = substitution_format_string_pb2.SubstitutionFormatString()
    counts = [
        [c.stat.name, c.value_format, [[tag.name, tag.value_format] for tag in c.stat.tags]] for c in carried.counters
    ]
    source.json_format.update(
        {connections.ID: "%CONNECTION_ID%", connections.WHEN: "%ACCESS_LOG_TYPE%", connections.COUNTS: counts}
    )
    config = file_pb2.FileAccessLog(path=connections.PIPE, log_format=source)
    out = accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=pb.any_of(config))
    lasting = access_log.lasting(connections.long_ms(every_s), longer=True)
    at_end = access_log.all_of(access_log.moment(connections.END), lasting)
    out.filter.or_filter.filters.extend([access_log.moment(connections.PERIODIC), at_end])
    return out


def every(wanted: Metrics | None) -> float | None:
    """Seconds between two reports of an open connection; None where nobody wants or takes them."""
    if wanted is None or all(wanted.rule(key).disabled for key in OF_BYTES):
        return None
    return wanted.every_s


def _stats(config: stats_pb2.Config, when: accesslog_pb2.AccessLogFilter | None = None) -> accesslog_pb2.AccessLog:
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.stats", typed_config=pb.any_of(config), filter=when)


def _config(
    server: Server | None, kinds: dict[str, Metric], http: bool, wanted: Metrics, cluster: str
) -> stats_pb2.Config:
    config = stats_pb2.Config(stat_prefix="istio")
    for key, metric in kinds.items():
        rule = wanted.rule(key)
        if rule.disabled or (wanted.lean and not metric.lean):
            continue
        stat = _stat(metric.name, _labels(server, http, wanted, cluster, rule))
        if metric.unit:
            unit = stats_pb2.Config.Histogram.Unit.Value(metric.unit)
            config.histograms.add(stat=stat, unit=unit, value_format=metric.value)
        elif metric.value:
            config.counters.add(stat=stat, value_format=metric.value)
        else:
            config.counters.add(stat=stat, value_fixed={"value": 1})
    return config


def _labels(
    server: Server | None, http: bool, wanted: Metrics, cluster: str, rule: MetricRule
) -> list[tuple[str, str]]:
    """With a Telemetry's ``tagOverrides``: values are CEL expressions."""
    changes = dict(rule.tags)
    remembered = http and wanted.requests
    protocol = "grpc" if rule.metric in observability.GRPC_MESSAGES else ""
    if wanted.joined and changes.keys().isdisjoint((*MEANINGS, labels.NAME)):
        found = [(labels.NAME, joined(server, http, cluster, remembered, protocol))]
    else:
        found = tags(server, http, cluster, wanted.joined, remembered, protocol)
    out = []
    for name, value in found:
        expression = changes.pop(name, "")
        if expression is not None:
            out.append((name, f"%CEL({expression})%" if expression else value))
    return [*out, *((name, f"%CEL({expression})%") for name, expression in changes.items() if expression is not None)]


def loggers(seen: Side, http: bool, server: Server | None = None, grpc: bool = False) -> list[Any]:
    """Access loggers of a filter chain; Istio's metrics come from the last ones. ``grpc``: whether they tell of the
    messages of gRPC, which a filter counts. Of connections, Envoy logs the
    beginning as well (``tcp_proxy``), which is for the metrics alone."""
    out = [made for log in seen.logs if (made := access_log.logger(log, http)) is not None]
    if not seen.metrics:
        return out
    if not http:
        end = access_log.moment(connections.END)
        out = [_only(end, log) for log in out]
    return [*out, *metrics(server, http, seen.metrics, seen.cluster, grpc)]


def refused(seen: Side) -> list[accesslog_pb2.AccessLog]:
    """A listener's own access loggers, for connections that none of its filter chains takes, such as plain text where
    mutual TLS is STRICT, as in Istio (``pilot/pkg/networking/core/accesslog.go``); and for those whose client has not
    the certificate that it should have."""
    when = access_log.either(access_log.flagged("NR"), access_log.expression(NO_TLS))
    made = (access_log.logger(access_log.of_clients(log), False) for log in seen.logs if seen.logs_refused)
    return [_only(when, log) for log in made if log is not None]


def _only(when: accesslog_pb2.AccessLogFilter, log: accesslog_pb2.AccessLog) -> accesslog_pb2.AccessLog:
    copy = accesslog_pb2.AccessLog()
    copy.CopyFrom(log)
    copy.filter.CopyFrom(access_log.all_of(when, log.filter) if log.HasField("filter") else when)
    return copy
