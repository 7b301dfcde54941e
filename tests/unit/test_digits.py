"""What is read as a whole number: what every reader of it takes."""

import re
from pathlib import Path

import pytest

import lateen
from lateen.install import paths
from lateen.install.operator import _literal
from lateen.kit.digits import digits


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", True), ("15020", True), ("9" * 18, True), ("", False), ("-1", False), ("²", False), ("٣", False)],
)
def test_a_number_has_one_to_eighteen_ascii_digits(text, expected):
    assert digits(text) is expected


def test_a_number_that_int_would_refuse_is_none():
    assert not digits("9" * 5000)


def test_no_module_asks_the_text_itself():
    root = Path(lateen.__file__).parent
    asked = re.compile(r"\.is(digit|decimal|numeric)\(")
    own = {root / "kit" / "digits.py", root / "samples" / "bookinfo" / "http.py"}
    found = [str(p) for p in root.rglob("*.py") if p not in own and asked.search(p.read_text())]
    assert found == [], "use lateen.kit.digits: isdigit takes characters at which int fails"


def test_values_that_only_look_like_numbers_stay_texts():
    assert [_literal(["hub"], text) for text in ("--5", "²", "9" * 5000)] == ["--5", "²", "9" * 5000]
    assert _literal(["a"], "-5") == -5
    with pytest.raises(ValueError, match="write a number"):
        paths.parse("a.[--5]")
