"""How large values can be that a schema allows: what the cost of rules is estimated from.

After k8s.io/apiserver/pkg/cel/common/schemas.go and pkg/cel/limits.go. Sizes are those of CEL's ``size()``; the
smallest serialized sizes are bytes of JSON.
"""

from __future__ import annotations

from collections.abc import Callable

from lateen.kit.jsons import Json

REQUEST = 3 * 1024 * 1024
"""Bytes of the largest request."""
ITEMS, KEYS, VALUES = "@items", "@keys", "@values"
"""Steps of a path into a list or a map."""
_TIMES = {"duration": (3, 32), "date": (12, 12), "date-time": (21, 32)}
_KEY: Json = {"type": "string", "maxLength": 0}
_TEXT: Json = {"type": "string"}
_META: Json = {"type": "object", "properties": {"name": _TEXT, "generateName": _TEXT}}
_OBJECT: Json = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": _META}
"""What rules see of each object."""
_SMALLEST = {"boolean": 4, "integer": 1, "number": 1, "string": 2, "array": 2}


class Sizes:
    """Sizes by schema. Each is computed once: rules look the same ones up many times. ``field_name``: how rules write a
    field's name. A schema must not change while this object is in use."""

    def __init__(self, field_name: Callable[[str], str]) -> None:
        self._field_name = field_name
        self._fields: dict[tuple[int, bool], tuple[Json, Json]] = {}
        self._smallest: dict[int, tuple[Json, int]] = {}
        # By the schema's id; the schema itself is kept with it, so that no other one gets this id.

    def below(self, schema: Json, step: str, root: bool = False) -> Json | None:
        """The schema one step further; None if rules do not see anything there."""
        extra = schema.get("additionalProperties")
        if step == ITEMS:
            found = schema.get("items")
        elif step in (KEYS, VALUES):
            found = _KEY if step == KEYS and isinstance(extra, dict) else extra
        else:
            found = self._named(schema, root).get(step)
        return found if isinstance(found, dict) else None

    def _named(self, schema: Json, root: bool) -> Json:
        """Its fields, by the names that rules write."""
        key = id(schema), root
        if key not in self._fields:
            found = schema.get("properties") or {}
            if root or schema.get("x-kubernetes-embedded-resource"):
                found = {**found, **_OBJECT}
            named: Json = {}
            for name, child in found.items():
                named.setdefault(self._field_name(name), child)
            self._fields[key] = schema, named
        return self._fields[key][1]

    def most(self, schema: Json) -> int:
        """The largest size of a value: characters, bytes, items or entries; 0 of what has no size."""
        if schema.get("x-kubernetes-int-or-string"):
            return _given(schema, "maxLength", 4) if "maxLength" in schema else REQUEST - 2
        extra, form = schema.get("additionalProperties"), str(schema.get("format") or "")
        match schema.get("type"):
            case "array" if "maxItems" in schema:
                return _given(schema, "maxItems")
            case "array":
                return (REQUEST - 2) // (self.smallest(schema.get("items") or {}) + 1)
            case "object" if isinstance(extra, dict):
                if "maxProperties" in schema:
                    return _given(schema, "maxProperties")
                return (REQUEST - 2) // (self.smallest(extra) + 6)
            case "string" if form in _TIMES:
                return _TIMES[form][1]
            case "string" if "maxLength" in schema:
                return _given(schema, "maxLength", 1 if form == "byte" else 4)  # a character has up to four bytes
            case "string" if schema.get("enum") and form != "byte":
                return max((len(v.encode()) for v in schema["enum"] if isinstance(v, str)), default=0)
            case "string":
                return REQUEST - 2
        return 0

    def smallest(self, schema: Json) -> int:
        """Bytes of the smallest value as JSON."""
        if schema.get("x-kubernetes-int-or-string"):
            return 1
        kind, form = str(schema.get("type")), str(schema.get("format") or "")
        if kind == "string" and form in _TIMES:
            return _TIMES[form][0]
        if kind != "object" or isinstance(schema.get("additionalProperties"), dict):
            return _SMALLEST.get(kind, 2)
        if id(schema) not in self._smallest:
            required, out = set(schema.get("required") or ()), 2
            for name, child in (schema.get("properties") or {}).items():
                if name in required and isinstance(child, dict) and child.get("default") is None:
                    out += len(name.encode()) + self.smallest(child) + 4
            self._smallest[id(schema)] = schema, out
        return self._smallest[id(schema)][1]

    def repeats(self, schema: Json) -> int:
        """How often a value can be in one request, whatever it is in."""
        return REQUEST // (self.smallest(schema) + 1)


def _given(schema: Json, key: str, factor: int = 1) -> int:
    return max(int(schema[key]), 0) * factor


def contained(schema: Json) -> int | None:
    """How many children of one kind a value has at most; None where there is no limit."""
    if schema.get("type") == "array":
        return _given(schema, "maxItems") if "maxItems" in schema else None
    if schema.get("type") == "object" and schema.get("additionalProperties") not in (None, False):
        return _given(schema, "maxProperties") if "maxProperties" in schema else None
    return 1
