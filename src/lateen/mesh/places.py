"""Locality load balancing: whether and how a client's locality matters."""

from __future__ import annotations

from lateen.api.decoding import NETWORK as NETWORK
from lateen.api.networking import TrafficPolicy
from lateen.mesh.clients import Client
from lateen.mesh.model import Mesh
from lateen.mesh.view import Locality

CLUSTER = "topology.istio.io/cluster"
"""Like ``NETWORK``, a label of every endpoint that ``failoverPriority`` may name."""


def place(client: Client, settings: TrafficPolicy, mesh: Mesh) -> Locality | None:
    """None if localities do not matter: the client's is unknown, they are disabled, or nothing uses them."""
    here = client.locality
    own = settings.load_balancer.locality_lb_setting if settings.load_balancer else None
    setting = own or mesh.locality
    if setting is not None and setting.enabled is False:
        return None
    if settings.outlier_detection is None and not (setting and setting.distribute):
        return None
    if not here and not (setting and setting.failover_priority):
        return None
    names = [f.partition("=")[0] for f in setting.failover_priority] if setting else []
    known = {**dict(client.labels), NETWORK: client.network, CLUSTER: mesh.cluster.name}
    key = tuple((n, known[n]) for n in names if n in known)
    return Locality(here, key, setting, settings.outlier_detection is not None)
