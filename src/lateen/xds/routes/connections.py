"""The destinations of connections, as Envoy's clusters."""

from __future__ import annotations

from lateen.mesh.routing import ConnectionRoute
from lateen.wire import names


def clusters(route: ConnectionRoute) -> tuple[tuple[str, int], ...]:
    """(cluster, weight); a connection cannot be answered, so that the share of what is broken is closed at once."""
    return tuple((names.BLACK_HOLE if b.broken else b.cluster, b.weight) for b in route.backends)
