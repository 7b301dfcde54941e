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
_SMALLEST = {"boolean": 4, "integer": 1, "number": 1, "string": 2, "array": 2}


def below(schema: Json, step: str, field_name: Callable[[str], str], root: bool = False) -> Json | None:
    """The schema one step further; None if rules do not see anything there."""
    extra = schema.get("additionalProperties")
    if step == ITEMS:
        found = schema.get("items")
    elif step in (KEYS, VALUES):
        found = {"type": "string", "maxLength": 0} if step == KEYS and isinstance(extra, dict) else extra
    else:
        found = next((v for k, v in _properties(schema, root).items() if field_name(k) == step), None)
    return found if isinstance(found, dict) else None


def _properties(schema: Json, root: bool) -> Json:
    found = schema.get("properties") or {}
    if root or schema.get("x-kubernetes-embedded-resource"):
        text = {"type": "string"}
        meta = {"type": "object", "properties": {"name": text, "generateName": text}}
        return {**found, "apiVersion": text, "kind": text, "metadata": meta}
    return found


def most(schema: Json) -> int:
    """The largest size of a value: characters, bytes, items or entries; 0 of what has no size."""
    if schema.get("x-kubernetes-int-or-string"):
        return _given(schema, "maxLength", 4) if "maxLength" in schema else REQUEST - 2
    extra, form = schema.get("additionalProperties"), str(schema.get("format") or "")
    match schema.get("type"):
        case "array":
            items = smallest(schema.get("items") or {})
            return _given(schema, "maxItems") if "maxItems" in schema else (REQUEST - 2) // (items + 1)
        case "object" if isinstance(extra, dict):
            return (
                _given(schema, "maxProperties") if "maxProperties" in schema else (REQUEST - 2) // (smallest(extra) + 6)
            )
        case "string" if form in _TIMES:
            return _TIMES[form][1]
        case "string" if "maxLength" in schema:
            return _given(schema, "maxLength", 1 if form == "byte" else 4)  # a character has up to four bytes
        case "string" if schema.get("enum") and form != "byte":
            return max((len(v.encode()) for v in schema["enum"] if isinstance(v, str)), default=0)
        case "string":
            return REQUEST - 2
    return 0


def _given(schema: Json, key: str, factor: int = 1) -> int:
    return max(int(schema[key]), 0) * factor


def smallest(schema: Json) -> int:
    """Bytes of the smallest value as JSON."""
    if schema.get("x-kubernetes-int-or-string"):
        return 1
    kind, form = str(schema.get("type")), str(schema.get("format") or "")
    if kind == "string" and form in _TIMES:
        return _TIMES[form][0]
    if kind != "object" or isinstance(schema.get("additionalProperties"), dict):
        return _SMALLEST.get(kind, 2)
    required, out = set(schema.get("required") or ()), 2
    for name, child in (schema.get("properties") or {}).items():
        if name in required and isinstance(child, dict) and child.get("default") is None:
            out += len(name.encode()) + smallest(child) + 4
    return out


def repeats(schema: Json) -> int:
    """How often a value can be in one request, whatever it is in."""
    return REQUEST // (smallest(schema) + 1)


def contained(schema: Json) -> int | None:
    """How many children of one kind a value has at most; None where there is no limit."""
    if schema.get("type") == "array":
        return _given(schema, "maxItems") if "maxItems" in schema else None
    if schema.get("type") == "object" and schema.get("additionalProperties") not in (None, False):
        return _given(schema, "maxProperties") if "maxProperties" in schema else None
    return 1
