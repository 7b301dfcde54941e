"""When the mesh's configuration changed, for the replay of the past. Pure.

Changes that the console has not observed are inferred from the objects: their creation, and the last write of each of
their managers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from lateen.api import kinds
from lateen.console.shapes import Change
from lateen.kit.jsons import Json, dig

MOST = 500
SLACK_S = 5.0
"""The tolerated clock difference between API server and console."""


class Changes:
    def __init__(self, started: float) -> None:
        """``started``: seconds since 1970, by the same clock as in ``seen``."""
        self._started = started
        self._seen: deque[Change] = deque(maxlen=MOST)

    def seen(self, kind: kinds.Kind, old: Json | None, new: Json | None, now: float) -> None:
        """Record that an object was created, changed or deleted; status changes are ignored."""
        there = new or old
        if there is None or not kind.owned:
            return
        if old is None:
            created = _seconds(dig(there, "metadata", "creationTimestamp"))
            if created < self._started - SLACK_S:
                return  # the object existed before
            self._seen.append(_change(kind, there, now, "created"))
        elif new is None:
            self._seen.append(_change(kind, there, now, "deleted"))
        elif _wanted(old) != _wanted(new):
            self._seen.append(_change(kind, there, now, "changed"))

    def all(self, present: Iterable[tuple[kinds.Kind, Json]]) -> list[Change]:
        """The observed changes, and earlier ones inferred from existing objects, the oldest first."""
        out = list(self._seen)
        for kind, obj in present:
            times = {_seconds(dig(obj, "metadata", "creationTimestamp")): "created"}
            for entry in dig(obj, "metadata", "managedFields", default=[]):
                if entry.get("subresource") != "status":
                    times.setdefault(_seconds(entry.get("time")), "changed")
            for at, what in times.items():
                if 0 < at < self._started - SLACK_S:
                    out.append(_change(kind, obj, at, "created" if what == "created" else "changed"))
        return sorted(out, key=lambda c: c["at"])[-MOST:]


def _change(kind: kinds.Kind, obj: Json, at: float, what: Literal["created", "changed", "deleted"]) -> Change:
    meta = obj["metadata"]
    return {
        "at": at,
        "kind": str(kind.id),
        "namespace": str(meta.get("namespace", "")),
        "name": str(meta.get("name", "")),
        "what": what,
        "by": _writer(obj) if what != "deleted" else "",
    }


def _writer(obj: Json) -> str:
    """The manager with the last write outside of the status."""
    entries = [e for e in dig(obj, "metadata", "managedFields", default=[]) if e.get("subresource") != "status"]
    return max(((_seconds(e.get("time")), str(e.get("manager", ""))) for e in entries), default=(0.0, ""))[1]


def _wanted(obj: Json) -> tuple[object, object, object]:
    meta = obj["metadata"]
    return obj.get("spec"), meta.get("labels"), meta.get("annotations")


def _seconds(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
