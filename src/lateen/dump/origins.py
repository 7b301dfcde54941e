"""The user's objects behind the route and the cluster of a request, according to a proxy's config dump. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.dump.config import ConfigDump
from lateen.dump.requests import host_of, object_of
from lateen.kit.jsons import Json, dig


def origins(dump: ConfigDump, request: Json) -> tuple[str, ...]:
    """``VirtualService reviews.default`` and so on. ``request``: keys of ``wire.tap``."""
    route = route_of(dump, request)
    found = [*(_made_by(route) if route else ()), *_of_clusters(dump, str(request.get("cluster") or ""))]
    return tuple(dict.fromkeys(found))


def route_of(dump: ConfigDump, request: Json) -> Json | None:
    """The first matching route; None if the request's route cannot be determined."""
    name, cluster = str(request.get("route") or ""), str(request.get("cluster") or "")
    authority = str(request.get("authority") or "")
    for configuration in dump.routes():
        for host in configuration.get("virtual_hosts") or []:
            if not {authority, host_of(authority), "*"} & set(host.get("domains") or []):
                continue
            for route in host.get("routes") or []:
                if (route.get("name") or "") == name and (not cluster or cluster in _clusters(route)):
                    return dict(route)
    return None


def _clusters(route: Json) -> set[str]:
    action = route.get("route") or {}
    weighted = dig(action, "weighted_clusters", "clusters", default=[])
    return {str(action.get("cluster") or ""), *(str(c.get("name")) for c in weighted)}


def _of_clusters(dump: ConfigDump, name: str) -> Iterator[str]:
    for cluster in dump.clusters():
        if name and cluster.get("name") == name:
            yield from _made_by(cluster)


def _made_by(resource: Json) -> Iterator[str]:
    found = object_of(str(dig(resource, "metadata", "filter_metadata", "istio", "config", default="")), resource)
    if found:
        yield found
