"""What a rule costs at most, in the units and by the estimates of Kubernetes' compiler.

After cel-go's checker/cost.go and k8s.io/apiserver/pkg/cel/library/cost.go: the steps that a rule takes for the largest
value that its schema allows. What this module does not know (macros of optional values) costs nothing. What is computed
is looked up in the schema as in Kubernetes, whose path of it lacks the variable: items of a computed list, when a macro
goes through it, are as large as ``self``; optional fields have no path at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from lateen.cluster.apiserver.custom import checking, sizes
from lateen.cluster.apiserver.custom.sizes import Sizes
from lateen.cluster.apiserver.custom.syntax import Node, Unreadable, parsed
from lateen.cluster.apiserver.custom.types import UNKNOWN, Type, loose, overloads
from lateen.kit.jsons import Json

RULE, SCHEMA = 10_000_000, 100_000_000
"""What one rule, and all rules of a schema may cost."""
WORST = (1 << 64) - 1
_TRAVERSAL, _REGEX = 0.1, 0.25
"""The cost of a character of a text, and of one of a regular expression."""
_LIST, _MAP = 10, 30
_CHECK = 350_000


class Size(NamedTuple):
    """``low``, ``high``: of a text, list or map."""

    low: int
    high: int


class Value(NamedTuple):
    """What an expression's value costs, and what is known about it. ``path``: where it is in the schema; empty where it
    is computed. ``size``: None if nothing is known. ``inner``: the size of a list's items, by the schema."""

    cost: int
    type: Type = UNKNOWN
    path: tuple[str, ...] = ()
    size: Size | None = None
    inner: Size | None = None

    @property
    def most(self) -> Size:
        return self.size or Size(0, 0 if self.type == UNKNOWN else WORST)


def estimate(expression: str, schema: Json, variables: dict[str, Type], known: Sizes, root: bool) -> int:
    """``schema``: of ``self`` and ``oldSelf``; ``known``: the sizes of what is in it; ``root``: it is one of whole
    objects."""
    try:
        tree = parsed(expression)
    except Unreadable:
        return 0
    types = checking.types_of(tree, variables)
    return _Estimate(types, lambda path: _largest(schema, path, known, root)).of(tree, {}).cost


def _largest(schema: Json, path: tuple[str, ...], known: Sizes, root: bool) -> Size | None:
    """The size of what is at a path, which begins with a variable."""
    at: Json | None = schema
    for i, step in enumerate(path[1:]):
        at = known.below(at, step, root and i == 0) if at is not None else None
    return None if at is None else Size(0, known.most(at))


Scope = dict[str, Value]


