"""The base class of all user-facing types: frozen, keyword-only, camelCase on the wire; strict decoding with paths."""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from typing_extensions import dataclass_transform

from lateen.kit import duration
from lateen.kit.jsons import Json


class CelRule(typing.NamedTuple):
    rule: str
    message: str


def rules(*given: CelRule) -> tuple[CelRule, ...]:
    return given


def one_of(message: str, *groups: str) -> CelRule:
    """Fields of only one group may be written. ``groups``: names, separated by spaces."""
    written = (" || ".join(f"has(self.{name})" for name in group.split()) for group in groups)
    return CelRule(f"{' + '.join(f'({g} ? 1 : 0)' for g in written)} <= 1", message)


def one_target(*fields: str) -> CelRule:
    return one_of("only one of targetRefs or selector can be set", *fields)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A user-facing message; immutable after decoding."""

    RULES: typing.ClassVar[tuple[CelRule, ...]] = ()
    """What its CRD demands of fields that are written, even if they are empty. As in Istio, only API servers ask that:
    a decoded message does not tell an empty list from none."""


class Duration(str):
    """A duration in Go's syntax, kept as written."""

    __slots__ = ()

    @property
    def seconds(self) -> float:
        return duration.seconds(self)

    @property
    def nanoseconds(self) -> int:
        return duration.nanoseconds(self)


class Limits(typing.NamedTuple):
    """Constraints of a field's value beyond its type, as an annotation of the type (``Annotated``). The keywords are
    those of the CRD's schema; ``api.validate.limits`` checks them."""

    pattern: str = ""
    min_length: int = 0
    max_length: int = 0
    min_items: int = 0
    max_items: int = 0
    minimum: int | None = None
    maximum: int | None = None
    says: str = ""
    """A description of what ``pattern`` requires."""
    experimental: bool = False
    """Whether the field is only in the experimental channel of its API."""

    @property
    def schema(self) -> Json:
        named = {
            "pattern": self.pattern,
            "minLength": self.min_length,
            "maxLength": self.max_length,
            "minItems": self.min_items,
            "maxItems": self.max_items,
        }
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return {k: v for k, v in named.items() if v} | {k: v for k, v in bounds.items() if v is not None}


class Defaulted(Config, kw_only=True):
    """A type whose defaults are in its CRD, so that the API server fills them in. A field without a default there is
    None or empty here."""


T = TypeVar("T", bound=Config)


class DecodeError(ValueError):
    """A value of the wrong type; ``path`` says where, in the user's field names."""

    def __init__(self, path: str, says: str) -> None:
        super().__init__(f"{path}: {says}")
        self.path, self.says = path, says


_WORDS = {
    "array": "a list",
    "object": "a map",
    "str": "a string",
    "Duration": 'a duration such as "5s"',
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "null": "null",
    "list": "a list",
    "dict": "a map",
    "NoneType": "null",
}
"""YAML's names of msgspec's and Python's types."""
_EXPECTED = re.compile(r"expected `?([\w |]+?)`?(?: ([<>]=) ([\d.]+))?(?:, got `?(\w+)`?)?", re.IGNORECASE)
_BOUNDS = {"<=": "at most", ">=": "at least"}
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`")


def named(value: object) -> str:
    """The type of a value in YAML."""
    name = type(value).__name__
    return _WORDS.get(name, name)


def plain(e: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec says of a value, with YAML's names of types, and where it is: ``.hosts[0]``, or nothing."""
    says, _, where = str(e).partition(" - at `$")
    if found := _EXPECTED.fullmatch(says):
        kinds = [_WORDS.get(kind, kind) for kind in found[1].split(" | ") if kind != "null"]
        says = f"expected {' or '.join(kinds)}"
        if found[2]:
            says += f" of {_BOUNDS[found[2]]} {float(found[3]):g}"
        if found[4]:
            says += f", got {_WORDS.get(found[4], found[4])}"
    elif found := _FIELD.fullmatch(says):
        says = f'{"missing" if found[1] == "missing required" else "unknown"} field "{found[2]}"'
    return says, where.rstrip("`")


def _leaf(kind: type, value: object) -> object:
    if kind is Duration and isinstance(value, str):
        duration.nanoseconds(value)
        return Duration(value)
    raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")


def decode(kind: type[T], value: Any, path: str = "spec") -> T:
    """The typed form; unknown fields are ignored (see ``unknown``). Raises DecodeError."""
    try:
        return msgspec.convert(value, kind, dec_hook=_leaf, strict=True)
    except msgspec.ValidationError as e:
        says, where = plain(e)
        raise DecodeError(path + where, says) from e


