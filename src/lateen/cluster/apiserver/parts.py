"""Subresources that are a part of their object: what a write through one of them may change."""

from __future__ import annotations

from lateen.kit import jsons
from lateen.kit.jsons import Json, dig


def only(subresource: str, given: Json, old: Json) -> Json:
    """A copy of the object in which nothing but the part is as ``given`` says; ``given`` itself for a whole object."""
    if subresource == "":
        return given
    obj = jsons.copy(old)
    match subresource:
        case "status":
            obj["status"] = given.get("status") or {}
        case "approval":
            conditions = dig(given, "status", "conditions", default=[])
            obj["status"] = (obj.get("status") or {}) | {"conditions": conditions}
        case "ephemeralcontainers":
            obj["spec"]["ephemeralContainers"] = dig(given, "spec", "ephemeralContainers", default=[])
        case "resize":
            for key in ("containers", "initContainers"):
                asked = {c.get("name"): c for c in dig(given, "spec", key, default=[])}
                for c in obj["spec"].get(key) or []:
                    _take(c, asked.get(c["name"], c), ("resources", "resizePolicy"))
        case "finalize":
            obj.setdefault("spec", {})["finalizers"] = dig(given, "spec", "finalizers", default=[])
    return obj


def _take(into: Json, given: Json, keys: tuple[str, ...]) -> None:
    for key in keys:
        into.pop(key, None)
        into |= {key: given[key]} if key in given else {}
