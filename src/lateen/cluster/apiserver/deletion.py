"""delete and deletecollection: grace periods, finalizers, what happens to dependents."""

from __future__ import annotations

import functools

from lateen.cluster.apiserver import decoding, errors, matching, reading
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.commit import Committer, durably, finished
from lateen.cluster.apiserver.errors import forbidden
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.validation import limits
from lateen.cluster.store.history import Entry
from lateen.cluster.store.objects import Batch, Store
from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig

FOREGROUND = "foregroundDeletion"
"""The finalizer that the garbage collector removes when the dependents are gone."""

_KEPT = {
    ("", "Namespace"): (("default", "kube-system", "kube-public"), "this namespace may not be deleted"),
    ("scheduling.k8s.io", "PriorityClass"): (
        tuple(limits.SYSTEM),
        "this is a system priority class and cannot be deleted",
    ),
}
"""What the cluster cannot do without, and what Kubernetes says of it."""


def _keep(c: Call) -> None:
    """Refuse to delete what the cluster cannot do without. Raises ApiError."""
    names, says = _KEPT.get((c.resource.group, c.resource.kind), ((), ""))
    if c.name in names:
        r = c.resource
        raise forbidden(f'{r.qualified} "{c.name}" is forbidden: {says}', r.plural, c.name, r.group)


class Deleter:
    def __init__(self, store: Store, committer: Committer, webhooks: Webhooks) -> None:
        self._store, self._committer, self._webhooks = store, committer, webhooks

    async def delete(self, c: Call) -> Json:
        """The object if it still exists, else a Status. Raises ApiError."""
        entry, options = reading.entry(self._store, c), decoding.delete_options(c)
        reading.expect(c, entry, options.get("preconditions") or {})
        _keep(c)
        old = (await self._committer.versions.seen(c, entry)).obj
        await self._webhooks.admit(matching.review("DELETE", c, None, old))
        left = self.carry_out(c, options)
        if left is not None:
            return reading.view(c, (await self._committer.versions.seen(c, left)).obj)
        return _deleted(c, old)

    def carry_out(self, c: Call, options: Json) -> Entry | None:
        """Delete what has been admitted; None if that is done at once. Raises ApiError."""
        entry, r = reading.entry(self._store, c), c.resource
        # Webhooks have been called since it was read last.
        reading.expect(c, entry, options.get("preconditions") or {})
        if c.dry_run:
            return None
        policy = options.get("propagationPolicy")
        if policy == "Orphan":
            self._orphan(str(dig(entry.obj, "metadata", "uid")))
            entry = reading.entry(self._store, c)
        marked = self._mark(r, entry, options.get("gracePeriodSeconds"), policy == "Foreground")
        if marked is None:
            self._committer.remove(r, c.namespace, c.name)
            return self._store.get(r.collection, c.namespace, c.name)
        return marked

    def _mark(self, r: Resource, entry: Entry, grace: int | None, foreground: bool) -> Entry | None:
        """Set the deletion timestamp if something has to finish first; None if the object can be removed at once."""
        obj = jsons.copy(entry.obj)
        meta = obj["metadata"]
        phase = dig(obj, "status", "phase")
        running = r.kind == "Pod" and dig(obj, "spec", "nodeName") and phase in ("Pending", "Running", "Unknown")
        if running and grace is None:
            grace = int(dig(obj, "spec", "terminationGracePeriodSeconds", default=30))
        added = foreground and FOREGROUND not in (meta.get("finalizers") or [])
        if added:
            meta["finalizers"] = [*(meta.get("finalizers") or []), FOREGROUND]
        free = finished(r, obj) or (r.kind == "Pod" and not meta.get("finalizers"))
        if free and not (running and grace):
            return None
        marked = meta.get("deletionTimestamp")
        if marked and not added and meta.get("deletionGracePeriodSeconds", 0) <= (grace or 0):
            return entry
        if not marked and meta.get("generation"):  # that it is to go is wanted of it, too
            meta["generation"] += 1
        meta.setdefault("deletionTimestamp", times.stamp())
        if r.kind != "Namespace":
            meta["deletionGracePeriodSeconds"] = grace or 0
        else:
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        write = self._store.update
        return self._committer.stored(
            r, entry.name, lambda: write(r.collection, entry.namespace, entry.name, obj, entry)
        )

    def _orphan(self, uid: str) -> None:
        """Remove the owner from everything that it owns."""
        for collection in self._store.collections():
            for e in self._store.list(collection):
                refs = dig(e.obj, "metadata", "ownerReferences", default=[])
                if any(ref.get("uid") == uid for ref in refs):
                    obj = jsons.copy(e.obj)
                    del obj["metadata"]["ownerReferences"]
                    kept = [ref for ref in refs if ref.get("uid") != uid]
                    obj["metadata"] |= {"ownerReferences": kept} if kept else {}
                    self._store.update(collection, e.namespace, e.name, obj, e)

    async def delete_collection(self, c: Call) -> Json:
        """Raises ApiError, also where some of it could not be made durable."""
        batches: list[Batch] = []
        found = await reading.converted(self._store, c, functools.partial(self._committer.versions.look, c))
        for item in found.items:
            meta = item["metadata"]
            try:
                await self.delete(c.on(namespace=meta.get("namespace", ""), name=meta["name"], query=dict(c.query)))
            except errors.ApiError as e:
                if e.code != 404:
                    raise
            batch = self._store.staged()
            if batch is not None and not (batches and batches[-1] is batch):
                batches.append(batch)
        for batch in batches:
            await durably(batch.wait())
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _deleted(c: Call, obj: Json) -> Json:
    r = c.resource
    details = {"name": c.name, "kind": r.plural, "uid": dig(obj, "metadata", "uid")}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details | ({"group": r.group} if r.group else {}),
    }
