"""Connection pools, outlier detection and HTTP versions of a cluster."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, outlier_detection_pb2
from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from lateen.api.networking import traffic_policy as api
from lateen.api.networking.traffic_policy import MOST_PROBES, MOST_S
from lateen.mesh.routing import Sending
from lateen.xds import pb

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
PASSTHROUGH_IDLE_S = 300.0
"""The idle timeout of connections to unknown destinations, as in Istio; there may be one per address."""
UNLIMITED = 4294967295
"""Circuit breakers are open by default, as in Istio; Envoy's own limit of 1024 connections would surprise."""


def http_options(
    kind: str,
    pool: api.ConnectionPool | None = None,
    outlier: api.OutlierDetection | None = None,
    asked: Any = None,
    idle_s: float = 0,
) -> Any:
    """``h1``, ``h2`` or ``downstream`` (whatever the client speaks); ``asked``: how TLS names the server; ``idle_s``:
    the idle timeout of connections where ``pool`` has none (0: Envoy's own, one hour)."""
    http = pool.http if pool else None
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if kind == "h2":
        options.explicit_http_config.http2_protocol_options.CopyFrom(_http2(http))
    elif kind == "downstream":
        options.use_downstream_protocol_config.http_protocol_options.CopyFrom(protocol_pb2.Http1ProtocolOptions())
        options.use_downstream_protocol_config.http2_protocol_options.CopyFrom(_http2(http))
    else:
        options.explicit_http_config.http_protocol_options.CopyFrom(protocol_pb2.Http1ProtocolOptions())
    common = options.common_http_protocol_options
    idle = (http.idle_timeout if http else None) or (pool.tcp.idle_timeout if pool and pool.tcp else None)
    if idle or idle_s:
        common.idle_timeout.CopyFrom(pb.duration(idle.seconds if idle else idle_s))
    if http and http.max_requests_per_connection:
        common.max_requests_per_connection.value = http.max_requests_per_connection
    if pool and pool.tcp and pool.tcp.max_connection_duration:
        common.max_connection_duration.CopyFrom(pb.duration(pool.tcp.max_connection_duration.seconds))
    if asked is not None:
        options.upstream_http_protocol_options.CopyFrom(asked)
    if outlier and outlier.outlier_detection_http_error_codes:
        matcher = options.outlier_detection.error_matcher
        codes = outlier.outlier_detection_http_error_codes
        for code in codes:
            rule = matcher if len(codes) == 1 else matcher.or_match.rules.add()  # an "or" needs at least two rules
            rule.http_response_headers_match.headers.add(name=":status").string_match.exact = str(code)
    return pb.any_of(options)


def _http2(pool: api.HttpPool | None) -> protocol_pb2.Http2ProtocolOptions:
    """HTTP/2 settings; upgrades such as WebSocket use extended CONNECT. As with requests (``listeners.http``), a
    response with an invalid header resets its own stream and leaves others on the connection alone."""
    streams = (pool and pool.max_concurrent_streams) or 1024
    out = protocol_pb2.Http2ProtocolOptions(
        allow_connect=True,
        max_concurrent_streams=pb.u32(streams),
        override_stream_error_on_invalid_http_message=pb.boolean(True),
    )
    if pool and pool.http2_keep_alive:
        alive = pool.http2_keep_alive
        if alive.interval:
            out.connection_keepalive.interval.CopyFrom(pb.duration(alive.interval.seconds))
        out.connection_keepalive.timeout.CopyFrom(pb.duration(alive.timeout.seconds if alive.timeout else 20))
    return out


def breakers(
    pool: api.ConnectionPool | None, budget: api.RetryBudget | None = None
) -> circuit_breaker_pb2.CircuitBreakers:
    http, tcp = (pool.http if pool else None), (pool.tcp if pool else None)
    limits = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=pb.u32((tcp and tcp.max_connections) or UNLIMITED),
        max_pending_requests=pb.u32((http and http.http1_max_pending_requests) or UNLIMITED),
        max_requests=pb.u32((http and http.http2_max_requests) or UNLIMITED),
        max_retries=pb.u32((http and http.max_retries) or UNLIMITED),
        track_remaining=True,
    )
    if budget is not None:
        limits.retry_budget.budget_percent.value = 20.0 if budget.percent is None else budget.percent
        if budget.min_retry_concurrency is not None:
            limits.retry_budget.min_retry_concurrency.value = budget.min_retry_concurrency
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[limits])


def budget_of(own: api.RetryBudget | None, sending: Sending | None) -> api.RetryBudget | None:
    """A DestinationRule's precedes that of a policy. Envoy counts what is active now, not what was in an interval."""
    if own is not None or sending is None or sending.retries is None:
        return own
    percent, least = sending.retries
    return api.RetryBudget(percent=percent, min_retry_concurrency=least)


def outlier_detection(found: api.OutlierDetection) -> outlier_detection_pb2.OutlierDetection:
    """Success-rate ejection is off, as in Istio; fields that are not set keep Envoy's defaults. As in Istio, 0 errors
    turn a detector off, and a 0 of other fields counts as not set (``applyOutlierDetection`` in
    pilot/pkg/networking/core)."""
    out = outlier_detection_pb2.OutlierDetection(enforcing_success_rate=pb.u32(0))
    if found.consecutive_5xx_errors is not None:
        out.consecutive_5xx.value = found.consecutive_5xx_errors
        out.enforcing_consecutive_5xx.value = 100 if found.consecutive_5xx_errors else 0
    if found.consecutive_gateway_errors is not None:
        out.consecutive_gateway_failure.value = found.consecutive_gateway_errors
        out.enforcing_consecutive_gateway_failure.value = 100 if found.consecutive_gateway_errors else 0
    if found.split_external_local_origin_errors:
        out.split_external_local_origin_errors = True
        if found.consecutive_local_origin_failures:
            out.consecutive_local_origin_failure.value = found.consecutive_local_origin_failures
            out.enforcing_consecutive_local_origin_failure.value = 100
        out.enforcing_local_origin_success_rate.value = 0
    if found.interval:
        out.interval.CopyFrom(pb.duration(found.interval.seconds))
    if found.base_ejection_time:
        out.base_ejection_time.CopyFrom(pb.duration(found.base_ejection_time.seconds))
    if found.max_ejection_percent:
        out.max_ejection_percent.value = found.max_ejection_percent
    return out


def connections(cluster: Any, pool: api.TcpPool | None, keepalive: api.TcpKeepalive | None) -> None:
    """``keepalive``: the mesh's, of which a rule overrides single fields."""
    if pool and pool.connect_timeout:
        cluster.connect_timeout.CopyFrom(pb.duration(pool.connect_timeout.seconds))
    for given in (keepalive, pool.tcp_keepalive if pool else None):
        if given is None:
            continue
        found = cluster.upstream_connection_options.tcp_keepalive
        found.SetInParent()
        if given.probes:
            found.keepalive_probes.value = min(given.probes, MOST_PROBES)
        if given.time:
            found.keepalive_time.value = min(int(given.time.seconds), MOST_S)
        if given.interval:
            found.keepalive_interval.value = min(int(given.interval.seconds), MOST_S)
