"""Whether, and how, it matters where a client is."""

from __future__ import annotations

from typing import Any

from lateen.api.networking import DestinationRule, TrafficPolicy
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Labels
from lateen.mesh.view import Locality


def asked(mesh: Mesh) -> tuple[bool, frozenset[str]]:
    """(whether some service's load balancing asks where its client is, labels of clients that it asks for)"""
    keys: set[str] = set()
    wanted = False
    for dr in mesh.objects.destination_rules.values():
        for settings in _policies(dr.spec):
            lb = settings.load_balancer.locality_lb_setting if settings.load_balancer else None
            setting = lb or mesh.config.locality
            if lb or settings.outlier_detection:
                wanted = True
            if setting:
                keys |= {f.partition("=")[0] for f in setting.failover_priority}
    return wanted, frozenset(keys)


def _policies(spec: DestinationRule) -> list[Any]:
    found: list[TrafficPolicy] = [p for p in (spec.traffic_policy, *(s.traffic_policy for s in spec.subsets)) if p]
    return [*found, *(port for p in found for port in p.port_level_settings)]


def place(here: str, labels: Labels, settings: TrafficPolicy, mesh: Mesh) -> Locality | None:
    """None where places have no say: nothing is known of the client's, it is switched off, or nothing asks for it."""
    own = settings.load_balancer.locality_lb_setting if settings.load_balancer else None
    setting = own or mesh.config.locality
    if setting is not None and setting.enabled is False:
        return None
    if settings.outlier_detection is None and not (setting and setting.distribute):
        return None
    if not here and not (setting and setting.failover_priority):
        return None
    names = [f.partition("=")[0] for f in setting.failover_priority] if setting else []
    known = dict(labels)
    key = tuple((n, known[n]) for n in names if n in known)
    return Locality(here, key, setting, settings.outlier_detection is not None)
