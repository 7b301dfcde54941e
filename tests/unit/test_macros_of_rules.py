"""CEL's macros with an index or key and its value, those of optional values, and functions of sets."""

from typing import Any

import pytest

from lateen.cluster.apiserver.custom import programs

LIMITS = {"cpu": 1, "memory": 2}


def value(expression: str) -> Any:
    program = programs.compiled(expression, frozenset({"m", "nums"}))
    return program.execute(programs.context({"m": LIMITS, "nums": [5, 6]}))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("m.all(k, v, k == 'cpu' || v > 1)", True),
        ("m.all(k, v, k == 'cpu')", False),
        ("nums.all(i, v, v == i + 5)", True),
        ("m.exists(k, v, k == 'cpu' && v == 2)", False),
        ("m.exists_one(k, v, v > 1)", True),
        ("m.existsOne(k, v, v > 0)", False),
        ("nums.existsOne(n, n == 5)", True),
        ("nums.transformList(i, v, i * v)", [0, 6]),
        ("m.transformList(k, v, v > 1, k)", ["memory"]),
        ("m.transformMap(k, v, v + 1)", {"cpu": 2, "memory": 3}),
        ("m.transformMap(k, v, v > 1, k)", {"memory": "memory"}),
        ("nums.transformMapEntry(i, v, {string(v): i})", {"5": 0, "6": 1}),
        ("nums.transformMapEntry(i, v, i > 0, {v: i})", {6: 1}),
        ("{'a': [1, 2]}.all(k, v, v.all(i, w, w == i + 1) && k.size() == 1)", True),
        ("m.all(k, v, nums.exists(k, v, k == 0 && v == 5) && v > 0)", True),
        ("m . all ( k , v ,\n v > 0 )", True),
        ("'m.all(k, v, x)' == 'm.all(' + 'k, v, x)'", True),
        ("m.?cpu.optMap(x, x + 1).value()", 2),
        ("m.?gpu.optMap(x, x + 1).orValue(0)", 0),
        ("m.?cpu.optFlatMap(x, m.?memory).value()", 2),
        ("m.?cpu.optFlatMap(x, m.?gpu).orValue(-1)", -1),
        ("optional.none().or(optional.of(2)).value()", 2),
        ("optional.ofNonZeroValue('').hasValue()", False),
        ("sets.contains([1, 2], [1])", True),
        ("sets.contains([1, 'a'], [true])", False),
        ("sets.contains([1, [2], {'a': 3}], [[2], {'a': 3}])", True),
        ("sets.contains([1, [true]], [[1]])", False),
        ("sets.contains([1], [1.0])", True),
        ("sets.equivalent([1, 1], [1])", True),
        ("sets.intersects([1], [2])", False),
    ],
)
def test_a_macro_has_the_value_that_kubernetes_says(expression: str, expected: Any) -> None:
    found = value(expression)
    assert (found, type(found)) == (expected, type(expected))


def test_two_entries_of_one_key_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="insert failed: key x already exists"):
        value("m.transformMapEntry(k, v, {'x': k})")


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("m.all(k, k, true)", "duplicate variable name: k"),
        ("m.all(k, v, x > 1)", "undeclared reference to 'x'"),
    ],
)
def test_names_that_cannot_be(expression: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        value(expression)


def test_a_macro_over_pairs_counts_as_one_loop() -> None:
    assert programs.depth("m.all(k, v, nums.transformList(i, w, w) == [])") == 2
