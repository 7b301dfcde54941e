"""Sets of field paths, and their form in ``metadata.managedFields`` (FieldsV1).

A set is a tree of path elements. An element is spelled as FieldsV1 spells it: ``f:name`` is a field, ``k:{"name":"a"}``
the element of a list with these keys, ``v:"a"`` the element of a set with this value, ``i:0`` a position. A node that
is itself in the set has the entry ``.``. Sets are never changed after they are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lateen.kit import jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

Fields = dict[str, "Fields"]
Path = tuple[str, ...]

HERE = "."
MAX_DEPTH = 100


def leaf() -> Fields:
    """The set of just this node."""
    return {HERE: {}}


def field(name: str) -> str:
    return f"f:{name}"


def key(values: Json) -> str:
    return f"k:{jsons.canonical(values).decode()}"


def value(given: Any) -> str:
    return f"v:{jsons.canonical(given).decode()}"


def union(a: Fields, b: Fields) -> Fields:
    if not a or not b or a is b:
        return a or b
    out = dict(a)
    for element, below in b.items():
        out[element] = union(out[element], below) if element in out else below
    return out


def difference(a: Fields, b: Fields) -> Fields:
    """The paths of ``a`` that ``b`` does not have."""
    out: Fields = {}
    for element, below in a.items():
        other = b.get(element)
        if other is None:
            out[element] = below
        elif element != HERE and (left := difference(below, other)):
            out[element] = left
    return out


def intersection(a: Fields, b: Fields) -> Fields:
    out: Fields = {}
    for element in a.keys() & b.keys():
        if element == HERE:
            out[element] = {}
        elif both := intersection(a[element], b[element]):
            out[element] = both
    return out


def only(a: Fields, top: str) -> Fields:
    """What is at or below one top-level field."""
    element = field(top)
    return {element: a[element]} if element in a else {}


def without(a: Fields, top: str) -> Fields:
    """All but what is at or below one top-level field."""
    return {element: below for element, below in a.items() if element != field(top)}


def has(a: Fields, path: Path) -> bool:
    for element in path:
        if element not in a:
            return False
        a = a[element]
    return HERE in a


def leaves(a: Fields) -> Iterator[Path]:
    """Paths in the set that have no longer ones in it below them."""
    for element, below in sorted(a.items()):
        if element == HERE:
            if len(a) == 1:
                yield ()
        else:
            for rest in leaves(below):
                yield (element, *rest)


def shown(path: Path) -> str:
    """As conflicts name a path: ``.spec.containers[name="a"].image``."""
    return "".join(map(_shown, path))


def _shown(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        return f"[{','.join(f'{k}={jsons.dumps(v).decode()}' for k, v in jsons.loads(text).items())}]"
    return f"[={text}]" if kind == "v:" else f"[{text}]"


# --- FieldsV1 --------------------------------------------------------------------------------------------------------


def encode(a: Fields) -> Json:
    return {e: {} if below == {HERE: {}} else encode(below) for e, below in sorted(a.items())}


def decode(given: Any, depth: int = 0) -> Fields:
    """Raises ValueError if it is not FieldsV1."""
    if not isinstance(given, dict):
        raise ValueError("must be an object")
    if depth > MAX_DEPTH:
        raise ValueError("is nested too deeply")
    out: Fields = {}
    for element, below in given.items():
        if element == HERE:
            out[HERE] = {}
        else:
            out[_canonical(element)] = decode(below, depth + 1) or leaf()
    return out


def _canonical(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return element
    if kind == "i:" and digits(text):
        return element
    if kind in ("k:", "v:"):
        found = jsons.loads(text)
        if kind == "v:":
            return value(found)
        if isinstance(found, dict):
            return key(found)
    raise ValueError(f'"{element[:80]}" is not a path element (f:, k:, v: or i:)')