class _Estimate:
    def __init__(self, types: dict[int, Type], largest: Callable[[tuple[str, ...]], Size | None]) -> None:
        self._types, self._largest, self._depth = types, largest, 0

    def of(self, node: Node, scope: Scope) -> Value:
        if self._depth > checking.DEEPEST:
            return Value(0)
        self._depth += 1
        try:
            return self._of(node, scope)
        finally:
            self._depth -= 1

    def _of(self, node: Node, scope: Scope) -> Value:
        made = self._types.get(id(node), UNKNOWN)
        match node.kind:
            case "literal":
                return Value(0, made, size=Size(node.size, node.size))
            case "name":
                if node.name in scope:
                    return scope[node.name]._replace(cost=1)
                return self._placed(1, made, (node.name,))
            case "list" | "map":
                return self._made(node, made, scope)
            case "select" | "maybe":
                return self._selected(node, made, scope)
        if node.kind == "method" and checking.is_loop(node):
            return self._loop(node, made, scope)
        if node.kind == "method" and checking.is_paired(node):
            return self._paired(node, made, scope)
        if node.kind == "method" and node.name in checking.BINDING:
            return Value(self.of(node.args[0], scope).cost)
        return self._called(node, made, scope)

    def _placed(self, cost: int, made: Type, path: tuple[str, ...], size: Size | None = None) -> Value:
        known, inner = self._largest(path) if path else None, None
        if path and made.name == "list":
            inner = self._largest((*path, sizes.ITEMS))
        return Value(_capped(cost), made, path, known or size or (Size(1, 1) if made.name in _SCALARS else None), inner)

    def _made(self, node: Node, made: Type, scope: Scope) -> Value:
        parts = [self.of(n, scope) for n in node.args]
        count = len(parts) // (2 if node.kind == "map" else 1)
        cost = sum(p.cost for p in parts) + (_LIST if node.kind == "list" else _MAP)
        return Value(_capped(cost), made, size=Size(count, count))

    def _selected(self, node: Node, made: Type, scope: Scope) -> Value:
        of = self.of(node.args[0], scope)
        cost = of.cost + (of.type.name == "map" or of.type.fields is not None or node.kind == "maybe")
        return self._placed(cost, made, (*of.path, node.name) if node.kind == "select" else ())

    def _loop(self, node: Node, made: Type, scope: Scope) -> Value:
        """A macro, as the comprehension that it stands for: per item, the test whether to go on, and the step."""
        over = self.of(node.args[0], scope)
        step = sizes.ITEMS if over.type.name == "list" else sizes.KEYS
        kind = over.type.inner[0] if over.type.inner else UNKNOWN
        inner = {**scope, node.args[1].name: self._placed(1, kind, (*over.path, step), over.inner)}
        found = [self.of(n, inner) for n in node.args[2:]]
        once, each = _LOOPS[node.name](*(v.cost for v in found))
        cost = over.cost + once + over.most.high * each
        return Value(_capped(cost), made, size=over.most if node.name in ("map", "filter") else Size(1, 1))

    def _paired(self, node: Node, made: Type, scope: Scope) -> Value:
        """The same with two variables."""
        over = self.of(node.args[0], scope)
        listed = over.type.name == "list"
        kinds = (Type("int"), *(over.type.inner or (UNKNOWN, UNKNOWN)))[-2:]
        key = Value(1, kinds[0], size=Size(1, 1)) if listed else self._placed(1, kinds[0], (*over.path, sizes.KEYS))
        item = self._placed(1, kinds[1], (*over.path, sizes.ITEMS if listed else sizes.VALUES), over.inner)
        inner = {**scope, node.args[1].name: key, node.args[2].name: item}
        once, each = _PAIRS[node.name](*(self.of(n, inner).cost for n in node.args[3:]))
        size = over.most if made.name in ("list", "map") else Size(1, 1)
        return Value(_capped(over.cost + once + over.most.high * each), made, size=size)

    def _called(self, node: Node, made: Type, scope: Scope) -> Value:
        if (node.name, node.kind) == ("has", "call") and node.args and node.args[0].args:
            return Value(self.of(node.args[0].args[0], scope).cost, made, size=Size(1, 1))
        if node.kind == "method" and (node.args[0].name, len(node.args)) == ("sets", 3) and node.name in _SETS:
            one, other = (self.of(n, scope) for n in node.args[1:])
            each = _SETS[node.name] * one.most.high * other.most.high
            return Value(_capped(one.cost + other.cost + each + 1), made, size=Size(1, 1))
        given = [self.of(n, scope) for n in node.args]
        if node.name == "_?_:_":
            test, yes, no = given
            either = Size(min(yes.most.low, no.most.low), max(yes.most.high, no.most.high))
            return Value(_capped(test.cost + max(yes.cost, no.cost)), made, size=either)
        size: Size | None
        known = overloads().get((node.name, node.kind == "method"))
        readable = known is None or any(len(wanted) == len(given) for wanted, _ in known)
        cost, size = (_FUNCTIONS.get((node.name, node.kind), _nominal) if readable else _nominal)(*given)
        path = tuple[str, ...]()
        if node.name == "_[_]":
            path = (*given[0].path, sizes.ITEMS if given[0].type.name == "list" else sizes.VALUES)
        elif node.name == "dyn" and given:
            path, size = given[0].path, given[0].size
        return self._placed(sum(v.cost for v in given) + cost, made, path, size)


def _capped(cost: int) -> int:
    return min(cost, WORST)


def _steps(size: int, factor: float) -> int:
    return WORST if size >= WORST else math.ceil(size * factor)


# --- macros: what they cost once, and for each item -----------------------------------------------------------------

_SCALARS = frozenset({"bool", "double", "duration", "int", "timestamp", "uint"})
_OPAQUE = frozenset({"net.IP", "net.CIDR", "kubernetes.Quantity"})
_APPEND = 1 + _LIST + 1
"""Appending to the result: its name, a list of one, and the concatenation."""


def _mapped(*given: int) -> tuple[int, int]:
    *tests, item = given
    return _LIST + 1, sum(tests) + _APPEND + item


_LOOPS: dict[str, Callable[..., tuple[int, int]]] = {
    "all": lambda test: (1, 2 + 1 + test),
    "exists": lambda test: (1, 3 + 1 + test),
    "exists_one": lambda test: (2, test + 2),
    "existsOne": lambda test: (2, test + 2),
    "filter": lambda test: (_LIST + 1, test + _APPEND + 1),
    "map": _mapped,
}


def _inserted(step: int) -> Callable[..., tuple[int, int]]:
    """Into the map that is the result."""
    return lambda *given: (_MAP + 1, sum(given) + step)


_PAIRS: dict[str, Callable[..., tuple[int, int]]] = {
    **_LOOPS,
    "transformList": _mapped,
    "transformMap": _inserted(3),
    "transformMapEntry": _inserted(2),
}

# --- functions: what a call costs beside its arguments, and how large its result is ----------------------------------

_SETS = {"contains": 1, "intersects": 1, "equivalent": 2}
"""How often each item is compared with each of the other list (cel-go's ext/sets.go)."""
Called = tuple[int, Size | None]


def _nominal(*_: Value) -> Called:
    return 1, None


def _traversed(of: Value, *_: Value) -> Called:
    """The receiver is read once, and the result is as large."""
    return _steps(of.most.high, _TRAVERSAL), of.most


