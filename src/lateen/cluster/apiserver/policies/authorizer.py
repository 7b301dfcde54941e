"""``authorizer`` in CEL: what else the user of the request is authorized to do.

``authorizer.group('apps').resource('deployments').namespace('x').check('delete').allowed()``: each step is a map of
what has been said so far, since the library has no types of ours. Source:
https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lateen.cluster.apiserver import budget, rbac
from lateen.cluster.apiserver.auth import User
from lateen.cluster.apiserver.rbac import Attributes
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json

_STEPS = ("path", "group", "resource", "subresource", "namespace", "name")
FUNCTIONS = (*_STEPS, "serviceAccount", "check", "allowed", "reason", "errored", "error")
_SAID = "@authorizer"


class Authorizer:
    def __init__(self, store: Store, user: User, costs: budget.Budget) -> None:
        self._store, self._user, self._costs = store, user, costs

    def variable(self, resource: Json) -> Json:
        """``resource``: of the request itself."""
        return {_SAID: {}, "requestResource": {_SAID: resource}}

    def functions(self) -> dict[str, Callable[..., Any]]:
        def adding(step: str) -> Callable[..., Any]:
            return lambda so_far, value: {_SAID: {**_said(so_far), step: str(value)}}

        def account(so_far: Any, namespace: str, name: str) -> Json:
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            return {_SAID: {**_said(so_far), "user": [f"system:serviceaccount:{namespace}:{name}", *groups]}}

        return {step: adding(step) for step in _STEPS} | {
            "serviceAccount": account,
            "check": self._check,
            "allowed": lambda decision: bool(decision["@allowed"]),
            "reason": lambda _: "",
            "errored": lambda _: False,
            "error": lambda _: "",
        }

    def _check(self, so_far: Any, verb: str) -> Json:
        self._costs.spend(budget.CHECK)
        said = _said(so_far)
        user = User(said["user"][0], tuple(said["user"][1:])) if "user" in said else self._user
        if "path" in said:
            asked = Attributes(verb, path=said["path"])
        else:
            sub = said.get("subresource")
            resource = said.get("resource", "") + (f"/{sub}" if sub else "")
            asked = Attributes(verb, said.get("group", ""), resource, said.get("namespace", ""), said.get("name", ""))
        return {"@allowed": rbac.allowed(self._store, user, asked)}


def _said(so_far: Any) -> Json:
    found = so_far.get(_SAID) if isinstance(so_far, dict) else None
    if not isinstance(found, dict):
        raise TypeError("no such overload")
    return found
