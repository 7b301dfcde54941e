"""Rules that exist before the objects that they refer to, because one ``apply`` creates objects one after the other."""

from __future__ import annotations

from lateen.mesh.dialects.istio import destinations_of
from lateen.mesh.model import Mesh, differing
from lateen.mesh.objects import Objects


def dangling(before: Objects, mesh: Mesh) -> bool:
    """Whether a VirtualService that has changed since ``before`` refers to a host or subset that does not exist yet:
    then a short wait is worthwhile, because the missing object may be about to be created."""
    now = mesh.instant.virtual_services
    for key in differing(before.virtual_services, now):
        vs = now.get(key)
        if vs is None:
            continue
        for d in destinations_of(vs.spec):
            host = mesh.resolve(d.host, vs.ref.namespace)
            if mesh.service(host) is None:
                return True
            rules = mesh.destination_rule(host, vs.ref.namespace)
            if d.subset and not any(s.name == d.subset for dr in rules for s in dr.spec.subsets):
                return True
    return False