def unwrap(kind: Any) -> Any:
    """``X | None`` -> X, without annotations."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return unwrap(next(a for a in typing.get_args(kind) if a is not type(None)))
    return unwrap(typing.get_args(kind)[0]) if typing.get_origin(kind) is Annotated else kind


@functools.cache
def limits(kind: Any) -> tuple[Limits, ...]:
    """The constraints that annotate a type, the outermost first."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return limits(next(a for a in typing.get_args(kind) if a is not type(None)))
    if typing.get_origin(kind) is not Annotated:
        return ()
    inner, *notes = typing.get_args(kind)
    return (*(n for n in notes if isinstance(n, Limits)), *limits(inner))


class FieldTable(typing.NamedTuple):
    """A type's fields, by their names on the wire."""

    types: dict[str, Any]
    """each field's type without ``| None``"""
    declared: dict[str, Any]
    """each field's type as written"""
    required: tuple[str, ...]
    defaults: dict[str, Any]


@functools.cache
def table(kind: type[Config]) -> FieldTable:
    """Cached per type: msgspec resolves annotations again on every call, which costs more than validating an object."""
    known = msgspec.structs.fields(kind)
    return FieldTable(
        types={f.encode_name: unwrap(f.type) for f in known},
        declared={f.encode_name: f.type for f in known},
        required=tuple(
            f.encode_name for f in known if f.default is msgspec.NODEFAULT and f.default_factory is msgspec.NODEFAULT
        ),
        defaults={f.encode_name: f.default for f in known if f.default is not msgspec.NODEFAULT},
    )


def fields(kind: type[Config]) -> dict[str, Any]:
    """Field name on the wire -> its type. The mapping is shared: do not modify it."""
    return table(kind).types


class Form(typing.NamedTuple):
    """The structure of a type's values."""

    how: str
    """``list``, ``map``, ``message`` or ``leaf``"""
    inner: Any
    """The type of the list's items or the map's values; for a message or a leaf, the type itself."""


@functools.cache
def form(kind: Any) -> Form:
    """The structure of a type, ignoring ``| None``; cached, since walks over values ask for each value."""
    bare = unwrap(kind)
    origin = typing.get_origin(bare)
    if origin is tuple:
        return Form("list", typing.get_args(bare)[0])
    if origin is dict:
        return Form("map", typing.get_args(bare)[1])
    return Form("message" if _message(bare) else "leaf", bare)


def unknown(kind: Any, value: Any, path: str = "spec") -> list[str]:
    """Paths of fields that do not exist in the type."""
    how, inner = form(kind)
    out: list[str] = []
    if how == "list" and isinstance(value, list):
        for i, v in enumerate(value):
            if isinstance(v, NESTED):
                out += unknown(inner, v, f"{path}[{i}]")
    elif how == "map" and isinstance(value, dict):
        for k, v in value.items():
            if isinstance(v, NESTED):
                out += unknown(inner, v, f"{path}[{k}]")
    elif how == "message" and isinstance(value, dict):
        known, deep = fields(inner), _containers(inner)
        if not value.keys() <= known.keys():
            out += [f"{path}.{key}" for key in value if key not in known]
        for key, v in value.items():
            if key in deep and isinstance(v, NESTED):
                out += unknown(deep[key], v, f"{path}.{key}")
    return out


NESTED = (dict, list)
ROOT = ("apiVersion", "kind", "metadata", "spec", "status")


def beside_spec(obj: Json) -> list[str]:
    """Fields of an object of the mesh that no kind has."""
    return [str(key) for key in obj if key not in ROOT]


_PLAIN = {str: "string", Duration: "string", int: "integer", bool: "boolean", float: "number"}
"""Types of plain values and what OpenAPI calls them."""


def misshapen(kind: Any, value: Any, path: str = "spec") -> Iterator[tuple[str, str]]:
    """(path, sentence) where a value has another structure than its type: a list in the place of an object, a number in
    that of a text. Nothing else can be said of such an object."""
    how, inner = form(kind)
    if value is None or inner in (Any, object):
        return
    wanted = {"list": "array", "leaf": _PLAIN.get(inner, "string")}.get(how, "object")
    found = _openapi(value)
    other = wanted != found and (wanted, found) != ("number", "integer")
    if other and (typing.get_origin(inner) is not Literal or found in ("object", "array")):
        yield path, f"must be of type {wanted}, not {found}"
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from misshapen(inner, v, f"{path}[{i}]")
    elif isinstance(value, dict) and how != "leaf":
        for key, v in value.items():
            if how == "map":
                yield from misshapen(inner, v, f"{path}[{key}]")
            elif key in fields(inner):
                yield from misshapen(fields(inner)[key], v, f"{path}.{key}")


