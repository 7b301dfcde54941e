"""How a cluster's endpoints are chosen: Envoy's load balancers from DestinationRule's ``loadBalancer``."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3 import (
    client_side_weighted_round_robin_pb2 as weighted_pb2,
)
from envoy.extensions.load_balancing_policies.common.v3 import common_pb2
from envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2
from envoy.extensions.load_balancing_policies.ring_hash.v3 import ring_hash_pb2

from lateen.api.networking import traffic_policy as api
from lateen.xds import pb

RING = 1024
"""Istio's default for the smallest ring."""
_SIMPLE = {
    "ROUND_ROBIN": "ROUND_ROBIN",
    "RANDOM": "RANDOM",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "LEAST_CONN": "LEAST_REQUEST",
    "UNSPECIFIED": "LEAST_REQUEST",
    None: "LEAST_REQUEST",
}


def apply(cluster: Any, lb: api.LoadBalancer | None) -> None:
    """Set the cluster's load balancer; LEAST_REQUEST is the default, as in Istio."""
    if lb is not None and lb.simple == "PASSTHROUGH":
        # each connection goes to its original destination
        cluster.type = cluster_pb2.Cluster.DiscoveryType.Value("ORIGINAL_DST")
        cluster.lb_policy = cluster_pb2.Cluster.LbPolicy.Value("CLUSTER_PROVIDED")
        return
    if lb is not None and lb.backend_utilization is not None:
        cluster.load_balancing_policy.policies.add().typed_extension_config.CopyFrom(_utilized(lb.backend_utilization))
        return
    if lb is not None and lb.consistent_hash is not None:
        cluster.load_balancing_policy.policies.add().typed_extension_config.CopyFrom(_hashed(lb.consistent_hash))
        return
    simple = _SIMPLE[lb.simple if lb else None]
    cluster.lb_policy = cluster_pb2.Cluster.LbPolicy.Value(simple)
    start = _warm_up(lb) if lb else None
    if start is not None and simple == "ROUND_ROBIN":
        cluster.round_robin_lb_config.slow_start_config.CopyFrom(start)
    elif start is not None and simple == "LEAST_REQUEST":
        cluster.least_request_lb_config.slow_start_config.CopyFrom(start)


def by_locality(cluster: Any) -> None:
    """Balance by the weights of localities first."""
    if cluster.HasField("load_balancing_policy"):
        for p in cluster.load_balancing_policy.policies:
            config = p.typed_extension_config.typed_config
            if config.Is(ring_hash_pb2.RingHash.DESCRIPTOR):
                ring = ring_hash_pb2.RingHash()
                config.Unpack(ring)
                ring.locality_weighted_lb_config.SetInParent()
                config.CopyFrom(pb.any_of(ring))
    elif cluster.lb_policy != cluster_pb2.Cluster.CLUSTER_PROVIDED:
        cluster.common_lb_config.locality_weighted_lb_config.SetInParent()


def _utilized(found: api.BackendUtilization) -> extension_pb2.TypedExtensionConfig:
    """Balance by the load that backends report (ORCA)."""
    out = weighted_pb2.ClientSideWeightedRoundRobin(
        metric_names_for_computing_utilization=found.metric_names_for_computing_utilization
    )
    for field, value in (
        ("blackout_period", found.weight_stabilization_period),
        ("weight_expiration_period", found.weight_expiration_period),
        ("weight_update_period", found.weight_update_period),
    ):
        if value is not None:
            getattr(out, field).CopyFrom(pb.duration(value.seconds))
    if found.error_utilization_penalty_percent is not None:
        out.error_utilization_penalty.value = found.error_utilization_penalty_percent / 100
    return extension_pb2.TypedExtensionConfig(
        name="envoy.load_balancing_policies.client_side_weighted_round_robin", typed_config=pb.any_of(out)
    )


def _warm_up(lb: api.LoadBalancer) -> Any | None:
    if lb.warmup is None:
        old = lb.warmup_duration_secs
        return cluster_pb2.Cluster.SlowStartConfig(slow_start_window=pb.duration(old.seconds)) if old else None
    out = cluster_pb2.Cluster.SlowStartConfig(slow_start_window=pb.duration(lb.warmup.duration.seconds))
    out.aggression.default_value = lb.warmup.aggression or 1.0
    out.aggression.runtime_key = "load_balancing.slow_start.aggression"
    out.min_weight_percent.value = 10.0 if lb.warmup.minimum_percent is None else lb.warmup.minimum_percent
    return out


def _key(h: api.ConsistentHash) -> list[rc.RouteAction.HashPolicy]:
    """The hash policy; if no key is present, requests are spread at random. It belongs to the cluster, not to routes,
    so that it applies whichever route selected the cluster."""
    out = rc.RouteAction.HashPolicy()
    if h.http_header_name:
        out.header.header_name = h.http_header_name
    elif h.http_cookie:
        out.cookie.name, out.cookie.path = h.http_cookie.name, h.http_cookie.path
        if h.http_cookie.ttl is not None:
            out.cookie.ttl.CopyFrom(pb.duration(h.http_cookie.ttl.seconds))
        for a in h.http_cookie.attributes:
            out.cookie.attributes.add(name=a.name, value=a.value)
    elif h.http_query_parameter_name:
        out.query_parameter.name = h.http_query_parameter_name
    elif h.use_source_ip:
        out.connection_properties.source_ip = True
    else:
        return []
    return [out]


def _hashed(h: api.ConsistentHash) -> extension_pb2.TypedExtensionConfig:
    common = common_pb2.ConsistentHashingLbConfig(hash_policy=_key(h))
    if h.maglev is not None:
        maglev = maglev_pb2.Maglev(consistent_hashing_lb_config=common)
        if h.maglev.table_size:
            maglev.table_size.value = h.maglev.table_size
        return extension_pb2.TypedExtensionConfig(
            name="envoy.load_balancing_policies.maglev", typed_config=pb.any_of(maglev)
        )
    size = (h.ring_hash.minimum_ring_size if h.ring_hash else None) or h.minimum_ring_size or RING
    ring = ring_hash_pb2.RingHash(consistent_hashing_lb_config=common)
    ring.minimum_ring_size.value = size
    return extension_pb2.TypedExtensionConfig(
        name="envoy.load_balancing_policies.ring_hash", typed_config=pb.any_of(ring)
    )
