"""Text to a syntax tree, by GreptimeTeam's promql-parser; and what the tree says, in our types."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

import promql_parser as ast
import re2

from lateen.console.promql.values import refused
from lateen.console.series.registry import NAME, Selector, Test

T = TypeVar("T")
LONGEST = 32 * 1024
MAX_OPERATORS = 1000
"""Deeper trees overflow the parser's stack, which ends the process."""
MAX_SELECTORS, MAX_MATCHERS = 100, 100
"""In one question, and in one selector: each of them looks at every series."""
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`', re.DOTALL)
_OPERATOR = re.compile(r"[-+*/%^<>=!(\[]|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,9}(ms|[smhdwy])){1,7}")


def parse(text: str) -> ast.Expr:
    """Raises QueryError."""
    if len(text) > LONGEST:
        raise refused(f"the query is longer than {LONGEST} characters")
    if len(_OPERATOR.findall(_QUOTED.sub('""', text))) > MAX_OPERATORS:
        raise refused(f"the query has more than {MAX_OPERATORS} operators and brackets")
    return _asked(lambda: ast.parse(text), "parse error")


def bare(node: ast.Expr) -> ast.Expr:
    """Without the brackets around it."""
    while isinstance(node, ast.ParenExpr):
        node = node.expr
    return node


def selector(node: ast.VectorSelector) -> Selector:
    """Raises QueryError for a regular expression that RE2 does not take."""
    shared = node.matchers.matchers
    groups = [[*shared, *more] for more in node.matchers.or_matchers] or [shared]
    if sum(map(len, groups)) > MAX_MATCHERS:
        raise refused(f"a selector has more than {MAX_MATCHERS} label matchers")
    name = node.name
    ways = []
    for group in groups:
        tests = []
        for m in group:
            if name is None and len(groups) == 1 and m.name == NAME and m.op == ast.MatchOp.Equal:
                name = m.value
            else:
                tests.append((m.name, _test(m)))
        ways.append(tuple(tests))
    return Selector(name, tuple(ways))


def selectors(texts: list[str]) -> list[Selector]:
    """Of ``match[]`` parameters. Raises QueryError."""
    return [selector(node) for node in nodes(texts)]


def nodes(texts: list[str]) -> list[ast.VectorSelector]:
    """The trees of ``match[]`` parameters. Raises QueryError."""
    if len(texts) > MAX_SELECTORS:
        raise refused(f"there are more than {MAX_SELECTORS} match[] parameters; join them by a regular expression")
    return [_node(text) for text in texts]


def _node(text: str) -> ast.VectorSelector:
    tree = parse(text)
    if not isinstance(tree, ast.VectorSelector):
        raise refused(f'"{text}" is not a series selector')
    return tree


def _test(matcher: ast.Matcher) -> Test:
    wanted = matcher.value
    if matcher.op == ast.MatchOp.Equal:
        return lambda value: value == wanted
    if matcher.op == ast.MatchOp.NotEqual:
        return lambda value: value != wanted
    matches = expression(wanted)
    if matcher.op == ast.MatchOp.Re:
        return matches
    return lambda value: not matches(value)


def expression(text: str) -> Callable[[str], bool]:
    """A regular expression that has to match the whole value, read by RE2, as Go's is. Raises QueryError."""
    compiled = compile_(text)
    return lambda value: compiled.fullmatch(value) is not None


def compile_(text: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.max_mem = 1 << 20
    try:
        return re2.compile(text, options)
    except re2.error as e:
        raise refused(f'the regular expression "{text}" is wrong: {e}') from None


def duration_ms(text: str) -> int:
    """A number of seconds, or a duration such as ``5m``. Raises QueryError."""
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):  # the parser does not survive all others
        try:
            seconds = ast.parse_duration(text).total_seconds()
        except (ValueError, OverflowError):
            raise refused(f'"{text}" is not a valid duration') from None
    else:
        raise refused(f'"{text[:40]}" is not a valid duration')
    if not abs(seconds) < 1e10:
        raise refused(f'"{text}" is too long a duration')
    return round(seconds * 1000)


def moment(at: ast.AtModifier) -> datetime | None:
    """The time of ``@``; None for ``start()`` and ``end()``. Raises QueryError for times before 1970 and after 9999."""
    return _asked(lambda: at.at, "the time after @ is before 1970 or too far in the future")


def milliseconds(of: ast.Expr, what: str) -> int:
    """The duration ``what`` of a selector or subquery (``range``, ``offset``, ``step``); 0 where there is none. Raises
    QueryError."""
    duration: timedelta | None = _asked(lambda: getattr(of, what), f"the {what} is too long")
    return round(duration.total_seconds() * 1000) if duration is not None else 0


def _asked(parser: Callable[[], T], problem: str) -> T:
    """What the parser says. Raises QueryError where it cannot. At some numbers it panics, those that are too large or
    negative, with an exception of a class that cannot be named."""
    try:
        return parser()
    except BaseException as e:
        if not isinstance(e, ValueError | OverflowError) and type(e).__name__ != "PanicException":
            raise
        raise refused(f"{problem}: {e}") from None
