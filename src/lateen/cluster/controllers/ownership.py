"""Ownership, which pods count as running, and what a new pod looks like: shared by the controllers that keep pods."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lateen.api.kinds import Kind
from lateen.kit import jsons, times
from lateen.kit.digits import digits
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


MOST_S = 30 * 365 * 86_400
"""Periods of objects are at most this long, about 30 years: with 64 bits no time of the calendar would be left."""


def after(seconds: int) -> timedelta:
    return timedelta(seconds=min(seconds, MOST_S))


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


def controlled(obj: Json) -> bool:
    return any(r.get("controller") for r in dig(obj, "metadata", "ownerReferences", default=[]))


def owned_by(obj: Json, uid: str) -> bool:
    return any(
        ref["uid"] == uid and ref.get("controller") for ref in dig(obj, "metadata", "ownerReferences", default=[])
    )


def is_ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in dig(pod, "status", "conditions", default=[]))


def is_active(pod: Json) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and dig(pod, "status", "phase") not in ("Succeeded", "Failed")


DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def surplus(pods: list[Json], count: int) -> list[Json]:
    """Which ``count`` of these pods are the least loss (Kubernetes' ``ActivePodsWithRanks``): without a node, not
    running, not ready, cheap by annotation, beside others on a node, ready for a short time, restarted, new."""
    beside = Counter(dig(p, "spec", "nodeName", default="") for p in pods)

    def loss(pod: Json) -> tuple[object, ...]:
        node, phase = dig(pod, "spec", "nodeName", default=""), dig(pod, "status", "phase")
        ready: Json = next((c for c in dig(pod, "status", "conditions", default=[]) if c["type"] == "Ready"), {})
        since = str(ready.get("lastTransitionTime") or "") if is_ready(pod) else ""
        starts = [int(c.get("restartCount") or 0) for c in dig(pod, "status", "containerStatuses", default=[])]
        running = {"Pending": 0, "Running": 2}.get(str(phase), 1)
        place = (node != "", running, is_ready(pod), _cost(pod), -beside[node])
        return (
            *place,
            _newest(since),
            -max(starts, default=0),
            _newest(str(pod["metadata"].get("creationTimestamp") or "")),
        )

    return sorted(pods, key=loss)[: max(0, count)]


def _cost(pod: Json) -> int:
    text = str(dig(pod, "metadata", "annotations", DELETION_COST, default=""))
    return int(text) if digits(text.removeprefix("-")) and len(text) < 12 else 0


def _newest(stamp: str) -> float:
    """A key by which the latest time comes first, and none before all others."""
    return -times.parse(stamp).timestamp() if stamp else -math.inf


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
