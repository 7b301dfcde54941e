"""Protobuf request bodies, which typed Go clients and kubectl (1.32 and later) send for Kubernetes' own kinds.

``k8s\\0`` and then runtime.Unknown{typeMeta, raw}. The table of messages is made by tools/protobuf.py from the Go
types; the JSON that comes out is what Go's encoder would write of the same object.
"""

from __future__ import annotations

import base64
import gzip
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

from lateen.kit import jsons
from lateen.kit.jsons import Json

MAGIC = b"k8s\0"
MAX_DEPTH = 80
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Value = int | bytes
Shape = tuple[str, str, str]
"""(JSON name, type, flags); flags as in tools/protobuf.py."""


class Unsupported(ValueError):
    """A kind that is not in the table, or bytes that are not what they say."""


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, str], dict[str, dict[int, Shape]]]:
    raw = (files("lateen.cluster") / "data" / "protobuf.json.gz").read_bytes()
    found = jsons.loads(gzip.decompress(raw))
    messages = {name: {int(n): tuple(f) for n, f in fields.items()} for name, fields in found["messages"].items()}
    return found["kinds"], cast(dict[str, dict[int, Shape]], messages)


def decode(raw: bytes) -> Json:
    """The object as JSON. Raises Unsupported."""
    if not raw.startswith(MAGIC):
        raise Unsupported("the body is not in Kubernetes' protobuf encoding")
    kinds, _ = _tables()
    try:
        envelope = {number: value for number, value in _fields(raw[4:]) if isinstance(value, bytes)}
        type_meta = {number: value for number, value in _fields(envelope.get(1, b"")) if isinstance(value, bytes)}
        version, kind = type_meta.get(1, b"").decode(), type_meta.get(2, b"").decode()
        full = "meta/v1.DeleteOptions" if kind == "DeleteOptions" else kinds.get(_path(version, kind), "")
        if not full:
            raise Unsupported(
                f"this server does not read {kind or 'this kind'} ({version or 'no version'}) as protobuf; give it as "
                "a manifest with `kubectl apply -f` or `kubectl create -f`"
            )
        return {"apiVersion": version, "kind": kind, **_message(envelope.get(2, b""), full, 0)}
    except (IndexError, UnicodeDecodeError, OverflowError, struct.error) as e:
        raise Unsupported("the body is cut off or malformed") from e


def _path(version: str, kind: str) -> str:
    return f"{version}/{kind}" if "/" in version else f"/{version}/{kind}"


# --- the wire --------------------------------------------------------------------------------------------------------


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def _fields(raw: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) pairs; fixed-size values come as their bytes. Raises IndexError where the bytes end too soon."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if tag & 7 == 0:
            value, at = _varint(raw, at)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:
            size, at = _varint(raw, at)
        elif tag & 7 in (1, 5):
            size = 8 if tag & 7 == 1 else 4
        else:
            raise IndexError
        if at + size > len(raw):
            raise IndexError
        yield tag >> 3, raw[at : at + size]
        at += size


# --- messages --------------------------------------------------------------------------------------------------------


def _message(raw: bytes, full: str, depth: int) -> Json:
    """What is not a pointer and has its zero value is left out: gogo-proto writes it always, JSON never."""
    if depth > MAX_DEPTH:
        raise Unsupported("the body is nested too deeply")
    shape = _tables()[1][full]
    out: Json = {}
    for number, value in _fields(raw):
        if number not in shape:
            continue
        name, kind, flags = shape[number]
        if "i" in flags:
            out |= _message(_bytes(value), kind, depth + 1)
        elif "m" in flags:
            pair = dict(_fields(_bytes(value)))
            out.setdefault(name, {})[_text(pair.get(1, b""))] = _value(pair.get(2, b""), kind, depth)
        elif "r" in flags:
            out.setdefault(name, []).append(_value(value, kind, depth))
        else:
            found = _value(value, kind, depth)
            if found is not None and ("p" in flags or found not in ("", 0, False, {})):
                out[name] = found
    return out


def _value(value: Value, kind: str, depth: int) -> Any:
    if special := _SPECIAL.get(kind):
        return special(value)
    if kind in _SCHEMAS:
        return _schema(_bytes(value), kind, depth)
    if kind.startswith("list:"):
        return [_value(v, kind[5:], depth) for n, v in _fields(_bytes(value)) if n == 1]
    return _message(_bytes(value), kind, depth + 1)


def _bytes(value: Value) -> bytes:
    return value if isinstance(value, bytes) else b""


def _text(value: Value) -> str:
    return _bytes(value).decode()


def _int(value: Value) -> int:
    number = value if isinstance(value, int) else 0
    return number - (1 << 64) if number >> 63 else number


def _double(value: Value) -> float:
    return float(struct.unpack("<d", _bytes(value))[0]) if isinstance(value, bytes) else 0.0


def _first(value: Value) -> dict[int, Value]:
    return dict(_fields(_bytes(value)))


def _raw(value: Value) -> Any:
    """RawExtension, JSON, FieldsV1: JSON inside of protobuf."""
    inner = _bytes(_first(value).get(1, b""))
    try:
        return jsons.loads(inner) if inner else None
    except ValueError as e:
        raise Unsupported("the body holds JSON that is malformed") from e


def _moment(value: Value) -> datetime | None:
    found = _first(value)
    if not found:
        return None
    return _EPOCH + timedelta(seconds=_int(found.get(1, 0)), microseconds=_int(found.get(2, 0)) // 1000)


def _time(value: Value) -> str | None:
    found = _moment(value)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ") if found else None


def _micro_time(value: Value) -> str | None:
    found = _moment(value)
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if found else None


def _int_or_string(value: Value) -> int | str:
    found = _first(value)
    return _text(found.get(3, b"")) if found.get(1) == 1 else _int(found.get(2, 0))


_SPECIAL: dict[str, Callable[[Value], Any]] = {
    "string": _text,
    "int": _int,
    "bool": bool,
    "double": _double,
    "bytes": lambda value: base64.b64encode(_bytes(value)).decode(),
    "raw": _raw,
    "time": _time,
    "microTime": _micro_time,
    "quantity": lambda value: _text(_first(value).get(1, b"")),
    "intOrString": _int_or_string,
}
_SCHEMAS = ("schemaOrArray", "schemaOrBool", "schemaOrStrings")


def _schema(raw: bytes, kind: str, depth: int) -> Any:
    """A JSON schema, or what may stand in its place: a list of them, a boolean, or names of fields."""
    found = list(_fields(raw))
    number = 2 if kind == "schemaOrBool" else 1
    schemas = [_message(_bytes(v), "apiextensions/v1.JSONSchemaProps", depth + 1) for n, v in found if n == number]
    if schemas:
        return schemas[0]
    if kind == "schemaOrBool":
        return any(bool(v) for n, v in found if n == 1)
    if kind == "schemaOrStrings":
        return [_text(v) for n, v in found if n == 2]
    return [_message(_bytes(v), "apiextensions/v1.JSONSchemaProps", depth + 1) for n, v in found if n == 2]
