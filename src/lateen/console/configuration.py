"""Lists and details of the mesh's configuration, with what analysis has found. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

from lateen.analysis import Message
from lateen.analysis.attached import Place
from lateen.analysis.messages import LEVELS
from lateen.api import kinds
from lateen.console import shapes
from lateen.console.checks import checked, written
from lateen.kit import yamldoc
from lateen.kit.jsons import Json, dig

Objects = Mapping[kinds.Kind, Iterable[Json]]
Findings = Mapping[str, list[Message]]
"""By the object's reference (``Gateway default/web``)."""
WORST = {level: i for i, level in enumerate(LEVELS, 1)}


class Configuration:
    """The objects of one instant. ``places``: where an object is attached."""

    def __init__(self, objects: Objects, findings: Findings, places: Callable[[Json], Iterable[Place]]) -> None:
        self._objects, self._findings, self._places = objects, findings, places

    def rows(self, namespace: str = "", kind: str = "") -> list[shapes.ConfigRow]:
        """Objects of the mesh's own kinds. ``kind``: as users spell it (``Gateway``)."""
        wanted = [k for k in kinds.owned() if not kind or str(k.id) == kind]
        found = [
            self._row(k, o)
            for k in wanted
            for o in self._objects.get(k, ())
            if namespace in ("", o["metadata"].get("namespace", ""))
        ]
        return sorted(found, key=lambda r: (r["namespace"], r["kind"], r["name"]))

    def _row(self, kind: kinds.Kind, obj: Json) -> shapes.ConfigRow:
        checks = self._findings.get(reference(kind, obj), [])
        meta = obj["metadata"]
        return {
            "kind": str(kind.id),
            "namespace": str(meta.get("namespace", "")),
            "name": meta["name"],
            "created": str(meta.get("creationTimestamp", "")),
            "findings": len(checks),
            "worst": worst(checks),
        }

    def page(self, kind: str, namespace: str, name: str) -> shapes.ConfigPage | None:
        """None where there is no such object of the mesh."""
        found = kinds.named(kind)
        obj = find(self._objects, found, namespace, name) if found is not None else None
        if found is None or obj is None:
            return None
        shown = {"apiVersion": found.api_version, "kind": found.kind, **written(obj)}
        text = yamldoc.dump(shown)
        return {
            **self._row(found, obj),
            "yaml": text,
            "checks": checked(text, self._findings.get(reference(found, obj), [])),
            "conditions": [_condition(c) for c in dig(obj, "status", "conditions", default=[])],
            "places": [cast(shapes.Place, p._asdict()) for p in self._places(shown)],
        }

    def of(self, refs: Iterable[kinds.Ref]) -> list[shapes.ConfigRow]:
        """The rows of those objects that there are."""
        out = []
        for ref in refs:
            kind = kinds.find(ref.group, ref.kind)
            obj = find(self._objects, kind, ref.namespace, ref.name) if kind is not None else None
            if kind is not None and obj is not None:
                out.append(self._row(kind, obj))
        return out


def find(objects: Objects, kind: kinds.Kind | None, namespace: str, name: str) -> Json | None:
    if kind is None:
        return None
    return next((o for o in in_namespace(objects, kind, namespace) if o["metadata"]["name"] == name), None)


def in_namespace(objects: Objects, kind: kinds.Kind, namespace: str) -> list[Json]:
    return [o for o in objects.get(kind, ()) if o["metadata"].get("namespace", "") == namespace]


def worst(found: Iterable[Message]) -> str:
    """The most severe level; empty without findings."""
    return max((m.kind.level for m in found), key=WORST.__getitem__, default="")


def reference(kind: kinds.Kind, obj: Json) -> str:
    """By which findings name an object."""
    return str(kind.ref(str(obj["metadata"].get("namespace", "")), str(obj["metadata"]["name"])))


def _condition(c: Json) -> shapes.Condition:
    return {
        "type": str(c.get("type", "")),
        "status": str(c.get("status", "")),
        "reason": str(c.get("reason", "")),
        "message": str(c.get("message", "")),
    }
