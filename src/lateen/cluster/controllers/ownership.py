"""Ownership, and which pods count as running: shared by the controllers that keep pods."""

from __future__ import annotations

from dataclasses import dataclass, field

from lateen.api.kinds import Kind
from lateen.kit.jsons import Json, dig


@dataclass
class Plan:
    """What to do: objects to create, scales to set, pods to delete, the status to report."""

    create: list[tuple[Kind, Json]] = field(default_factory=list)
    scale: list[tuple[str, int]] = field(default_factory=list)
    delete: list[tuple[Kind, str]] = field(default_factory=list)
    revisions: list[tuple[str, str]] = field(default_factory=list)
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
