"""YAML documents as JSON values with positions, protected against documents that would crash the process.

PyYAML's C loader overflows the C stack on tens of thousands of nested brackets, and aliases of aliases grow
exponentially: depth and size are checked on the (non-recursive) event stream first. Duplicate keys are errors, and
scalars are read as kubectl reads them (YAML 1.1 booleans aside, no sexagesimal integers, no dates).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from lateen.kit.jsons import Json

MAX_DEPTH = 100
MAX_BYTES = 10 * 1024 * 1024
MAX_ALIASES = 100
MAX_NODES = 250_000
"""Values in one document; every use of an alias counts as all the values that it refers to."""
MAX_ALL_NODES = 1_000_000
"""Values in all documents of a stream."""
MAX_DIGITS = 1000
"""Of one integer: Python refuses to read some thousands of them."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")
_OCTAL = re.compile(r"0o?[0-7]+$")
_HEX = re.compile(r"0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_BOOLS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "yes": True,
    "Yes": True,
    "YES": True,
    "on": True,
    "On": True,
    "ON": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "no": False,
    "No": False,
    "NO": False,
    "off": False,
    "Off": False,
    "OFF": False,
}
_NULLS = {"", "~", "null", "Null", "NULL"}

Path = tuple[str | int, ...]


class YamlError(ValueError):
    """A document that cannot be parsed; the message says where and why, in one sentence."""

    def __init__(self, says: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"line {line}, column {column}: {says}" if line else says)
        self.says, self.line, self.column = says, line, column


@dataclass(frozen=True)
class Document:
    """One YAML document: its value and the line and column (from 1) at which each path starts."""

    value: Any
    marks: dict[Path, tuple[int, int]] = field(repr=False)

    def position(self, path: Path) -> tuple[int, int]:
        """The position of the deepest ancestor of ``path`` that is in the document."""
        while path not in self.marks and path:
            path = path[:-1]
        return self.marks.get(path, (1, 1))


def documents(text: str) -> list[Document]:
    """All documents of a stream; empty ones are dropped. Raises YamlError."""
    if len(text) > MAX_BYTES:
        raise YamlError(f"the document has {len(text)} characters; the limit is {MAX_BYTES}")
    _guard(text)
    out = []
    try:
        for node in yaml.compose_all(text, Loader=yaml.CSafeLoader):
            marks: dict[Path, tuple[int, int]] = {}
            value = _value(node, (), marks)
            if value is not None:
                out.append(Document(value, marks))
    except yaml.MarkedYAMLError as e:
        raise _yaml_error(e) from None
    except yaml.YAMLError as e:
        raise YamlError(str(e).replace("\n", " ")) from None
    return out


def each(text: str) -> Iterator[Document | YamlError]:
    """The documents of a stream as ``documents`` returns them, and in the place of each that cannot be parsed, why."""
    try:
        yield from documents(text)
        return
    except YamlError as e:
        whole = e
    if len(text) > MAX_BYTES:
        yield whole
        return
    found = [part for above, chunk in _chunks(text) for part in _shifted(chunk, above)]
    if not any(isinstance(part, YamlError) for part in found):
        found = [whole]  # about all together, such as their size
    yield from found


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a stream as text, each with the number of lines above it. A line of three dashes ends one,
    wherever it is: everything within a document is indented there. Directives belong to the document that follows."""
    start, above = 0, 0
    for end in (*(m.start() for m in _SEPARATOR.finditer(text)), len(text)):
        if text[start:end].rstrip().rpartition("\n")[2].startswith("%"):
            continue
        yield above, text[start:end]
        above += text.count("\n", start, end)
        start = end


def _shifted(chunk: str, above: int) -> Iterator[Document | YamlError]:
    try:
        for d in documents(chunk):
            yield Document(d.value, {path: (line + above, column) for path, (line, column) in d.marks.items()})
    except YamlError as e:
        yield YamlError(e.says, e.line + above if e.line else 0, e.column)


def load(text: str) -> Any:
    """The value of the first document, or None. Raises YamlError."""
    docs = documents(text)
    return docs[0].value if docs else None


def objects(text: str) -> Iterator[Json]:
    """Every Kubernetes object of a stream, with Lists unpacked."""
    for doc in documents(text):
        if isinstance(doc.value, dict) and str(doc.value.get("kind", "")).endswith("List") and "items" in doc.value:
            yield from doc.value["items"] or []
        elif isinstance(doc.value, dict):
            yield doc.value
        else:
            line, column = doc.position(())
            raise YamlError("expected a Kubernetes object (a mapping with apiVersion and kind)", line, column)


def dump(value: Any) -> str:
    """Block-style YAML that the loader above reads back to the same value."""
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.CSafeDumper):
    """libyaml's: PyYAML's own takes three times as long, and writes line breaks like U+0085 such that they are lost."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's own signature
        return True


