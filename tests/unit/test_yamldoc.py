"""YAML from users: parsed as kubectl parses it, with positions; malformed input is an error, never a crash."""

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


def test_aliases_of_aliases_are_refused_before_they_are_expanded():
    levels = ["a0: &a0 x"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    merged = ["a0: &a0 {k: v}"] + [
        f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}" for i in range(1, 10)
    ]
    for bomb in (levels, merged):
        with pytest.raises(YamlError, match="aliases expanded") as e:
            yamldoc.documents("\n".join(bomb))
        assert e.value.line in (6, 7)


def test_an_alias_inside_of_itself_is_refused():
    for text in ("a: &a [*a]", "a: &a {b: {c: *a}}", "&a [x, *a]"):
        with pytest.raises(YamlError, match="refers to a value that contains it"):
            yamldoc.documents(text)


def test_plain_documents_are_bounded_too():
    with pytest.raises(YamlError, match="values"):
        yamldoc.documents("[" + "1," * 300_000 + "]")


def test_ordinary_aliases_are_expanded():
    assert yamldoc.load("a: &x {b: [1, 2]}\nc: *x\nd: {<<: *x, e: 3}") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": {"b": [1, 2], "e": 3},
    }
    assert yamldoc.load("a: &x {b: 1, c: 1}\ny: &y {b: 2, d: 2}\nz: {<<: [*x, *y], c: 3}")["z"] == {
        "b": 1,
        "c": 3,
        "d": 2,
    }


def test_a_duplicate_key_is_an_error_with_its_position():
    with pytest.raises(YamlError) as e:
        yamldoc.documents("a: 1\nb: 2\na: 3\n")
    assert (e.value.line, e.value.column) == (3, 1)
    assert "duplicate key" in str(e.value)


def test_python_tags_are_refused():
    with pytest.raises(YamlError, match="not allowed"):
        yamldoc.documents("a: !!python/object/apply:os.system ['true']")


def test_scalars_are_read_as_kubectl_reads_them():
    found = yamldoc.load("{a: 1:30, b: 012, c: 2024-01-01, d: yes, e: '5', f: 5, g: 1.5, h: ~, i: 0x1f}")
    assert found == {"a": "1:30", "b": 10, "c": "2024-01-01", "d": True, "e": "5", "f": 5, "g": 1.5, "h": None, "i": 31}


def test_a_path_has_the_line_of_its_field():
    doc = yamldoc.documents("kind: X\nspec:\n  http:\n  - timeout: 5s\n")[0]
    assert doc.position(("spec", "http", 0, "timeout")) == (4, 5)
    assert doc.position(("spec", "http", 0, "missing")) == (4, 5)


@pytest.mark.parametrize(
    "text",
    [
        "a\x85b",
        "\x85",
        "a\u2028 b",
        "a\r",
        "\n a",
        "\ufeff",
        "😀 #",
        "? ",
        "a: b",
        "- ",
        "\t",
        "1e3",
        "12E-5",
        "0o7",
        "0x1f",
        "08",
    ],
)
def test_a_dumped_text_is_the_same_text_as_a_value_and_as_a_key(text):
    value = {"k": text, text: [text, {text: {}}]}
    assert yamldoc.load(yamldoc.dump(value)) == value


def test_a_number_without_end_is_said_with_its_place():
    with pytest.raises(YamlError, match="line 2, column 4: a number of 5000 digits; the limit is 1000"):
        yamldoc.documents("a:\n - " + "1" * 5000)


def test_a_dumped_document_can_be_read_back():
    value = {"a": [1, "x", {"b": None}], "text": "line\nline\n", "no": "no", "number": "012"}
    assert yamldoc.load(yamldoc.dump(value)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n---\nb: [\n---\nc: 3\n", [(1, 1), "line 4", (5, 1)]),
        ("a: [\n--- # next\n  b: 2\n", ["line 2", (3, 3)]),
        ("a: |\n  ---\n  x\n---\nb: *none\n", [(1, 1), "line 5"]),
        ("a: 1\n---not a separator\n", ["line 3"]),
        ("%YAML 1.1\n---\na: 1\n...\n---\n{\n", [(3, 1), "line 7"]),
        ("", []),
    ],
)
def test_what_can_be_read_of_a_stream_is_read_with_its_place(text, expected):
    found = list(yamldoc.each(text))
    places = [f"line {d.line}" if isinstance(d, YamlError) else d.position(()) for d in found]
    assert places == expected


def test_an_error_about_all_documents_together_is_not_lost():
    each = "a: [" + "1," * 200_000 + "]\n"
    found = list(yamldoc.each("---\n".join([each] * 6)))
    assert [str(d) for d in found] == [str(found[0])]
    assert "together" in str(found[0])
