"""ResourceQuotas are enforced on every write, against what is stored at that moment."""

from __future__ import annotations

from lateen.cluster.apiserver.errors import ApiError, forbidden
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.rules import amounts, quotas
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

COLLECTION = "resourcequotas"


def admit(r: Resource, obj: Json, old: Json | None, store: Store) -> None:
    """Raises ApiError if the write would exceed a quota of its namespace."""
    namespace = str(obj["metadata"].get("namespace") or "")
    for entry in store.list(COLLECTION, namespace) if namespace else ():
        quota = entry.obj
        if old is None and r.collection == "pods":
            _complete(r, obj, quota)
        more = quotas.measured(quota, r.collection, obj)
        before = quotas.measured(quota, r.collection, old) if old is not None else {}
        asked = {k: v - before.get(k, 0) for k, v in more.items() if v > before.get(k, 0)}
        if not asked:
            continue
        used = quotas.used(quota, r.collection, (e.obj for e in store.list(r.collection, namespace)))
        hard = amounts.of(quota["spec"]["hard"])
        over = sorted(k for k, v in asked.items() if used.get(k, 0) + v > hard[k])
        if over:
            parts = [
                ",".join(f"{k}={quotas.text(k, of.get(k, amounts.ZERO))}" for k in over) for of in (asked, used, hard)
            ]
            says = f"exceeded quota: {entry.name}, requested: {parts[0]}, used: {parts[1]}, limited: {parts[2]}"
            raise _refused(r, obj, says)


def _complete(r: Resource, pod: Json, quota: Json) -> None:
    """Where CPU or memory is limited, every container has to say how much it wants."""
    missing = []
    if not quotas.in_scope(quota, "pods", pod):
        return
    for key in sorted(dig(quota, "spec", "hard", default={})):
        part, _, name = key.rpartition(".")
        if key.startswith("count/") or quotas.collection_of(key) != "pods" or key == "pods":
            continue
        if (part or "requests") not in ("requests", "limits") or name not in ("cpu", "memory"):
            continue  # of other resources, what a pod does not ask for is none
        without = [
            str(c["name"])
            for c in amounts.containers(pod["spec"])
            if name not in (dig(c, "resources", part or "requests") or {})
        ]
        if without:
            missing.append(f"{key} for: {','.join(without)}")
    if missing:
        says = f"failed quota: {quota['metadata']['name']}: must specify {'; '.join(missing)}"
        raise _refused(r, pod, says)


def _refused(r: Resource, obj: Json, says: str) -> ApiError:
    name = str(obj["metadata"]["name"])
    return forbidden(f'{r.qualified} "{name}" is forbidden: {says}', r.plural, name, r.group)
