"""YAML from users: read as kubectl reads it, with positions, and never fatal."""

import pytest

from lateen.kit import yamldoc
from lateen.kit.yamldoc import YamlError


def test_deep_nesting_is_refused_instead_of_killing_the_process():
    for bomb in ("[" * 100_000, "{a: " * 50_000, "- " * 50_000 + "x"):
        with pytest.raises(YamlError):
            yamldoc.documents(bomb)


def test_alias_bombs_are_refused():
    text = "a: &a [x, x]\n" + "b: [" + ", ".join(["*a"] * 200) + "]\n"
    with pytest.raises(YamlError, match="aliases"):
        yamldoc.documents(text)


def test_a_key_given_twice_is_an_error_with_its_position():
    with pytest.raises(YamlError) as e:
        yamldoc.documents("a: 1\nb: 2\na: 3\n")
    assert (e.value.line, e.value.column) == (3, 1)
    assert "given twice" in str(e.value)


def test_python_tags_are_refused():
    with pytest.raises(YamlError, match="not allowed"):
        yamldoc.documents("a: !!python/object/apply:os.system ['true']")


def test_scalars_are_read_as_kubectl_reads_them():
    found = yamldoc.load("{a: 1:30, b: 012, c: 2024-01-01, d: yes, e: '5', f: 5, g: 1.5, h: ~, i: 0x1f}")
    assert found == {"a": "1:30", "b": 10, "c": "2024-01-01", "d": True, "e": "5", "f": 5, "g": 1.5, "h": None, "i": 31}


def test_positions_lead_to_the_line_of_a_field():
    doc = yamldoc.documents("kind: X\nspec:\n  http:\n  - timeout: 5s\n")[0]
    assert doc.position(("spec", "http", 0, "timeout")) == (4, 5)
    assert doc.position(("spec", "http", 0, "missing")) == (4, 5)


def test_what_is_dumped_is_read_back():
    value = {"a": [1, "x", {"b": None}], "text": "line\nline\n", "no": "no", "number": "012"}
    assert yamldoc.load(yamldoc.dump(value)) == value
