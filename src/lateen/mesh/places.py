"""Whether, and how, it matters where a client is."""

from __future__ import annotations

from lateen.api.networking import TrafficPolicy
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Labels
from lateen.mesh.view import Locality


def place(here: str, labels: Labels, settings: TrafficPolicy, mesh: Mesh) -> Locality | None:
    """None where places have no say: nothing is known of the client's, it is switched off, or nothing asks for it."""
    own = settings.load_balancer.locality_lb_setting if settings.load_balancer else None
    setting = own or mesh.locality
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