def _openapi(value: Any) -> str:
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else _PLAIN.get(type(value), "string")


@functools.cache
def _containers(kind: type[Config]) -> dict[str, Any]:
    """The fields of a message that may contain messages, with their types."""
    return {name: t for name, t in fields(kind).items() if _contains_messages(t)}


def _contains_messages(kind: Any) -> bool:
    how, inner = form(kind)
    return _contains_messages(inner) if how in ("list", "map") else how == "message"


_ZERO: dict[Any, Any] = {str: "", int: 0, bool: False, float: 0.0}


def complete(kind: Any, value: Any) -> Any:
    """The value with zero values for missing required fields and empty messages for nulls in lists, as protobuf reads
    JSON, so that all rules can be applied to an incomplete object and report everything at once."""
    how, inner = form(kind)
    if how == "list" and isinstance(value, list):
        empty = inner is unwrap(inner) and _message(inner)
        return [complete(inner, {} if v is None and empty else v) for v in value]
    if how not in ("map", "message") or not isinstance(value, dict):
        return value
    if how == "map":
        return {k: complete(inner, v) for k, v in value.items()}
    known = table(inner)
    out = {
        k: complete(known.declared[k], v) if isinstance(v, NESTED) and k in known.declared else v
        for k, v in value.items()
    }
    for name in known.required:
        if name not in out:
            wanted = _unannotated(known.declared[name])
            if _message(wanted):
                out[name] = complete(wanted, {})
            elif typing.get_origin(wanted) is tuple:
                out[name] = []
            elif wanted in _ZERO:
                out[name] = _ZERO[wanted]
    return out


def without_nulls(kind: Any, value: Any) -> Any:
    """The value without fields that are null, which count as not set, as in protobuf; nulls in lists and maps stay."""
    how, inner = form(kind)
    if how == "list" and isinstance(value, list):
        return [without_nulls(inner, v) for v in value]
    if how == "map" and isinstance(value, dict):
        return {k: without_nulls(inner, v) for k, v in value.items()}
    if how != "message" or not isinstance(value, dict):
        return value
    known = fields(inner)
    return {k: without_nulls(known[k], v) if k in known else v for k, v in value.items() if v is not None}


def _written(value: Any) -> Any:
    """A default as JSON, including the defaults of nested messages."""
    if isinstance(value, tuple):
        return [_written(v) for v in value]
    if isinstance(value, Config):
        found = {f.encode_name: getattr(value, f.name) for f in msgspec.structs.fields(type(value))}
        return {k: _written(v) for k, v in found.items() if v is not None and v not in ((), {}, "")}
    return str(value) if isinstance(value, Duration) else value


def _unannotated(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _message(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)


def schema(kind: Any, experimental: bool = False) -> Json:
    """The structural OpenAPI schema of a type, for its CRD. ``experimental``: including the fields of that channel."""
    found = _schema(unwrap(kind), experimental)
    for limit in limits(kind):
        found |= limit.schema
    return found


def _schema(kind: Any, experimental: bool) -> Json:
    origin = typing.get_origin(kind)
    if origin is tuple:
        return {"type": "array", "items": schema(typing.get_args(kind)[0], experimental)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema(typing.get_args(kind)[1], experimental)}
    if origin is Literal:
        values = list(typing.get_args(kind))
        return {"type": "integer" if isinstance(values[0], int) else "string", "enum": values}
    if kind is typing.Any or kind is object:
        return {"x-kubernetes-preserve-unknown-fields": True}
    if isinstance(kind, type) and issubclass(kind, Config):
        return _message_schema(kind, experimental)
    return {"type": _PLAIN[kind]}


def _message_schema(kind: type[Config], experimental: bool) -> Json:
    known = table(kind)
    shown = {n: t for n, t in known.declared.items() if experimental or not any(i.experimental for i in limits(t))}
    properties = {n: schema(t, experimental) for n, t in shown.items()}
    if issubclass(kind, Defaulted):
        for name, value in known.defaults.items():
            if name in properties and value is not None and value not in ((), {}):
                properties[name]["default"] = _written(value)
    out: Json = {"type": "object", "properties": properties}
    if kind.RULES:
        out["x-kubernetes-validations"] = [rule._asdict() for rule in kind.RULES]
    return out | {"required": list(known.required)} if known.required else out
