"""What an update need not mend: values that a newer schema refuses, and that the update leaves as they are.

After apiextensions-apiserver's pkg/apiserver/validation/ratcheting.go: a value is compared with the one at the same
place; items of a list have a place only if they have keys.
"""

from __future__ import annotations

from typing import Any

from lateen.kit import jsons
from lateen.kit.jsons import Json

Kept = bool | dict[Any, Any]
"""True for a value that is as it was; else what is so of the values in it, by key or index."""


def kept(schema: Json, new: Any, old: Any) -> Kept:
    """What an update leaves as it is."""
    if isinstance(new, dict) and isinstance(old, dict):
        return _object(schema, new, old)
    if isinstance(new, list) and isinstance(old, list) and schema.get("x-kubernetes-list-type") == "map":
        return _keyed(schema, new, old)
    return jsons.same(new, old)


def _object(schema: Json, new: Json, old: Json) -> Kept:
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    found: dict[Any, Any] = {}
    for key in new.keys() & old.keys():
        inner = properties.get(key, extra)
        found[key] = kept(inner if isinstance(inner, dict) else {}, new[key], old[key])
    return (len(found) == len(new) == len(old) and all(v is True for v in found.values())) or found


def _keyed(schema: Json, new: list[Any], old: list[Any]) -> Kept:
    keys, before = [identity(schema, item) for item in new], [identity(schema, item) for item in old]
    was = dict(zip(before, old, strict=True))
    items = schema.get("items") or {}
    found = {i: kept(items, new[i], was[key]) for i, key in enumerate(keys) if key in was}
    return (keys == before and len(was) == len(old) and all(v is True for v in found.values())) or found


def identity(schema: Json, item: Any) -> bytes:
    """The keys of an item of a list that has such; empty for others, which cannot be told apart."""
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(item, dict):
        return b""
    return jsons.canonical([item.get(k) for k in keys])
