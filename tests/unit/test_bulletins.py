"""Each of Istio's security bulletins is covered by a test, or cannot apply: docs/reference-bulletins.md says which."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reference-bulletins.md"
ROWS = re.findall(r"^\| (20\d\d-\d{3}) \| (.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
PUBLISHED = {2019: 7, 2020: 11, 2021: 8, 2022: 8, 2023: 5, 2024: 7, 2025: 4, 2026: 6}


def functions():
    """file::function of every test."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.stem}::{node.name}"


KNOWN = set(functions())


def test_every_bulletin_is_there_once():
    expected = [f"{year}-{n:03}" for year, many in PUBLISHED.items() for n in range(1, many + 1)]
    assert [number for number, _, _ in ROWS] == expected
    assert len(expected) == 56


@pytest.mark.parametrize(("number", "here"), [(number, here) for number, _, here in ROWS])
def test_it_is_covered_or_cannot_apply(number, here):
    named = re.findall(r"`(test_\w+::test_\w+)`", here)
    assert [n for n in named if n not in KNOWN] == []
    assert named or here.startswith(("Envoy", "not applicable: ")), number
