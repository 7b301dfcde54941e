"""What the server adds to claims and volumes: the default class, and finalizers that keep what is in use.

After the admission plugins DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize.
"""

from __future__ import annotations

from lateen.cluster.apiserver.errors import forbidden
from lateen.cluster.rules import amounts
from lateen.cluster.rules.storage import DEFAULT_CLASS, PROTECTED
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

CLASSES = "storageclasses.storage.k8s.io"


def complete(kind: str, obj: Json, old: Json | None, store: Store) -> None:
    """Fill in, in place; of a claim or volume. Raises ApiError where a claim cannot grow."""
    if old is None:
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if PROTECTED[kind] not in finalizers:
            finalizers.append(PROTECTED[kind])
        unset = kind == "PersistentVolumeClaim" and obj["spec"].get("storageClassName") is None
        if unset and (name := default_class(store)):
            obj["spec"]["storageClassName"] = name
    elif kind == "PersistentVolumeClaim":
        _growth(obj, old, store)


def default_class(store: Store) -> str:
    """The newest class that is marked as the default one; empty without any."""
    found = [
        (str(e.obj["metadata"].get("creationTimestamp")), e.name)
        for e in store.list(CLASSES)
        if dig(e.obj, "metadata", "annotations", DEFAULT_CLASS) == "true"
    ]
    return max(found)[1] if found else ""


def _growth(obj: Json, old: Json, store: Store) -> None:
    before, now = (dig(o, "spec", "resources", "requests", "storage") for o in (old, obj))
    if before is None or now is None or dig(old, "status", "phase") != "Bound":
        return
    try:
        if amounts.parse(now) <= amounts.parse(before):
            return
    except ValueError:
        return  # validation says so
    found = store.get(CLASSES, "", str(dig(obj, "spec", "storageClassName", default="")))
    if found is None or not found.obj.get("allowVolumeExpansion"):
        name = str(obj["metadata"]["name"])
        says = (
            f'persistentvolumeclaims "{name}" is forbidden: only dynamically provisioned pvc can be resized and the '
            "storageclass that provisions the pvc must support resize"
        )
        raise forbidden(says, "persistentvolumeclaims", name)
