"""Clusters: one per service port and subset, those that filters and listeners name, and the fixed ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import protocol_pb2

from lateen.api.networking import traffic_policy as api
from lateen.kit.derived import derived, held
from lateen.mesh import policy
from lateen.mesh.gateway_view import GatewayServer
from lateen.mesh.outbound_view import HostView, Port
from lateen.mesh.protocols import REQUESTS
from lateen.mesh.secured import Outside
from lateen.mesh.settings import OutboundPolicy, Transport
from lateen.mesh.workloads import UNKNOWN
from lateen.wire import labels, names
from lateen.wire.resource import Resource
from lateen.xds import balancing, discovery, identities, origins, pb, pools, tls


def _outbound(view: HostView, port: Port, subset: str) -> Resource:
    found = policy.merged(view.rules, subset, port.number)
    asked = view.tls_to(port.number)
    if asked is not None:
        found = msgspec.structs.replace(found, tls=None)
    cluster, alpn, h2 = _message(view, port, subset, found)
    if asked is None:
        _transport(cluster, view, port, subset, found.tls, alpn, h2)
    else:
        cluster.transport_socket.CopyFrom(tls.to_backend(asked, view.certificate, h2, view.transport.tls))
    if found.proxy_protocol:
        tls.with_proxy_protocol(cluster, found.proxy_protocol.version or "V1")
    return _resource(cluster, view)


def _resource(cluster: Any, view: HostView) -> Resource:
    return pb.resource(cluster.name, cluster, (*(str(dr.ref) for dr in view.rules), *view.origins))


def subsets(view: HostView) -> list[str]:
    """Names of subsets; the empty name stands for the whole service and comes first."""
    return list(dict.fromkeys(["", *(s.name for dr in view.rules for s in dr.spec.subsets)]))


def _message(view: HostView, port: Port, subset: str, found: api.TrafficPolicy) -> tuple[Any, tuple[str, ...], bool]:
    """The cluster without its transport socket, the ALPN values of mesh TLS, and whether it speaks HTTP/2 alone."""
    pool = found.connection_pool
    http = port.protocol in REQUESTS
    meshed = view.secured(port.number, subset).meshed
    as_client = bool(pool and pool.http and pool.http.use_client_protocol)
    h2 = not as_client and _is_http2(port, pool, view.transport, meshed)
    cluster = cluster_pb2.Cluster(
        name=names.outbound(view.host, port.number, subset),
        connect_timeout=pb.duration(view.transport.connect_timeout_s),
        circuit_breakers=pools.breakers(pool, pools.budget_of(found.retry_budget, view.sending)),
        metadata=_metadata(view),
    )
    balancing.apply(cluster, found.load_balancer)
    discovery.apply(cluster, view, port, subset)
    if view.weighted:
        balancing.by_locality(cluster)
    pools.connections(cluster, pool.tcp if pool else None, view.transport.keepalive)
    if pattern := view.transport.stat_names.outbound:
        cluster.alt_stat_name = stat_name(pattern, view.host, view.name, view.namespace, port, subset)
    if found.outlier_detection:
        cluster.outlier_detection.CopyFrom(pools.outlier_detection(found.outlier_detection))
        # like Istio, disable the panic threshold with outlier detection; minHealthPercent restores it
        cluster.common_lb_config.healthy_panic_threshold.value = found.outlier_detection.min_health_percent or 0
    if http:
        # as in Istio, gateways send HTTP/1.1 if the protocol is undeclared; within TLS, ALPN would have to announce it
        sniffed = port.protocol == "auto" and not view.forwarded and view.tls_to(port.number) is None
        kind = "h2" if h2 else "downstream" if sniffed or as_client else "h1"
        options = pools.http_options(kind, pool, found.outlier_detection, _asked(found.tls, view.sans))
        cluster.typed_extension_protocol_options[pools.HTTP_OPTIONS].CopyFrom(options)
    # On auto-detected ports the cluster's ALPN means plain TCP; requests announce HTTP themselves (see routes).
    if not http or port.protocol == "auto":
        return cluster, tls.ALPN_TCP, h2
    if h2:  # servers of gRPC without a sidecar insist on h2
        return cluster, tls.ALPN_UPGRADED if port.protocol == "http" else tls.ALPN_H2, h2
    return cluster, tls.ALPN_HTTP if as_client else tls.ALPN_H1, h2


def _is_http2(port: Port, pool: api.ConnectionPool | None, transport: Transport, meshed: str) -> bool:
    """Whether HTTP/2 is used towards servers, whatever clients use. A rule upgrades ports of unknown protocol, too,
    as in Istio; the mesh configuration does not."""
    upgrade = pool.http.h2_upgrade_policy if pool and pool.http else None
    if port.protocol in ("http2", "grpc") or upgrade == "DO_NOT_UPGRADE":
        return port.protocol in ("http2", "grpc")
    if port.protocol == "auto":
        return upgrade == "UPGRADE"
    inside = meshed == "all" and transport.http2
    return port.protocol == "http" and (upgrade == "UPGRADE" or transport.h2_upgrade or inside)


def _asked(found: api.ClientTLS | None, sans: tuple[str, ...]) -> Any:
    """With TLS origination, a request's host is the SNI unless the rule has one, and the name that the server's
    certificate must have unless SANs are configured, as in Istio."""
    if found is None or not policy.originates(found):
        return None
    unknown = not (found.subject_alt_names or sans or found.insecure_skip_verify)
    out = protocol_pb2.UpstreamHttpProtocolOptions(auto_sni=not found.sni, auto_san_validation=unknown)
    return out if out.ByteSize() else None


def stat_name(pattern: str, host: str, name: str, namespace: str, port: Port, subset: str = "", target: int = 0) -> str:
    """The name in statistics for a pattern of the mesh configuration. Services that are not from Kubernetes have no
    name but their host. Source: ``BuildStatPrefix`` in pilot/pkg/networking/telemetry."""
    values = {
        "%SERVICE%": host if name == host else f"{name}.{namespace}",
        "%SERVICE_NAME%": name,
        "%SERVICE_FQDN%": host,
        "%SUBSET_NAME%": subset,
        "%TARGET_PORT%": str(target),
        "%SERVICE_PORT%": str(port.number),
        "%SERVICE_PORT_NAME%": port.name,
    }
    for variable, value in values.items():
        pattern = pattern.replace(variable, value)
    return pattern


def _service(host: str, name: str, namespace: str = UNKNOWN) -> dict[str, str]:
    found = dict(zip(labels.SERVICE, (host, name, namespace), strict=True))
    return {**found, labels.OF_SERVICE: labels.joined(tuple(found.values()))}


def _metadata(view: HostView) -> Any:
    """The service, for telemetry; and the DestinationRule, which istioctl shows."""
    service = _service(view.host, view.name, view.namespace)
    if not view.rules:
        return pb.metadata(lateen=service)
    return pb.metadata(lateen=service, istio={"config": origins.path(view.rules[0].ref)})


def _transport(
    cluster: Any,
    view: HostView,
    port: Port,
    subset: str,
    found: api.ClientTLS | None,
    alpn: tuple[str, ...],
    h2: bool,
) -> None:
    """Automatic mutual TLS, decided per endpoint unless all endpoints are alike or the rule decides."""
    if found is not None and found.mode == "DISABLE":
        return
    if found is not None and policy.originates(found):
        cluster.transport_socket.CopyFrom(tls.originate(found, view.host, view.sans, h2, view.transport))
        return
    secured = view.secured(port.number, subset)
    # the rule's names take precedence over the service's: a gateway selects its server by SNI
    sni = (found.sni if found else "") or names.sni(view.host, port.number, subset)
    mesh_tls = tls.upstream(alpn, sni, view.transport, identities.expected(view, secured, found))
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
    return tuple(_outbound(view, port, subset) for port in view.ports for subset in subsets(view))


def by_sni(view: HostView) -> tuple[Resource, ...]:
    """For AUTO_PASSTHROUGH: the host's clusters, named by the SNI of mesh TLS, which passes through.

    Their endpoints have these names, too, since Envoy does not subscribe again to what another cluster has."""
    if view.external or view.resolution in ("RULES", "HEADLESS"):
        return ()
    out = []
    for port in view.ports:
        for subset in subsets(view):
            cluster, _, _ = _message(view, port, subset, policy.merged(view.rules, subset, port.number))
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
    return pb.resource(out.name, out, (str(found.route.rule),) if found.route else ())


def of_login(server: Outside, transport: Transport) -> Resource:
    """The cluster of an OIDC provider outside of the mesh, verified with the system's CA certificates."""
    out = cluster_pb2.Cluster(
        name=names.login(*server), type="STRICT_DNS", connect_timeout=pb.duration(transport.connect_timeout_s)
    )
    out.load_assignment.cluster_name = out.name
    found = out.load_assignment.endpoints.add().lb_endpoints.add()
    found.endpoint.address.CopyFrom(pb.address(server.host, server.port))
    out.dns_lookup_family = cluster_pb2.Cluster.DnsLookupFamily.Value("V4_PREFERRED")
    out.metadata.CopyFrom(pb.metadata(lateen=_service(server.host, server.host)))
    if server.tls:
        out.transport_socket.CopyFrom(
            tls.originate(
                api.ClientTLS(mode="SIMPLE", sni=server.host), server.host, (server.host,), False, transport, True
            )
        )
    return pb.resource(out.name, out)


