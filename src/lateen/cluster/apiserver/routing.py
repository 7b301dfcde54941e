"""From a method and a path to a Call and its verb, and whether the user is authorized."""

from __future__ import annotations

from lateen.cluster.apiserver import rbac, selection
from lateen.cluster.apiserver.auth import User
from lateen.cluster.apiserver.call import Call, is_true
from lateen.cluster.apiserver.errors import ApiError, bad_request, unknown_path
from lateen.cluster.apiserver.impersonation import refusal
from lateen.cluster.apiserver.rbac import Attributes
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.store.objects import Store

STREAMS = ("exec", "attach", "portforward")
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def is_resource(parts: list[str]) -> bool:
    """Whether a path is about objects, and not about the server itself."""
    return (parts[0] == "api" and len(parts) > 2) or (parts[0] == "apis" and len(parts) > 3)


def call(registry: Registry, parts: list[str], query: dict[str, str], user: User) -> Call:
    """Raises ApiError if there is nothing at the path."""
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = registry.find(group, version, rest[0])
    passed_on = rest[2:3] == ["proxy"]  # whatever follows is the application's
    if resource is None or (len(rest) > 3 and not passed_on) or (namespace and not resource.namespaced):
        raise unknown_path()
    if resource.namespaced and not namespace and len(rest) > 1:
        raise unknown_path()
    name, sub = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
    if sub and sub not in _subresources(resource):
        raise unknown_path()
    if (dry := query.get("dryRun")) and dry != "All":
        raise bad_request(f'dryRun: Unsupported value: "{dry[:40]}": supported values: "All"')
    says = resource.deprecated.get(version)
    return Call(resource, version, namespace, name, sub, query, user=user, warnings=[says] if says else [])


def _subresources(r: Resource) -> set[str]:
    return (
        {s for s, _ in r.subresources}
        | ({"status"} if r.status else set())
        | ({"scale"} if r.scale else set())
        | ({"finalize"} if r.kind == "Namespace" and not r.custom else set())
    )


def verb(method: str, c: Call) -> str:
    """The API's verb; empty for a method that resources do not support."""
    if c.subresource in STREAMS:
        return "create"
    found = _VERBS.get(method, "")
    if found == "get" and is_true(c.query.get("watch")):
        return "watch"
    if c.name or found not in ("get", "delete"):
        return found
    return "list" if found == "get" else "deletecollection"


def authorize(store: Store, c: Call, verb: str) -> None:
    """Rules with ``resourceNames`` let somebody list and watch what a field selector restricts to one of the names.
    Raises ApiError."""
    r = c.resource
    resource = r.plural + (f"/{c.subresource}" if c.subresource else "")
    name = c.name or (selection.named(c) if verb in ("list", "watch") else "")
    asked = Attributes(verb, r.group, resource, c.namespace, name)
    if not rbac.allowed(store, c.user, asked):
        raise refusal(c.user, asked)


def authorize_path(store: Store, user: User, method: str, path: str) -> None:
    """Authorize requests that do not concern a resource. Raises ApiError."""
    verb = _VERBS.get(method, method.lower())
    if not rbac.allowed(store, user, Attributes(verb, path=path)):
        raise ApiError(403, "Forbidden", f'forbidden: User "{user.name}" cannot {verb} path "{path}"')
