"""CEL's macros over an index or key and its value, those of optional values, and the functions of sets, written with
what the library has.

``m.all(k, v, e)`` is ``m.entries().all(p, …)``, where a list of one element gives each variable its value:
``[x].map(v, e)[0]`` is ``e`` with ``v`` for ``x``. Sources: cel-go's ext/comprehensions.go, cel/library.go (optMap) and
ext/sets.go, of which Kubernetes 1.32 has all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from lateen.cluster.apiserver.custom import optionals

_QUANTIFIERS = ("all", "exists", "exists_one", "existsOne")
_TRANSFORMS = ("transformList", "transformMap", "transformMapEntry")
PAIRED = {**dict.fromkeys(_QUANTIFIERS, (3,)), **dict.fromkeys(_TRANSFORMS, (3, 4))}
"""Macros with two variables, and how many arguments they have."""
OPTIONAL = ("optMap", "optFlatMap")
_SETS = {"contains": "setsContain", "equivalent": "setsEqual", "intersects": "setsIntersect"}
_ANY = re.compile(rf"\b(?:{'|'.join((*PAIRED, *OPTIONAL, 'sets'))})\b")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PAIR = "__entry"


def rewritten(expression: str) -> str:
    """The same expression without these macros and functions. Raises ValueError for variables that cannot be."""
    if not _ANY.search(expression):
        return expression
    return _Tokens(optionals.tokens(expression)).until("")


class _Tokens:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at, self._deep = tokens, 0, 0

    def _text(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return re.sub(r"\s", "", self._tokens[at]) if at < len(self._tokens) else ""

    def until(self, *ends: str) -> str:
        """Everything up to one of these tokens, which is left; or to the end, where brackets do not match."""
        if self._deep > optionals.DEEPEST:
            raise ValueError(f"compilation failed: expression recursion limit exceeded: {optionals.DEEPEST}")
        self._deep += 1
        out = ""
        while self._at < len(self._tokens) and self._text() not in ends:
            out += self._one(out)
        self._deep -= 1
        return out

    def _one(self, before: str) -> str:
        if self._text() == "." and self._text(2) == "(":
            if (name := self._text(1)) in PAIRED or name in OPTIONAL:
                return self._macro(name)
        elif self._text() == "sets" and (function := self._of_sets()) and not _selects(before):
            self._at += 3
            return f" {function}"
        token, closing = self._tokens[self._at], optionals.CLOSED.get(self._text().rstrip("?"))
        self._at += 1
        if closing is None:
            return token
        token += self.until(closing)
        return token + self._taken()

    def _of_sets(self) -> str | None:
        return _SETS.get(self._text(2)) if (self._text(1), self._text(3)) == (".", "(") else None

    def _taken(self) -> str:
        token = "".join(self._tokens[self._at : self._at + 1])
        self._at += 1
        return token

    def _macro(self, name: str) -> str:
        self._at += 3
        given: list[str] = []
        while self._at < len(self._tokens) and self._text() != ")":
            given.append(self.until(",", ")").strip())
            if self._text() == ",":
                self._at += 1
        self._at += 1
        if name in OPTIONAL:
            if len(given) == 2 and _NAME.fullmatch(given[0]):
                return _optional(name, *given)
        elif len(given) in PAIRED[name] and _NAME.fullmatch(given[0]) and _NAME.fullmatch(given[1]):
            if given[0] == given[1]:
                raise ValueError(f"compilation failed: duplicate variable name: {given[0]}")
            return _paired(name, *given)
        return f".{name}({', '.join(given)})"


def _selects(before: str) -> bool:
    return before.rstrip().endswith((".", ".?"))


def _optional(name: str, variable: str, body: str) -> str:
    if name == "optMap":
        return f".optionalValues().map({variable}, {body}).firstValue()"
    return f".optionalValues().map({variable}, ({body}).optionalValues()).firstOfFirst()"


def _paired(name: str, key: str, value: str, *given: str) -> str:
    *tests, body = (f"[{_PAIR}[0]].map({key}, [{_PAIR}[1]].map({value}, {text})[0])[0]" for text in given)
    out = ".entries()" + "".join(f".filter({_PAIR}, {test})" for test in tests)
    match name:
        case "transformList":
            return f"{out}.map({_PAIR}, {body})"
        case "transformMap":
            return f"{out}.map({_PAIR}, [{_PAIR}[0], {body}]).mapOfEntries()"
        case "transformMapEntry":
            return f"{out}.map({_PAIR}, {body}).mergedMaps()"
    return f"{out}.{'exists_one' if name == 'existsOne' else name}({_PAIR}, {body})"


# --- the functions that are left ------------------------------------------------------------------------------------


def _entries(of: Any) -> list[list[Any]]:
    if not isinstance(of, dict | list):
        raise TypeError("no such overload")
    return [[k, v] for k, v in (of.items() if isinstance(of, dict) else enumerate(of))]


def _merged(maps: list[dict[Any, Any]]) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    for one in maps:
        for key, value in one.items():
            if key in out:
                raise ValueError(f"insert failed: key {key} already exists")
            out[key] = value
    return out


def _values(optional: Any) -> list[Any]:
    return [optional.value()] if optional.has_value() else []


def _first(values: list[Any]) -> Any:
    import cel

    return cel.OptionalValue.of(values[0]) if values else cel.OptionalValue.none()


def _key(value: Any) -> Any:
    """Equal for values that are equal in CEL, where true is not 1."""
    if isinstance(value, list):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return frozenset((_key(k), _key(v)) for k, v in value.items())
    return isinstance(value, bool), value


def _shared(of: list[Any], other: list[Any]) -> Iterator[bool]:
    """Whether each item of a list is in the other one."""
    known = set(map(_key, other))
    return (_key(item) in known for item in of)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "entries": _entries,
    "mapOfEntries": dict,
    "mergedMaps": _merged,
    "optionalValues": _values,
    "firstValue": _first,
    "firstOfFirst": lambda nested: _first(nested[0] if nested else []),
    "setsContain": lambda a, b: all(_shared(b, a)),
    "setsEqual": lambda a, b: all(_shared(b, a)) and all(_shared(a, b)),
    "setsIntersect": lambda a, b: any(_shared(a, b)),
}
