"""The garbage collector: deletes objects whose owners are all gone, whatever kinds they are.

An owner counts as gone only if the API says so; an unknown kind or a failed request proves nothing. What is deleted is
the object that has been looked at, not another one that has its name by now.
Follows Kubernetes' garbage collector (absent, solid and waiting owners; foreground deletion).
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import served
from lateen.cluster.controllers.loop import Key, Loop, collection_of
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

FOREGROUND = "foregroundDeletion"


class Garbage:
    """Keys are (collection, namespace, name) of dependents, and of owners that wait for theirs."""

    name = "garbage"
    watches = kinds.BUILT_IN

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client, self._loop = client, loop
        self._kinds: dict[str, Kind] = {collection_of(k): k for k in kinds.BUILT_IN}
        self._dependents: dict[str, set[Key]] = {}

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        if kind == kinds.CRD:
            self._definition(old, new)
        obj = new or old
        if obj is None:
            return
        key = _key(kind, obj)
        self._index(key, old, new)
        if new is None:
            yield from self._dependents.get(str(obj["metadata"]["uid"]), ())
            yield from self._owners(obj)
        elif new["metadata"].get("ownerReferences") or _waits(new):
            yield key

    def _definition(self, old: Json | None, new: Json | None) -> None:
        """Watch the objects of a new CustomResourceDefinition, and those of a changed one in the version that is stored
        now; stop watching those of a deleted one."""
        kind = served.custom(new or old or {})
        if kind is None:
            return
        if new is not None:
            known = self._kinds.get(collection_of(kind))
            self._kinds[collection_of(kind)] = kind
            if known is None:
                self._loop.watch(self, kind)
            elif known != kind:
                self._loop.move(kind)
        elif self._kinds.pop(collection_of(kind), None):
            tasks.spawn(self._loop.unwatch(kind), f"end of {kind.plural}")

    def _index(self, key: Key, old: Json | None, new: Json | None) -> None:
        for ref in _refs(old):
            found = self._dependents.get(str(ref.get("uid")), set())
            found.discard(key)
            if not found:
                self._dependents.pop(str(ref.get("uid")), None)
        for ref in _refs(new):
            self._dependents.setdefault(str(ref.get("uid")), set()).add(key)

    def _owners(self, obj: Json) -> Iterable[Key]:
        """Owners that may wait for this dependent's deletion."""
        for ref in _refs(obj):
            if (kind := self._kind(ref)) is not None:
                namespace = obj["metadata"].get("namespace", "") if kind.namespaced else ""
                yield collection_of(kind), namespace, str(ref.get("name"))

    def _kind(self, ref: Json) -> Kind | None:
        """The kind that a reference names, in whatever version."""
        group = str(ref.get("apiVersion", "")).rpartition("/")[0]
        return next((k for k in self._kinds.values() if k.group == group and k.kind == ref.get("kind")), None)

    async def reconcile(self, key: Key) -> None:
        collection, namespace, name = key
        kind = self._kinds.get(collection)
        obj = await self._client.get(kind, namespace, name) if kind else None
        if kind is None or obj is None:
            return
        if _waits(obj):
            await self._foreground(kind, obj)
        refs = _refs(obj)
        gone = [ref for ref in refs if await self._is_gone(obj, ref)]
        if not gone or obj["metadata"].get("deletionTimestamp"):
            return
        if len(gone) == len(refs):
            await self._client.delete(kind, namespace, name, uid=obj["metadata"]["uid"])
            return
        kept = [ref for ref in refs if ref not in gone]
        version = obj["metadata"]["resourceVersion"]
        change = {"metadata": {"resourceVersion": version, "ownerReferences": kept}}
        await self._client.patch(kind, namespace, name, change)

    async def _is_gone(self, obj: Json, ref: Json) -> bool:
        kind = self._kind(ref)
        if kind is None:
            return False
        namespace = str(obj["metadata"].get("namespace", ""))
        if kind.namespaced and not namespace:
            return False  # it cannot be looked up: a wrong reference, not garbage
        owner = await self._client.get(kind, namespace if kind.namespaced else "", str(ref.get("name")))
        return owner is None or owner["metadata"]["uid"] != ref.get("uid")

    async def _foreground(self, kind: Kind, obj: Json) -> None:
        """Delete the dependents of an object that waits for them; release it when none is left."""
        meta = obj["metadata"]
        left = False
        for collection, namespace, name in list(self._dependents.get(str(meta["uid"]), ())):
            found = await self._client.get(self._kinds[collection], namespace, name)
            mine = [r for r in _refs(found) if r.get("uid") == meta["uid"]]
            if found is None or not mine:
                continue
            others = [r for r in _refs(found) if r not in mine and not await self._is_gone(found, r)]
            if others:
                continue
            left = left or bool(mine[0].get("blockOwnerDeletion"))
            if not found["metadata"].get("deletionTimestamp"):
                await self._pass_on(self._kinds[collection], found)
                await self._client.delete(self._kinds[collection], namespace, name, uid=found["metadata"]["uid"])
        if not left:
            finalizers = [f for f in meta.get("finalizers") or [] if f != FOREGROUND]
            change = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": finalizers}}
            await self._client.patch(kind, meta.get("namespace", ""), meta["name"], change)

    async def _pass_on(self, kind: Kind, obj: Json) -> None:
        """A dependent waits for its own dependents, too, before it goes."""
        meta = obj["metadata"]
        finalizers = meta.get("finalizers") or []
        if self._dependents.get(str(meta["uid"])) and FOREGROUND not in finalizers:
            change = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": [*finalizers, FOREGROUND]}}
            await self._client.patch(kind, meta.get("namespace", ""), meta["name"], change)


def _refs(obj: Json | None) -> list[Json]:
    return list(dig(obj or {}, "metadata", "ownerReferences", default=[]))


def _key(kind: Kind, obj: Json) -> Key:
    return collection_of(kind), obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _waits(obj: Json) -> bool:
    meta = obj["metadata"]
    return bool(meta.get("deletionTimestamp")) and FOREGROUND in (meta.get("finalizers") or [])
