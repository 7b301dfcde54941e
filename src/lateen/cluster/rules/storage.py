"""Names that claims, volumes, their controller and the kubelet share, and which volume a claim may have."""

from __future__ import annotations

from decimal import Decimal

from lateen.cluster.rules import amounts
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig

DRIVER = "folder.lateen.dev"
"""Our provisioner: a volume is a folder of the cluster's state directory, named by its ``csi.volumeHandle``."""
CLASS = "standard"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
PROTECTED = {
    "PersistentVolumeClaim": "kubernetes.io/pvc-protection",
    "PersistentVolume": "kubernetes.io/pv-protection",
}
BOUND, PROVISIONED = "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/provisioned-by"


def claims_of(pod: Json) -> dict[str, str]:
    """Volume -> claim of a pod. A claim made for the pod alone is called after both."""
    out = {}
    for volume in pod["spec"].get("volumes") or []:
        if "persistentVolumeClaim" in volume:
            out[str(volume["name"])] = str(volume["persistentVolumeClaim"].get("claimName") or "")
        elif "ephemeral" in volume:
            out[str(volume["name"])] = f"{pod['metadata']['name']}-{volume['name']}"
    return out


def is_for(pv: Json, claim: Json) -> bool:
    """Whether a volume is reserved for the claim, or bound to it."""
    ref, meta = dig(pv, "spec", "claimRef") or {}, claim["metadata"]
    same = (ref.get("namespace"), ref.get("name")) == (meta["namespace"], meta["name"])
    return same and ref.get("uid") in (None, "", meta["uid"])


def suits(pv: Json, claim: Json) -> bool:
    """Whether an unbound volume satisfies the claim."""
    have, want = pv["spec"], claim["spec"]
    if pv["metadata"].get("deletionTimestamp") or (have.get("claimRef") and not is_for(pv, claim)):
        return False
    if dig(pv, "status", "phase") in ("Released", "Failed"):
        return False
    if (have.get("storageClassName") or "") != (want.get("storageClassName") or ""):
        return False
    if not set(want.get("accessModes") or []) <= set(have.get("accessModes") or []):
        return False
    if have.get("volumeMode", "Filesystem") != want.get("volumeMode", "Filesystem"):
        return False
    if want.get("selector") and not selectors.matches(want["selector"], dig(pv, "metadata", "labels", default={})):
        return False
    return bool(size(pv) >= amounts.parse(dig(want, "resources", "requests", "storage", default="0")))


def size(pv: Json) -> Decimal:
    return amounts.parse(dig(pv, "spec", "capacity", "storage", default="0"))
