"""Where connections go, as Envoy's clusters."""

from __future__ import annotations

from lateen.mesh.routing import ConnectionRoute


def clusters(route: ConnectionRoute) -> tuple[tuple[str, int], ...]:
    """(cluster, weight); a connection cannot be answered, so that what is broken is left out."""
    return tuple((b.cluster, b.weight) for b in route.backends if not b.broken)
