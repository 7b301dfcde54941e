"""The settings of DestinationRules for one port and subset of a service.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/ (TrafficPolicy, PortTrafficPolicy).
"""

from __future__ import annotations

import msgspec

from lateen.api import objects as o
from lateen.api.networking import ClientTLS, DestinationRule, LocalityLb, PortTrafficPolicy, TrafficPolicy
from lateen.api.networking.destination_rule import Subset

_BY_PORT = ("load_balancer", "connection_pool", "outlier_detection", "tls")
"""Settings that a port's entry can have; those that it leaves out get their defaults, not the rule's values."""
_GROUPS = (*_BY_PORT, "proxy_protocol", "retry_budget")
NOTHING = TrafficPolicy()
Traffic = tuple[o.Resource[DestinationRule], ...]
"""The rules for a host, the oldest first"""


def subset_of(rules: Traffic, name: str) -> Subset | None:
    """The subset of a name: of several, in one rule or in more, the first, as in Istio."""
    return next((s for dr in rules for s in dr.spec.subsets if name and s.name == name), None)


def _layers(rules: Traffic, subset: str) -> list[TrafficPolicy]:
    """Of several rules, the settings of the first that has any, and those of the subset, as in Istio
    (``mergeDestinationRule`` in pilot/pkg/model)."""
    own = subset_of(rules, subset)
    found = [next((t for dr in rules if (t := dr.spec.traffic_policy)), None), own.traffic_policy if own else None]
    return [layer for layer in found if layer]


def _of_port(layer: TrafficPolicy, port: int) -> PortTrafficPolicy | None:
    return next((p for p in layer.port_level_settings if p.port and p.port.number == port), None)


def merged(rules: Traffic, subset: str, port: int) -> TrafficPolicy:
    """The rule's settings, overridden by the subset's, group by group. A port's entry stands for all of its level, also
    for the groups that only the level can have; but for the tunnel, which is no setting of clusters. As in Istio
    (``MergeSubsetTrafficPolicy`` in pilot/pkg/networking/util)."""
    out = NOTHING
    for layer in _layers(rules, subset):
        own = _of_port(layer, port)
        if own is not None:
            given = {k: getattr(own, k) for k in _BY_PORT}
        else:
            given = {k: v for k in _GROUPS if (v := getattr(layer, k)) is not None}
        out = msgspec.structs.replace(out, **given, tunnel=layer.tunnel or out.tunnel)
    return out


def tls(spec: DestinationRule) -> list[ClientTLS]:
    """The client TLS settings at every level of a rule."""
    return [level.tls for level in levels(spec) if level.tls]


def originates(found: ClientTLS | None) -> bool:
    """Whether the proxy begins TLS of the user's own, whose servers know nothing of the mesh's."""
    return found is not None and found.mode in ("SIMPLE", "MUTUAL")


def levels(spec: DestinationRule) -> list[TrafficPolicy | PortTrafficPolicy]:
    """The settings at every level of a rule."""
    found = [p for p in (spec.traffic_policy, *(s.traffic_policy for s in spec.subsets)) if p]
    return [*found, *(port for p in found for port in p.port_level_settings)]


def hashes(found: TrafficPolicy | PortTrafficPolicy) -> bool:
    """Whether requests with one key go to one endpoint (consistent hashing)."""
    hashed = found.load_balancer.consistent_hash if found.load_balancer else None
    return hashed is not None and any(
        (hashed.http_header_name, hashed.http_cookie, hashed.http_query_parameter_name, hashed.use_source_ip)
    )


def secrets(spec: DestinationRule) -> tuple[str, ...]:
    """The Secrets named at any level of the rule."""
    return tuple(dict.fromkeys(t.credential_name for t in tls(spec) if t.credential_name))


def asks_for_place(spec: DestinationRule, default: LocalityLb | None) -> tuple[bool, frozenset[str]]:
    """(whether the rule's load balancing depends on the client's locality, client labels that it uses)"""
    keys: set[str] = set()
    wanted = False
    for settings in levels(spec):
        lb = settings.load_balancer.locality_lb_setting if settings.load_balancer else None
        wanted = wanted or lb is not None or settings.outlier_detection is not None
        if setting := lb or default:
            keys |= {f.partition("=")[0] for f in setting.failover_priority}
    return wanted, frozenset(keys)
