"""scale, finalize, token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lateen.cluster.apiserver import decoding, errors, owners, reading
from lateen.cluster.apiserver.auth import DEFAULT_AUDIENCE, Tokens
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.commit import Committer, finished
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.validation.fields import bad
from lateen.cluster.apiserver.verbs import patched
from lateen.cluster.store.objects import Store
from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig

_META = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
_TOKEN = Resource("authentication.k8s.io", "v1", "serviceaccounts", "TokenRequest")
MIN_SECONDS, MAX_SECONDS = 600, 1 << 32
LONGEST = 24 * 3600
"""Seconds: the longest lifetime of a token; a longer one that is requested is shortened to it."""


def scale(store: Store, c: Call) -> Json:
    obj, paths = reading.entry(store, c).obj, c.resource.scale_paths(c.version)
    meta = {k: v for k in _META if (v := obj["metadata"].get(k)) is not None}
    selector: Any = dig(obj, *paths.selector, default={})
    if isinstance(selector, dict):
        selector = ",".join(f"{k}={v}" for k, v in (selector.get("matchLabels") or {}).items())
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": dig(obj, *paths.spec, default=0 if c.resource.custom else 1)},
        "status": {"replicas": dig(obj, *paths.status, default=0), "selector": str(selector)},
    }


async def set_scale(store: Store, committer: Committer, c: Call) -> Json:
    """PUT and PATCH of a Scale: only spec.replicas is used."""
    if owners.is_apply(c.patch_type):
        says = "server-side apply of a Scale is not served here; apply spec.replicas to the object itself"
        raise ApiError(415, "UnsupportedMediaType", says)
    if c.patch_type == "application/json-patch+json":
        from lateen.cluster.apiserver import patch

        given = decoding.scale(patch.json_patch(scale(store, c), c.body))
    else:
        given = decoding.scale(c.body)
    replicas = dig(given, "spec", "replicas")
    if replicas is None and not c.patch_type:
        replicas = 0
    if replicas is None:
        raise bad_request("spec.replicas is missing from the Scale")
    if replicas < 0:
        cause = bad("spec.replicas", replicas, "must be greater than or equal to 0")
        raise errors.invalid("Scale", "autoscaling", c.name, [cause])
    change: Json = {c.resource.scale_paths(c.version).spec[-1]: replicas}
    for step in reversed(c.resource.scale_paths(c.version).spec[:-1]):
        change = {step: change}
    if rv := dig(given, "metadata", "resourceVersion"):
        change["metadata"] = {"resourceVersion": rv}
    write = c.on(subresource="", through="scale", body=change, patch_type="application/merge-patch+json")
    await patched(store, committer, write)
    return scale(store, c)


def finalize(store: Store, committer: Committer, c: Call) -> Json:
    """Namespaces only: drop spec.finalizers; a namespace that is being deleted is then removed."""
    entry = reading.entry(store, c)
    asked = decoding.decode(c.on(subresource=""), c.body)
    obj = jsons.copy(entry.obj)
    obj.setdefault("spec", {})["finalizers"] = dig(asked, "spec", "finalizers", default=[])
    write = store.update
    written = committer.stored(c.resource, c.name, lambda: write("namespaces", "", c.name, obj, entry.rv))
    if obj["metadata"].get("deletionTimestamp") and finished(c.resource, obj):
        committer.remove(c.resource, "", c.name)
    return written.obj


def token(store: Store, tokens: Tokens, c: Call) -> Json:
    """A TokenRequest of a ServiceAccount, bound to a pod if requested."""
    account = reading.entry(store, c).obj
    request = decoding.decode(c.on(resource=_TOKEN, version="v1"), _token_request(c.body))
    spec = request.get("spec") or {}
    audiences = spec.get("audiences") or [DEFAULT_AUDIENCE]
    seconds = spec.get("expirationSeconds") or 3600
    limits = {
        "may not specify a duration less than 10 minutes": seconds < MIN_SECONDS,
        "may not specify a duration larger than 2^32 seconds": seconds > MAX_SECONDS,
    }
    if causes := [bad("spec.expirationSeconds", seconds, says) for says, wrong in limits.items() if wrong]:
        raise errors.invalid("TokenRequest", "authentication.k8s.io", "", causes)
    bound = spec.get("boundObjectRef") or {}
    pod = _bound_pod(store, c, bound) if bound.get("kind") == "Pod" else None
    uid = account["metadata"]["uid"]
    text, expires = tokens.issue(c.namespace, c.name, uid, audiences, min(seconds, LONGEST), pod)
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": c.name, "namespace": c.namespace},
        "spec": {**spec, "audiences": audiences, "expirationSeconds": min(seconds, LONGEST)},
        "status": {"token": text, "expirationTimestamp": times.stamp(datetime.fromtimestamp(expires, UTC))},
    }


def _token_request(body: Any) -> Any:
    """Typed clients send the zero values of fields that are not set: no audiences, and a status without a time."""
    if not isinstance(body, dict) or not isinstance(body.get("spec") or {}, dict):
        return body
    spec = body.get("spec") or {}
    asked = {**spec, "audiences": spec.get("audiences") or [DEFAULT_AUDIENCE]}
    return {**{k: v for k, v in body.items() if k != "status"}, "spec": asked}


def _bound_pod(store: Store, c: Call, bound: Json) -> Json:
    name = str(bound.get("name") or "")
    live = store.get("pods", c.namespace, name)
    if live is None:
        raise errors.not_found("pods", name)
    if dig(live.obj, "spec", "serviceAccountName") != c.name:
        raise bad_request(
            f'cannot bind token for serviceaccount "{c.name}" to pod running with different serviceaccount name'
        )
    uid = live.obj["metadata"]["uid"]
    if bound.get("uid") not in (None, "", uid):
        why = f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record ({uid})"
        raise errors.conflict("pods", name, "", why)
    return {"name": name, "uid": uid}
