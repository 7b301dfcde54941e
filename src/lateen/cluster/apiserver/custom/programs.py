"""CEL expressions as programs of the library, and what they cost at most for an object.

The library evaluates expressions without types; ``checking`` finds what does not fit them. What the library does not
have is rewritten (``macros``, ``optionals``) or named.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from lateen.cluster.apiserver.custom import macros, optionals
from lateen.cluster.apiserver.custom.checking import NAMESPACES
from lateen.cluster.apiserver.custom.functions import FUNCTIONS
from lateen.kit.jsons import Json

_STANDARD = {
    *("contains", "endsWith", "matches", "startsWith", "size", "type", "bool", "bytes", "double", "duration", "dyn"),
    *("int", "string", "timestamp", "uint", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear"),
    *("getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "hasValue", "orValue", "value"),
    *("of", "ofNonZeroValue", "none", "or"),
}
_TYPES = {
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "optional",
    "string",
    "timestamp",
    "uint",
}
_STRINGS = re.compile(r"""[rRbB]*(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""")
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_?[oO]ne|filter|map|transform(?:List|Map|MapEntry))\s*\(\s*(\w+)\s*,")
_SIZE = re.compile(r"\bsize\s*\(")

logging.getLogger("cel").setLevel(
    logging.ERROR
)  # its warnings repeat what becomes an answer: a user's expression failed

FAILURES = (RuntimeError, ValueError, TypeError, KeyError, IndexError, ArithmeticError)
"""Exceptions that the library raises during evaluation."""


class Unsupported(Exception):
    """The rule uses a feature that is not available here, which the message names."""


_OF_OBJECTS = frozenset({"self", "oldSelf"})


@lru_cache(maxsize=4096)
def compiled(expression: str, known: frozenset[str] = _OF_OBJECTS, more: frozenset[str] = frozenset()) -> Any:
    """The library's program. ``known``: the variables that there are; ``more``: functions besides Kubernetes' usual
    ones. Raises ValueError for a mistake, and Unsupported."""
    import cel

    plain = _sized(optionals.rewritten(macros.rewritten(expression)))
    try:
        program = cel.compile(plain)
    except ValueError as e:
        if (found := re.search(r"unsupported syntax '([^']*)'", str(e))) is not None:
            raise Unsupported(f"the syntax {found[1]}") from None
        says = str(e).removeprefix("compilation failed: ")
        says = (says.partition(": ")[2] or says).splitlines()[0]
        place = re.match(r"ERROR: <input>:(\d+):(\d+): ", says) if plain == expression else None
        raise ValueError(f"compilation failed: {says}{_pointer(expression, place) if place else ''}") from None
    named = {f for f in program.functions() if f[0].isalpha()} - _STANDARD - set(FUNCTIONS) - more - {"codePoints"}
    if named:
        raise Unsupported(f"the function or macro {min(named)}")
    bound = set(_MACRO.findall(_STRINGS.sub('""', plain)))
    if unknown := sorted(set(program.variables()) - bound - _TYPES - known):
        if of := NAMESPACES.intersection(unknown):
            raise Unsupported(f"the functions of {min(of)}")
        raise ValueError(f"compilation failed: undeclared reference to '{unknown[0]}' (in container '')")
    return program


def _pointer(expression: str, place: re.Match[str]) -> str:
    """The line of a mistake, and what points to its column."""
    line = expression.split("\n")[int(place[1]) - 1 :][:1]
    return f"\n | {line[0]}\n | {'.' * (int(place[2]) - 1)}^" if line else ""


def _sized(expression: str) -> str:
    """The library counts the bytes of a string; Kubernetes counts its characters."""
    out, end = "", 0
    for text in _STRINGS.finditer(expression):
        out += _SIZE.sub("codePoints(", expression[end : text.start()]) + text[0]
        end = text.end()
    return out + _SIZE.sub("codePoints(", expression[end:])


@lru_cache(maxsize=4096)
def depth(expression: str) -> int:
    """How deeply macros over lists and maps are nested."""
    plain = _STRINGS.sub('""', expression)
    starts = {m.end() - len(m[0]) + m[0].index("(") for m in _MACRO.finditer(plain)}
    deepest, stack = 0, list[bool]()
    for at, ch in enumerate(plain):
        if ch == "(":
            stack.append(at in starts)
            deepest = max(deepest, sum(stack))
        elif ch == ")" and stack:
            stack.pop()
    return deepest


def context(variables: Json, more: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """``more``: functions besides Kubernetes' usual ones."""
    import cel

    made = cel.Context(variables=variables)
    made.add_function("codePoints", len)
    for name, function in {**FUNCTIONS, **(more or {})}.items():
        made.add_function(name, function)
    return made


def why(e: Exception) -> str:
    return f"no such key: {e.args[0]}" if isinstance(e, KeyError) else str(e).splitlines()[0]


def largest(value: Any) -> int:
    """The number of entries of the largest list or map in it."""
    if isinstance(value, dict):
        return max([len(value), *map(largest, value.values())])
    return max([len(value), *map(largest, value)]) if isinstance(value, list) else 1


def longest(value: Any) -> int:
    """The length of the longest string in it."""
    if isinstance(value, dict | list):
        return max(map(longest, value.values() if isinstance(value, dict) else value), default=0)
    return len(value) if isinstance(value, str) else 0
