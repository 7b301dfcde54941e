"""CEL expressions that Envoy accepts: an invalid one would make it reject every listener.

Sources: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes, and what Envoy 1.40
accepts in ``%CEL()%`` and in the access log's CEL filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from lateen.kit.regex import compiled

OPERATORS = frozenset(
    {"!_", "-_", "_%_", "_&&_", "_*_", "_+_", "_-_", "_/_", "_<=_", "_<_", "_==_", "_!=_", "_>=_", "_>_", "_?_:_"}
    | {"_[_]", "_||_", "@in"}
)
CONVERSIONS = ("bool", "bytes", "double", "duration", "dyn", "int", "timestamp", "uint")
PARTS_OF_TIME = (
    *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds"),
    *("getMinutes", "getMonth", "getSeconds"),
)
FUNCTIONS = OPERATORS | {"contains", "endsWith", "matches", "startsWith", "size", "type", *CONVERSIONS, *PARTS_OF_TIME}
"""The operators and functions that Envoy implements."""
ATTRIBUTES = frozenset(
    {"connection", "destination", "filter_state", "metadata", "request", "response", "source", "upstream"}
    | {"upstream_filter_state", "xds"}
)
TYPES = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})
HINTS = {
    "route_name": "xds.route_name",
    "cluster_name": "xds.cluster_name",
    "listener_direction": "xds.listener_direction",
}
"""Attributes of Istio's former Envoy build -> their names in stock Envoy."""

MAX_PROGRAM = 100
"""The size of RE2's program for a regular expression, of which Envoy takes no larger one in CEL."""
_STRINGS = re.compile(
    r"""[bB]?[rR][bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"]*"|'[^']*')"""
    r"""|[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"""|//[^\n]*""",
    re.DOTALL,
)
"""Also comments."""
FORMS: dict[str, tuple[tuple[bool, int], ...]] = {
    **dict.fromkeys(("contains", "endsWith", "matches", "startsWith"), ((True, 1), (False, 2))),
    "size": ((True, 0), (False, 1)),
    **dict.fromkeys((*CONVERSIONS, "type"), ((False, 1),)),
    **dict.fromkeys(PARTS_OF_TIME, ((True, 0), (True, 1))),
}
"""How functions may be called: (whether after a dot, number of arguments). Of other calls Envoy says that there is no
overload, and rejects the listener."""
_CALLS = re.compile(rf"([\w)\]}}'\"]\s*\.\s*)?\b({'|'.join(FORMS)})\s*\(")
_MESSAGE = re.compile(r"\b([A-Za-z_][\w.]*)\s*\{")
_LOOPS = re.compile(r"\.\s*(all|exists|exists_one|filter|map)\s*\(")
"""Macros over lists and maps: Envoy does not evaluate comprehensions."""
_ATTRIBUTE = (
    r"request\.(?:path|url_path|host|scheme|method|useragent|referer|id|protocol|query)"
    r"|(?:request|response)\.(?:headers|trailers)(?:\[\]|\.\w+)"
)
_TEXT = re.compile(rf"'+|string\(\)|{_ATTRIBUTE}")
"""An operand, without what is in its brackets, that is a text"""
_PEERS = re.compile(r"\b(?:upstream_peer|downstream_peer)\b")


_AS_TEXT = re.compile(r"\s*string\s*\((.*)\)\s*", re.DOTALL)


def text_of(expression: str) -> str:
    """An expression whose value becomes text, without a ``string(…)`` around the whole of it: Envoy lacks it, and it
    changes nothing, since ``%CEL(destination.port)%`` is the text of the number."""
    found = _AS_TEXT.fullmatch(expression)
    return found[1] if found and _is_closed(found[1]) else expression


def _is_closed(inner: str) -> bool:
    """Whether no parenthesis ends what stands before the beginning."""
    depth = 0
    for c in _STRINGS.sub("", inner):
        depth += (c == "(") - (c == ")")
        if depth < 0:
            return False
    return depth == 0


@lru_cache(maxsize=1024)
def problem(expression: str, formatted: bool = False) -> str | None:
    """Why Envoy would reject the expression, or why it has no value here; None if it is valid or empty.
    ``formatted``: it is used between percent signs, ``%CEL(expression)%``."""
    if not expression:
        return None
    if formatted:
        expression = text_of(expression)
    import cel

    try:
        program = cel.compile(expression)
    except ValueError as e:
        return f"must be a valid CEL expression: {_reason(str(e))}"
    if (loop := _LOOPS.search(_STRINGS.sub("", expression))) is not None:
        return f"Envoy does not evaluate {loop[1]}() over lists and maps"
    unknown = sorted(set(program.functions()) - FUNCTIONS)
    if unknown:
        return f"Envoy has no function {unknown[0]}"
    if formatted and "%" in expression:
        return "a percent sign ends the expression in Envoy's format"
    if (wrong := next(_wrong_calls(expression), None)) is not None:
        return wrong
    if (found := _PEERS.search(expression)) is not None:
        return f"{found[0]} exists only in Istio's build of Envoy; Lateen's proxies are stock Envoy"
    return None


