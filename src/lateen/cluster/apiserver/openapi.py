"""The OpenAPI documents that kubectl requests: v3 as JSON, v2 as JSON and as gnostic's protobuf.

kubectl up to 1.28 reads only the protobuf form of v2 for apply, create, edit and explain. About a dozen of gnostic's
message types are needed; their field numbers are those of google/gnostic-models OpenAPIv2.proto.
"""

from __future__ import annotations

import hashlib
from typing import Any

from lateen.cluster.apiserver.descriptions import described
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.schema import by_kind, definitions
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kit.protowire import message

GVK = "x-kubernetes-group-version-kind"
_WRITES = (("post", "create"), ("put", "update"), ("patch", "patch"))


def custom_name(resource: Resource, version: str) -> str:
    return ".".join([*reversed(resource.group.split(".")), version, resource.kind])


def _definition_name(r: Resource, version: str) -> str | None:
    return custom_name(r, version) if r.custom else by_kind().get((r.group, version, r.kind))


def _schemas(registry: Registry) -> dict[str, Json]:
    out = dict(definitions())
    for r in registry.all():
        if r.custom:
            for version in r.served:
                schema = r.schemas[version]
                gvk = [{"group": r.group, "version": version, "kind": r.kind}]
                properties = {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
                    **(schema.get("properties") or {}),
                }
                out[custom_name(r, version)] = {**schema, "type": "object", "properties": properties, GVK: gvk}
    return out


def _path(r: Resource, version: str) -> str:
    base = f"/apis/{r.group}/{version}" if r.group else f"/api/{version}"
    return f"{base}/namespaces/{{namespace}}/{r.plural}" if r.namespaced else f"{base}/{r.plural}"


def _query(name: str) -> Json:
    return {"name": name, "in": "query", "type": "string"}


def v2(registry: Registry) -> Json:
    """The Swagger document: definitions, and for each resource the operations that kubectl looks up."""
    paths: Json = {}
    for r in registry.all():
        for version in r.served:
            gvk = {"group": r.group, "version": version, "kind": r.kind}
            for suffix, verbs in (("", _WRITES[:1]), ("/{name}", _WRITES[1:])):
                paths[_path(r, version) + suffix] = {
                    method: {
                        "operationId": f"{action}{r.group}{version}{r.kind}{suffix and 'Named'}",
                        "parameters": [_query("dryRun"), _query("fieldManager"), _query("fieldValidation")],
                        "responses": {"200": {"description": "OK"}},
                        "x-kubernetes-action": action,
                        GVK: gvk,
                    }
                    for method, action in verbs
                }
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.32.0"},
        "paths": paths,
        "definitions": _schemas(registry),
    }


def v3_index(registry: Registry) -> Json:
    paths = {}
    for group, versions in registry.groups().items():
        for version in versions:
            key = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(jsons.canonical(v3(registry, group, version))).hexdigest()[:32].upper()
            paths[key] = {"serverRelativeURL": f"/openapi/v3/{key}?hash={digest}"}
    return {"paths": paths}


def v3(registry: Registry, group: str, version: str) -> Json | None:
    resources = [r for r in registry.all() if r.group == group and version in r.served]
    if not resources:
        return None
    schemas = _schemas(registry)
    wanted: dict[str, Json] = {}
    todo = [n for r in resources if (n := _definition_name(r, version))]
    while todo:
        name = todo.pop()
        if name not in wanted:
            schema = described(name) if name in definitions() else schemas[name]
            raw = jsons.dumps(schema)
            todo += _refs(schema)
            wanted[name] = jsons.loads(raw.replace(b"#/definitions/", b"#/components/schemas/"))
    paths: Json = {}
    for r in resources:
        for suffix, verbs in (("", _WRITES[:1]), ("/{name}", _WRITES[1:])):
            paths[_path(r, version) + suffix] = {
                method: {
                    "parameters": [
                        {"name": n, "in": "query", "schema": {"type": "string"}}
                        for n in ("dryRun", "fieldManager", "fieldValidation")
                    ],
                    "responses": {"200": {"description": "OK"}},
                    "x-kubernetes-action": action,
                    GVK: {"group": group, "version": version, "kind": r.kind},
                }
                for method, action in verbs
            }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.32.0"},
        "paths": paths,
        "components": {"schemas": wanted},
    }


def _refs(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"].rpartition("/")[2]] if isinstance(node.get("$ref"), str) else []
        return own + [r for v in node.values() for r in _refs(v)]
    return [r for v in node for r in _refs(v)] if isinstance(node, list) else []


# --- gnostic's protobuf form -------------------------------------------------------------------------------------


def v2_protobuf(registry: Registry) -> bytes:
    doc = v2(registry)
    info = _text(1, doc["info"]["title"]) + _text(2, doc["info"]["version"])
    paths = b"".join(message(2, _text(1, path) + message(2, _path_item(item))) for path, item in doc["paths"].items())
    named = b"".join(message(1, _text(1, n) + message(2, _schema(s))) for n, s in doc["definitions"].items())
    return _text(1, "2.0") + message(2, info) + message(8, paths) + message(9, named)


def _text(number: int, text: str) -> bytes:
    return message(number, text.encode())


def _extensions(number: int, node: Json) -> bytes:
    """NamedAny{name, Any{yaml}} for each ``x-`` key; JSON is YAML."""
    return b"".join(
        message(number, _text(1, k) + message(2, _text(2, jsons.dumps(v).decode())))
        for k, v in node.items()
        if k.startswith("x-")
    )


_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


def _path_item(item: Json) -> bytes:
    return b"".join(message(_METHODS[method], _operation(op)) for method, op in item.items())


def _operation(op: Json) -> bytes:
    parameters = b""
    for p in op["parameters"]:
        query = _text(2, "query") + _text(4, p["name"]) + _text(6, "string")
        parameters += message(8, message(1, message(2, message(3, query))))
    response = message(1, _text(1, "200") + message(2, message(1, _text(1, "OK"))))
    return _text(5, op["operationId"]) + parameters + message(9, response) + _extensions(13, op)


def _schema(s: Json) -> bytes:
    out = b""
    if "$ref" in s:
        out += _text(1, s["$ref"])
    if s.get("format"):
        out += _text(2, s["format"])
    out += b"".join(_text(19, r) for r in s.get("required") or ())
    extra = s.get("additionalProperties")
    if isinstance(extra, dict):
        out += message(21, message(1, _schema(extra)))
    if "type" in s:
        out += message(22, _text(1, s["type"]))
    if isinstance(s.get("items"), dict):
        out += message(23, message(1, _schema(s["items"])))
    if s.get("properties"):
        inner = b"".join(message(1, _text(1, n) + message(2, _schema(p))) for n, p in s["properties"].items())
        out += message(25, inner)
    return out + _extensions(31, s)
