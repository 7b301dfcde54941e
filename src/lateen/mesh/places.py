"""Locality load balancing: whether and how a client's locality matters."""

from __future__ import annotations

from lateen.api import objects as o
from lateen.api.decoding import HOSTNAME as HOSTNAME
from lateen.api.decoding import NETWORK as NETWORK
from lateen.api.networking import LocalityLb, TrafficPolicy
from lateen.mesh.clients import Client
from lateen.mesh.model import Mesh
from lateen.mesh.outbound_view import Locality

REGION, ZONE, SUBZONE = TOPOLOGY = (
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
)
"""The labels of localities that ``failoverPriority`` may name."""
NEAR = {
    "zone": LocalityLb(failover_priority=(NETWORK, REGION, ZONE)),
    "node": LocalityLb(failover_priority=(NETWORK, REGION, ZONE, SUBZONE, HOSTNAME)),
}
"""By ``Service.near``. Source: ``GetLocalityLbSetting`` in pilot/pkg/networking/core/loadbalancer of Istio."""
CLUSTER = "topology.istio.io/cluster"
"""Like ``NETWORK``, a label of every endpoint that ``failoverPriority`` may name."""


def place(client: Client, settings: TrafficPolicy, service: o.Service, mesh: Mesh) -> Locality | None:
    """None if localities do not matter: the client's is unknown, they are disabled, or nothing uses them. A rule's
    setting precedes what the service asks for, and that the mesh's."""
    here = client.locality
    own = settings.load_balancer.locality_lb_setting if settings.load_balancer else None
    near = None if own else NEAR.get(service.near)
    setting = own or near or mesh.locality
    if setting is not None and setting.enabled is False:
        return None
    failover = near is not None or settings.outlier_detection is not None
    if not failover and not (setting and setting.distribute):
        return None
    if not here and not (setting and setting.failover_priority):
        return None
    names = [f.partition("=")[0] for f in setting.failover_priority] if setting else []
    known = {**dict(client.labels), NETWORK: client.network, CLUSTER: mesh.cluster.name}
    key = tuple((n, known[n]) for n in names if n in known)
    return Locality(here, key, setting, failover)
