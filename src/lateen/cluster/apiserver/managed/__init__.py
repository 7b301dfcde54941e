"""Who holds which field of an object: managed fields and server-side apply.

Every write that changes a field makes its writer hold it, alone. Applying a configuration makes the manager hold all
that it sets; what another manager holds with a different value is a conflict unless forced, and what the manager has
applied before and does not any more is removed, if nobody else holds it
(https://kubernetes.io/docs/reference/using-api/server-side-apply/). Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lateen.cluster.apiserver.managed import differing, entries, merging, paths, typed
from lateen.cluster.apiserver.managed.entries import APPLY, UPDATE, Entry, Manager, Managers, without_times
from lateen.cluster.apiserver.managed.paths import Fields, Path
from lateen.cluster.apiserver.managed.typed import Untypable
from lateen.cluster.apiserver.managed.writing import Changes, Writer, without_dropped
from lateen.kit import jsons
from lateen.kit.jsons import Json

__all__ = ["Conflicts", "Untypable", "Writer", "apply", "update", "without_times"]

KUBECTL = "kubectl"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Conflicts(Exception):
    """Fields that other managers hold with different values."""

    def __init__(self, found: dict[Manager, Fields]) -> None:
        self.found = [(m, path) for m in sorted(found, key=Manager.shown) for path in paths.leaves(found[m])]
        super().__init__(_says(self.found))

    def causes(self) -> list[Json]:
        return [
            {
                "reason": "FieldManagerConflict",
                "message": f"conflict with {m.shown()}",
                "field": paths.shown(path),
            }
            for m, path in self.found
        ]


def _says(found: list[tuple[Manager, Path]]) -> str:
    if len(found) == 1:
        m, path = found[0]
        return f"Apply failed with 1 conflict: conflict with {m.shown()}: {paths.shown(path)}"
    lines: list[str] = []
    last = None
    for m, path in found:
        if m != last:
            lines.append(f"conflicts with {m.shown()}:")
        lines.append(f"- {paths.shown(path)}")
        last = m
    return f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)


def update(w: Writer, live: Json | None, new: Json) -> list[Json]:
    """The managedFields of ``new``, which is what a create, update or patch has turned ``live`` into. Raises ValueError
    where the client sends its own managedFields and they are malformed."""
    given = new["metadata"].get("managedFields")
    before = _managers(live)
    if not w.subresource and given and entries.is_reset(given):
        return []
    if not w.subresource and given:
        before = entries.decode(given)
    if live is not None and not before:
        return []  # an object whose fields have not been tracked from the start
    try:
        after = _update(w, live or {}, new, before)
    except Untypable:
        after = before
    return entries.encode(entries.capped(after))


def _update(w: Writer, live: Json, new: Json, before: Managers) -> Managers:
    who, changes = w.who(UPDATE), Changes(w, live, new)
    difference, after = changes.own, _yield_to(who, before, changes)
    if taken := w.held(difference.changed):
        was = after.get(who)
        held = paths.difference(was.fields, difference.removed) if was else {}
        after[who] = Entry(paths.union(held, taken), w.version, w.now)
    elif who in after:
        after[who] = replace(after[who], fields=paths.difference(after[who].fields, difference.removed))
    return after


def apply(w: Writer, live: Json | None, config: Json, force: bool) -> Json:
    """The object after a configuration has been applied, with its managedFields.

    ``config`` has apiVersion, kind and a name. Raises Conflicts, and Untypable for a list with duplicate or incomplete
    keys.
    """
    applied = typed.fields(w.schema, config)
    base = live or {}
    before = _managers(live)
    if live is not None and not before:
        unknown = Manager(entries.BEFORE, UPDATE, "", str(live.get("apiVersion") or w.version))
        held = w.held(Changes(w, {}, live).own.changed)
        before = {unknown: Entry(held, unknown.version, w.now)} if held else {}
    try:
        return _apply(w, base, config, applied, before, force)
    except Conflicts as conflicts:
        if w.manager != KUBECTL or not _is_own(w, base, conflicts):
            raise
        return _apply(w, base, config, applied, before, force=True)


def _apply(w: Writer, live: Json, config: Json, applied: Fields, before: Managers, force: bool) -> Json:
    who = w.who(APPLY)
    last = before.get(who)
    merged: Json = merging.merge(w.schema, live, config)
    if last is not None and w.held(last.fields):
        others = {m: e for m, e in before.items() if m != who}
        merged = without_dropped(w, merged, last, [*others.values(), Entry(applied, w.version)])
    if w.subresource == "status":
        merged = {**live, "status": merged.get("status") or {}}
    changes = Changes(w, live, merged)
    if not force and (found := _conflicts(who, before, changes)):
        raise Conflicts(found)
    difference, after = changes.own, _yield_to(who, before, changes)
    held = w.held(applied)
    then = last.time if last is not None else ""
    after[who] = Entry(held, w.version, then if difference == differing.NOTHING else w.now)
    out = {**merged, "metadata": dict(merged.get("metadata") or {})}
    _note_last_applied(w, out, config)
    out["metadata"]["managedFields"] = entries.encode(entries.capped(after))
    return out


def _managers(obj: Json | None) -> Managers:
    try:
        return entries.decode((obj or {}).get("metadata", {}).get("managedFields"))
    except ValueError:
        return {}


def _conflicts(who: Manager, managers: Managers, changes: Changes) -> dict[Manager, Fields]:
    others = {m: (e, changes.at(e.version)) for m, e in managers.items() if m != who}
    found = {m: paths.intersection(e.fields, d.changed) for m, (e, d) in others.items() if d is not None}
    return {m: fields for m, fields in found.items() if fields}


def _yield_to(who: Manager, managers: Managers, changes: Changes) -> Managers:
    """All others no longer hold what ``who`` has changed, and nobody what is gone; nor does who has held fields of a
    version that is not served any more."""
    out: Managers = {}
    for m, e in managers.items():
        if m == who:
            out[m] = e
        elif (difference := changes.at(e.version)) is not None:
            lost = paths.union(difference.changed, difference.removed)
            out[m] = replace(e, fields=paths.difference(e.fields, lost)) if lost else e
    return out


# --- from client-side to server-side apply ---------------------------------------------------------------------------


def _is_own(w: Writer, live: Json, conflicts: Conflicts) -> bool:
    """Whether all conflicts are about what kubectl has applied from the client's side and nobody has changed since."""
    text = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        noted: Any = jsons.loads(text) if isinstance(text, str) else None
        if not isinstance(noted, dict):
            return False
        own = typed.fields(w.schema, noted)
        since = differing.difference(w.schema, noted, live)
    except (ValueError, AttributeError, TypeError):
        return False
    own = paths.difference(own, paths.union(since.changed, since.removed))
    return all(paths.has(own, path) for _, path in conflicts.found)


def _note_last_applied(w: Writer, obj: Json, config: Json) -> None:
    """Keep the annotation of client-side apply up to date where there is one, so that kubectl can go back to it."""
    annotations = obj["metadata"].get("annotations") or {}
    if w.manager != KUBECTL or w.subresource or LAST_APPLIED not in annotations:
        return
    meta = {k: v for k, v in config["metadata"].items() if k != "managedFields"}
    noted = {k: v for k, v in (meta.get("annotations") or {}).items() if k != LAST_APPLIED}
    text = jsons.dumps({**config, "metadata": {**meta, "annotations": noted}}).decode() + "\n"
    obj["metadata"]["annotations"] = {**annotations, LAST_APPLIED: text}