def _bare(expression: str) -> str:
    """Of the same length, without the brackets and commas that are in strings and comments."""
    return _STRINGS.sub(lambda m: (" " if m[0].startswith("//") else "'") * len(m[0]), expression)


def _groups(bare: str) -> list[str]:
    """The expression, and what is in each of its brackets; each without what is in brackets of its own."""
    done, under_way = [], [""]
    for c in bare:
        if c in "([{":
            under_way[-1] += c
            under_way.append("")
        elif c in ")]}":
            done.append(under_way.pop())
            under_way[-1] += c
        else:
            under_way[-1] += c
    return [*done, *under_way]


def _joins(group: str) -> bool:
    """Whether an operand of a + is a text. Envoy builds CEL without concatenation (``enable_string_concat``)."""
    parts = re.split(r"(\+|[-*/%<>=!&|?:,]+|\bin\b)", re.sub(r"\s*([.\[(])\s*", r"\1", group))
    operands = [p.strip() for at, p in enumerate(parts) if "+" in (parts[at - 1 : at] + parts[at + 1 : at + 2])]
    return any(map(_TEXT.fullmatch, operands))


def _wrong_calls(expression: str) -> Iterator[str]:
    """What is wrong with calls, and with regular expressions that are written out; others are compiled when they are
    needed."""
    bare = _bare(expression)
    if found := next((m[1] for m in _MESSAGE.finditer(bare) if m[1] != "in"), None):
        yield f"Envoy cannot make a {found} in an expression: compare its values, such as duration('1s'), instead"
    for call in _CALLS.finditer(bare):
        given = _arguments(bare, call.end())
        name, form = call[2], (bool(call[1]), len(given))
        if form not in FORMS[name]:
            known = " and ".join(_form(name, *f) for f in FORMS[name])
            yield f"Envoy knows {known}, not {_form(name, *form)}"
        elif name == "matches":
            yield from _wrong_pattern(_text(expression[slice(*given[-1])]))


def _arguments(bare: str, begin: int) -> list[tuple[int, int]]:
    """(begin, end) of each argument of a call whose opening parenthesis is just before ``begin``."""
    found, depth, end = [], 1, begin
    while depth:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(bare[end], 0)
        if depth == 0 or (depth == 1 and bare[end] == ","):
            found.append((begin, end))
            begin = end + 1
        end += 1
    return [] if len(found) == 1 and not bare[slice(*found[0])].strip() else found


def _form(name: str, method: bool, arguments: int) -> str:
    letters = ", ".join("yzw"[:arguments] if method else "xyzw"[:arguments]) + (", …" if arguments > 3 else "")
    return f"{'x.' if method else ''}{name}({letters})"


def _text(expression: str) -> str | None:
    """The text that a part of an expression always is, if it is one."""
    import cel

    try:
        given = cel.compile(expression)
        found = None if given.functions() or given.variables() else given.execute({})
    except Exception:  # noqa: BLE001 - evaluation raises whatever the values do, KeyError for {"a": 1}.b
        return None
    return found if isinstance(found, str) else None


def _wrong_pattern(pattern: str | None) -> Iterator[str]:
    try:
        if pattern is not None and compiled(pattern).programsize > MAX_PROGRAM:
            yield f'"{pattern[:80]}" is too large a regular expression for CEL in Envoy: use a shorter one'
    except ValueError as e:
        yield f'"{(pattern or "")[:80]}" is not a valid RE2 regular expression: {e}'


def unknown(expression: str) -> str | None:
    """Why the expression has no value: a name in it is not an Envoy attribute, or it joins texts, which Envoy does not.
    None if neither is so, or if the expression is invalid anyway."""
    import cel

    try:
        found = sorted(set(cel.compile(expression).variables()) - ATTRIBUTES - TYPES)
    except ValueError:
        return None
    if not found:
        joined = any(map(_joins, _groups(_bare(expression))))
        return "Envoy does not join texts with +, so the expression has no value" if joined else None
    hint = f"; it is {HINTS[found[0]]}" if found[0] in HINTS else f"; there are {', '.join(sorted(ATTRIBUTES))}"
    return f"{found[0]} is not an attribute of Envoy, so the expression has no value{hint}"


def _reason(text: str) -> str:
    """The parser's first error, on one line."""
    found = re.search(r"ERROR: <input>:\d+:(\d+): (.*)", text)
    if found is None:
        return text.splitlines()[0]
    return f"{found[2].split(' expecting ')[0]} (column {found[1]})"
