"""The objects that a binding gives to its policy as ``params``."""

from __future__ import annotations

from lateen.cluster.apiserver import matching
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError
from lateen.cluster.apiserver.policies.expressions import Failed
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.versions import Versions
from lateen.cluster.store.history import Entry
from lateen.cluster.store.objects import Store
from lateen.kit import selectors
from lateen.kit.jsons import Json


async def find(
    store: Store, registry: Registry, versions: Versions, kind: Json | None, ref: Json | None, namespace: str
) -> list[Json | None]:
    """One evaluation for each; ``namespace``: of the object that is written. Raises Failed."""
    if kind is None or ref is None:
        return [None]
    api_version = str(kind.get("apiVersion"))
    resource = registry.of_kind(api_version, str(kind.get("kind")))
    if resource is None:
        raise Failed(f"failed to find resource referenced by paramKind: '{api_version}, Kind={kind['kind']}'")
    namespace = str(ref.get("namespace") or "") or namespace
    if resource.namespaced and not namespace:
        raise Failed("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
    chosen = _chosen(store, resource.collection, namespace if resource.namespaced else "", ref)
    if not chosen and ref.get("parameterNotFoundAction") == "Deny":
        raise Failed("no params found for policy binding with `Deny` parameterNotFoundAction")
    try:
        seen = await versions.all(Call(resource, api_version.rpartition("/")[2]), chosen)
    except ApiError as e:
        raise Failed(e.message) from None
    return [e.obj for e in seen]


def _chosen(store: Store, collection: str, namespace: str, ref: Json) -> list[Entry]:
    if name := ref.get("name"):
        found = store.get(collection, namespace, name)
        return [found] if found else []
    wanted = ref.get("selector")
    return [e for e in store.list(collection, namespace) if selectors.matches(wanted, matching.labels(e.obj))]
