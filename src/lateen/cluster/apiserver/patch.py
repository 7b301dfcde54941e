"""The three patch dialects of the API: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

Strategic merge follows Kubernetes' rules: lists with a merge key in the schema are merged by it,
``$patch: delete|replace|merge``, ``$setElementOrder/…``, ``$deleteFromPrimitiveList/…`` and ``$retainKeys``.
"""

from __future__ import annotations

from typing import Any, cast

from lateen.cluster.apiserver import schema as schemas
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kit.later import jsonpatch

MAX_OPERATIONS = 10_000
ORDER, DELETE_PRIMITIVE, RETAIN = "$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys"


def json_patch(obj: Json, operations: Any) -> Json:
    """A copy with the operations applied in order. Raises ApiError: 400 for something that is not a JSON patch, 422 for
    an operation that cannot be applied."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        says = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise ApiError(413, "RequestEntityTooLarge", says)
    out: Any = jsons.copy(obj)
    for i, operation in enumerate(operations):
        _check_operation(i, operation)
        try:
            if operation["op"] == "replace" and _is_field(out, operation["path"]):
                operation = {**operation, "op": "add"}  # Kubernetes replaces a field of an object that has none
            out = jsonpatch.JsonPatch([operation]).apply(out, in_place=True)
        except jsonpatch.JsonPatchTestFailed:
            raise _cannot(operation, "the value differs") from None
        except (
            jsonpatch.JsonPatchException,
            jsonpatch.JsonPointerException,
            TypeError,
            KeyError,
            IndexError,
            ValueError,
        ):
            raise _cannot(operation, "the object has nothing there") from None
    return cast(Json, out)


def _is_field(obj: Any, path: str) -> bool:
    """Whether a JSON pointer leads to a field, present or not, of something that is an object."""
    parent = jsonpatch.JsonPointer(path.rpartition("/")[0]).resolve(obj) if path else None
    return isinstance(parent, dict)


def _check_operation(i: int, operation: Any) -> None:
    if not isinstance(operation, dict):
        raise bad_request(f"operation {i} of the JSON patch must be an object")
    kind = operation.get("op")
    if kind not in ("add", "remove", "replace", "move", "copy", "test"):
        raise bad_request(f"operation {i} of the JSON patch: op must be add, remove, replace, move, copy or test")
    for key in ("path", "from") if kind in ("move", "copy") else ("path",):
        value = operation.get(key)
        if not isinstance(value, str) or (value and not value.startswith("/")):
            raise bad_request(
                f'operation {i} of the JSON patch: {key} must be a JSON pointer such as "/metadata/labels"'
            )
    if kind in ("add", "replace", "test") and "value" not in operation:
        raise bad_request(f"operation {i} of the JSON patch: {kind} needs a value")


def _cannot(operation: Json, why: str) -> ApiError:
    about = f"{operation['from']} to {operation['path']}" if "from" in operation else operation["path"]
    cause = {"reason": "UnexpectedServerResponse", "message": f"{operation['op']} {about}: {why}", "field": "patch"}
    says = f"the server rejected our request due to an error in our request: {operation['op']} {about}: {why}"
    return ApiError(422, "Invalid", says, {"causes": [cause]})


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
    """Raises ApiError if a directive does not have the form that Kubernetes documents."""
    return cast(Json, _map(jsons.copy(target), patch, schemas.resolve(schema)) or {})


def _map(target: Json, patch: Json, schema: Json) -> Json | None:
    directive = patch.get("$patch")
    if directive == "delete":
        return None
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    if directive not in (None, "merge"):
        raise bad_request("$patch must be delete, merge or replace")
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for key, value in patch.items():
        if key.startswith(DELETE_PRIMITIVE):
            name, gone = key.removeprefix(DELETE_PRIMITIVE), _primitives(key, value)
            if isinstance(target.get(name), list):
                target[name] = [v for v in target[name] if v not in gone]
        elif not key.startswith("$"):
            child = properties.get(key) or (extra if isinstance(extra, dict) else {})
            _field(target, key, value, child)
    for key, order in patch.items():
        name = key.removeprefix(ORDER)
        if key.startswith(ORDER) and isinstance(target.get(name), list):
            target[name] = _ordered(target[name], _listed(key, order), properties.get(name) or {})
    if RETAIN in patch:
        keep = _primitives(RETAIN, patch[RETAIN])
        target = {k: v for k, v in target.items() if k in keep}
    return target


def _field(target: Json, key: str, value: Any, schema: Json) -> None:
    old = target.get(key)
    if value is None:
        target.pop(key, None)
    elif isinstance(value, dict):
        merged = _map(old if isinstance(old, dict) else {}, value, schemas.resolve(schema))
        if merged is None:
            target.pop(key, None)
        else:
            target[key] = merged
    elif isinstance(value, list) and isinstance(old, list):
        target[key] = _list(old, value, schema)
    elif isinstance(value, list):
        target[key] = [v for v in value if not (isinstance(v, dict) and "$patch" in v)]
    else:
        target[key] = value


def _listed(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise bad_request(f"{name} must be a list")
    return value


def _primitives(name: str, value: Any) -> list[Any]:
    if any(isinstance(v, (dict, list)) for v in _listed(name, value)):
        raise bad_request(f"{name} must be a list of plain values")
    return cast(list[Any], value)


def _list(old: list[Any], patch: list[Any], schema: Json) -> list[Any]:
    key = schema.get("x-kubernetes-patch-merge-key")
    merges = schema.get("x-kubernetes-patch-strategy", "").split(",")[0] in ("merge", "retainKeys")
    if not merges and key is None:
        return [v for v in patch if not (isinstance(v, dict) and set(v) == {"$patch"})]
    if any(v == {"$patch": "replace"} for v in patch):
        return [v for v in patch if v != {"$patch": "replace"}]
    if key is None:
        return _interleaved(old, [v for v in old if v not in patch], list(patch))
    item = schemas.resolve(schema.get("items") or {})
    out = [v for v in old if isinstance(v, dict)]
    for change in patch:
        if not isinstance(change, dict):
            raise bad_request(f"elements of a list that is merged by {key} must be objects")
        at = next((i for i, v in enumerate(out) if v.get(key) == change.get(key)), None)
        if change.get("$patch") == "delete":
            out = [v for v in out if v.get(key) != change.get(key)]
        elif at is None:
            out.append({k: v for k, v in change.items() if k != "$patch"})
        else:
            merged = _map(out[at], change, item)
            out = [*out[:at], *([merged] if merged is not None else []), *out[at + 1 :]]
    places = {repr(v.get(key)): i for i, v in reversed([*enumerate(v for v in patch if isinstance(v, dict))])}
    changed = sorted((v for v in out if repr(v.get(key)) in places), key=lambda v: places[repr(v.get(key))])
    return _interleaved([v.get(key) for v in old if isinstance(v, dict)], _without(out, places, key), changed, key)


def _without(items: list[Json], places: dict[str, int], key: str) -> list[Json]:
    return [v for v in items if repr(v.get(key)) not in places]


def _interleaved(before: list[Any], kept: list[Any], changed: list[Any], key: str = "") -> list[Any]:
    """Elements that a patch does not name, and those that it does, in its order: of the next two, the one that came
    first ``before``; what is new comes first (Kubernetes' ``mergeSortedSlice``)."""
    places = {repr(v): i for i, v in reversed([*enumerate(before)])}
    out, left, right = [], list(kept), list(changed)
    while left and right:
        this, other = (places.get(repr(v[0].get(key) if key else v[0])) for v in (left, right))
        out.append((left if this is not None and other is not None and this < other else right).pop(0))
    return [*out, *left, *right]


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
