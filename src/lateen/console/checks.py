"""Findings in the form that the page shows next to a text, and the text of an object."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from lateen.analysis import Message
from lateen.analysis.messages import documentation
from lateen.console import shapes
from lateen.kit import yamldoc
from lateen.kit.jsons import Json

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KEPT = ("managedFields", "uid", "selfLink", "creationTimestamp")
"""Metadata fields that users do not edit. The generation stays: with the version, it says what a text is based on."""


def checked(text: str, found: Iterable[Message]) -> list[shapes.Check]:
    """Findings about an object, with the lines of its text; 0 if they concern the whole text."""
    document = yamldoc.documents(text)[0]
    return [{**shown(m), "line": document.position(m.path)[0] if m.path else 0} for m in found]


def placed(found: Iterable[Message]) -> list[shapes.Check]:
    """Findings about objects that know their positions in a text."""
    return [{**shown(m), "line": m.source.position(m.path)[0] if m.path else 0} for m in found]


def shown(m: Message) -> shapes.Check:
    kind = m.kind
    return {
        "code": kind.code,
        "level": cast(shapes.Level, kind.level),
        "object": m.source.ref,
        "text": m.text,
        "line": 0,
        "documentation": documentation(kind.code),
    }


def written(obj: Json) -> Json:
    """An object without the API server's own fields; the name comes first."""
    meta = obj["metadata"]
    notes = {k: v for k, v in (meta.get("annotations") or {}).items() if k != APPLIED}
    more = {"annotations": notes} if notes else {}
    shown = {k: meta[k] for k in ("name", "namespace") if k in meta}
    shown |= {k: v for k, v in meta.items() if k not in (*KEPT, "annotations", *shown)} | more
    first: Json = {k: obj[k] for k in ("apiVersion", "kind") if k in obj}
    return {**first, "metadata": shown, **{k: v for k, v in obj.items() if k not in (*first, "metadata", "status")}}
