"""Parses the text of a Go template into a tree."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_ACTION = re.compile(r"\{\{(-\s)?\s*(/\*.*?\*/|.*?)\s*?(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)
      | (?P<number>-?\d+(?:\.\d+)?)
      | (?P<variable>\$\w*(?:\.\w+)*)
      | (?P<chain>(?:\.\w+)+|\.)
      | (?P<word>\w+)
      | (?P<sign>:=|=|\||\(|\)|,)
    )""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
MAX_DEPTH = 100


class TemplateError(ValueError):
    """A template that cannot be parsed or executed; one sentence with the line."""


@dataclass
class Node:
    """``kind``: text, print, assign, if, range, with, template. ``body`` and ``other`` are lists of nodes."""

    kind: str
    line: int
    text: str = ""
    pipe: Any = None
    variables: list[str] = field(default_factory=list)
    declares: bool = True
    body: list[Node] = field(default_factory=list)
    other: list[Node] = field(default_factory=list)


@dataclass
class Tree:
    body: list[Node]
    defined: dict[str, list[Node]]


def parse(text: str) -> Tree:
    """Raises TemplateError."""
    parser = _Parser(_pieces(text))
    body, end = parser.block(0)
    if end:
        raise TemplateError(f"line {parser.line}: unexpected {{{{ {end} }}}}")
    return Tree(body, parser.defined)


def _pieces(text: str) -> list[tuple[str, str, int]]:
    """(text or action, contents, line), with whitespace trimmed where dashes ask for it."""
    out: list[tuple[str, str, int]] = []
    at, trim = 0, False
    for found in _ACTION.finditer(text):
        plain = text[at : found.start()]
        plain = plain.lstrip() if trim else plain
        out.append(("text", plain.rstrip() if found[1] else plain, 0))
        line = text.count("\n", 0, found.start()) + 1
        if not found[2].startswith("/*"):
            out.append(("action", found[2].strip(), line))
        at, trim = found.end(), bool(found[3])
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError(f"line {text.count(chr(10), 0, at + rest.index('{{')) + 1}: {{{{ is not closed")
    return [*out, ("text", rest.lstrip() if trim else rest, 0)]


class _Parser:
    def __init__(self, pieces: list[tuple[str, str, int]]) -> None:
        self.pieces, self.at, self.line = pieces, 0, 0
        self.defined: dict[str, list[Node]] = {}

    def block(self, depth: int) -> tuple[list[Node], str]:
        """Nodes up to ``end`` or ``else``, and that word with what follows it; empty at the end of the text."""
        if depth > MAX_DEPTH:
            raise TemplateError(f"line {self.line}: nested too deeply")
        out: list[Node] = []
        while self.at < len(self.pieces):
            kind, content, line = self.pieces[self.at]
            self.at += 1
            if kind == "text":
                if content:
                    out.append(Node("text", line, content))
                continue
            self.line = line
            word = content.partition(" ")[0]
            if word in ("end", "else"):
                return out, content
            if word in ("if", "with", "range"):
                out.append(self._control(word, content[len(word) :], depth))
            elif word in ("define", "block"):
                self._define(word, content, out, depth)
            else:
                out.append(self._simple(content))
        return out, ""

    def _define(self, word: str, content: str, out: list[Node], depth: int) -> None:
        tokens = tokens_of(content, self.line)
        if len(tokens) < 2 or tokens[1][0] != "text":
            raise TemplateError(f"line {self.line}: {word} needs a name")
        name, line = str(tokens[1][1]), self.line
        self.defined[name], end = self.block(depth + 1)
        self._closed(end, word, line)
        if word == "block":
            out.append(Node("template", line, name, pipe=_pipe(tokens[2:], line)))

    def _closed(self, end: str, word: str, line: int) -> None:
        if end != "end":
            raise TemplateError(f"line {line}: {word} has no {{{{ end }}}}")

    def _control(self, word: str, rest: str, depth: int) -> Node:
        node = Node(word, self.line)
        tokens = tokens_of(rest, self.line)
        node.variables, node.declares, tokens = _assigned(tokens)
        node.pipe = _pipe(tokens, self.line)
        node.body, end = self.block(depth + 1)
        if end.startswith("else"):
            more = end[4:].strip()
            if more.startswith(("if", "with")):
                kind = more.partition(" ")[0]
                node.other = [self._control(kind, more[len(kind) :], depth + 1)]
                return node
            node.other, end = self.block(depth + 1)
        self._closed(end, word, node.line)
        return node

    def _simple(self, content: str) -> Node:
        tokens = tokens_of(content, self.line)
        if tokens and tokens[0] == ("word", "template"):
            if len(tokens) < 2 or tokens[1][0] != "text":
                raise TemplateError(f"line {self.line}: template needs a name")
            return Node("template", self.line, str(tokens[1][1]), pipe=_pipe(tokens[2:], self.line))
        names, declares, rest = _assigned(tokens)
        kind = "assign" if names else "print"
        return Node(kind, self.line, pipe=_pipe(rest, self.line), variables=names, declares=declares)


Token = tuple[str, Any]


def tokens_of(text: str, line: int) -> list[Token]:
    out: list[Token] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None or found.end() == at:
            raise TemplateError(f'line {line}: "{text[at:].strip()[:40]}" cannot be parsed')
        kind = str(found.lastgroup)
        value: Any = found[kind]
        if kind == "text":
            value = (
                value[1:-1] if value[0] == "`" else re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), value[1:-1])
            )
        elif kind == "number":
            value = float(value) if "." in value else int(value)
        elif kind == "sign" and value == ")" and found.end() < len(text) and text[found.end()] == ".":
            chain = re.compile(r"(?:\.\w+)+").match(text, found.end())
            out.append(("sign", ")"))
            if chain:
                out.append(("after", chain[0]))
                at = chain.end()
                continue
        out.append((kind, value))
        at = found.end()
    return out


def _assigned(tokens: list[Token]) -> tuple[list[str], bool, list[Token]]:
    """``$a, $b := pipeline`` -> (names, whether they are new, the pipeline's tokens)"""
    for i, token in enumerate(tokens[:5]):
        if token in (("sign", ":="), ("sign", "=")):
            names = [str(v) for k, v in tokens[:i] if k == "variable"]
            return names, token[1] == ":=", tokens[i + 1 :]
    return [], True, tokens


def _pipe(tokens: list[Token], line: int) -> list[list[Any]]:
    """A pipeline: commands, each a list of operands. An operand is a token or ("pipe", pipeline, chain)."""
    out, rest = _commands(tokens, line, 0)
    if rest:
        raise TemplateError(f"line {line}: unexpected )")
    return out


def _commands(tokens: list[Token], line: int, depth: int) -> tuple[list[list[Any]], list[Token]]:
    if depth > MAX_DEPTH:
        raise TemplateError(f"line {line}: nested too deeply")
    commands: list[list[Any]] = [[]]
    while tokens:
        token, tokens = tokens[0], tokens[1:]
        if token == ("sign", ")"):
            if depth == 0:
                return commands, [token]
            return commands, tokens
        if token == ("sign", "("):
            inner, tokens = _commands(tokens, line, depth + 1)
            chain = ""
            if tokens and tokens[0][0] == "after":
                chain, tokens = str(tokens[0][1]), tokens[1:]
            commands[-1].append(("pipe", inner, chain))
        elif token == ("sign", "|"):
            commands.append([])
        else:
            commands[-1].append(token)
    if depth:
        raise TemplateError(f"line {line}: ( is not closed")
    return [c for c in commands if c], []
