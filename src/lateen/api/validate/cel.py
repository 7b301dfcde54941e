"""The syntax of CEL, the Common Expression Language, in which a Telemetry says which requests are logged. Names and
types are not looked at, as in Istio.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax.
"""

from __future__ import annotations

import re

_STRING = (
    r"""[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"""
)
_NUMBER = r"0x[0-9a-fA-F]+u?|[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+(?:[eE][+-]?[0-9]+|[uU])?"
_TOKEN = re.compile(
    rf"\s*(?:(?P<comment>//[^\n]*)|(?P<literal>{_STRING}|{_NUMBER})|(?P<name>[_a-zA-Z][_a-zA-Z0-9]*|`[^`]*`)"
    r"|(?P<sign>&&|\|\||[=!<>]=|[-+*/%!<>?:.,()\[\]{}]))",
    re.DOTALL,
)
_BINARY = ("||", "&&", "==", "!=", "<=", ">=", "<", ">", "in", "+", "-", "*", "/", "%")
_RESERVED = frozenset(
    (
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    )
)
MAX_DEPTH = 100
MAX_LENGTH = 10_000


def problem(text: str) -> str:
    """What is wrong with the first place that cannot be read; empty for an expression."""
    if len(text) > MAX_LENGTH:
        return f"it has more than {MAX_LENGTH} characters"
    try:
        reader = _Reader(_tokens(text))
        reader.expression(0)
        reader.end()
    except ValueError as e:
        return str(e)
    return ""


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each token."""
    out, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f'"{text[at:].strip()[:20]}" cannot be read')
        kind = str(found.lastgroup)
        if kind != "comment":
            out.append((kind, found[kind]))
        at = found.end()
    return out


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens, self._at = tokens, 0

    def _next(self) -> str:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        return "" if kind == "literal" else text

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _is(self, *wanted: str) -> bool:
        """Step over one of these signs or words, if it is next."""
        if self._next() not in wanted:
            return False
        self._at += 1
        return True

    def _wrong(self, wanted: str) -> ValueError:
        rest = " ".join(text for _, text in self._tokens[self._at : self._at + 3])
        return ValueError(f'expected {wanted}, found "{rest}"' if rest else f"expected {wanted} at the end")

    def _must(self, sign: str) -> None:
        if not self._is(sign):
            raise self._wrong(f'"{sign}"')

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong("an operator")

    def expression(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        self._operand(depth)
        while self._is(*_BINARY):
            self._operand(depth)
        if self._is("?"):
            self.expression(depth + 1)
            self._must(":")
            self.expression(depth + 1)

    def _operand(self, depth: int) -> None:
        while self._is("!", "-"):
            pass
        self._primary(depth)
        while True:
            if self._is("."):
                self._is("?")
                self._name()
                if self._is("("):
                    self._list(")", depth)
            elif self._is("["):
                self._is("?")
                self.expression(depth + 1)
                self._must("]")
            elif self._is("{"):
                self._entries(depth)
            else:
                return

    def _name(self) -> None:
        if self._kind() != "name" or self._next() in _RESERVED:
            raise self._wrong("a name")
        self._at += 1

    def _primary(self, depth: int) -> None:
        if self._kind() == "literal":
            self._at += 1
        elif self._is("("):
            self.expression(depth + 1)
            self._must(")")
        elif self._is("["):
            self._list("]", depth)
        elif self._is("{"):
            self._entries(depth)
        else:
            self._is(".")
            if self._kind() != "name" or self._next() == "in":
                raise self._wrong("a value")
            self._name()
            if self._is("("):
                self._list(")", depth)

    def _list(self, closing: str, depth: int) -> None:
        while not self._is(closing):
            self.expression(depth + 1)
            if not self._is(","):
                self._must(closing)
                return

    def _entries(self, depth: int) -> None:
        """Of a map, or the fields of a message."""
        while not self._is("}"):
            self._is("?")
            self.expression(depth + 1)
            self._must(":")
            self.expression(depth + 1)
            if not self._is(","):
                self._must("}")
                return
