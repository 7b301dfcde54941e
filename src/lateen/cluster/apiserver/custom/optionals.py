"""CEL's optional fields (``a.?b.c``, ``a[?k]``) as calls of functions, for a library that does not parse them.

``a.?b`` is ``a.optSelect('b')``, ``a[?k]`` is ``a.optIndex(k)``; what follows in the same chain is optional as well.
Source: https://github.com/google/cel-spec/wiki/proposal-246.
"""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:[rRbB]*(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\.\s*\?|\[\s*\?|[A-Za-z_]\w*|\d[\w.]*|.)""",
    re.DOTALL,
)


def rewritten(expression: str) -> str:
    """The same expression without optional syntax. Raises ValueError where brackets do not match."""
    if ".?" not in expression.replace(" ", "") and "[?" not in expression.replace(" ", ""):
        return expression
    found = tokens(expression)
    out, at = _chain(found, 0, "")
    if at != len(found):
        raise ValueError(f"compilation failed: unexpected '{found[at].strip()}'")
    return out


def tokens(expression: str) -> list[str]:
    """All of its text, in pieces."""
    return [m[0] for m in _TOKEN.finditer(expression)]


_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
DEEPEST = 250
"""Brackets in brackets; the limit of cel-go's parser."""
CLOSED = {"(": ")", "[": "]", "{": "}"}


def _chain(tokens: list[str], at: int, until: str, deep: int = 0) -> tuple[str, int]:
    """Everything up to a closing bracket, and where that is."""
    if deep > DEEPEST:
        raise ValueError(f"compilation failed: expression recursion limit exceeded: {DEEPEST}")
    out, lenient = "", False  # lenient: the chain of fields that is being read has become optional
    while at < len(tokens) and (plain := re.sub(r"\s", "", tokens[at])) != until:
        following = tokens[at + 1].strip() if at + 1 < len(tokens) else ""
        if plain in (".?", ".") and not (_NAME.fullmatch(following) if plain == ".?" else following):
            raise ValueError(f"compilation failed: a field must follow '{plain}'")
        called = at + 2 < len(tokens) and tokens[at + 2].strip() == "("
        if plain == ".?" or (plain == "." and lenient and not called):
            out, at, lenient = f"{out}.optSelect('{following}')", at + 2, True
        elif plain == "[?" or (plain == "[" and lenient):
            inner, at = _chain(tokens, at + 1, "]", deep + 1)
            out, at, lenient = f"{out}.optIndex({inner})", at + 1, True
        elif plain in CLOSED:
            inner, end = _chain(tokens, at + 1, CLOSED[plain], deep + 1)
            out, at, lenient = f"{out}{tokens[at]}{inner}{CLOSED[plain]}", end + 1, False
        elif plain == ".":
            out, at, lenient = f"{out}.{following}", at + 2, False
        else:
            out, at, lenient = out + tokens[at], at + 1, False
    if until and at >= len(tokens):
        raise ValueError(f"compilation failed: missing '{until}'")
    return out, at


def select(value: Any, key: Any) -> Any:
    """The optional value of a field or element that may be missing, of a value that may itself be missing."""
    import cel

    if isinstance(value, cel.OptionalValue):
        if not value.has_value():
            return value
        value = value.value()
    if isinstance(value, dict):
        return cel.OptionalValue.of(value[key]) if key in value else cel.OptionalValue.none()
    if isinstance(value, list) and isinstance(key, int) and not isinstance(key, bool):
        return cel.OptionalValue.of(value[key]) if 0 <= key < len(value) else cel.OptionalValue.none()
    raise TypeError("no such overload")
