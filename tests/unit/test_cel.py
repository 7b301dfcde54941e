"""Expressions that users write, however they write them: a sentence or none, never an exception."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.api import cel

WORDS = (
    *(
        "request",
        ".path",
        ".matches",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "?",
        "'a'",
        '"(["',
        "r'\\\\'",
        "b'x'",
        "1",
    ),
    *(
        "1.5",
        "/",
        "+",
        "==",
        "&&",
        "in",
        "foo",
        "{a: 1}",
        '{"a": 1}',
        ".b",
        "[0]",
        "size",
        "matches",
        "duration",
        "has",
    ),
    *("true", "null", " ", "//", "\n", "%", "'", '"', "\\", "☃", ".map(x, x)", "getHours", "type", "-", "!", "5u"),
)
VALUES = (
    "'a'",
    "'('",
    "1 / 0",
    "[1][3]",
    '{"a": 1}.b',
    "foo{a: 1}",
    "null",
    "b'x'",
    "r'\\\\'",
    "5u",
    "request.host",
    "-1",
)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("request.path.matches()", "Envoy knows x.matches(y) and matches(x, y), not x.matches()"),
        ("request.path.matches( // 'a'\n)", "Envoy knows x.matches(y) and matches(x, y), not x.matches()"),
        ("request.path.matches('a', 'b')", "Envoy knows x.matches(y) and matches(x, y), not x.matches(y, z)"),
        ("request.path.startsWith()", "Envoy knows x.startsWith(y) and startsWith(x, y), not x.startsWith()"),
        ("size(request.path, 1, 2, 3, 4) > 1", "Envoy knows x.size() and size(x), not size(x, y, z, w, …)"),
        ('request.path.matches({"a": 1}.b)', None),
        ("request.path.matches(1 / 0)", None),
        ("request.path.matches(foo{a: 1})", "Envoy cannot make a foo in an expression"),
        ("request.path in {'a{': 1} && size({'a': 1}) == 1 && {'a': 1}.size() == 1", None),
    ],
)
def test_calls_that_envoy_would_refuse_are_refused_in_one_sentence(expression, says):
    """Envoy rejects every listener for one of them."""
    found = cel.problem(expression)
    assert (found or "").startswith(says or "")
    assert (found is None) == (says is None)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join) | st.text(max_size=12), st.booleans())
def test_whatever_is_written_the_answer_is_a_sentence_or_none(expression, formatted):
    assert isinstance(cel.problem(expression, formatted), str | None)
    assert isinstance(cel.unknown(expression), str | None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(VALUES), max_size=3), st.sampled_from(sorted(cel.FORMS)), st.booleans())
def test_whatever_a_function_is_given_the_answer_is_a_sentence_or_none(values, name, method):
    expression = f"{'request.path.' if method else ''}{name}({', '.join(values)})"
    found = cel.problem(expression)
    assert isinstance(found, str | None)
    assert (method, len(values)) in cel.FORMS[name] or found is not None


@pytest.mark.parametrize(
    ("expression", "joins"),
    [
        ("request.path + 'x'", True),
        ("'x'+request . headers[ 'a' ]", True),
        ("size(request.path + request.host) > 1", True),
        ("request.headers['a' + request.method]", True),
        ("1 > 0 ? 'a' + string(response.code) : 'b'", True),
        ("response.headers.server + 'x'", True),
        ("response.code + request.headers['a'].size()", False),
        ("1 + 'a'.size()", False),
        ("response.code + size(request.path)", False),
        ("request.path.size() + 1", False),
        ("request.headers['a+b'] == 'c+d'", False),
        ("request.path == 'a' ? 1 + 2 : response.code + 3", False),
        ("int(request.headers['a']) + int('1')", False),
    ],
)
def test_only_texts_are_said_not_to_be_joined(expression, joins):
    says = "Envoy does not join texts with +, so the expression has no value"
    assert cel.unknown(expression) == (says if joins else None)
