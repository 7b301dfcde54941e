"""create, update, patch: from a decoded call to the write pipeline."""

from __future__ import annotations

import secrets

from lateen.cluster.apiserver import conversion, decoding, errors, owners, parts, patch, reading, routing, validation
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.commit import Committer
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.apiserver.validation.fields import bad, required
from lateen.cluster.store.objects import Store
from lateen.kit import jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_SEEN = frozenset(
    {
        *("CustomResourceDefinition", "Lease", "PodDisruptionBudget", "CSIDriver"),
        *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
        *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"),
    }
)
"""Of Kubernetes' own kinds those that are only updated by somebody who says which revision they have seen."""
_ATTEMPTS = 5
_NAMES = 8
"""Attempts to find a name for ``generateName``, as in Kubernetes."""
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Of which generated names consist: no vowels, so that they are no words."""


async def create(store: Store, committer: Committer, c: Call) -> Json:
    return await _create(store, committer, c, decoding.decode(c, c.body), None)


async def _create(store: Store, committer: Committer, c: Call, obj: Json, fields: list[Json] | None) -> Json:
    r, meta = c.resource, obj["metadata"]
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = _generated(store, c, str(meta["generateName"]))
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
    to, obj = _stored(c, obj, new=True)
    return reading.view(c, await committer.commit(to, obj, None, None, fields))


def _generated(store: Store, c: Call, prefix: str) -> str:
    """A name that is free, if one of the first few is."""
    name = ""
    for _ in range(_NAMES):
        name = prefix[:58] + "".join(secrets.choice(_LETTERS) for _ in range(5))
        if store.get(c.resource.collection, c.namespace, name) is None:
            break
    return name


def _stored(c: Call, obj: Json, new: bool) -> tuple[Call, Json]:
    """The object as it is stored, and the call about that. Raises ApiError for what only the version refuses."""
    convert = conversion.to_stored(c.resource, c.version)
    if convert is None:
        return c, obj
    if new and (causes := validation.of_version(c.resource.group, c.version, c.resource.kind, obj)):
        raise errors.invalid(c.resource.kind, c.resource.group, str(obj["metadata"].get("name", "")), causes)
    return conversion.call(c), convert(obj)


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
        refused = errors.forbidden(
            f'{r.qualified} "{name}" is forbidden: unable to create new content in namespace {c.namespace} because it '
            "is being terminated",
            r.plural,
            name,
            r.group,
        )
        says = f"namespace {c.namespace} is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": says, "field": "metadata.namespace"}
        refused.details = {**(refused.details or {}), "causes": [cause]}
        raise refused
    return c.namespace


async def update(store: Store, committer: Committer, c: Call) -> Json:
    r, old = c.resource, None
    if r.custom and (entry := store.get(r.collection, c.namespace, c.name)) is not None:
        old = (await committer.versions.seen(c, entry)).obj
    obj = decoding.decode(c, c.body, old)
    given = str(obj["metadata"].get("resourceVersion") or "")
    if given and not digits(given):
        raise bad_request(f'metadata.resourceVersion: Invalid value: "{given[:40]}": must be a whole number')
    if not given and (c.resource.custom or c.resource.kind in _SEEN) and c.subresource in ("", "status"):
        cause = bad("metadata.resourceVersion", 0, "must be specified for an update")
        raise errors.invalid(c.resource.kind, c.resource.group, c.name, [cause])
    return await _replace(store, committer, c, obj, int(given) if given else None)


async def _replace(
    store: Store, committer: Committer, c: Call, obj: Json, expected: int | None, fields: list[Json] | None = None
) -> Json:
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
    to, obj = _stored(c, obj, new=False)
    obj = parts.only(c.subresource, obj, (await committer.versions.seen(c, entry)).obj)
    return reading.view(c, await committer.commit(to, obj, entry, expected, fields))


async def patched(store: Store, committer: Committer, c: Call) -> Json:
    """Retried if somebody else writes at the same time, unless the patch names a revision."""
    kind = _kind(c)
    if kind == "apply" and (convert := conversion.to_stored(c.resource, c.version)):
        config = convert(decoding.configuration(c, c.body))
        return conversion.shown(
            c.resource, c.version, await patched(store, committer, conversion.call(c).on(body=config))
        )
    owners.check_options(c, kind == "apply")
    asked = dig(c.body, "metadata", "resourceVersion") if isinstance(c.body, dict) else None
    for attempt in range(_ATTEMPTS):
        try:
            return await _patch(store, committer, c, kind, str(asked or ""))
        except Stale as e:
            if asked or attempt == _ATTEMPTS - 1:
                raise e.conflict from None
    raise errors.conflict(c.resource.plural, c.name, c.resource.group)


class Stale(Exception):
    """Another client has written the object in between."""

    def __init__(self, conflict: ApiError) -> None:
        self.conflict = conflict


async def _patch(store: Store, committer: Committer, c: Call, kind: str, asked: str) -> Json:
    """One attempt. Raises ApiError, and Stale."""
    r, entry = c.resource, store.get(c.resource.collection, c.namespace, c.name)
    if entry is None and (kind != "apply" or c.subresource):
        raise errors.not_found(r.plural, c.name, r.group)
    if entry is not None and asked and asked != str(entry.rv):
        raise errors.conflict(r.plural, c.name, r.group)
    old = jsons.copy(reading.view(c, (await committer.versions.seen(c, entry)).obj)) if entry else None
    new = await owners.applied(c, old, committer.versions) if kind == "apply" else _apply(c, kind, old or {})
    obj = decoding.decode(c, new, old if r.custom else None)
    fields = obj["metadata"].get("managedFields", []) if kind == "apply" else None
    try:
        if entry is None:
            routing.authorize(store, c, "create")
            c.created = True
            return await _create(store, committer, c, obj, fields)
        return await _replace(store, committer, c, obj, entry.rv, fields)
    except ApiError as e:
        if e.reason in ("Conflict", "AlreadyExists"):
            raise Stale(e) from None
        raise


def _kind(c: Call) -> str:
    kind = PATCH_TYPES.get(c.patch_type)
    if kind is None:
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f'the patch type "{c.patch_type[:80]}" is not served here; use one of {", ".join(PATCH_TYPES)}',
        )
    if kind == "strategic" and c.resource.custom:
        says = (
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        )
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