@held
def resolving(given: OutboundPolicy) -> Resource:
    """The cluster for requests to unknown hosts, which Envoy resolves (``ALLOW_ANY_DYNAMIC_DNS``)."""
    assert given.transport is not None
    out = cluster_pb2.Cluster(
        name=names.DYNAMIC,
        connect_timeout=pb.duration(given.transport.connect_timeout_s),
        circuit_breakers=pools.breakers(None),
        metadata=pb.metadata(lateen=_service(names.DYNAMIC, names.DYNAMIC)),
    )
    discovery.by_request(out, given.lookup)
    pools.connections(out, None, given.transport.keepalive)
    asked = _asked(given.tls, ())
    out.typed_extension_protocol_options[pools.HTTP_OPTIONS].CopyFrom(
        pools.http_options("downstream", asked=asked, idle_s=pools.PASSTHROUGH_IDLE_S)
    )
    if given.tls is not None and given.tls.mode in ("SIMPLE", "MUTUAL"):
        out.transport_socket.CopyFrom(tls.originate(given.tls, "*", (), False, given.transport))
    return pb.resource(out.name, out)


@lru_cache(maxsize=4)
def fixed(connect_timeout: float) -> tuple[Resource, ...]:
    """The clusters for unknown destinations: PassthroughCluster and BlackHoleCluster."""
    passthrough = cluster_pb2.Cluster(
        name=names.PASSTHROUGH,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=pb.duration(connect_timeout),
        circuit_breakers=pools.breakers(None),
        metadata=pb.metadata(lateen=_service(names.PASSTHROUGH, names.PASSTHROUGH)),
    )
    passthrough.typed_extension_protocol_options[pools.HTTP_OPTIONS].CopyFrom(
        pools.http_options("downstream", idle_s=pools.PASSTHROUGH_IDLE_S)
    )
    hole = cluster_pb2.Cluster(name=names.BLACK_HOLE, type="STATIC", connect_timeout=pb.duration(connect_timeout))
    return (pb.resource(passthrough.name, passthrough), pb.resource(hole.name, hole))
