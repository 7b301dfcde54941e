"""Whether the types of a CEL expression fit, in the words of Kubernetes' compiler (cel-go's checker)."""

from __future__ import annotations

from functools import reduce

from lateen.cluster.apiserver.custom import macros
from lateen.cluster.apiserver.custom.syntax import Node, Unreadable, parsed
from lateen.cluster.apiserver.custom.types import (
    BOOL,
    DYN,
    NULL,
    UNKNOWN,
    UNTYPED,
    Bound,
    Type,
    filled,
    fits,
    loose,
    overloads,
)

_MACROS = {"all": (2,), "exists": (2,), "exists_one": (2,), "existsOne": (2,), "filter": (2,), "map": (2, 3)}
BINDING = frozenset({"sortBy", *macros.OPTIONAL, *macros.PAIRED, *_MACROS})
"""Macros that declare names. Those that are neither loops nor pairs are not looked into."""
_ONE = ("exists_one", "existsOne")
_TRANSFORMS = ("transformList", "transformMap", "transformMapEntry")
_NAMES_OF_TYPES = ("bool", "bytes", "double", "duration", "int", "list", "map", "string", "timestamp", "type", "uint")
NAMESPACES = frozenset({"base64", "format", "google", "ip", "math", "net", "optional", "sets", "strings"})
"""Names before functions (``sets.contains``) that are no variables."""
DEEPEST = 60
"""Of a chain of operators or fields; what is deeper is not looked at."""


def checked(expression: str, variables: dict[str, Type], authorizer: bool = False) -> tuple[Type, str]:
    """The expression's type, and what is wrong with it, in several lines; "" if nothing is, as far as is known.
    ``authorizer``: there are the functions of policies."""
    try:
        tree = parsed(expression)
    except Unreadable:
        return UNKNOWN, ""
    checker = _Checker(authorizer)
    made = checker.of(tree, variables)
    return made, "\n".join(_shown(expression, at, says) for at, says in sorted(set(checker.wrong or checker.mixed)))


def is_loop(node: Node) -> bool:
    """Whether a method is a macro over the items of its receiver, with one variable."""
    return len(node.args) - 1 in _MACROS.get(node.name, ()) and node.args[1].kind == "name"


def is_paired(node: Node) -> bool:
    """Whether a method is a macro over the indexes or keys of its receiver and their values."""
    return len(node.args) - 1 in macros.PAIRED.get(node.name, ()) and all(n.kind == "name" for n in node.args[1:3])


def types_of(tree: Node, variables: dict[str, Type]) -> dict[int, Type]:
    """The type of each node of a tree, by its id; those that were not looked at are missing."""
    checker = _Checker()
    checker.of(tree, variables)
    return checker.types


def _shown(expression: str, at: int, says: str) -> str:
    before = expression[:at].split("\n")
    line, column = len(before), len(before[-1])
    source = expression.split("\n")[line - 1]
    return f"ERROR: <input>:{line}:{column + 1}: {says}\n | {source}\n | {'.' * column}^"


