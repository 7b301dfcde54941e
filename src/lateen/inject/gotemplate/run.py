"""Executes a Go template: a tree and data in, text out. Bounded, so that no template can block istiod."""

from __future__ import annotations

from typing import Any

from lateen.inject.gotemplate.functions import FUNCTIONS
from lateen.inject.gotemplate.parse import Node, TemplateError, Tree, parse
from lateen.inject.gotemplate.values import go_text, truth

MAX_STEPS = 200_000
MAX_TEXT = 4 * 1024 * 1024


def render(text: str, data: Any) -> str:
    """Raises TemplateError, which has the line."""
    run = _Run(parse(text))
    run.nodes(run.tree.body, data, {"$": data})
    return "".join(run.out)


class _Run:
    def __init__(self, tree: Tree) -> None:
        self.tree, self.out = tree, []  # type: tuple[Tree, list[str]]
        self.steps = self.size = self.depth = 0

    def nodes(self, nodes: list[Node], dot: Any, variables: dict[str, Any]) -> None:
        self.depth += 1
        if self.depth > 100:
            raise TemplateError("templates call each other endlessly")
        for node in nodes:
            self.steps += 1
            if self.steps > MAX_STEPS or self.size > MAX_TEXT:
                raise TemplateError(f"line {node.line}: it produces too much output")
            try:
                self._node(node, dot, variables)
            except TemplateError:
                raise
            except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as e:
                raise TemplateError(f"line {node.line}: {e}") from e
        self.depth -= 1

    def _node(self, node: Node, dot: Any, variables: dict[str, Any]) -> None:
        match node.kind:
            case "text":
                self._say(node.text)
            case "print":
                self._say(go_text(self.pipe(node.pipe, dot, variables, node.line)))
            case "assign":
                value = self.pipe(node.pipe, dot, variables, node.line)
                for name in node.variables:
                    _set(variables, name, value, node.declares)
            case "template":
                if node.text not in self.tree.defined:
                    raise TemplateError(f'line {node.line}: the template "{node.text}" is not defined')
                inner = self.pipe(node.pipe, dot, variables, node.line) if node.pipe else None
                self.nodes(self.tree.defined[node.text], inner, {"$": inner})
            case "range":
                self._range(node, dot, variables)
            case "if" | "with":
                self._branch(node, dot, variables)

    def _say(self, text: str) -> None:
        self.size += len(text)
        self.out.append(text)

    def _branch(self, node: Node, dot: Any, variables: dict[str, Any]) -> None:
        value = self.pipe(node.pipe, dot, variables, node.line)
        inner = _Scope(variables)
        for name in node.variables:
            _set(inner, name, value, node.declares)
        if truth(value):
            self.nodes(node.body, value if node.kind == "with" else dot, inner)
        else:
            self.nodes(node.other, dot, inner)

    def _range(self, node: Node, dot: Any, variables: dict[str, Any]) -> None:
        value = self.pipe(node.pipe, dot, variables, node.line)
        if isinstance(value, dict):
            pairs = sorted(value.items())
        elif isinstance(value, list | tuple):
            pairs = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(i, i) for i in range(min(value, MAX_STEPS))]
        elif value is None:
            pairs = []
        else:
            raise TemplateError(f"line {node.line}: range can't iterate over {go_text(value)[:40]!r}")
        for key, item in pairs:
            inner = _Scope(variables)
            given = (item,) if len(node.variables) == 1 else (key, item)
            for name, found in zip(node.variables, given, strict=False):
                _set(inner, name, found, True)
            self.nodes(node.body, item, inner)
        if not pairs:
            self.nodes(node.other, dot, _Scope(variables))

    def pipe(self, commands: list[list[Any]], dot: Any, variables: dict[str, Any], line: int) -> Any:
        if not commands:
            raise TemplateError(f"line {line}: a value is missing")
        value: Any = None
        for i, command in enumerate(commands):
            self.steps += 1
            value = self._command(command, [value] if i else [], dot, variables, line)
        return value

    def _command(self, command: list[Any], last: list[Any], dot: Any, variables: dict[str, Any], line: int) -> Any:
        (kind, name), *_ = ((t[0], t[1]) for t in command)
        if kind == "word" and name not in ("true", "false", "nil"):
            if name not in FUNCTIONS:
                raise TemplateError(f'line {line}: there is no function "{name}"')
            values = [self._operand(t, dot, variables, line) for t in command[1:]]
            return _bounded(FUNCTIONS[name](*values, *last))
        value = self._operand(command[0], dot, variables, line)
        if callable(value):
            return value(*(self._operand(t, dot, variables, line) for t in command[1:]), *last)
        if len(command) > 1 or last:
            raise TemplateError(f"line {line}: {go_text(name)!r} is not a function")
        return value

    def _operand(self, token: Any, dot: Any, variables: dict[str, Any], line: int) -> Any:
        match token[0]:
            case "pipe":
                return _fields(self.pipe(token[1], dot, variables, line), token[2])
            case "text" | "number":
                return token[1]
            case "chain":
                return _fields(dot, token[1])
            case "variable":
                name, _, rest = str(token[1]).partition(".")
                if name not in variables:
                    raise TemplateError(f"line {line}: the variable {name} is not defined")
                return _fields(variables[name], rest)
            case "word" if token[1] in ("true", "false", "nil"):
                return {"true": True, "false": False, "nil": None}[token[1]]
            case "word" if token[1] in FUNCTIONS:
                return FUNCTIONS[token[1]]()
        raise TemplateError(f"line {line}: {token[1]!r} cannot stand here")


def _bounded(value: Any) -> Any:
    """What a function has returned: a few that double what they get would fill any memory. Raises ValueError."""
    if isinstance(value, str | list | dict) and len(value) > MAX_TEXT:
        raise ValueError("the value becomes too large")
    return value


class _Scope(dict[str, Any]):
    """Variables of a block; those of enclosing blocks are visible and can be set."""

    def __init__(self, outer: dict[str, Any]) -> None:
        super().__init__()
        self.outer = outer

    def __missing__(self, key: str) -> Any:
        return self.outer[key]

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self.outer


def _set(variables: dict[str, Any], name: str, value: Any, declares: bool) -> None:
    scope: Any = variables
    while not declares and isinstance(scope, _Scope) and not dict.__contains__(scope, name):
        scope = scope.outer
    scope[name] = value


def _fields(value: Any, chain: str) -> Any:
    """Resolve ``.Spec.Containers`` in JSON, by the Go or the JSON name. Missing fields are nil; ``.GetX`` reads X."""
    for name in filter(None, chain.split(".")):
        value = _field(value, name)
    return value


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        return value if name in ("String", "GetValue", "AsMap") else None
    for spelled in (name, name[:1].lower() + name[1:], name.lower(), name.removeprefix("Get")):
        if spelled in value:
            return value[spelled]
    if name.startswith("Get"):
        return _field(value, name[3:])
    folded = {k.lower(): k for k in value}
    return value[folded[name.lower()]] if name.lower() in folded else None
