"""Requests that are answered but not stored: TokenReview, the access reviews and SelfSubjectReview."""

from __future__ import annotations

from lateen.cluster.apiserver import decoding, errors, rbac
from lateen.cluster.apiserver.auth import DEFAULT_AUDIENCE, Tokens, User
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.store.objects import Store
from lateen.kit import times
from lateen.kit.jsons import Json

GROUPS = ("authentication.k8s.io", "authorization.k8s.io")


def answer(store: Store, tokens: Tokens, c: Call) -> Json:
    """The review with its status. Raises ApiError."""
    obj = decoding.decode(c, c.body)
    spec: Json = obj.get("spec") or {}
    match c.resource.kind:
        case "TokenReview":
            status = _token(tokens, spec)
        case "SelfSubjectReview":
            obj["metadata"]["creationTimestamp"] = times.stamp()
            status = {"userInfo": c.user.info()}
        case "SelfSubjectRulesReview":
            status = _rules(store, c, str(spec.get("namespace") or ""))
        case "SelfSubjectAccessReview":
            status = _access(store, c, c.user, spec)
        case _:
            status = _access(store, c, _subject(c, spec), spec)
    return {**obj, "status": status}


def _token(tokens: Tokens, spec: Json) -> Json:
    audiences = spec.get("audiences") or [DEFAULT_AUDIENCE]
    found = tokens.verify(str(spec.get("token") or ""), audiences)
    if found is None:
        return {"authenticated": False, "user": {}, "error": "the token is not valid"}
    user, claims = found
    return {"authenticated": True, "audiences": [a for a in audiences if a in claims["aud"]], "user": user.info()}


def _subject(c: Call, spec: Json) -> User:
    name, groups = str(spec.get("user") or ""), tuple(spec.get("groups") or ())
    if not name and not groups:
        raise _invalid(c, "spec.user", 'Invalid value: "": at least one of user or group must be specified')
    extra = tuple((k, tuple(v)) for k, v in (spec.get("extra") or {}).items())
    return User(name, groups, str(spec.get("uid") or ""), extra)


def _access(store: Store, c: Call, user: User, spec: Json) -> Json:
    if (spec.get("resourceAttributes") is None) == (spec.get("nonResourceAttributes") is None):
        says = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise _invalid(c, "spec.resourceAttributes", f"Invalid value: null: {says}")
    asked = rbac.access(spec)
    if c.resource.kind == "LocalSubjectAccessReview" and asked.namespace != c.namespace:
        raise _invalid(c, "spec.resourceAttributes.namespace", "Invalid value: must match metadata.namespace")
    return {"allowed": rbac.allowed(store, user, asked)}


def _rules(store: Store, c: Call, namespace: str) -> Json:
    """What `kubectl auth can-i --list` shows."""
    if not namespace:
        raise errors.bad_request("no namespace on request")
    out: Json = {"resourceRules": [], "nonResourceRules": [], "incomplete": False}
    for rule in rbac.rules(store, c.user, namespace):
        if rule.get("nonResourceURLs"):
            out["nonResourceRules"].append({k: rule[k] for k in ("verbs", "nonResourceURLs")})
        else:
            keys = ("verbs", "apiGroups", "resources", "resourceNames")
            out["resourceRules"].append({k: rule[k] for k in keys if rule.get(k)})
    return out


def _invalid(c: Call, path: str, says: str) -> errors.ApiError:
    return errors.invalid(c.resource.kind, c.resource.group, "", [Cause(path, says)])
