"""Ownership, which pods count as running, and what a new pod looks like: shared by the controllers that keep pods."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from datetime import datetime

from lateen.api.kinds import Kind
from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@dataclass
class Plan:
    """What to do: objects to create, scales to set, specs to change, pods to delete, the status to report."""

    create: list[tuple[Kind, Json]] = field(default_factory=list)
    scale: list[tuple[str, int]] = field(default_factory=list)
    change: list[tuple[str, Json]] = field(default_factory=list)
    delete: list[tuple[Kind, str]] = field(default_factory=list)
    annotate: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    status: Json = field(default_factory=dict)


def owner(obj: Json) -> Json:
    meta = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned_by(obj: Json, uid: str) -> bool:
    return any(
        ref["uid"] == uid and ref.get("controller") for ref in dig(obj, "metadata", "ownerReferences", default=[])
    )


def is_ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in dig(pod, "status", "conditions", default=[]))


def is_active(pod: Json) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and dig(pod, "status", "phase") not in ("Succeeded", "Failed")


def is_over(pod: Json) -> bool:
    return dig(pod, "status", "phase") in ("Succeeded", "Failed")


def waits_s(pod: Json, min_ready_s: int, now: datetime) -> float | None:
    """Seconds until a ready pod counts as available: 0.0 if it does; None for a pod that is not ready."""
    conditions = dig(pod, "status", "conditions", default=[])
    ready = next((c for c in conditions if c["type"] == "Ready" and c["status"] == "True"), None)
    if ready is None or pod["metadata"].get("deletionTimestamp"):
        return None
    if not min_ready_s or not ready.get("lastTransitionTime"):
        return 0.0
    return max(0.0, min_ready_s - (now - times.parse(ready["lastTransitionTime"])).total_seconds())


def pod_of(obj: Json, template: Json, name: Json, labels: Json | None = None, annotations: Json | None = None) -> Json:
    """A new pod of a workload; ``name``: ``{"name": ...}`` or ``{"generateName": ...}``."""
    template = jsons.copy(template)
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": template["spec"],
        "metadata": {
            **name,
            "namespace": obj["metadata"]["namespace"],
            "labels": {**(meta.get("labels") or {}), **(labels or {})},
            "annotations": {**(meta.get("annotations") or {}), **(annotations or {})},
            "ownerReferences": [owner(obj)],
            **({"finalizers": list(meta["finalizers"])} if meta.get("finalizers") else {}),
        },
    }


def template_hash(template: Json) -> str:
    """A hash of ten characters that identifies a pod template in names and labels."""
    digest = int.from_bytes(hashlib.sha256(jsons.canonical(template)).digest()[:8])
    out = ""
    for _ in range(10):
        digest, rest = divmod(digest, len(_ALPHABET))
        out += _ALPHABET[rest]
    return out


def share(value: object, total: int, up: bool) -> int:
    """A number, or a percentage of ``total``."""
    if isinstance(value, str) and value.endswith("%"):
        part = total * float(value[:-1]) / 100
        return math.ceil(part) if up else math.floor(part)
    return int(str(value or 0))
