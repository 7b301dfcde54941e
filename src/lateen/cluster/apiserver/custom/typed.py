"""Values of custom resources with the types, and fields with the names, that CEL has for them."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Any

from lateen.kit import duration, times
from lateen.kit.jsons import Json, dig

_KEYWORDS = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return"}
)


def converted(schema: Json, value: Any, root: bool = False) -> Any:
    """The value with the types that CEL has for it, and names of fields that it can write."""
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        if root:
            meta = {k: v for k, v in dig(value, "metadata", default={}).items() if k in ("name", "generateName")}
            rest = {k: v for k, v in value.items() if k in properties and k != "metadata"}
            value = {"apiVersion": value.get("apiVersion"), "kind": value.get("kind"), "metadata": meta} | rest
        out = {}
        for key, child in value.items():
            if key in properties:
                out[escaped(key)] = converted(properties[key], child)
            elif isinstance(extra, dict):
                out[key] = converted(extra, child)
            else:
                out[escaped(key) if properties else key] = child
        return out
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [converted(items, v) for v in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if schema.get("type") == "number" or not -(1 << 63) <= value < 1 << 63 else value
    return _formatted(str(schema.get("format") or ""), value) if isinstance(value, str) else value


def _formatted(name: str, text: str) -> Any:
    try:
        if name in ("date-time", "date"):
            return times.parse(text if name == "date-time" else text + "T00:00:00+00:00")
        if name == "duration":
            return timedelta(seconds=duration.seconds(text))
        if name == "byte":
            return text.encode()
    except ValueError:
        pass  # the format check has already reported it
    return text


@lru_cache(maxsize=4096)
def escaped(name: str) -> str:
    """A field's name as rules write it."""
    if name in _KEYWORDS:
        return f"__{name}__"
    for plain, word in (("__", "underscores"), (".", "dot"), ("-", "dash"), ("/", "slash")):
        name = name.replace(plain, f"\0{word}\0")
    return name.replace("\0", "__")
