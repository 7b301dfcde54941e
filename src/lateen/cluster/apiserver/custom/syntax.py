"""CEL expressions as trees: the library evaluates expressions, but does not show how they are built.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax. What the library refuses has been refused
before; what only this parser cannot read (messages, names in backticks) has no tree, and is not checked.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<blank>(?:\s|//[^\n]*)+)
    |(?P<bytes>[rR]?[bB][rR]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'))
    |(?P<string>[rR](?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"]*"|'[^']*')
        |\"{3}(?:\\.|.)*?\"{3}|'{3}(?:\\.|.)*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
    |(?P<uint>(?:0x[0-9a-fA-F]+|\d+)[uU])
    |(?P<int>0x[0-9a-fA-F]+|\d+)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>\.\?|\[\?|&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.DOTALL | re.VERBOSE,
)
_LEVELS = {"||": 1, "&&": 2, **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), 3)}
_LEVELS |= {"+": 4, "-": 4, "*": 5, "/": 5, "%": 5}
_CONSTANTS = {"true": "bool", "false": "bool", "null": "null"}
DEEPEST = 60
"""Brackets within each other."""


class Unreadable(Exception):
    """The expression has no tree."""


class Node(NamedTuple):
    """``kind``: ``literal`` (``name`` is its type), ``name``, ``list``, ``map`` (``args``: keys and values in turn),
    ``select`` and ``maybe`` (``a.?name``; ``args``: the operand), ``call`` (of a function or operator), ``method``
    (``args``: the receiver first). ``at``: the position that errors name. ``size``: the characters of a literal text,
    or its bytes; 1 for other literals."""

    kind: str
    at: int
    name: str = ""
    args: tuple[Node, ...] = ()
    size: int = 1


def parsed(expression: str) -> Node:
    """Raises Unreadable."""
    parser = _Parser(expression)
    tree = parser.whole()
    if parser.kind != "end":
        raise Unreadable
    return tree


_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-7]{3}|.)", re.DOTALL)


def _length(text: str) -> int:
    inner = text.lstrip("rRbB")
    raw = "r" in text[: len(text) - len(inner)].lower()
    quotes = 3 if inner[:3] in ('"""', "'''") and len(inner) >= 6 else 1
    inner = inner[quotes:-quotes]
    return len(inner if raw else _ESCAPE.sub("x", inner))


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens, at = list[tuple[str, str, int]](), 0
        while at < len(text):
            if (found := _TOKEN.match(text, at)) is None:
                raise Unreadable
            if found.lastgroup != "blank":
                self._tokens.append((str(found.lastgroup), found[0], at))
            at = found.end()
        self._tokens.append(("end", "", len(text)))
        self._next, self._depth = 0, 0

    @property
    def kind(self) -> str:
        return self._tokens[self._next][0]

    def _is(self, *signs: str) -> bool:
        kind, text, _ = self._tokens[self._next]
        return text in signs and kind in ("sign", "name")

    def _take(self, *signs: str) -> tuple[str, int]:
        """The text and position of the next token, which is one of the signs, or a name where none is given."""
        kind, text, at = self._tokens[self._next]
        if (text not in signs) if signs else (kind != "name"):
            raise Unreadable
        self._next += 1
        return text, at

    def whole(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unreadable
        out = self._binary(1)
        if self._is("?"):
            _, at = self._take("?")
            chosen = self._binary(1)
            self._take(":")
            out = Node("call", at, "_?_:_", (out, chosen, self.whole()))
        self._depth -= 1
        return out

    def _binary(self, level: int) -> Node:
        out = self._unary()
        while (found := _LEVELS.get(self._tokens[self._next][1], 0)) >= level and self.kind in ("sign", "name"):
            sign, at = self._take(*_LEVELS)
            right, name = self._binary(found + 1), "@in" if sign == "in" else f"_{sign}_"
            flat = out.args if out.name == name and name in ("_&&_", "_||_") else (out,)
            out = Node("call", at, name, (*flat, right))
        return out

    def _unary(self) -> Node:
        if self._is("!", "-"):
            sign, at = self._take("!", "-")
            signs = 1
            while self._is(sign):
                self._take(sign)
                signs += 1
            inner = self._member()
            return Node("call", at, f"{sign}_", (inner,)) if signs % 2 else inner
        return self._member()

    def _member(self) -> Node:
        out = self._primary()
        while self._is(".", ".?", "[", "[?"):
            sign, at = self._take(".", ".?", "[", "[?")
            if sign in ("[", "[?"):
                out = Node("call", at, "_[_]" if sign == "[" else "_[?_]", (out, self.whole()))
                self._take("]")
                continue
            name, _ = self._take()
            if self._is("(") and sign == ".":
                _, at = self._take("(")
                out = Node("method", at, name, (out, *self._several(")")))
            else:
                out = Node("select" if sign == "." else "maybe", at, name, (out,))
        if self._is("{"):
            raise Unreadable  # a message
        return out

    def _primary(self) -> Node:
        kind, text, at = self._tokens[self._next]
        self._next += 1
        if kind == "name" and text in _CONSTANTS:
            return Node("literal", at, _CONSTANTS[text])
        if kind == "name":
            if not self._is("("):
                return Node("name", at, text)
            _, at = self._take("(")
            return Node("call", at, text, self._several(")"))
        if kind in ("string", "bytes", "int", "uint", "double"):
            return Node("literal", at, kind, (), _length(text) if kind in ("string", "bytes") else 1)
        if text == "(":
            out = self.whole()
            self._take(")")
            return out
        if text == "[":
            return Node("list", at, "", self._several("]"))
        if text == "{":
            return Node("map", at, "", self._several("}", pairs=True))
        raise Unreadable

    def _several(self, end: str, pairs: bool = False) -> tuple[Node, ...]:
        out: list[Node] = []
        while not self._is(end):
            out.append(self.whole())
            if pairs:
                self._take(":")
                out.append(self.whole())
            if not self._is(end):
                self._take(",")
        self._take(end)
        return tuple(out)
