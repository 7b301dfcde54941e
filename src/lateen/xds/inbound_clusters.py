"""Clusters of a workload itself: one per port of the application, and one for its other ports."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2

from lateen.api.networking import traffic_policy as api
from lateen.mesh.inbound_view import InboundPort, InboundView
from lateen.mesh.outbound_view import Port
from lateen.mesh.protocols import REQUESTS
from lateen.wire import names, ports
from lateen.wire.resource import Resource
from lateen.xds import clusters, pb, pools

CLEANUP_S = 60.0
"""How long an ORIGINAL_DST cluster of the workload keeps a destination without connections (Istio; Envoy: 5 s)."""


def of_workload(view: InboundView) -> tuple[Resource, ...]:
    """One cluster per known port of the application, and one for all other ports."""
    made = ((_own(view, i), i.origins) for i in view.ports)
    other = names.of_workload(names.INBOUND_PASSTHROUGH, view.seat.name)
    rest = _to_application(view, other, "downstream", idle_s=pools.PASSTHROUGH_IDLE_S)
    own = (pb.resource(c.name, c, (*view.origins, *origins)) for c, origins in made)
    return (*own, pb.resource(rest.name, rest))


def _to_application(
    view: InboundView, name: str, kind: str, pool: api.ConnectionPool | None = None, idle_s: float = 0
) -> cluster_pb2.Cluster:
    out = cluster_pb2.Cluster(
        name=name,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=pb.duration(view.transport.connect_timeout_s),
        circuit_breakers=pools.breakers(pool),
        cleanup_interval=pb.duration(CLEANUP_S),
    )
    if view.interception != "NONE":  # rules tell these connections from the application's own; ::6 comes with them
        out.upstream_bind_config.source_address.CopyFrom(_guard(view, ports.GUARD))
        if view.seat.ipv6:
            out.upstream_bind_config.extra_source_addresses.add(address=_guard(view, ports.GUARD_V6))
    if kind:
        out.typed_extension_protocol_options[pools.HTTP_OPTIONS].CopyFrom(pools.http_options(kind, pool, idle_s=idle_s))
    pools.connections(out, pool.tcp if pool else None, view.transport.keepalive)
    return out


def _guard(view: InboundView, address: str) -> Any:
    return pb.address(address, 0, view.seat.network_namespace).socket_address


def _own(view: InboundView, i: InboundPort) -> Any:
    """Connections go to a Sidecar's ``defaultEndpoint`` where there is one: 127.0.0.1, 0.0.0.0 for the pod's own
    address, or a Unix socket."""
    protocol = i.port.protocol
    http = i.pool.http if i.pool else None
    if protocol not in REQUESTS:
        kind = ""
    elif protocol == "auto" or (http and http.use_client_protocol):
        kind = "downstream"
    else:
        kind = "h1" if protocol == "http" and not (http and http.h2_upgrade_policy == "UPGRADE") else "h2"
    out = _to_application(view, names.inbound(i.port.number, view.seat.name), kind, i.pool)
    if (pattern := view.transport.stat_names.inbound) and i.service:
        of, known = i.service, {p.name: Port(p.port, p.name, "") for p in i.service.ports}
        port = known.get(i.port.name, i.port)
        out.alt_stat_name = clusters.stat_name(pattern, of.host, of.name, of.namespace, port, target=i.port.number)
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
