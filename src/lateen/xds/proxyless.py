"""Resources for gRPC clients without a proxy (``xds:///host:port``): the same mesh in gRPC's dialect of xDS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import api_listener_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from google.protobuf import duration_pb2

from lateen.kit.derived import derived, held
from lateen.mesh import policy
from lateen.mesh.inbound_view import Checks, InboundView
from lateen.mesh.outbound_view import HostView, OutboundView, Port
from lateen.mesh.protocols import HTTP
from lateen.wire import names
from lateen.wire.resource import Resource, ResourceSet, Sets
from lateen.xds import clusters, endpoints, identities, pb, proxyless_servers
from lateen.xds.routes import virtual_host

MILLION = 1_000_000
"""The denominator of ``pb.percent``"""


def _routes(view: HostView, port: Port) -> route_pb2.RouteConfiguration:
    out = route_pb2.RouteConfiguration(name=f"{view.host}:{port.number}")
    host = virtual_host.virtual_host(view, port)
    del host.domains[:]
    host.domains.append("*")
    host.ClearField("typed_per_filter_config")
    for route in host.routes:
        route.route.ClearField("retry_policy")  # gRPC's retry conditions are not Envoy's
        route.ClearField("typed_per_filter_config")
        _set_timeout(route)
    _set_shares(host.routes)
    out.virtual_hosts.append(host)
    return out


def _set_shares(routes: Iterable[Any]) -> None:
    """gRPC draws a number for each route, where Envoy has one for all (``virtual_host``): a share is one of what the
    routes before it with the same match have left."""
    upto: dict[bytes, float] = {}
    for route in routes:
        if not route.match.HasField("runtime_fraction"):
            continue
        share = route.match.runtime_fraction.default_value.numerator / MILLION
        rest = rc.RouteMatch()
        rest.CopyFrom(route.match)
        rest.ClearField("runtime_fraction")
        key = rest.SerializeToString(deterministic=True)
        before = upto.get(key, 0.0)
        upto[key] = share
        route.match.runtime_fraction.default_value.CopyFrom(pb.percent(100 * (share - before) / (1 - before)))


def _set_timeout(route: Any) -> None:
    """gRPC reads a route's ``max_stream_duration`` instead of its timeout (gRFC A31); 0 means no limit, as in Istio."""
    if route.HasField("route"):
        limit = duration_pb2.Duration()
        limit.CopyFrom(route.route.timeout)
        for field in ("timeout", "max_grpc_timeout", "max_stream_duration"):
            route.route.ClearField(field)
        route.route.max_stream_duration.max_stream_duration.CopyFrom(limit)


@derived
def _listener(view: HostView, port: Port) -> Resource:
    manager = hcm.HttpConnectionManager(
        route_config=_routes(view, port),
        http_filters=[hcm.HttpFilter(name="envoy.filters.http.router", typed_config=pb.any_of(router_pb2.Router()))],
    )
    name = f"{view.host}:{port.number}"
    listener = listener_pb2.Listener(
        name=name, api_listener=api_listener_pb2.ApiListener(api_listener=pb.any_of(manager))
    )
    return pb.resource(name, listener)


@held
def _cluster(name: str, secure: bool, domains: tuple[str, ...], sans: tuple[str, ...]) -> Resource:
    cluster = cluster_pb2.Cluster(
        name=name,
        type="EDS",
        lb_policy="ROUND_ROBIN",
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=pb.ads(), service_name=name),
    )
    if secure:
        cluster.transport_socket.CopyFrom(proxyless_servers.upstream(domains, sans))
    return pb.resource(name, cluster)


@derived
def _clusters(view: HostView) -> tuple[Resource, ...]:
    """With mutual TLS where a DestinationRule has ISTIO_MUTUAL, and on ports of HTTP whose endpoints all have a proxy
    or say that they take it; Istio does so only where a rule does. gRPC cannot decide for each endpoint."""
    out = []
    for port in view.ports:
        for subset in clusters.subsets(view):
            found = policy.merged(view.rules, subset, port.number).tls
            secured = view.secured(port.number, subset)
            automatic = found is None and secured.meshed == "all" and port.protocol in HTTP
            secure = automatic or (found is not None and found.mode == "ISTIO_MUTUAL")
            sans = identities.expected(view, secured, found) if secure else ()
            name = names.outbound(view.host, port.number, subset)
            out.append(_cluster(name, secure, view.transport.trust_domains if secure else (), sans))
    return tuple(out)


@derived
def generate(view: OutboundView) -> Mapping[str, Sets]:
    """Type URL -> resources, for a client of this view's namespace."""
    listeners = [_listener(h, p) for h in view.hosts for p in h.ports if p.protocol in ("grpc", "http2", "http")]
    assigned = {e.cluster: endpoints.of_cluster(e) for e in view.endpoints}
    reached = [c for h in view.hosts for c in _clusters(h) if c.name in assigned]
    return {
        names.LDS: (ResourceSet({r.name: r for r in listeners}),),
        names.CDS: (ResourceSet({r.name: r for r in reached}),),
        names.EDS: (ResourceSet(assigned),),
    }


def with_servers(found: Mapping[str, Sets], view: InboundView, checks: Checks) -> Mapping[str, Sets]:
    """The same, and the listeners of the servers of a workload."""
    return {**found, names.LDS: (*found[names.LDS], proxyless_servers.listeners(view, checks))}
