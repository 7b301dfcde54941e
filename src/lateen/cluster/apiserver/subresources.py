"""scale, token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lateen.cluster.apiserver import decoding, errors, matching, owners, patch, reading, scales
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.auth import BOUND, DEFAULT_AUDIENCE, Tokens
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.commit import Committer
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.validation.fields import bad
from lateen.cluster.apiserver.verbs import patched
from lateen.cluster.store.objects import Store
from lateen.kit import times
from lateen.kit.jsons import Json, dig

_TOKEN = Resource("authentication.k8s.io", "v1", "serviceaccounts", "TokenRequest")
_KIND = (_TOKEN.group, _TOKEN.version, _TOKEN.kind)
MIN_SECONDS, MAX_SECONDS = 600, 1 << 32
LONGEST = 24 * 3600
"""Seconds: the longest lifetime of a token; a longer one that is requested is shortened to it."""


async def set_scale(store: Store, committer: Committer, c: Call) -> Json:
    """PUT and PATCH of a Scale: only spec.replicas is used."""
    if owners.is_apply(c.patch_type):
        says = "server-side apply of a Scale is not served here; apply spec.replicas to the object itself"
        raise ApiError(415, "UnsupportedMediaType", says)
    body = c.body
    if c.patch_type == "application/json-patch+json":
        live = await committer.versions.seen(c, reading.entry(store, c))
        body = patch.json_patch(scales.of(c.resource, c.version, live.obj), body)
    given = decoding.scale(body)
    if c.patch_type and dig(given, "spec", "replicas") is None:
        raise bad_request("spec.replicas is missing from the Scale")
    change = scales.change(c.resource, c.version, decoding.replicas(given, c.name))
    if rv := dig(given, "metadata", "resourceVersion"):
        change["metadata"] = {"resourceVersion": rv}
    write = c.on(subresource="", through="scale", body=change, patch_type="application/merge-patch+json")
    return scales.of(c.resource, c.version, await patched(store, committer, write))


async def token(store: Store, webhooks: Webhooks, tokens: Tokens, c: Call) -> Json:
    """A TokenRequest of a ServiceAccount, bound to a pod, a Secret or a Node if requested."""
    account = reading.entry(store, c).obj
    to = c.on(resource=_TOKEN, version="v1")
    request = _complete(decoding.decode(to, _token_request(c.body)), c)
    admitted = await webhooks.admit(matching.review("CREATE", c, request, None, _KIND))
    if admitted is not None and admitted is not request:
        request = _complete(decoding.decode(to, admitted), c)
    spec = request["spec"]
    seconds = spec["expirationSeconds"]
    limits = {
        "may not specify a duration less than 10 minutes": seconds < MIN_SECONDS,
        "may not specify a duration larger than 2^32 seconds": seconds > MAX_SECONDS,
    }
    if causes := [bad("spec.expirationSeconds", seconds, says) for says, wrong in limits.items() if wrong]:
        raise errors.invalid("TokenRequest", "authentication.k8s.io", "", causes)
    if seconds > LONGEST:
        c.warnings.append(f"requested expiration of {seconds} seconds shortened to {LONGEST} seconds")
    bound, uid = _bound(store, c, spec.get("boundObjectRef") or {}), account["metadata"]["uid"]
    text, expires = tokens.issue(c.namespace, c.name, uid, spec["audiences"], min(seconds, LONGEST), bound)
    return {
        **request,
        "spec": {**spec, "expirationSeconds": min(seconds, LONGEST)},
        "status": {"token": text, "expirationTimestamp": times.stamp(datetime.fromtimestamp(expires, UTC))},
    }


def _complete(request: Json, c: Call) -> Json:
    given = request.get("spec") or {}
    asked = {"audiences": given.get("audiences") or [DEFAULT_AUDIENCE]}
    asked |= {"expirationSeconds": given.get("expirationSeconds") or 3600}
    meta = {"name": c.name, "namespace": c.namespace}
    return {"kind": "TokenRequest", "apiVersion": _TOKEN.api_version(), "metadata": meta, "spec": {**given, **asked}}


def _token_request(body: Any) -> Any:
    """Typed clients send the zero values of fields that are not set: no audiences, and a status without a time."""
    if not isinstance(body, dict) or not isinstance(body.get("spec") or {}, dict):
        return body
    spec = body.get("spec") or {}
    asked = {**spec, "audiences": spec.get("audiences") or [DEFAULT_AUDIENCE]}
    return {**{k: v for k, v in body.items() if k != "status"}, "spec": asked}


def _bound(store: Store, c: Call, ref: Json) -> dict[str, Json]:
    """What a token is bound to, see ``Tokens.issue``. Raises ApiError."""
    if not ref:
        return {}
    kind, name = str(ref.get("kind") or ""), str(ref.get("name") or "")
    group, _, version = str(ref.get("apiVersion") or "").rpartition("/")
    if group or kind not in ("Pod", "Secret", "Node"):
        raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
    collection, within = BOUND[kind.lower()]
    live = store.get(collection, c.namespace if within else "", name)
    if live is None:
        raise errors.not_found(collection, name)
    if kind == "Pod" and dig(live.obj, "spec", "serviceAccountName") != c.name:
        raise bad_request(
            f'cannot bind token for serviceaccount "{c.name}" to pod running with different serviceaccount name.'
        )
    uid = live.obj["metadata"]["uid"]
    if ref.get("uid") not in (None, "", uid):
        why = (
            f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. The object might "
            "have been deleted and then recreated"
        )
        raise errors.conflict(kind, name, "", why)
    node = store.get("nodes", "", str(dig(live.obj, "spec", "nodeName", default=""))) if kind == "Pod" else None
    return {kind.lower(): live.obj["metadata"]} | ({"node": node.obj["metadata"]} if node is not None else {})