class _Checker:
    def __init__(self, authorizer: bool = False) -> None:
        self._overloads = overloads(authorizer)
        self.wrong: list[tuple[int, str]] = []
        self.mixed: list[tuple[int, str]] = []
        """Elements of another type than those before them, which Kubernetes looks for where nothing else is wrong."""
        self._depth = self._formats = 0
        self.types: dict[int, Type] = {}
        """Of each node, by its id."""

    def _error(self, at: int, says: str) -> Type:
        self.wrong.append((at, says))
        return UNKNOWN

    def of(self, node: Node, scope: dict[str, Type]) -> Type:
        if self._depth > DEEPEST:
            return UNKNOWN
        self._depth += 1
        try:
            made = self.types[id(node)] = self._of(node, scope)
            return made
        finally:
            self._depth -= 1

    def _of(self, node: Node, scope: dict[str, Type]) -> Type:
        match node.kind:
            case "literal":
                return Type(node.name)
            case "name":
                return self._named(node, scope)
            case "list":
                return Type("list", (self._alike(node.args, scope),))
            case "map":
                return Type("map", (self._alike(node.args[::2], scope), self._alike(node.args[1::2], scope)))
            case "select" | "maybe":
                return self._selected(node, scope)
        if node.kind == "method" and is_loop(node):
            return self._loop(node, scope)
        if node.kind == "method" and is_paired(node):
            return self._paired(node, scope)
        if node.kind == "method" and node.name in BINDING:
            self.of(node.args[0], scope)
            return UNKNOWN
        return self._called(node, scope)

    def _named(self, node: Node, scope: dict[str, Type]) -> Type:
        if node.name in scope:
            return scope[node.name]
        if node.name in _NAMES_OF_TYPES:
            return Type("type", (Type(node.name) if node.name not in ("list", "map", "type") else UNKNOWN,))
        if node.name in NAMESPACES or node.name in ("null_type", "dyn"):
            return UNKNOWN
        return self._error(node.at, f"undeclared reference to '{node.name}' (in container '')")

    def _alike(self, nodes: tuple[Node, ...], scope: dict[str, Type]) -> Type:
        """The type of all elements of a list, or of all keys or values of a map."""
        found: Type | None = None
        for node in nodes:
            made = self.of(node, scope)
            if found is None or found == UNKNOWN or (found == NULL and fits(made, NULL, {})):
                found = made
            elif made != UNKNOWN and ((found == DYN) != (made == DYN) or not fits(found, made, {})):
                if not self._formats:
                    self.mixed.append((node.at, f"expected type '{found}' but found '{made}'"))
                return DYN
        return DYN if found is None else found

    def _selected(self, node: Node, scope: dict[str, Type]) -> Type:
        given = self.of(node.args[0], scope)
        optional = node.kind == "maybe" or given.name == "optional_type"
        given = given.inner[0] if given.name == "optional_type" else given
        if loose(given):
            found = given
        elif given.name == "map":
            found = given.inner[1]
        elif given.fields is None:
            return self._error(node.at, f"type '{given}' does not support field selection")
        else:
            made = given.fields(node.name)
            if made is None:
                return self._error(node.at, f"undefined field '{node.name}'")
            found = made
        return Type("optional_type", (found,)) if optional and found != UNKNOWN else found

    def _range(self, node: Node, scope: dict[str, Type]) -> Type | None:
        """The type of what a macro goes through; None if nothing can."""
        given = self.of(node.args[0], scope)
        if loose(given) or given.name in ("list", "map"):
            return given
        says = "cannot be range of a comprehension (must be list, map, or dynamic)"
        self._error(node.args[0].at, f"expression of type '{given}' {says}")
        return None

    def _loop(self, node: Node, scope: dict[str, Type]) -> Type:
        given, variable = self._range(node, scope), node.args[1].name
        if given is None:
            return UNKNOWN
        item = given if loose(given) else given.inner[0]
        inner = scope | {variable: item}
        conditions = node.args[2:-1] if node.name == "map" else node.args[2:]
        made = Type("list", (item,)) if node.name == "filter" else Type("int") if node.name in _ONE else BOOL
        if node.name == "map":
            made = Type("list", (self.of(node.args[-1], inner),))
        self._conditions(node, conditions, inner, made)
        return BOOL if node.name in _ONE else made

    def _paired(self, node: Node, scope: dict[str, Type]) -> Type:
        given = self._range(node, scope)
        if given is None:
            return UNKNOWN
        if node.args[1].name == node.args[2].name:
            return self._error(node.args[2].at, f"duplicate variable name: {node.args[2].name}")
        key, value = (given, given) if loose(given) else (Type("int"), *given.inner)[-2:]
        inner = scope | {node.args[1].name: key, node.args[2].name: value}
        if node.name not in _TRANSFORMS:
            self._conditions(node, node.args[3:], inner, Type("int") if node.name in _ONE else BOOL)
            return BOOL
        item = self.of(node.args[-1], inner)
        if node.name == "transformMapEntry" and not loose(item) and item.name != "map":
            says = f"found no matching overload for 'cel.@mapInsert' applied to '(map(dyn, dyn), {item})'"
            return self._error(node.at, says)
        made = Type("list", (item,)) if node.name == "transformList" else item
        made = Type("map", (key, item)) if node.name == "transformMap" else made
        self._conditions(node, node.args[3:-1], inner, made)
        return made

    def _conditions(self, node: Node, conditions: tuple[Node, ...], scope: dict[str, Type], made: Type) -> None:
        for condition in conditions:
            found = self.of(condition, scope)
            if loose(found) or found == BOOL:
                continue
            if node.name in ("all", "exists"):
                self._error(condition.at, f"expected type 'bool' but found '{found}'")
            else:
                self._error(node.at, f"found no matching overload for '_?_:_' applied to '({found}, {made}, {made})'")

    def _called(self, node: Node, scope: dict[str, Type]) -> Type:
        if (node.name, node.kind) == ("has", "call"):
            return self._has(node, scope)
        self._formats += node.name == "format"  # what is formatted may be of several types
        given = tuple(self.of(n, scope) for n in node.args)
        self._formats -= node.name == "format"
        if node.name in ("_&&_", "_||_"):
            for operand, found in zip(node.args, given, strict=True):
                if not loose(found) and found != BOOL:
                    self._error(operand.at, f"expected type 'bool' but found '{found}'")
            return BOOL
        known = self._overloads.get((node.name, node.kind == "method"))
        if known is None and (node.name, node.kind != "method") not in self._overloads:
            if node.name in UNTYPED or (node.kind == "method" and node.args[0].name in NAMESPACES):
                return UNKNOWN
            return self._error(node.at, f"undeclared reference to '{node.name}' (in container '')")
        if node.kind == "method" and given[0] == UNKNOWN:
            return UNKNOWN
        results = [t for t in (_result(wanted, made, given) for wanted, made in known or []) if t is not None]
        if results:
            one = reduce(lambda a, b: a if a == b else DYN, results)
            return UNKNOWN if one == DYN and UNKNOWN in given else one
        shown = list(map(str, given))
        applied = f"{shown[0]}.({', '.join(shown[1:])})" if node.kind == "method" else f"({', '.join(shown)})"
        return self._error(node.at, f"found no matching overload for '{node.name}' applied to '{applied}'")

    def _has(self, node: Node, scope: dict[str, Type]) -> Type:
        if len(node.args) != 1 or node.args[0].kind != "select":
            return self._error(node.args[0].at if node.args else node.at, "invalid argument to has() macro")
        self._selected(node.args[0]._replace(at=node.at), scope)
        return BOOL


def _result(wanted: tuple[Type, ...], made: Type, given: tuple[Type, ...]) -> Type | None:
    bound: Bound = {}
    if len(wanted) != len(given) or not all(fits(w, g, bound) for w, g in zip(wanted, given, strict=True)):
        return None
    return filled(made, bound)
