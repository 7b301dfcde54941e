"""Impersonate-User, -Group, -Uid and -Extra-*: whoever may impersonate acts as somebody else from here on.

As in the API server's impersonation filter, each identity needs the verb ``impersonate`` on its own resource.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from lateen.cluster.apiserver import rbac
from lateen.cluster.apiserver.auth import User
from lateen.cluster.apiserver.errors import ApiError, bad_request, forbidden
from lateen.cluster.apiserver.rbac import Attributes
from lateen.cluster.store.objects import Store

_PREFIX = "impersonate-"
_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"


def effective(store: Store, user: User, headers: Iterable[tuple[str, str]]) -> User:
    """The user that the request is executed as. Raises ApiError if the real user may not impersonate it."""
    given = [(k.lower(), v) for k, v in headers if k.lower().startswith(_PREFIX)]
    if not given:
        return user
    names = [v for k, v in given if k == "impersonate-user"]
    groups = [v for k, v in given if k == "impersonate-group"]
    uids = [v for k, v in given if k == "impersonate-uid"]
    extra: dict[str, list[str]] = {}
    for key, value in given:
        if key.startswith(_EXTRA):
            extra.setdefault(unquote(key[len(_EXTRA) :]), []).append(value)
    if len(names) != 1 or not names[0]:
        raise bad_request("requested groups, uid or extra without impersonating a user: Impersonate-User is missing")
    name = names[0]
    _allow(store, user, _subject(name))
    for group in groups:
        _allow(store, user, Attributes("impersonate", "", "groups", name=group))
    for uid in uids:
        _allow(store, user, Attributes("impersonate", "authentication.k8s.io", "uids", name=uid))
    for key, values in extra.items():
        for value in values:
            _allow(store, user, Attributes("impersonate", "authentication.k8s.io", f"userextras/{key}", name=value))
    found = tuple((k, tuple(v)) for k, v in sorted(extra.items()))
    return User(name, _groups(name, groups), uids[0] if uids else "", found)


def _subject(name: str) -> Attributes:
    namespace, colon, account = name.removeprefix(_ACCOUNT).partition(":")
    if name.startswith(_ACCOUNT) and colon:
        return Attributes("impersonate", "", "serviceaccounts", namespace, account)
    return Attributes("impersonate", "", "users", name=name)


def _groups(name: str, groups: list[str]) -> tuple[str, ...]:
    """The groups asked for, and those that come with the name."""
    out = list(groups)
    if name.startswith(_ACCOUNT) and not groups:
        namespace = name.removeprefix(_ACCOUNT).partition(":")[0]
        out = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    status = "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
    return tuple(dict.fromkeys([*out, status]))


def _allow(store: Store, user: User, a: Attributes) -> None:
    if not rbac.allowed(store, user, a):
        raise refusal(user, a)


def refusal(user: User, a: Attributes) -> ApiError:
    """The 403 of a request, worded as Kubernetes words it."""
    resource, _, _ = a.resource.partition("/")
    collection = f"{resource}.{a.group}" if a.group else resource
    where = f' in the namespace "{a.namespace}"' if a.namespace else " at the cluster scope"
    named = f' "{a.name}"' if a.name else ""
    says = (
        f'{collection}{named} is forbidden: User "{user.name}" cannot {a.verb} resource "{a.resource}" in API group '
        f'"{a.group}"{where}'
    )
    return forbidden(says, resource, a.name, a.group)
