"""An applied configuration on top of an object, and without what it does not have any more."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.managed.paths import HERE, Fields
from lateen.cluster.apiserver.managed.typed import Part, is_atomic, parts
from lateen.kit.jsons import Json


def merge(schema: Json, live: Any, applied: Any) -> Any:
    """``applied`` wins; what it does not say stays as it is."""
    if type(live) is not type(applied) or is_atomic(schema, applied):
        return applied
    if isinstance(applied, dict):
        out = dict(live)
        for part in parts(schema, applied):
            name = part.element[2:]
            out[name] = merge(part.schema, live[name], part.value) if name in live else part.value
        return out
    return _lists(schema, live, applied)


def _lists(schema: Json, live: list[Any], applied: list[Any]) -> list[Any]:
    """Applied elements have the applied order; others stay where they are between their neighbours, as far as the two
    orders agree."""
    mine = {p.element: p for p in parts(schema, applied)}
    theirs: dict[str, Part] = {}
    queue = list(parts(schema, live))
    for part in queue:
        theirs.setdefault(part.element, part)
    shared = [e for e in mine if e in theirs]
    out: list[Any] = []
    at = 0
    for element, part in mine.items():
        while at < len(queue) and (queue[at].element not in mine or (shared and queue[at].element != shared[0])):
            if queue[at].element not in mine:
                out.append(queue[at].value)
            at += 1
        if shared and shared[0] == element:
            shared.pop(0)
            at += at < len(queue)
        was = theirs.get(element)
        out.append(part.value if was is None else merge(part.schema, was.value, part.value))
    return out + [p.value for p in queue[at:] if p.element not in mine]


def prune(schema: Json, value: Any, last: Fields, kept: Fields) -> Any:
    """Without what the manager has applied ``last`` time and nobody has now (``kept`` has what all managers have).

    A field that the schema declares goes when nothing below it is kept, an element of a list or map when it is not kept
    itself: whoever only changed something inside of it does not hold it.
    """
    if is_atomic(schema, value):
        return value
    stays: list[tuple[Part, Any]] = []
    for part in parts(schema, value):
        mine, theirs = last.get(part.element), kept.get(part.element) or {}
        if mine is None:
            stays.append((part, part.value))
        elif not _gone(part, mine, theirs):
            left = prune(part.schema, part.value, mine, theirs)
            if left or not part.value:
                stays.append((part, left))
    return _joined(value, stays)


def cut(schema: Json, value: Any, gone: Fields) -> Any:
    """Without just these fields and elements, and without what is empty then."""
    if is_atomic(schema, value):
        return value
    stays: list[tuple[Part, Any]] = []
    for part in parts(schema, value):
        mine = gone.get(part.element)
        if mine is None:
            stays.append((part, part.value))
        elif HERE not in mine and ((left := cut(part.schema, part.value, mine)) or not part.value):
            stays.append((part, left))
    return _joined(value, stays)


def _joined(value: Any, stays: list[tuple[Part, Any]]) -> Any:
    if isinstance(value, dict):
        return {part.element[2:]: left for part, left in stays}
    return [left for _, left in stays]


def _gone(part: Part, mine: Fields, kept: Fields) -> bool:
    if part.named:
        return not kept
    return HERE in mine and HERE not in kept
