"""Write console/src/shapes.ts from lateen.console.shapes, lateen.console.reports and
lateen.dump.failures: python tools/shapes.py"""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from lateen.console.reports import COUNTED
from lateen.dump.failures import MATCHERS

TARGET = Path(__file__).parents[1] / "console" / "src" / "shapes.ts"
PLAIN = {str: "string", int: "number", float: "number", bool: "boolean", NoneType: "null"}
NAMED: dict[Any, str] = {}
"""The module's own names of choices between texts."""


def spelled(kind: Any) -> str:
    """TypeScript's name of a type. Raises TypeError for one that the page is never told."""
    if kind in PLAIN:
        return PLAIN[kind]
    if is_typeddict(kind):
        return str(kind.__name__)
    origin, of = get_origin(kind), get_args(kind)
    if origin is list:
        item = spelled(of[0])
        return f"({item})[]" if " | " in item else f"{item}[]"
    if origin is dict:
        return f"Record<{spelled(of[0])}, {spelled(of[1])}>"
    if origin is Literal:
        return NAMED.get(kind) or choices(kind)
    if origin in (Union, UnionType):
        return " | ".join(spelled(t) for t in of)
    raise TypeError(f"{kind} has no counterpart in TypeScript")


def choices(kind: Any) -> str:
    return " | ".join(f"'{v}'" for v in get_args(kind))


def interface(name: str, shape: Any) -> str:
    fields = []
    for field, kind in get_type_hints(shape, include_extras=True).items():
        optional = get_origin(kind) is NotRequired
        fields.append(f"  {field}{'?' if optional else ''}: {spelled(get_args(kind)[0] if optional else kind)}")
    return "\n".join([f"export interface {name} {{", *fields, "}"])


def text() -> str:
    from lateen.console import shapes

    found = [(n, s) for n, s in vars(shapes).items() if is_typeddict(s)]
    NAMED.update({s: n for n, s in vars(shapes).items() if get_origin(s) is Literal})
    named = [f"export type {name} = {choices(kind)}" for kind, name in NAMED.items()]
    says = "/** What selects series of requests that have failed, in PromQL: any of these. */"
    failed = f"{says}\nexport const FAILED = {list(MATCHERS)}"
    says = "/** Rates of $metric over $window, each request counted once, in PromQL; $more are further matchers. */"
    counted = f"{says}\nexport const COUNTED = `{COUNTED.replace('$', chr(92) + '$')}`"
    head = "// Written by tools/shapes.py from lateen.console.shapes; edit that file."
    return "\n\n".join([head, failed, counted, *named, *(interface(n, s) for n, s in found)]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
    print(TARGET)
