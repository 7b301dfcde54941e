"""Rows of claims, volumes and storage classes."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.tables.cells import Printer, age, name
from lateen.cluster.rules.storage import DEFAULT_CLASS
from lateen.kit.jsons import Json, dig

_UNSET = "<unset>"
_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(found: list[str]) -> str:
    return ",".join(short for mode, short in _SHORT.items() if mode in found)


def _claim(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    phase = "Terminating" if o["metadata"].get("deletionTimestamp") else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        name(o),
        phase,
        spec.get("volumeName", ""),
        dig(status, "capacity", "storage", default="") if bound else "",
        _modes(status.get("accessModes") or []) if bound else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or _UNSET,
        age(o),
        spec.get("volumeMode", _UNSET),
    ]


def _volume(o: Json) -> list[Any]:
    spec, ref = o["spec"], dig(o, "spec", "claimRef")
    phase = "Terminating" if o["metadata"].get("deletionTimestamp") else dig(o, "status", "phase", default="")
    return [
        name(o),
        dig(spec, "capacity", "storage", default=""),
        _modes(spec.get("accessModes") or []),
        spec.get("persistentVolumeReclaimPolicy"),
        phase,
        f"{ref.get('namespace')}/{ref.get('name')}" if ref else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or _UNSET,
        dig(o, "status", "reason", default=""),
        age(o),
        spec.get("volumeMode", _UNSET),
    ]


def _class(o: Json) -> list[Any]:
    default = dig(o, "metadata", "annotations", DEFAULT_CLASS) == "true"
    return [
        name(o) + (" (default)" if default else ""),
        o.get("provisioner"),
        o.get("reclaimPolicy"),
        o.get("volumeBindingMode"),
        bool(o.get("allowVolumeExpansion")),
        age(o),
    ]


def _csi_driver(o: Json) -> list[Any]:
    spec = o["spec"]
    audiences = ",".join(str(t.get("audience", "")) for t in spec.get("tokenRequests") or [])
    keys = ("attachRequired", "podInfoOnMount", "storageCapacity")
    modes = ",".join(spec.get("volumeLifecycleModes") or [])
    flags = [bool(spec.get(k)) for k in keys]
    return [name(o), *flags, audiences or "<unset>", bool(spec.get("requiresRepublish")), modes, age(o)]


PRINTERS = {
    "CSIDriver": Printer(
        (
            "Name",
            "AttachRequired",
            "PodInfoOnMount",
            "StorageCapacity",
            "TokenRequests",
            "RequiresRepublish",
            "Modes",
            "Age",
        ),
        _csi_driver,
    ),
    "PersistentVolumeClaim": Printer(
        (
            "Name",
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
            "+VolumeMode",
        ),
        _claim,
    ),
    "PersistentVolume": Printer(
        (
            "Name",
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
            "+VolumeMode",
        ),
        _volume,
    ),
    "StorageClass": Printer(
        ("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"), _class
    ),
}
