"""One write, and what it changes in each version in which somebody holds fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from lateen.cluster.apiserver.custom.converted import Convert, NoVersion
from lateen.cluster.apiserver.managed import differing, entries, merging, paths, typed
from lateen.cluster.apiserver.managed.entries import Entry, Manager
from lateen.cluster.apiserver.managed.paths import Fields
from lateen.kit.jsons import Json

_SERVERS = (
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
)
_UNHELD: Fields = {
    "f:apiVersion": paths.leaf(),
    "f:kind": paths.leaf(),
    "f:metadata": {paths.HERE: {}} | {paths.field(name): paths.leaf() for name in _SERVERS},
}
"""Fields without a manager: those that identify the object, and those that only the server writes."""


@dataclass(frozen=True)
class Writer:
    """One write: by whom, in which version and through which subresource, of a kind with which schema.

    ``native``: a kind of Kubernetes' own. ``has_status``: status is written through its subresource alone. ``now``:
    RFC 3339. ``convert`` and ``schemas``: objects and schemas in the versions in which others hold fields; None where
    the versions of a kind do not differ.
    """

    manager: str
    version: str
    subresource: str
    schema: Json
    native: bool
    has_status: bool
    now: str
    convert: Convert | None = None
    schemas: Callable[[str], Json] | None = None

    def who(self, operation: str) -> Manager:
        return entries.manager(self.manager, operation, self.subresource, self.version)

    def at(self, version: str) -> Writer:
        if version == self.version or self.schemas is None:
            return self
        return replace(self, version=version, schema=self.schemas(version))

    def shown(self, obj: Json) -> Json:
        """An object in the writer's version. Raises NoVersion."""
        if not obj or self.convert is None:
            return obj
        meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k != "managedFields"}
        return self.convert({**obj, "metadata": meta}, self.version)

    def held(self, fields: Fields) -> Fields:
        """Of these fields, those that a write through here can hold."""
        if self.subresource == "status":
            return paths.only(fields, "status")
        fields = paths.difference(fields, _UNHELD)
        return paths.without(fields, "status") if self.has_status else fields


class Changes:
    """What a write changes, by version; ``own``: in the writer's."""

    def __init__(self, w: Writer, old: Json, new: Json) -> None:
        self._w, self._old, self._new = w, old, new
        self.own = _difference(w, old, new)
        self._known: dict[str, differing.Difference | None] = {w.version: self.own}

    def at(self, version: str) -> differing.Difference | None:
        """None for a version that is not served."""
        w = self._w.at(version)
        if w is self._w:
            return self.own
        if version not in self._known:
            try:
                self._known[version] = _difference(w, w.shown(self._old), w.shown(self._new))
            except NoVersion:
                self._known[version] = None
        return self._known[version]


def _difference(w: Writer, old: Json, new: Json) -> differing.Difference:
    before, after = (typed.filled(w.schema, o, w.native) for o in (old, new))
    return differing.difference(w.schema, before, after)


def without_dropped(w: Writer, merged: Json, last: Entry, held: Sequence[Entry]) -> Json:
    """The object without what its manager has applied ``last`` time and nobody holds now (``held``, by everybody)."""
    then = w.at(last.version)
    same_version = [e for e in held if w.at(e.version) is w]
    if then is w and len(same_version) == len(held):
        return _pruned(w, merged, w.held(last.fields), held)
    mine = w.held(last.fields)
    try:
        before = then.shown(merged)
        gone = paths.difference(mine, _union(e for e in held if e.version == last.version))
        out = w.shown(merging.cut(then.schema, before, gone))
    except NoVersion:
        return merged
    for version in dict.fromkeys(e.version for e in held if e.version != last.version):
        at = w.at(version)
        try:
            whole, left = at.shown(merged), at.shown(out)
        except NoVersion:
            continue
        gone = paths.difference(typed.fields(at.schema, whole), typed.fields(at.schema, left))
        kept = _union(e for e in held if e.version == version)
        out = w.shown(merging.cut(at.schema, whole, paths.difference(gone, kept)))
    gone = paths.difference(typed.fields(then.schema, before), typed.fields(then.schema, then.shown(out)))
    out = w.shown(merging.cut(then.schema, before, paths.intersection(gone, mine)))  # nothing but what it has applied
    return {**out, "metadata": _metadata(merged.get("metadata") or {}, out.get("metadata") or {})}


def _metadata(old: Json, new: Json) -> Json:
    """Labels and annotations are the only metadata that anybody holds and a conversion may change."""
    given = ("labels", "annotations")
    return {k: v for k, v in old.items() if k not in given} | {k: new[k] for k in given if k in new}


def _union(held: Iterable[Entry]) -> Fields:
    return reduce(paths.union, (e.fields for e in held), dict[str, Any]())


def _pruned(w: Writer, obj: Json, last: Fields, held: Sequence[Entry]) -> Json:
    pruned: Json = merging.prune(w.schema, obj, last, _union(held))
    return pruned
