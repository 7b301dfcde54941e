"""The base of everything users write: frozen, keyword-only, camelCase on the wire; strict decoding with paths."""

from __future__ import annotations

import functools
import types
import typing
from typing import Any, Literal, TypeVar, cast

import msgspec
from typing_extensions import dataclass_transform

from lateen.kit import duration
from lateen.kit.jsons import Json


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A config object is never changed after decoding."""


class Duration(str):
    """A duration in Go's spelling, kept as written."""

    __slots__ = ()

    @property
    def seconds(self) -> float:
        return duration.seconds(self)

    @property
    def nanoseconds(self) -> int:
        return duration.nanoseconds(self)


T = TypeVar("T", bound=Config)


class DecodeError(ValueError):
    """A value of the wrong shape; ``path`` is where, in the user's field names."""

    def __init__(self, path: str, says: str) -> None:
        super().__init__(f"{path}: {says}")
        self.path, self.says = path, says


def _leaf(kind: type, value: object) -> object:
    if kind is Duration and isinstance(value, str):
        duration.nanoseconds(value)
        return Duration(value)
    raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")


def decode(kind: type[T], value: Any, path: str = "spec") -> T:
    """The typed form; unknown fields are left to ``unknown``. Raises DecodeError."""
    try:
        return msgspec.convert(value, kind, dec_hook=_leaf, strict=True)
    except msgspec.ValidationError as e:
        says, _, where = str(e).partition(" - at `$")
        raise DecodeError(path + where.rstrip("`"), says) from e


def unwrap(kind: Any) -> Any:
    """``X | None`` -> X."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(a for a in typing.get_args(kind) if a is not type(None))
    return kind


class FieldTable(typing.NamedTuple):
    """What a type says of its fields; the keys are field names on the wire."""

    types: dict[str, Any]
    """each field's type without ``| None``"""
    declared: dict[str, Any]
    """each field's type as written"""
    required: tuple[str, ...]


@functools.cache
def table(kind: type[Config]) -> FieldTable:
    """Computed once per type: msgspec resolves annotations anew on every call, which costs more than a validation."""
    known = msgspec.structs.fields(kind)
    return FieldTable(
        types={f.encode_name: unwrap(f.type) for f in known},
        declared={f.encode_name: f.type for f in known},
        required=tuple(
            f.encode_name for f in known if f.default is msgspec.NODEFAULT and f.default_factory is msgspec.NODEFAULT
        ),
    )


def fields(kind: type[Config]) -> dict[str, Any]:
    """Field name on the wire -> its type. The mapping is shared: do not change it."""
    return table(kind).types


class Form(typing.NamedTuple):
    """How values of a type are built."""

    how: str
    """``list``, ``map``, ``message`` or ``leaf``"""
    inner: Any
    """The type of its items, of its values, or (of a message or a leaf) itself."""


@functools.cache
def form(kind: Any) -> Form:
    """Of a type, whether or not it may be None; looked at once per type, since walks over values ask for each value."""
    bare = unwrap(kind)
    origin = typing.get_origin(bare)
    if origin is tuple:
        return Form("list", typing.get_args(bare)[0])
    if origin is dict:
        return Form("map", typing.get_args(bare)[1])
    return Form("message" if _message(bare) else "leaf", bare)


def unknown(kind: Any, value: Any, path: str = "spec") -> list[str]:
    """Paths of fields that the type does not have."""
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
        known = fields(inner)
        for key, v in value.items():
            if key not in known:
                out.append(f"{path}.{key}")
            elif isinstance(v, NESTED):
                out += unknown(known[key], v, f"{path}.{key}")
    return out


NESTED = (dict, list)


_ZERO: dict[Any, Any] = {str: "", int: 0, bool: False, float: 0.0}


def complete(kind: Any, value: Any) -> Any:
    """The value with zero values for required fields that are missing, and empty messages for nulls in lists, as
    protobuf's JSON reads it: so that rules about the values can say what is wrong with all of them at once."""
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
            wanted = known.declared[name]
            if _message(wanted):
                out[name] = complete(wanted, {})
            elif typing.get_origin(wanted) is tuple:
                out[name] = []
            elif wanted in _ZERO:
                out[name] = _ZERO[wanted]
    return out


def _message(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)


def schema(kind: Any) -> Json:
    """The structural OpenAPI schema of a type, for its CRD."""
    kind = unwrap(kind)
    origin = typing.get_origin(kind)
    if origin is tuple:
        return {"type": "array", "items": schema(typing.get_args(kind)[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema(typing.get_args(kind)[1])}
    if origin is Literal:
        values = list(typing.get_args(kind))
        return {"type": "string", "enum": values}
    if kind is typing.Any or kind is object:
        return {"x-kubernetes-preserve-unknown-fields": True}
    if isinstance(kind, type) and issubclass(kind, Config):
        required = list(table(kind).required)
        out: Json = {"type": "object", "properties": {n: schema(t) for n, t in fields(kind).items()}}
        return out | {"required": required} if required else out
    return {
        "type": cast(
            dict[Any, str], {str: "string", Duration: "string", int: "integer", bool: "boolean", float: "number"}
        )[kind]
    }
