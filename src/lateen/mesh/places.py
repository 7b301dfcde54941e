"""Whether, and how, a client's locality matters."""

from __future__ import annotations

from lateen.api.networking import TrafficPolicy
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Labels
from lateen.mesh.view import Locality


def place(here: str, labels: Labels, settings: TrafficPolicy, mesh: Mesh) -> Locality | None:
    """None if localities do not matter: the client's is unknown, they are disabled, or nothing uses them."""
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