def _string(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and not text.startswith((" ", "\n")) else None
    if any(number.match(text) for number in (_INT, _OCTAL, _HEX, _FLOAT)):
        style = "'"  # PyYAML takes 1e3 and 0o7 for texts, readers of YAML 1.2 for numbers
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def _guard(text: str) -> None:
    """Reject a stream that would take too much depth, time or memory, before any of it is constructed."""
    count = _Count()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if says := count.see(event):
                raise YamlError(says, *_position(event))
    except yaml.MarkedYAMLError as e:
        raise _yaml_error(e) from None
    except (yaml.YAMLError, UnicodeError) as e:
        raise YamlError(str(e).replace("\n", " ")) from None


class _Count:
    """The size of each document with its aliases expanded, computed from its events alone."""

    def __init__(self) -> None:
        self._open: list[tuple[str | None, int]] = []
        self._sizes: dict[str, int] = {}
        self._nodes = self._aliases = self._all = 0

    def see(self, event: yaml.Event) -> str:
        """What is wrong, or an empty string."""
        match event:
            case yaml.DocumentStartEvent():
                self._open, self._sizes, self._nodes, self._aliases = [], {}, 0, 0
            case yaml.ScalarEvent():
                if event.anchor:
                    self._sizes[event.anchor] = 1
                return self._add(1)
            case yaml.CollectionStartEvent():
                self._open.append((event.anchor, self._nodes))
                if len(self._open) > MAX_DEPTH:
                    return f"nested more than {MAX_DEPTH} levels deep"
                return self._add(1)
            case yaml.CollectionEndEvent():
                anchor, before = self._open.pop()
                if anchor:
                    self._sizes[anchor] = self._nodes - before
            case yaml.AliasEvent():
                return self._alias(event.anchor)
        return ""

    def _alias(self, anchor: str | None) -> str:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            return f"more than {MAX_ALIASES} aliases"
        if any(anchor == name for name, _ in self._open):
            return f"the alias *{anchor} refers to a value that contains it"
        return self._add(self._sizes.get(anchor or "", 1))

    def _add(self, nodes: int) -> str:
        self._nodes += nodes
        self._all += nodes
        if self._nodes > MAX_NODES:
            return f"the document has more than {MAX_NODES} values, with aliases expanded"
        return f"the documents have more than {MAX_ALL_NODES} values together" if self._all > MAX_ALL_NODES else ""


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _yaml_error(e: yaml.MarkedYAMLError) -> YamlError:
    mark = e.problem_mark or e.context_mark
    says = " ".join(str(part) for part in (e.context, e.problem) if part)
    return YamlError(says, mark.line + 1 if mark else 0, mark.column + 1 if mark else 0)


def _value(node: yaml.Node | None, path: Path, marks: dict[Path, tuple[int, int]]) -> Any:
    if node is None:
        return None
    position = (node.start_mark.line + 1, node.start_mark.column + 1)
    marks.setdefault(path, position)
    if node.tag.startswith(("!", "tag:yaml.org,2002:python")) or node.tag == "tag:yaml.org,2002:binary":
        raise YamlError(f"the tag {node.tag} is not allowed", *position)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*path, i), marks) for i, child in enumerate(node.value)]
    out: Json = {}
    merged: Json = {}
    for key_node, child in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlError("a mapping key must be a plain scalar", line, column)
        key = str(key_node.value)
        if key == "<<" and not key_node.style:
            merged = _merged(child, path, marks) | merged
            continue
        if key in out:
            raise YamlError(f'duplicate key "{key}"', line, column)
        marks[(*path, key)] = (line, column)
        out[key] = _value(child, (*path, key), marks)
    return {**merged, **out}


def _merged(node: yaml.Node, path: Path, marks: dict[Path, tuple[int, int]]) -> Json:
    """The values of a merge key: a mapping, or several, of which earlier ones take precedence."""
    parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
    out: Json = {}
    for part in parts:
        if not isinstance(part, yaml.MappingNode):
            raise YamlError("a merge key (<<) needs a mapping", node.start_mark.line + 1, node.start_mark.column + 1)
        out = _value(part, path, marks) | out
    return out


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if len(text) > MAX_DIGITS and (_INT.match(text) or _OCTAL.match(text) or _HEX.match(text)):
        says = f"a number of {len(text)} digits; the limit is {MAX_DIGITS}"
        raise YamlError(says, node.start_mark.line + 1, node.start_mark.column + 1)
    if _INT.match(text):
        return int(text.replace("_", ""))
    if _OCTAL.match(text):
        return int(text.lower().replace("o", ""), 8)
    if _HEX.match(text):
        return int(text, 16)
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return text
