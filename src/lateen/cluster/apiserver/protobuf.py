"""Protobuf request bodies of the small kinds that kubectl (1.32 and later) creates without a manifest.

``k8s\\0`` and then runtime.Unknown{typeMeta, raw}; the field numbers are those of k8s.io/api's generated.proto. Kinds
that are not in the table are refused with a sentence that says what to do instead.
"""

from __future__ import annotations

import base64
from typing import Any

from lateen.kit.jsons import Json

MAGIC = b"k8s\0"

# A message is {field number: (name, type)}; a type is "string", "int", "bool", "bytes", "map" (of strings),
# "bytesmap", a message, or a list holding one of them for a repeated field.
_META = {
    1: ("name", "string"),
    2: ("generateName", "string"),
    3: ("namespace", "string"),
    11: ("labels", "map"),
    12: ("annotations", "map"),
    14: ("finalizers", ["string"]),
}
_OBJECT_REF = {1: ("kind", "string"), 2: ("apiVersion", "string"), 3: ("name", "string"), 4: ("uid", "string")}
_RESOURCE = {
    1: ("namespace", "string"),
    2: ("verb", "string"),
    3: ("group", "string"),
    4: ("version", "string"),
    5: ("resource", "string"),
    6: ("subresource", "string"),
    7: ("name", "string"),
}
_RULE = {
    1: ("verbs", ["string"]),
    2: ("apiGroups", ["string"]),
    3: ("resources", ["string"]),
    4: ("resourceNames", ["string"]),
    5: ("nonResourceURLs", ["string"]),
}
_SELECTOR = {
    1: ("matchLabels", "map"),
    2: ("matchExpressions", [{1: ("key", "string"), 2: ("operator", "string"), 3: ("values", ["string"])}]),
}
_BINDING = {
    1: ("metadata", _META),
    2: (
        "subjects",
        [{1: ("kind", "string"), 2: ("apiGroup", "string"), 3: ("name", "string"), 4: ("namespace", "string")}],
    ),
    3: ("roleRef", {1: ("apiGroup", "string"), 2: ("kind", "string"), 3: ("name", "string")}),
}
_KINDS: dict[str, dict[int, tuple[str, Any]]] = {
    "Namespace": {1: ("metadata", _META)},
    "ServiceAccount": {1: ("metadata", _META)},
    "ConfigMap": {1: ("metadata", _META), 2: ("data", "map"), 3: ("binaryData", "bytesmap"), 4: ("immutable", "bool")},
    "Secret": {
        1: ("metadata", _META),
        2: ("data", "bytesmap"),
        3: ("type", "string"),
        4: ("stringData", "map"),
        5: ("immutable", "bool"),
    },
    "Role": {1: ("metadata", _META), 2: ("rules", [_RULE])},
    "RoleBinding": _BINDING,
    "ClusterRole": {
        1: ("metadata", _META),
        2: ("rules", [_RULE]),
        3: ("aggregationRule", {1: ("clusterRoleSelectors", [_SELECTOR])}),
    },
    "ClusterRoleBinding": _BINDING,
    "TokenRequest": {
        1: ("metadata", _META),
        2: (
            "spec",
            {1: ("audiences", ["string"]), 3: ("boundObjectRef", _OBJECT_REF), 4: ("expirationSeconds", "int")},
        ),
    },
    "SelfSubjectAccessReview": {
        1: ("metadata", _META),
        2: (
            "spec",
            {
                1: ("resourceAttributes", _RESOURCE),
                2: ("nonResourceAttributes", {1: ("path", "string"), 2: ("verb", "string")}),
            },
        ),
    },
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "int"),
        2: ("preconditions", {1: ("uid", "string"), 2: ("resourceVersion", "string")}),
        4: ("propagationPolicy", "string"),
        5: ("dryRun", ["string"]),
    },
}


class Unsupported(ValueError):
    """A kind that is not in the table, or bytes that are not what they say."""


def decode(raw: bytes) -> Json:
    """The object as JSON. Raises Unsupported."""
    if not raw.startswith(MAGIC):
        raise Unsupported("the body is not in Kubernetes' protobuf encoding")
    try:
        envelope = _message(
            raw[4:], {1: ("type", {1: ("apiVersion", "string"), 2: ("kind", "string")}), 2: ("raw", "raw")}
        )
        kind = envelope.get("type", {}).get("kind", "")
        if kind not in _KINDS:
            raise Unsupported(
                f"this server does not read {kind or 'this kind'} as protobuf; give it as a manifest with "
                "`kubectl apply -f` or `kubectl create -f`"
            )
        return {**envelope["type"], **_message(envelope.get("raw", b""), _KINDS[kind])}
    except (IndexError, UnicodeDecodeError, RecursionError) as e:
        raise Unsupported("the body is cut off or malformed") from e


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


def _fields(raw: bytes) -> list[tuple[int, int | bytes]]:
    out: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if tag & 7 == 0:
            value, at = _varint(raw, at)
            out.append((tag >> 3, value))
        elif tag & 7 == 2:
            size, at = _varint(raw, at)
            if at + size > len(raw):
                raise IndexError
            out.append((tag >> 3, raw[at : at + size]))
            at += size
        else:
            at += 8 if tag & 7 == 1 else 4
    return out


def _message(raw: bytes, shape: dict[int, tuple[str, Any]]) -> Json:
    """Empty strings and messages, which gogo-proto always writes, are left out."""
    out: Json = {}
    for number, value in _fields(raw):
        if number not in shape:
            continue
        name, kind = shape[number]
        if isinstance(kind, list):
            out.setdefault(name, []).append(_value(value, kind[0]))
        elif kind in ("map", "bytesmap"):
            pair = dict(_fields(value if isinstance(value, bytes) else b""))
            key = str(_value(pair.get(1, b""), "string"))
            out.setdefault(name, {})[key] = _value(pair.get(2, b""), "string" if kind == "map" else "bytes")
        else:
            found = _value(value, kind)
            if found not in ("", {}):
                out[name] = found
    return out


def _value(value: int | bytes, kind: Any) -> Any:
    if isinstance(kind, dict):
        return _message(value if isinstance(value, bytes) else b"", kind)
    if isinstance(value, int):
        return bool(value) if kind == "bool" else value
    if kind == "raw":
        return value
    return base64.b64encode(value).decode() if kind == "bytes" else value.decode()
