"""Authorization by RBAC, the same for every request, whoever makes it and over whatever transport.

Only the group system:masters is exempt; the permissions of everybody come from roles, too (``default_roles``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from weakref import WeakKeyDictionary

from lateen.cluster.apiserver.auth import User
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

GROUP = "rbac.authorization.k8s.io"
MASTERS = "system:masters"


@dataclass(frozen=True)
class Attributes:
    """What is asked for, in RBAC's terms. ``resource`` includes the subresource: ``pods/exec``; ``path`` is for
    requests that do not concern a resource."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def rules(store: Store, user: User, namespace: str) -> Iterator[Json]:
    """Every rule that applies to the user in a namespace, or cluster-wide if it is empty."""
    if MASTERS in user.groups:
        yield {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        yield {"verbs": ["*"], "nonResourceURLs": ["*"]}
    for binding in store.list(f"clusterrolebindings.{GROUP}"):
        if _subject(binding.obj, user, ""):
            yield from _granted(store, binding.obj, "")
    if namespace:
        for binding in store.list(f"rolebindings.{GROUP}", namespace):
            if _subject(binding.obj, user, namespace):
                yield from (r for r in _granted(store, binding.obj, namespace) if not r.get("nonResourceURLs"))


def allowed(store: Store, user: User, a: Attributes) -> bool:
    if MASTERS in user.groups:
        return True
    test = _path if a.path else _resource
    return any(test(rule, a) for rule in _known(store, user, a.namespace))


_COLLECTIONS = tuple(f"{plural}.{GROUP}" for plural in ("clusterrolebindings", "rolebindings", "clusterroles", "roles"))
_KNOWN: WeakKeyDictionary[Store, tuple[list[int], dict[tuple[str, tuple[str, ...], str], list[Json]]]] = (
    WeakKeyDictionary()
)
_MOST = 512
"""The most pairs of user and namespace whose rules are cached."""


def _known(store: Store, user: User, namespace: str) -> list[Json]:
    """The rules, cached until a role or binding changes."""
    at = [store.changed(c) for c in _COLLECTIONS]
    then, kept = _KNOWN.get(store, ([], {}))
    if then != at or len(kept) > _MOST:
        kept = {}
        _KNOWN[store] = at, kept
    who = (user.name, user.groups, namespace)
    if who not in kept:
        kept[who] = list(rules(store, user, namespace))
    return kept[who]


def _subject(binding: Json, user: User, namespace: str) -> bool:
    for s in binding.get("subjects") or []:
        name = s.get("name")
        match s.get("kind"):
            case "User" if name == user.name:
                return True
            case "Group" if name in user.groups:
                return True
            case "ServiceAccount" if user.name == f"system:serviceaccount:{s.get('namespace') or namespace}:{name}":
                return True
    return False


def _granted(store: Store, binding: Json, namespace: str) -> list[Json]:
    ref = binding.get("roleRef") or {}
    plural, where = ("clusterroles", "") if ref.get("kind") == "ClusterRole" else ("roles", namespace)
    role = store.get(f"{plural}.{GROUP}", where, str(ref.get("name")))
    return list(role.obj.get("rules") or []) if role else []


def _has(rule: Json, key: str, value: str) -> bool:
    given = rule.get(key) or []
    return "*" in given or value in given


def _resource(rule: Json, a: Attributes) -> bool:
    names = rule.get("resourceNames") or []
    _, slash, sub = a.resource.partition("/")
    return (
        _has(rule, "verbs", a.verb)
        and _has(rule, "apiGroups", a.group)
        and (_has(rule, "resources", a.resource) or bool(slash and f"*/{sub}" in (rule.get("resources") or [])))
        and (not names or a.name in names)
    )


def _path(rule: Json, a: Attributes) -> bool:
    return _has(rule, "verbs", a.verb) and any(
        url in ("*", a.path) or (url.endswith("*") and a.path.startswith(url[:-1]))
        for url in rule.get("nonResourceURLs") or []
    )


# --- nobody can grant what they do not have --------------------------------------------------------------------------


def exceeding(store: Store, user: User, namespace: str, obj: Json) -> list[Json]:
    """The rules of a Role or binding that its writer does not have themselves (Kubernetes' escalation check)."""
    if MASTERS in user.groups:
        return []
    plural = {"Role": "roles", "ClusterRole": "clusterroles"}.get(str(obj.get("kind")))
    if plural:
        if allowed(store, user, Attributes("escalate", GROUP, plural, namespace, obj["metadata"]["name"])):
            return []
        found = list(obj.get("rules") or [])
        if obj.get("aggregationRule"):
            found.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})  # whatever roles it will select
    else:
        ref = obj.get("roleRef") or {}
        plural = "clusterroles" if ref.get("kind") == "ClusterRole" else "roles"
        if allowed(store, user, Attributes("bind", GROUP, plural, namespace, str(ref.get("name")))):
            return []
        found = _granted(store, obj, namespace)
        if store.get(f"{plural}.{GROUP}", "" if plural == "clusterroles" else namespace, str(ref.get("name"))) is None:
            found = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]  # whatever rules the role will have
    return [rule for rule in found if not _covered(store, user, namespace, rule)]


def _covered(store: Store, user: User, namespace: str, rule: Json) -> bool:
    verbs = rule.get("verbs") or []
    if urls := rule.get("nonResourceURLs"):
        return all(allowed(store, user, Attributes(v, path=u)) for v, u in product(verbs, urls))
    return all(
        allowed(store, user, Attributes(v, g, r, namespace, n))
        for v, g, r, n in product(
            verbs, rule.get("apiGroups") or [], rule.get("resources") or [], rule.get("resourceNames") or [""]
        )
    )


def access(review: Json) -> Attributes:
    """The attributes that a SubjectAccessReview's specification asks about."""
    about = review.get("resourceAttributes") or {}
    if path := dig(review, "nonResourceAttributes", "path"):
        return Attributes(str(dig(review, "nonResourceAttributes", "verb", default="")), path=str(path))
    resource = str(about.get("resource", "")) + (f"/{about['subresource']}" if about.get("subresource") else "")
    keys = ("verb", "group", "namespace", "name")
    verb, group, namespace, name = (str(about.get(k) or "") for k in keys)
    return Attributes(verb, group, resource, namespace, name)
