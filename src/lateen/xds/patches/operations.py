"""The operations of a patch: on a resource as a whole, and on a list of messages in it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from lateen.mesh.view import Patch
from lateen.xds.patches import matching, merging, values

Patches = tuple[Patch, ...]
MERGES = ("MERGE", "MERGE_AND_REPLACE_LIST")


class Work:
    """A resource that is being patched."""

    def __init__(self, message: Any, context: str) -> None:
        self.message, self.context = message, context
        self.touched: list[Patch] = []
        self.removed = False

    def done(self, patch: Patch) -> None:
        if patch not in self.touched:
            self.touched.append(patch)


def value_of(patch: Patch) -> Any:
    """The value of a patch that has a valid one, as a message."""
    found = parsed(patch)
    assert not isinstance(found, str)
    return found


@lru_cache(maxsize=4096)
def parsed(patch: Patch) -> Any:
    """The value as a message, or a sentence about what is wrong with it."""
    value = patch.spec.patch.value if patch.spec.patch else None
    try:
        return values.message(patch.spec.apply_to, value or {})
    except ValueError as e:
        return str(e)


def operation_of(patch: Patch) -> str:
    return patch.spec.patch.operation if patch.spec.patch else "INVALID"


def in_context(patches: Patches, apply_to: str, context: str) -> list[Patch]:
    """The patches for a part of Envoy's configuration (``applyTo``) in a context."""
    return [
        p
        for p in patches
        if p.spec.apply_to == apply_to and matching.context(p.spec.match.context if p.spec.match else "ANY", context)
    ]


def merge(work: Work, message: Any, patch: Patch) -> None:
    merging.merge(message, value_of(patch), operation_of(patch) == "MERGE_AND_REPLACE_LIST")
    work.done(patch)


def in_list(work: Work, items: Any, patch: Patch, fits: Any, anchored: bool, end: int | None = None) -> None:
    """Apply a patch to a list of messages. ``fits``: whether the patch is for an item; ``anchored``: whether it names
    one; ``end``: where ADD inserts."""
    operation = operation_of(patch)
    if operation in MERGES:
        for item in items:
            if fits(item):
                merge(work, item, patch)
        return
    at = next((i for i, item in enumerate(items) if fits(item)), None)
    if operation == "REMOVE":
        kept = [item for item in items if not fits(item)]
        if len(kept) < len(items):
            _refill(items, kept)
            work.done(patch)
        return
    place: int | None
    if operation == "ADD":
        place = len(items) if end is None else end
    elif operation == "INSERT_FIRST":
        place = 0
    elif operation == "INSERT_BEFORE":
        place = at if anchored else 0
    elif operation == "INSERT_AFTER":
        place = (None if at is None else at + 1) if anchored else len(items)
    elif operation == "REPLACE" and at is not None:
        new = [*items]
        new[at] = value_of(patch)
        _refill(items, new)
        work.done(patch)
        return
    else:
        return
    if place is not None:
        _refill(items, [*items[:place], value_of(patch), *items[place:]])
        work.done(patch)


def _refill(items: Any, new: list[Any]) -> None:
    copies = []
    for item in new:
        copy = type(item)()
        copy.CopyFrom(item)
        copies.append(copy)
    del items[:]
    items.extend(copies)


def whole(work: Work, patches: list[Patch]) -> bool:
    """REMOVE and MERGE of the resource itself; returns whether it has been removed."""
    for p in patches:
        if operation_of(p) == "REMOVE":
            work.removed = True
            work.done(p)
            return True
        if operation_of(p) in MERGES:
            merge(work, work.message, p)
    return False
