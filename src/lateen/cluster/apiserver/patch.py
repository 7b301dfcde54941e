"""The three patch dialects of the API: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

Strategic merge follows Kubernetes' rules: lists with a merge key in the schema are merged by it,
``$patch: delete|replace|merge``, ``$setElementOrder/…``, ``$deleteFromPrimitiveList/…`` and ``$retainKeys``.
"""

from __future__ import annotations

from typing import Any, cast

import jsonpatch

from lateen.cluster.apiserver import schema as schemas
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.kit import jsons
from lateen.kit.jsons import Json

ORDER, DELETE_PRIMITIVE, RETAIN = "$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys"


def json_patch(obj: Json, operations: Any) -> Json:
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    try:
        return cast(Json, jsonpatch.apply_patch(obj, operations))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as e:
        raise ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {e}") from e


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


def strategic(target: Json, patch: Json, schema: Json) -> Json:
    return cast(Json, _map(jsons.copy(target), patch, schemas.resolve(schema)))


def _map(target: Json, patch: Json, schema: Json) -> Json | None:
    directive = patch.get("$patch")
    if directive == "delete":
        return None
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for key, value in patch.items():
        if key.startswith("$"):
            if key.startswith(DELETE_PRIMITIVE):
                name = key.removeprefix(DELETE_PRIMITIVE)
                target[name] = [v for v in target.get(name) or [] if v not in value]
            continue
        child = properties.get(key) or (extra if isinstance(extra, dict) else {})
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            old = target.get(key)
            merged = _map(old if isinstance(old, dict) else {}, value, schemas.resolve(child))
            if merged is None:
                target.pop(key, None)
            else:
                target[key] = merged
        elif isinstance(value, list) and isinstance(target.get(key), list):
            target[key] = _list(target[key], value, child)
        elif isinstance(value, list):
            target[key] = [v for v in value if not (isinstance(v, dict) and "$patch" in v)]
        else:
            target[key] = value
    for key, order in patch.items():
        if key.startswith(ORDER) and isinstance(target.get(key.removeprefix(ORDER)), list):
            name = key.removeprefix(ORDER)
            target[name] = _ordered(target[name], order, properties.get(name) or {})
    if RETAIN in patch:
        keep = set(patch[RETAIN])
        target = {k: v for k, v in target.items() if k in keep}
    return target


def _list(old: list[Any], patch: list[Any], schema: Json) -> list[Any]:
    if schema.get("x-kubernetes-patch-strategy", "").split(",")[0] not in ("merge", "retainKeys") and not schema.get(
        "x-kubernetes-patch-merge-key"
    ):
        return [v for v in patch if not (isinstance(v, dict) and set(v) == {"$patch"})]
    if any(isinstance(v, dict) and v == {"$patch": "replace"} for v in patch):
        return [v for v in patch if v != {"$patch": "replace"}]
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        return old + [v for v in patch if v not in old]
    item = schemas.resolve(schema.get("items") or {})
    out = list(old)
    for change in patch:
        at = next((i for i, v in enumerate(out) if v.get(key) == change.get(key)), None)
        if change.get("$patch") == "delete":
            out = [v for v in out if v.get(key) != change.get(key)]
        elif at is None:
            out.append({k: v for k, v in change.items() if k != "$patch"})
        else:
            merged = _map(out[at], change, item)
            out = [*out[:at], *([merged] if merged is not None else []), *out[at + 1 :]]
    return out


def _ordered(items: list[Any], order: list[Any], schema: Json) -> list[Any]:
    """Listed elements take their listed order; others stay after the neighbour they followed."""
    key = schema.get("x-kubernetes-patch-merge-key")
    wanted = [v.get(key) if isinstance(v, dict) else v for v in order]
    place = {repr(v): i for i, v in enumerate(wanted)}
    last = -1.0
    ranked = []
    for i, item in enumerate(items):
        rank = place.get(repr(item.get(key) if isinstance(item, dict) else item))
        last = float(rank) if rank is not None else last
        ranked.append(((last, rank is None, i), item))
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]
