"""Clusters: one per service port and subset, one per port of the workload, and the fixed ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, protocol_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from lateen.api.networking import traffic_policy as api
from lateen.kit.derived import derived
from lateen.mesh import policy
from lateen.mesh.protocols import HTTP
from lateen.mesh.routing import Sending
from lateen.mesh.secured import Outside
from lateen.mesh.view import GatewayServer, HostView, InboundPort, InboundView, Port
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import balancing, discovery, pb, tls

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
PASSTHROUGH_IDLE_S = 300.0
"""Idle connections to unknown destinations end after this time, as in Istio; there may be one for every address."""
CLEANUP_S = 60.0
"""How long an ORIGINAL_DST cluster of the workload keeps a destination without connections (Istio; Envoy: 5 s)."""
UNLIMITED = 4294967295
"""Circuit breakers are open by default, as in Istio; Envoy's own limit of 1024 connections would surprise."""
LOOP_GUARD = "127.0.0.6"
"""Source address of connections to the application, so that they are not captured again (Istio's)."""


def _http_options(
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
    """HTTP/2 settings; upgrades such as WebSocket use extended CONNECT."""
    streams = (pool and pool.max_concurrent_streams) or 1024
    out = protocol_pb2.Http2ProtocolOptions(allow_connect=True, max_concurrent_streams=pb.u32(streams))
    if pool and pool.http2_keep_alive:
        alive = pool.http2_keep_alive
        if alive.interval:
            out.connection_keepalive.interval.CopyFrom(pb.duration(alive.interval.seconds))
        out.connection_keepalive.timeout.CopyFrom(pb.duration(alive.timeout.seconds if alive.timeout else 20))
    return out


def _breakers(
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


def _budget(own: api.RetryBudget | None, sending: Sending | None) -> api.RetryBudget | None:
    """A DestinationRule's precedes that of a policy. Envoy counts what is active now, not what was in an interval."""
    if own is not None or sending is None or sending.retries is None:
        return own
    percent, least = sending.retries
    return api.RetryBudget(percent=percent, min_retry_concurrency=least)


def _outlier(found: api.OutlierDetection) -> outlier_detection_pb2.OutlierDetection:
    """Success-rate ejection is off, as in Istio; fields that are not set keep Envoy's defaults."""
    out = outlier_detection_pb2.OutlierDetection(enforcing_success_rate=pb.u32(0))
    if found.consecutive_5xx_errors is not None:
        out.consecutive_5xx.value = found.consecutive_5xx_errors
        out.enforcing_consecutive_5xx.value = 100 if found.consecutive_5xx_errors else 0
    if found.consecutive_gateway_errors is not None:
        out.consecutive_gateway_failure.value = found.consecutive_gateway_errors
        out.enforcing_consecutive_gateway_failure.value = 100 if found.consecutive_gateway_errors else 0
    if found.split_external_local_origin_errors:
        out.split_external_local_origin_errors = True
        if found.consecutive_local_origin_failures is not None:
            out.consecutive_local_origin_failure.value = found.consecutive_local_origin_failures
            out.enforcing_consecutive_local_origin_failure.value = 100 if found.consecutive_local_origin_failures else 0
        out.enforcing_local_origin_success_rate.value = 0
    if found.interval:
        out.interval.CopyFrom(pb.duration(found.interval.seconds))
    if found.base_ejection_time:
        out.base_ejection_time.CopyFrom(pb.duration(found.base_ejection_time.seconds))
    if found.max_ejection_percent is not None:
        out.max_ejection_percent.value = found.max_ejection_percent
    return out


def _outbound(view: HostView, port: Port, subset: str) -> Resource:
    found = policy.merged(view.rules, subset, port.number)
    asked = view.tls_to(port.number)
    if asked is not None:
        found = msgspec.structs.replace(found, tls=None)
    cluster, alpn = _message(view, port, subset, found)
    if asked is None:
        _transport(cluster, view, port, subset, found.tls, alpn)
    else:
        cluster.transport_socket.CopyFrom(tls.to_backend(asked, view.certificate, alpn == tls.ALPN_H2))
    if found.proxy_protocol:
        tls.with_proxy_protocol(cluster, found.proxy_protocol.version or "V1")
    return _resource(cluster, view)


def _resource(cluster: Any, view: HostView) -> Resource:
    return pb.resource(cluster.name, cluster, (*(str(dr.ref) for dr in view.rules), *view.origins))


def _subsets(view: HostView) -> list[str]:
    """Names of subsets; the empty name stands for the whole service and comes first."""
    return list(dict.fromkeys(["", *(s.name for dr in view.rules for s in dr.spec.subsets)]))


def _message(view: HostView, port: Port, subset: str, found: api.TrafficPolicy) -> tuple[Any, tuple[str, ...]]:
    """The cluster without its transport socket, and the ALPN values of mesh TLS."""
    pool = found.connection_pool
    http = port.protocol in (*HTTP, "auto")
    meshed = view.secured(port.number, subset).meshed
    upgrade = pool.http.h2_upgrade_policy if pool and pool.http else None
    wanted = upgrade == "UPGRADE" or (view.transport.h2_upgrade and upgrade != "DO_NOT_UPGRADE")
    h2 = (
        port.protocol in ("http2", "grpc")
        or (port.protocol == "http" and wanted)
        or (port.protocol == "http" and meshed == "all" and view.transport.http2 and upgrade != "DO_NOT_UPGRADE")
    )
    cluster = cluster_pb2.Cluster(
        name=names.outbound(view.host, port.number, subset),
        connect_timeout=pb.duration(view.transport.connect_timeout_s),
        circuit_breakers=_breakers(pool, _budget(found.retry_budget, view.sending)),
        metadata=_metadata(view),
    )
    balancing.apply(cluster, found.load_balancer)
    discovery.apply(cluster, view, port, subset)
    if view.weighted:
        balancing.by_locality(cluster)
    if pool and pool.tcp:
        _connections(cluster, pool.tcp)
    if found.outlier_detection:
        cluster.outlier_detection.CopyFrom(_outlier(found.outlier_detection))
        # Istio turns the panic threshold off where hosts are ejected; minHealthPercent brings it back.
        cluster.common_lb_config.healthy_panic_threshold.value = found.outlier_detection.min_health_percent or 0
    if http:
        # As in Istio, gateways send HTTP/1.1 where nobody names the protocol; within TLS, ALPN would have to say it.
        sniffed = port.protocol == "auto" and not view.forwarded and view.tls_to(port.number) is None
        as_client = sniffed or bool(pool and pool.http and pool.http.use_client_protocol)
        kind = "downstream" if as_client else "h2" if h2 else "h1"
        options = _http_options(kind, pool, found.outlier_detection, _asked(found.tls, view.sans))
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(options)
    # On auto-detected ports the cluster's ALPN means plain TCP; requests announce HTTP themselves (see routes).
    return cluster, tls.ALPN_H2 if h2 else tls.ALPN_H1 if http and port.protocol != "auto" else tls.ALPN_TCP


def _asked(found: api.ClientTLS | None, sans: tuple[str, ...]) -> Any:
    """With TLS origination, a request's host is the SNI unless the rule has one, and the name that the server's
    certificate must have unless SANs are configured, as in Istio."""
    if found is None or found.mode not in ("SIMPLE", "MUTUAL"):
        return None
    unknown = not (found.subject_alt_names or sans or found.insecure_skip_verify)
    out = protocol_pb2.UpstreamHttpProtocolOptions(auto_sni=not found.sni, auto_san_validation=unknown)
    return out if out.ByteSize() else None


def _connections(cluster: Any, pool: api.TcpPool) -> None:
    if pool.connect_timeout:
        cluster.connect_timeout.CopyFrom(pb.duration(pool.connect_timeout.seconds))
    if pool.tcp_keepalive is not None:
        found = cluster.upstream_connection_options.tcp_keepalive
        found.SetInParent()
        if pool.tcp_keepalive.probes:
            found.keepalive_probes.value = pool.tcp_keepalive.probes
        if pool.tcp_keepalive.time:
            found.keepalive_time.value = int(pool.tcp_keepalive.time.seconds)
        if pool.tcp_keepalive.interval:
            found.keepalive_interval.value = int(pool.tcp_keepalive.interval.seconds)


def _metadata(view: HostView) -> Any:
    """The service, for telemetry; and the DestinationRule, which istioctl shows."""
    service = {"host": view.host, "name": view.name, "namespace": view.namespace}
    if not view.rules:
        return pb.metadata(lateen=service)
    ref = view.rules[0].ref
    config = f"/apis/networking.istio.io/v1/namespaces/{ref.namespace}/destination-rule/{ref.name}"
    return pb.metadata(lateen=service, istio={"config": config})


def _transport(
    cluster: Any, view: HostView, port: Port, subset: str, found: api.ClientTLS | None, alpn: tuple[str, ...]
) -> None:
    """Automatic mutual TLS, decided per endpoint unless all endpoints are alike or the rule decides."""
    if found is not None and found.mode == "DISABLE":
        return
    if found is not None and found.mode in ("SIMPLE", "MUTUAL"):
        cluster.transport_socket.CopyFrom(tls.originate(found, view.host, view.sans, alpn == tls.ALPN_H2))
        return
    secured = view.secured(port.number, subset)
    domains = view.transport.trust_domains
    # The rule's names take precedence over the service's: a gateway chooses its server by SNI.
    sni = (found.sni if found else "") or names.sni(view.host, port.number, subset)
    sans = (found.subject_alt_names if found else ()) or tuple(
        f"spiffe://{domains[0]}/ns/{namespace}/sa/{account}" for namespace, account in secured.accounts
    )
    mesh_tls = tls.upstream(alpn, sni, domains, sans)
    meshed = secured.meshed
    if (found is not None and found.mode == "ISTIO_MUTUAL") or meshed == "all":
        cluster.transport_socket.CopyFrom(mesh_tls)
    elif meshed == "some" and cluster.type == cluster_pb2.Cluster.ORIGINAL_DST:
        return  # the endpoint is not known in advance: plain text reaches both kinds
    elif meshed == "some":
        match = cluster.transport_socket_matches.add(name="tlsMode-istio", transport_socket=mesh_tls)
        match.match.fields["tlsMode"].string_value = "istio"
        plain = cluster.transport_socket_matches.add(name="tlsMode-disabled", transport_socket=tls.raw())
        plain.match.SetInParent()


@derived
def of_host(view: HostView) -> tuple[Resource, ...]:
    if view.resolution == "RULES":
        return ()
    return tuple(_outbound(view, port, subset) for port in view.ports for subset in _subsets(view))


def by_sni(view: HostView) -> tuple[Resource, ...]:
    """For AUTO_PASSTHROUGH: the host's clusters, named by the SNI of mesh TLS, which passes through.

    Their endpoints have these names, too, since Envoy does not subscribe again to what another cluster has."""
    if view.external or view.resolution in ("RULES", "HEADLESS"):
        return ()
    out = []
    for port in view.ports:
        for subset in _subsets(view):
            cluster, _ = _message(view, port, subset, policy.merged(view.rules, subset, port.number))
            cluster.name = names.sni(view.host, port.number, subset)
            cluster.typed_extension_protocol_options.clear()
            if cluster.HasField("eds_cluster_config"):
                cluster.eds_cluster_config.service_name = cluster.name
            out.append(_resource(cluster, view))
    return tuple(out)


def of_datagrams(server: GatewayServer, connect_timeout: float) -> Resource | None:
    """The cluster of a UDP port, with the instances of each backend as a locality of its own, which has the backend's
    weight. None while nothing is routed from the port."""
    found = server.datagrams
    if found is None or not found.shares:
        return None
    out = cluster_pb2.Cluster(
        name=names.datagrams(server.target), type="STATIC", connect_timeout=pb.duration(connect_timeout)
    )
    out.common_lb_config.locality_weighted_lb_config.SetInParent()
    out.load_assignment.cluster_name = out.name
    for i, (weight, instances) in enumerate(found.shares):
        if not weight:
            continue
        group = out.load_assignment.endpoints.add(load_balancing_weight=pb.u32(weight))
        group.locality.sub_zone = str(i)
        # Localities without instances lose their share to the others; nobody listens to port 9 (discard) here.
        for address, port in [(i.address, i.port) for i in instances] or [("127.0.0.1", 9)]:
            group.lb_endpoints.add().endpoint.address.CopyFrom(pb.address(address, port))
    return pb.resource(out.name, out, tuple(map(str, found.rules)))


def of_login(server: Outside, connect_timeout: float) -> Resource:
    """A provider of logins that is no service of the mesh, verified with the authorities that the system trusts."""
    out = cluster_pb2.Cluster(
        name=names.login(*server), type="STRICT_DNS", connect_timeout=pb.duration(connect_timeout)
    )
    out.load_assignment.cluster_name = out.name
    found = out.load_assignment.endpoints.add().lb_endpoints.add()
    found.endpoint.address.CopyFrom(pb.address(server.host, server.port))
    out.dns_lookup_family = cluster_pb2.Cluster.DnsLookupFamily.Value("V4_PREFERRED")
    out.metadata.CopyFrom(pb.metadata(lateen={"host": server.host, "name": server.host, "namespace": "unknown"}))
    if server.tls:
        out.transport_socket.CopyFrom(
            tls.originate(api.ClientTLS(mode="SIMPLE", sni=server.host), server.host, (server.host,), False)
        )
    return pb.resource(out.name, out)


@lru_cache(maxsize=4)
def fixed(connect_timeout: float) -> tuple[Resource, ...]:
    """Where unknown traffic goes: PassthroughCluster and BlackHoleCluster."""
    passthrough = cluster_pb2.Cluster(
        name=names.PASSTHROUGH,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=pb.duration(connect_timeout),
        circuit_breakers=_breakers(None),
        metadata=pb.metadata(lateen={"host": names.PASSTHROUGH, "name": names.PASSTHROUGH, "namespace": "unknown"}),
    )
    passthrough.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(
        _http_options("downstream", idle_s=PASSTHROUGH_IDLE_S)
    )
    hole = cluster_pb2.Cluster(name=names.BLACK_HOLE, type="STATIC", connect_timeout=pb.duration(connect_timeout))
    return (pb.resource(passthrough.name, passthrough), pb.resource(hole.name, hole))


def of_workload(view: InboundView) -> tuple[Resource, ...]:
    """One cluster per known port of the application, and one for all other ports."""
    made = (_own(view, i) for i in view.ports)
    other = names.of_workload(names.INBOUND_PASSTHROUGH, view.seat.name)
    rest = _to_application(view, other, "downstream", idle_s=PASSTHROUGH_IDLE_S)
    return (*(pb.resource(c.name, c, view.origins) for c in made), pb.resource(rest.name, rest))


def _to_application(
    view: InboundView, name: str, kind: str, pool: api.ConnectionPool | None = None, idle_s: float = 0
) -> cluster_pb2.Cluster:
    out = cluster_pb2.Cluster(
        name=name,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=pb.duration(view.transport.connect_timeout_s),
        circuit_breakers=_breakers(pool),
        cleanup_interval=pb.duration(CLEANUP_S),
        upstream_bind_config=address_pb2.BindConfig(
            source_address=pb.address(LOOP_GUARD, 0, view.seat.network_namespace).socket_address
        ),
    )
    if kind:
        out.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(_http_options(kind, pool, idle_s=idle_s))
    if pool and pool.tcp:
        _connections(out, pool.tcp)
    return out


def _own(view: InboundView, i: InboundPort) -> Any:
    """Connections go to a Sidecar's ``defaultEndpoint`` where there is one: 127.0.0.1, 0.0.0.0 for the pod's own
    address, or a Unix socket."""
    protocol = i.port.protocol
    http = i.pool.http if i.pool else None
    if protocol not in (*HTTP, "auto"):
        kind = ""
    elif protocol == "auto" or (http and http.use_client_protocol):
        kind = "downstream"
    else:
        kind = "h1" if protocol == "http" and not (http and http.h2_upgrade_policy == "UPGRADE") else "h2"
    out = _to_application(view, names.inbound(i.port.number, view.seat.name), kind, i.pool)
    if not i.target:
        return out
    out.ClearField("cleanup_interval")
    group = out.load_assignment.endpoints.add()
    out.load_assignment.cluster_name = out.name
    out.type = cluster_pb2.Cluster.DiscoveryType.Value("STATIC")
    out.lb_policy = cluster_pb2.Cluster.LbPolicy.Value("ROUND_ROBIN")
    found = group.lb_endpoints.add().endpoint.address
    if i.target.startswith("unix://"):
        found.pipe.path = i.target.removeprefix("unix://")
        out.ClearField("upstream_bind_config")
        return out
    host, _, number = i.target.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    found.CopyFrom(pb.address(view.pod.address if host in ("0.0.0.0", "::") else host, int(number)))
    if host.startswith("127.") or host == "::1":
        out.ClearField("upstream_bind_config")
    return out
