"""How an object is made up of parts that can have different owners, by its schema.

``x-kubernetes-list-type``, ``-list-map-keys`` and ``-map-type`` decide, as the documentation of server-side apply says:
a list of type ``map`` is its elements by their keys, a ``set`` its values, every other list is one part (``atomic``);
an object is its fields, unless it is ``atomic``. What has no schema is taken as it looks: objects are their fields,
lists are atomic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from lateen.cluster.apiserver import schema as schemas
from lateen.cluster.apiserver.managed import paths
from lateen.cluster.apiserver.managed.paths import Fields
from lateen.kit.jsons import Json

_META = {"$ref": f"#/definitions/{schemas.META}"}
_SKELETON = (
    "metadata",
    "spec",
    "status",
    "template",
    "strategy",
    "resources",
    "source",
    "loadBalancer",
    "nodeInfo",
    "daemonEndpoints",
    "kubeletEndpoint",
)
"""Fields of Kubernetes' own kinds that are structs in Go, not pointers: they are always present, so they have no
owner."""


class Untypable(ValueError):
    """The object cannot be divided into parts; one sentence with the path."""


class Part(NamedTuple):
    """One part of an object or list. ``named``: the schema declares it as a field."""

    element: str
    schema: Json
    value: Any
    named: bool = False


def is_atomic(schema: Json, value: Any) -> bool:
    """Whether a value has one owner as a whole. ``schema`` is resolved."""
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") == "atomic"
    return not isinstance(value, list) or schema.get("x-kubernetes-list-type") not in ("map", "set")


def parts(schema: Json, value: Any, at: str = "") -> Iterator[Part]:
    """Of an object or list that is not atomic; of equal elements of a list, each. ``schema`` is resolved.

    Raises Untypable.
    """
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, child in value.items():
            declared = properties.get(name)
            below = declared if declared is not None else extra if isinstance(extra, dict) else {}
            yield Part(paths.field(name), schemas.resolve(below), child, declared is not None)
        return
    items = schemas.resolve(schema.get("items") or {})
    keyed = schema.get("x-kubernetes-list-type") == "map"
    for child in value:
        element = _key(schema, items, child, at) if keyed else _value(child, at)
        yield Part(element, items, child)


def _value(child: Any, at: str) -> str:
    if isinstance(child, (dict, list)):
        raise Untypable(f"{at}: a list of type set must have plain values as its elements")
    return paths.value(child)


def _key(schema: Json, items: Json, child: Any, at: str) -> str:
    if not isinstance(child, dict):
        raise Untypable(f"{at}: a list of type map must have objects as its elements")
    properties, found = items.get("properties") or {}, {}
    names = schema.get("x-kubernetes-list-map-keys") or []
    for name in names:
        given = child.get(name, (properties.get(name) or {}).get("default"))
        if given is not None:
            found[name] = given
    if not found:
        raise Untypable(f"{at}: an element omits all of the list's keys ({', '.join(names)})")
    return paths.key(found)


def root(schema: Json | None) -> Json:
    """The schema of a whole object: the metadata of custom resources is Kubernetes', whatever their schema says."""
    found = schemas.resolve(schema or {})
    return {**found, "properties": {**(found.get("properties") or {}), "metadata": _META}}


def fields(schema: Json, value: Any, at: str = "") -> Fields:
    """Everything that a configuration sets: its leaves, and each element of its lists and maps.

    Raises Untypable, for lists with two elements of the same keys too.
    """
    if is_atomic(schema, value):
        return paths.leaf()
    out: Fields = {}
    for part in parts(schema, value, at):
        where = at + paths.shown((part.element,))
        if part.element in out:
            raise Untypable(f"{at}: duplicate entries for key {paths.shown((part.element,))}")
        found = fields(part.schema, part.value, where)
        if part.value == {} or not part.named:
            found = paths.union(found, paths.leaf())
        if found:
            out[part.element] = found
    return out


def filled(schema: Json, obj: Json, native: bool) -> Json:
    """An object of Kubernetes' own kinds with the structures that are always there. ``schema`` is resolved."""
    if not native:
        return obj
    out = dict(obj)
    properties = schema.get("properties") or {}
    for name in _SKELETON:
        if name in properties and isinstance(out.get(name, {}), dict):
            out[name] = filled(schemas.resolve(properties[name]), out.get(name) or {}, native)
    for name in schema.get("required") or ():
        if name not in out and schemas.resolve(properties.get(name) or {}).get("type") == "array":
            out[name] = []
    return out
