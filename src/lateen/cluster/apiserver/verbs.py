"""create, update, patch: from a decoded call to the write pipeline."""

from __future__ import annotations

import secrets

from lateen.cluster.apiserver import decoding, errors, patch, reading
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.commit import Committer
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.apiserver.validation.fields import bad, required
from lateen.cluster.store.objects import Store
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
}
_ATTEMPTS = 5


async def create(store: Store, committer: Committer, c: Call) -> Json:
    r, obj = c.resource, decoding.decode(c, c.body)
    meta = obj["metadata"]
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = f"{meta['generateName'][:58]}{secrets.token_hex(4)[:5]}"
    name = str(meta.get("name") or "")
    if not name:
        says = "name or generateName is required"
        raise errors.invalid(r.kind, r.group, "", [required("metadata.name", says)])
    if r.namespaced:
        meta["namespace"] = _namespace(store, c, meta)
    else:
        meta.pop("namespace", None)
    if store.get(r.collection, c.namespace, name):
        raise errors.exists(r.plural, name, r.group)
    return reading.view(c, await committer.commit(c, obj, None, None))


def _namespace(store: Store, c: Call, meta: Json) -> str:
    given = meta.get("namespace")
    if given and given != c.namespace:
        raise bad_request(
            f"the namespace of the provided object does not match the namespace sent on the request ({given} is not "
            f"{c.namespace})"
        )
    found = store.get("namespaces", "", c.namespace)
    if found is None:
        raise errors.not_found("namespaces", c.namespace)
    if found.obj["metadata"].get("deletionTimestamp"):
        name, r = str(meta.get("name")), c.resource
        raise errors.forbidden(
            f'{r.collection} "{name}" is forbidden: unable to create new content in namespace {c.namespace} because it '
            "is being terminated",
            r.plural,
            name,
            r.group,
        )
    return c.namespace


async def update(store: Store, committer: Committer, c: Call) -> Json:
    obj = decoding.decode(c, c.body)
    given = str(obj["metadata"].get("resourceVersion") or "")
    if given and not given.isdigit():
        raise bad_request(f'metadata.resourceVersion: Invalid value: "{given[:40]}": must be a whole number')
    if not given and (c.resource.custom or c.resource.kind == "Lease") and c.subresource == "":
        cause = bad("metadata.resourceVersion", 0, "must be specified for an update")
        raise errors.invalid(c.resource.kind, c.resource.group, c.name, [cause])
    return await _replace(store, committer, c, obj, int(given) if given else None)


async def _replace(store: Store, committer: Committer, c: Call, obj: Json, expected: int | None) -> Json:
    entry = reading.entry(store, c)
    meta = obj["metadata"]
    if meta.setdefault("name", c.name) != c.name:
        raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({c.name})")
    if c.namespace and meta.get("namespace", c.namespace) != c.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    uid = entry.obj["metadata"].get("uid")
    if meta.get("uid") not in (None, "", uid):
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {uid}"
        raise errors.conflict(c.resource.plural, c.name, c.resource.group, why)
    if c.subresource == "status":
        obj = jsons.copy(entry.obj) | {"status": obj.get("status") or {}}
    return reading.view(c, await committer.commit(c, obj, entry, expected))


async def patched(store: Store, committer: Committer, c: Call) -> Json:
    """Retried if somebody else writes at the same time, unless the patch names a revision."""
    kind = _kind(c)
    asked = dig(c.body, "metadata", "resourceVersion") if isinstance(c.body, dict) else None
    for attempt in range(_ATTEMPTS):
        entry = reading.entry(store, c)
        old = jsons.copy(reading.view(c, entry.obj))
        new = _apply(c, kind, old)
        if asked and str(asked) != str(entry.rv):
            raise errors.conflict(c.resource.plural, c.name, c.resource.group)
        try:
            return await _replace(store, committer, c, decoding.decode(c, new), entry.rv)
        except ApiError as e:
            if e.reason != "Conflict" or asked or attempt == _ATTEMPTS - 1:
                raise
    raise errors.conflict(c.resource.plural, c.name, c.resource.group)


def _kind(c: Call) -> str:
    kind = PATCH_TYPES.get(c.patch_type)
    if kind is None:
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f'the patch type "{c.patch_type[:80]}" is not served here; use one of {", ".join(PATCH_TYPES)} '
            "(server-side apply is not available yet)",
        )
    if kind == "strategic" and c.resource.custom:
        says = "strategic merge patch is not for custom resources; use application/merge-patch+json"
        raise ApiError(415, "UnsupportedMediaType", says)
    return kind


def _apply(c: Call, kind: str, old: Json) -> object:
    if kind == "json":
        return patch.json_patch(old, c.body)
    if not isinstance(c.body, dict):
        raise bad_request("the patch must be an object")
    if kind == "merge":
        return patch.merge(old, c.body)
    return patch.strategic(old, c.body, decoding.schema_of(c.resource, c.version) or {})
