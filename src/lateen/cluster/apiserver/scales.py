"""The Scale of an object: autoscaling/v1, whatever the object's kind."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.resources import Resource
from lateen.kit import jsons, selectors
from lateen.kit.jsons import Json, dig

KIND = ("autoscaling", "v1", "Scale")
_META = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def of(r: Resource, version: str, obj: Json) -> Json:
    paths = r.scale_paths(version)
    meta = {k: v for k in _META if (v := obj["metadata"].get(k)) is not None}
    selector: Any = dig(obj, *paths.selector, default={})
    if isinstance(selector, dict):
        plain = r.kind == "ReplicationController"
        selector = selectors.text({"matchLabels": selector} if plain else selector)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": dig(obj, *paths.spec, default=0 if r.custom else 1)},
        "status": {"replicas": dig(obj, *paths.status, default=0)} | ({"selector": str(selector)} if selector else {}),
    }


def change(r: Resource, version: str, replicas: int) -> Json:
    """The merge patch that sets the number of replicas."""
    *above, last = r.scale_paths(version).spec
    made: Json = {last: replicas}
    for step in reversed(above):
        made = {step: made}
    return made


def put(r: Resource, version: str, obj: Json, replicas: int) -> Json:
    """A copy of the object with another number of replicas."""
    *above, last = r.scale_paths(version).spec
    made = jsons.copy(obj)
    at = made
    for step in above:
        at = at.setdefault(step, {})
    at[last] = replicas
    return made
