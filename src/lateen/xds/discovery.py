"""How a cluster finds its endpoints: EDS, DNS, or the connection's original destination."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as forward_pb2
from envoy.extensions.common.dynamic_forward_proxy.v3 import dns_cache_pb2

from lateen.mesh.outbound_view import HostView, Port
from lateen.wire import names
from lateen.xds import endpoints, pb

_KIND = cluster_pb2.Cluster.DiscoveryType
_FAMILY = cluster_pb2.Cluster.DnsLookupFamily
_BALANCER = cluster_pb2.Cluster.LbPolicy


def dns_cache(lookup: str) -> dns_cache_pb2.DnsCacheConfig:
    """One DNS cache for all dynamic forward proxies of one Envoy. ``lookup``: see ``HostView``."""
    return dns_cache_pb2.DnsCacheConfig(name="dynamic-dns", dns_lookup_family=_FAMILY.Value(lookup))


def apply(cluster: Any, view: HostView, port: Port, subset: str) -> None:
    """Set the discovery type, unless ``balancing`` has done so."""
    if cluster.type == cluster_pb2.Cluster.ORIGINAL_DST:
        return
    if view.resolution in ("NONE", "HEADLESS"):
        cluster.type = _KIND.Value("ORIGINAL_DST")
        cluster.lb_policy = _BALANCER.Value("CLUSTER_PROVIDED")
        for setting in ("load_balancing_policy", "least_request_lb_config", "round_robin_lb_config"):
            cluster.ClearField(setting)
        if port.target:
            cluster.original_dst_lb_config.upstream_port_override.value = port.target
    elif view.resolution == "DYNAMIC_DNS":
        by_request(cluster, view.lookup)
    elif view.resolution in ("DNS", "DNS_ROUND_ROBIN", "ALIAS"):
        found = next((e for e in view.inline if e.cluster == cluster.name), None)
        # LOGICAL_DNS requires exactly one endpoint.
        one = view.resolution == "DNS_ROUND_ROBIN" and found is not None and bool(found.endpoints)
        cluster.type = _KIND.Value("LOGICAL_DNS" if one else "STRICT_DNS")
        cluster.dns_lookup_family = _FAMILY.Value(view.lookup)
        cluster.respect_dns_ttl = True
        cluster.dns_refresh_rate.CopyFrom(pb.duration(view.transport.dns_refresh_s))
        if found is not None:
            cluster.load_assignment.CopyFrom(endpoints.assignment(found))
        if one:
            _only_first(cluster.load_assignment)
    else:
        cluster.type = _KIND.Value("EDS")
        cluster.eds_cluster_config.eds_config.CopyFrom(pb.ads())
        cluster.eds_cluster_config.service_name = names.outbound(view.host, port.number, subset)


def by_request(cluster: Any, lookup: str) -> None:
    """Envoy resolves the host that a request names. ``lookup``: see ``HostView``."""
    cluster.lb_policy = _BALANCER.Value("CLUSTER_PROVIDED")
    cluster.ClearField("load_balancing_policy")
    cluster.cluster_type.name = "envoy.clusters.dynamic_forward_proxy"
    config = forward_pb2.ClusterConfig(dns_cache_config=dns_cache(lookup), allow_insecure_cluster_options=True)
    cluster.cluster_type.typed_config.CopyFrom(pb.any_of(config))


def _only_first(assignment: Any) -> None:
    del assignment.endpoints[1:]
    for group in assignment.endpoints:
        del group.lb_endpoints[1:]
        group.load_balancing_weight.value = 1
