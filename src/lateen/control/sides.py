"""The mesh from the perspective of each cluster: one set of views for istiod's own cluster, and one for each other
cluster whose proxies it serves, created on first use and dropped with the cluster."""

from __future__ import annotations

from collections.abc import Mapping

from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.perspective import seen_from
from lateen.mesh.views import Views

CLUSTER = "CLUSTER_ID"


def cluster_of(metadata: Mapping[str, str]) -> str:
    """The cluster that a proxy claims to be in; empty if it names none."""
    return metadata.get(CLUSTER, "")


class Sides:
    def __init__(self, own: Views) -> None:
        self.own = own
        self._others: dict[str, Views] = {}

    def of(self, cluster: str) -> Views | None:
        """``cluster``: empty for istiod's own. None for one that is not known (yet)."""
        if not cluster:
            return self.own
        if cluster not in self._others:
            found = seen_from(self.own.mesh.instant, cluster)
            if found is None:
                return None
            self._others[cluster] = Views(Mesh(found))
        return self._others[cluster]

    def advance(self, objects: Objects) -> None:
        """Advance all meshes (see ``Mesh.advance``), istiod's own first; an exception stops at that point."""
        self.own.advance(objects)
        for cluster, views in list(self._others.items()):
            found = seen_from(objects, cluster)
            if found is None:
                del self._others[cluster]
            else:
                views.advance(found)
