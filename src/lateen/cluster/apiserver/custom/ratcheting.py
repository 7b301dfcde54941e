"""What an update need not mend: values that a newer schema refuses, and that the update leaves as they are.

After apiextensions-apiserver's pkg/apiserver/validation/ratcheting.go: a value is compared with the one at the same
place; items of a list have a place only if they have keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lateen.cluster.apiserver.errors import Cause
from lateen.kit import jsons
from lateen.kit.jsons import Json


def changed(causes: list[Cause], schema: Json, new: Json, old: Json) -> list[Cause]:
    """The causes that are about values which differ from those before."""
    same = list(_unchanged(schema, new, old, ""))
    return [c for c in causes if not any(_within(c.path, path) for path in same)]


def _within(path: str, above: str) -> bool:
    return path == above or (path.startswith(above) and path[len(above)] in ".[")


def _unchanged(schema: Json, new: Any, old: Any, path: str) -> Iterator[str]:
    """The paths of the largest values that are as they were."""
    if path and new == old and type(new) is type(old):
        yield path
    elif isinstance(new, dict) and isinstance(old, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for key in new.keys() & old.keys():
            inner = properties.get(key, extra)
            at = f"{path}.{key}" if path else key
            yield from _unchanged(inner if isinstance(inner, dict) else {}, new[key], old[key], at)
    elif isinstance(new, list) and isinstance(old, list) and schema.get("x-kubernetes-list-type") == "map":
        before = {identity(schema, item): item for item in old}
        for i, item in enumerate(new):
            if (was := before.get(identity(schema, item))) is not None:
                yield from _unchanged(schema.get("items") or {}, item, was, f"{path}[{i}]")


def identity(schema: Json, item: Any) -> bytes:
    """The keys of an item of a list that has such; empty for others, which cannot be told apart."""
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(item, dict):
        return b""
    return jsons.canonical([item.get(k) for k in keys])