def _prefixed(_: Value, prefix: Value) -> Called:
    return _steps(prefix.most.high, _TRAVERSAL), None


def _contained(of: Value, part: Value) -> Called:
    return _steps(of.most.high, _TRAVERSAL) * _steps(part.most.high, _TRAVERSAL), None


def _matched(of: Value, pattern: Value, *_: Value) -> Called:
    return _steps(min(of.most.high + 1, WORST), _TRAVERSAL) * _steps(pattern.most.high, _REGEX), None


def _found(of: Value, pattern: Value, *_: Value) -> Called:
    return _matched(of, pattern)[0], Size(0, of.most.high)


def _both(*_: Value) -> Called:
    """&& and ||: no more than their operands."""
    return 0, Size(1, 1)


def _compared(left: Value, right: Value) -> Called:
    if left.type == right.type and left.type.name in _OPAQUE:
        return 1, Size(1, 1)
    return _steps(min(left.most.high, right.most.high), _TRAVERSAL), Size(1, 1)


def _ordered(left: Value, right: Value) -> Called:
    texts = all(loose(v.type) or v.type.name in ("string", "bytes") for v in (left, right))
    return _compared(left, right) if texts else (1, Size(1, 1))


def _added(left: Value, right: Value) -> Called:
    size = Size(left.most.low + right.most.low, _capped(left.most.high + right.most.high))
    if all(loose(v.type) or v.type.name in ("string", "bytes") for v in (left, right)):
        return max(_steps(size.high, _TRAVERSAL), 1), size
    return 1, size if "list" in (left.type.name, right.type.name) else None


def _in(_: Value, of: Value) -> Called:
    return (of.most.high if of.type.name == "list" or loose(of.type) else 1), Size(1, 1)


def _of_items(of: Value, *_: Value) -> Called:
    """One look at each item, which is read if it is a text; or one at the text."""
    if of.type.name != "list":
        return _steps(of.most.high, _TRAVERSAL), None
    texts = of.type.inner[0].name in ("string", "bytes")
    return of.most.high * (1 + (_steps((of.inner or Size(0, WORST)).high, _TRAVERSAL) if texts else 0)), None


def _split(of: Value, *_: Value) -> Called:
    return _steps(of.most.high, 2 * _TRAVERSAL), Size(0, of.most.high)


def _joined(of: Value, *separator: Value) -> Called:
    high = of.most.high * (of.inner or Size(0, WORST)).high
    high += max(of.most.high - 1, 0) * (separator[0].most.high if separator else 0)
    return _steps(_capped(high), _TRAVERSAL), Size(0, _capped(high))


def _replaced(of: Value, old: Value, new: Value, *_: Value) -> Called:
    text, gone, put = of.most, old.most, new.most
    if gone.low == 0:
        high = (text.high + 1) * put.high + text.high
    elif put.high <= gone.low:
        high = text.high
    else:
        high = math.ceil(text.high / gone.low) * put.high
    return _steps(text.high, 2 * _TRAVERSAL), Size(0, _capped(high))


def _formatted(of: Value, *_: Value) -> Called:
    return _steps(of.most.high, _TRAVERSAL), None


def _text(of: Value) -> Called:
    texts = loose(of.type) or of.type.name in ("bytes", "string")
    return (_steps(of.most.high, _TRAVERSAL), of.most) if texts else (1, None)


def _bytes(of: Value) -> Called:
    return _steps(of.most.high, _TRAVERSAL), Size(of.most.low, _capped(4 * of.most.high))


def _address(bits: int) -> Callable[..., Called]:
    def called(_: Value, other: Value) -> Called:
        read = _steps(other.most.high, _TRAVERSAL) if other.type.name == "string" else 0
        return bits + read, None

    return called


def _checked(*_: Value) -> Called:
    return _CHECK, None


_FUNCTIONS: dict[tuple[str, str], Callable[..., Called]] = {
    **{(name, "method"): _traversed for name in ("lowerAscii", "upperAscii", "substring", "trim")},
    **{(name, "method"): _prefixed for name in ("startsWith", "endsWith")},
    **{(name, "method"): _of_items for name in ("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf")},
    **{(f"_{sign}_", "call"): _ordered for sign in ("<", "<=", ">", ">=")},
    **{(f"_{sign}_", "call"): _compared for sign in ("==", "!=")},
    **{(f"_{sign}_", "call"): _both for sign in ("&&", "||")},
    **{(name, "method"): _found for name in ("find", "findAll")},
    ("_+_", "call"): _added,
    ("@in", "call"): _in,
    ("matches", "method"): _matched,
    ("contains", "method"): _contained,
    ("replace", "method"): _replaced,
    ("split", "method"): _split,
    ("join", "method"): _joined,
    ("format", "method"): _formatted,
    ("string", "call"): _text,
    ("bytes", "call"): _bytes,
    ("url", "call"): lambda text: (_steps(text.most.high, _TRAVERSAL), None),
    ("containsIP", "method"): _address(4),
    ("containsCIDR", "method"): _address(7),
    ("check", "method"): _checked,
}
