"""The end of a CustomResourceDefinition: its objects go first, and those with finalizers when these are gone.

After k8s.io/apiextensions-apiserver, pkg/controller/finalizer: until then the definition has a finalizer, objects can
be read and changed, and no new ones are made.
"""

from __future__ import annotations

from lateen.cluster.apiserver.resources import CRDS
from lateen.cluster.store.history import Entry
from lateen.cluster.store.objects import Store
from lateen.kit import jsons, times
from lateen.kit.jsons import dig

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def left(store: Store, collection: str) -> bool:
    """Delete all objects of a collection; whether some are left, which have finalizers."""
    found = False
    for entry in store.list(collection):
        meta = entry.obj["metadata"]
        if not meta.get("finalizers"):
            store.delete(collection, entry.namespace, entry.name)
            continue
        found = True
        if not meta.get("deletionTimestamp"):
            obj = jsons.copy(entry.obj)
            obj["metadata"] |= {"deletionTimestamp": times.stamp(), "deletionGracePeriodSeconds": 0}
            store.update(collection, entry.namespace, entry.name, obj, entry)
    return found


def hold(store: Store, entry: Entry) -> None:
    """Keep the definition until its objects are gone."""
    obj, now = jsons.copy(entry.obj), times.stamp()
    meta = obj["metadata"]
    meta["finalizers"] = list(dict.fromkeys([*(meta.get("finalizers") or []), FINALIZER]))
    meta.setdefault("deletionTimestamp", now)
    says = {"reason": "InstanceDeletionInProgress", "message": "CustomResource deletion is in progress"}
    conditions = [c for c in dig(obj, "status", "conditions", default=[]) if c["type"] != "Terminating"]
    conditions.append({"type": "Terminating", "status": "True", "lastTransitionTime": now, **says})
    obj.setdefault("status", {})["conditions"] = conditions
    store.update(CRDS, "", entry.name, obj, entry)


def release(store: Store, name: str) -> None:
    """Let the definition go if the object that has just been removed was its last one."""
    entry = store.get(CRDS, "", name)
    finalizers = (entry.obj["metadata"].get("finalizers") or []) if entry else []
    if entry is None or FINALIZER not in finalizers or store.count(name):
        return
    if finalizers == [FINALIZER]:
        store.delete(CRDS, "", name)
        return
    obj = jsons.copy(entry.obj)
    obj["metadata"]["finalizers"] = [f for f in finalizers if f != FINALIZER]
    store.update(CRDS, "", name, obj, entry)
