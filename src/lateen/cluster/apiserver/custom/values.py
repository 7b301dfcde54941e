"""What a custom resource's schema says of values: limits, formats, and allOf, anyOf, oneOf, not.

The structure (types, unknown fields) has been checked by ``schema`` before. Messages are those of apiextensions'
validation, which scripts look for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lateen.cluster.apiserver.custom import formats
from lateen.cluster.apiserver.custom.ratcheting import Kept
from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.apiserver.validation.fields import (
    Causes,
    bad,
    below,
    bounded,
    duplicate,
    required,
    too_long,
    too_many,
    unsupported,
)
from lateen.kit import jsons, regex
from lateen.kit.jsons import Json

NAMES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "number": (int, float),
}


def check(schema: Json, value: Any, path: str = "", kept: Kept = False) -> Causes:
    """What is wrong, as far as an answer has room for it; ``kept``: what need not be valid."""
    return bounded(_violations(schema, value, path, kept))


def _violations(schema: Json, value: Any, path: str, kept: Kept) -> Iterator[Cause]:
    if value is None or kept is True:
        return
    if wrong := _type(schema, value, path):
        yield from wrong
        return
    if isinstance(value, dict):
        yield from _object(schema, value, path, kept)
    elif isinstance(value, list):
        yield from _list(schema, value, path, kept)
    elif isinstance(value, str):
        yield from _text(schema, value, path)
    elif not isinstance(value, bool):
        yield from _number(schema, value, path)
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(path, value, (x if isinstance(x, str) else jsons.dumps(x).decode() for x in schema["enum"]))
    yield from _combined(schema, value, path)


def _in(kept: Kept, place: str | int) -> Kept:
    found: Kept = kept.get(place, False) if isinstance(kept, dict) else False
    return found


def type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "integer", float: "number", list: "array", dict: "object"}.get(type(value), "null")


def mistyped(path: str, wanted: str, value: Any) -> Cause:
    found = type_name(value)
    return Cause(
        path or "<nil>",
        f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"',
        "FieldValueTypeInvalid",
    )


def _type(schema: Json, value: Any, path: str) -> Causes:
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, (int, str)) and not isinstance(value, bool)
        return [] if fits else [mistyped(path, "integer,string", value)]
    if kind not in NAMES:
        return []
    fits = isinstance(value, NAMES[kind]) and (kind == "boolean") == isinstance(value, bool)
    return [] if fits else [mistyped(path, kind, value)]


def _object(schema: Json, value: Json, path: str, kept: Kept) -> Iterator[Cause]:
    if schema.get("x-kubernetes-embedded-resource"):
        yield from (required(below(path, k), "must not be empty") for k in ("apiVersion", "kind") if not value.get(k))
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for key in schema.get("required") or ():
        if key not in value:
            yield required(below(path, key))
    for key, child in value.items():
        inner = properties.get(key, extra)
        if isinstance(inner, dict):
            yield from _violations(inner, child, below(path, key), _in(kept, key))
    if len(value) < schema.get("minProperties", 0):
        yield bad(path, len(value), f"{path} in body should have at least {schema['minProperties']} properties")
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        yield too_many(path, len(value), schema["maxProperties"])


def _list(schema: Json, value: list[Any], path: str, kept: Kept) -> Iterator[Cause]:
    if len(value) < schema.get("minItems", 0):
        yield bad(path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield too_many(path, len(value), schema["maxItems"])
        return
    if isinstance(items := schema.get("items"), dict):
        for i, child in enumerate(value):
            yield from _violations(items, child, f"{path}[{i}]", _in(kept, i))
    yield from _unique(schema, value, path)


def _unique(schema: Json, value: list[Any], path: str) -> Iterator[Cause]:
    """Lists that are sets, or maps by some of their items' fields."""
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if kind not in ("set", "map"):
        return
    fields = ((schema.get("items") or {}).get("properties") or {}) if kind == "map" else {}
    seen: set[bytes] = set()
    for i, item in enumerate(value):
        identity = item
        if kind == "map" and isinstance(item, dict):
            identity = {k: item.get(k, (fields.get(k) or {}).get("default")) for k in keys}
        raw = jsons.canonical(identity)
        if raw in seen:
            yield duplicate(f"{path}[{i}]", identity)
        seen.add(raw)


def _text(schema: Json, value: str, path: str) -> Causes:
    out: Causes = []
    if len(value) < schema.get("minLength", 0):
        out.append(bad(path, value, f"{path} in body should be at least {schema['minLength']} chars long"))
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        out.append(too_long(path, schema["maxLength"]))
    if "pattern" in schema and not regex.compiled(schema["pattern"]).search(value):
        out.append(bad(path, value, f"{path} in body should match '{schema['pattern']}'"))
    if not formats.fits(str(schema.get("format") or ""), value):
        out.append(
            bad(path, value, f"{path} in body must be of type {schema['format']}: {jsons.dumps(value).decode()}")
        )
    return out


def _number(schema: Json, value: float, path: str) -> Causes:
    out: Causes = []
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and (value < least or (schema.get("exclusiveMinimum") and value == least)):
        or_equal = "" if schema.get("exclusiveMinimum") else "or equal to "
        out.append(bad(path, value, f"{path} in body should be greater than {or_equal}{least}"))
    if most is not None and (value > most or (schema.get("exclusiveMaximum") and value == most)):
        or_equal = "" if schema.get("exclusiveMaximum") else "or equal to "
        out.append(bad(path, value, f"{path} in body should be less than {or_equal}{most}"))
    if (step := schema.get("multipleOf")) and value % step:
        out.append(bad(path, value, f"{path} in body should be a multiple of {step}"))
    bits = {"int32": 31, "int64": 63}.get(str(schema.get("format")))
    if bits and not -(1 << bits) <= value < 1 << bits:
        out.append(bad(path, value, f"{path} in body must be of type {schema['format']}: {value}"))
    return out


def _combined(schema: Json, value: Any, path: str) -> Causes:
    out: Causes = []

    def tried(key: str) -> list[Causes]:
        return [check(s, value, path) for s in schema.get(key) or []]

    def says(text: str) -> Cause:
        return Cause("<nil>", f'Invalid value: "": "{path}" must {text}', "FieldValueInvalid")

    if (found := tried("allOf")) and _valid(found) < len(found):
        out += [c for causes in found for c in causes]
        out.append(says("validate all the schemas (allOf)"))
    if (found := tried("anyOf")) and not _valid(found):
        out += [says("validate at least one schema (anyOf)"), *_fewest(found)]
    if (found := tried("oneOf")) and _valid(found) != 1:
        valid = f"Found {_valid(found)} valid alternatives" if _valid(found) else "Found none valid"
        out.append(says(f"validate one and only one schema (oneOf). {valid}"))
        out += [] if _valid(found) else _fewest(found)
    if "not" in schema and not check(schema["not"], value, path):
        out.append(says("not validate the schema (not)"))
    return out


def _valid(found: list[Causes]) -> int:
    """How many of the alternatives are satisfied."""
    return sum(1 for causes in found if not causes)


def _fewest(found: list[Causes]) -> Causes:
    return min(found, key=_length)


def _length(causes: Causes) -> int:
    return len(causes)
