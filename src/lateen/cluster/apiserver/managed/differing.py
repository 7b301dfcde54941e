"""What a write has changed: the paths that differ between two states of an object."""

from __future__ import annotations

from typing import Any, NamedTuple

from lateen.cluster.apiserver.managed import paths
from lateen.cluster.apiserver.managed.paths import Fields
from lateen.cluster.apiserver.managed.typed import Part, is_atomic, parts
from lateen.kit import jsons
from lateen.kit.jsons import Json


class Difference(NamedTuple):
    """``changed``: added or with another value; ``removed``: there before, and not any more."""

    changed: Fields
    removed: Fields


NOTHING = Difference({}, {})


def difference(schema: Json, old: Any, new: Any) -> Difference:
    """Of two values of a resolved schema."""
    if _same(old, new):
        return NOTHING
    if type(old) is not type(new) or is_atomic(schema, new):
        return Difference(paths.leaf(), {})
    before, after = _by_element(schema, old), _by_element(schema, new)
    changed: Fields = {}
    removed: Fields = {}
    for element, part in after.items():
        was = before.get(element)
        if was is None:
            changed[element] = _whole(part)
            continue
        below = difference(part.schema, was.value, part.value)
        if below.changed:
            changed[element] = below.changed
        if below.removed:
            removed[element] = below.removed
    for element, part in before.items():
        if element not in after:
            removed[element] = _whole(part)
    return Difference(changed, removed)


def _same(old: Any, new: Any) -> bool:
    """A number is the same however it is written, but true is none."""
    if isinstance(old, float) or isinstance(new, float):
        return bool(old == new) and bool not in (type(old), type(new))
    return jsons.same(old, new)


def _by_element(schema: Json, value: Any) -> dict[str, Part]:
    out: dict[str, Part] = {}
    for part in parts(schema, value):
        out.setdefault(part.element, part)
    return out


def _whole(part: Part) -> Fields:
    """A part with everything in it: each level of it is new, or gone."""
    out = paths.leaf()
    if not is_atomic(part.schema, part.value):
        for below in parts(part.schema, part.value):
            out.setdefault(below.element, _whole(below))
    return out
