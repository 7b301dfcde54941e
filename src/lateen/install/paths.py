"""Paths of ``--set``: ``components.ingressGateways[0].name``, ``list[-1]``, ``list[name:web].k8s``, ``a\\.b.c``.

The forms are istioctl's (istio.io/istio ``operator/pkg/values``): an index, ``-1`` for "append", ``key:value`` for the
item with that field, and a backslash before a dot that is part of a name.
"""

from __future__ import annotations

import re
from typing import Any

from lateen.kit.digits import digits
from lateen.kit.jsons import Json

Step = str | int | tuple[str, str]
"""A field, an index into a list (-1: a new item), or the list item with a certain field value."""

_STEP = re.compile(r"((?:[^.\[\]\\]|\\.)*)((?:\[[^\]]*\])*)(?:\.|$)")
_INDEX = re.compile(r"\[([^\]]*)\]")


def parse(path: str, values: bool = False) -> list[Step]:
    """Parse a path; ``values``: also ``[:text]`` or ``[text]``, an item by its value (its key is empty). Raises
    ValueError."""
    out: list[Step] = []
    at = 0
    while at < len(path):
        m = _STEP.match(path, at)
        if m is None or not (m[1] or (m[2] and out)) or m.end() == at:
            raise ValueError(f'"{path[at:]}" is not a path; write it like components.ingressGateways[0].name')
        if m[1]:
            out.append(re.sub(r"\\(.)", r"\1", m[1]))
        out += [_index(text, path, values) for text in _INDEX.findall(m[2])]
        at = m.end()
    if not out or path.endswith("."):
        raise ValueError("the path ends with a dot")
    return out


def _index(text: str, path: str, values: bool) -> Step:
    if digits(text.removeprefix("-")):
        number = int(text)
        if number < -1:
            raise ValueError(f"[{text}] in {path}: only [-1], which appends, counts from the end")
        return number
    key, colon, value = text.partition(":")
    if values and not colon and text:
        return "", text
    if not colon or not (key or values):
        raise ValueError(f"[{text}] in {path}: write a number, -1 to append, or name:value")
    return key, re.sub(r"\\([.:])", r"\1", value)


def put(tree: Json, steps: list[Step], value: Any) -> None:
    """Set the value in ``tree``, in place; missing parents are created. Raises ValueError."""
    node: Any = tree
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        empty: Any = [] if not last and not isinstance(steps[i + 1], str) else {}
        if isinstance(step, str):
            if not isinstance(node, dict):
                raise ValueError(f'"{spell(steps[:i])}" is not an object, so it has no field "{step}"')
            if last:
                node[step] = value
            elif node.get(step) is None:
                node[step] = empty
            node = node[step]
            continue
        if not isinstance(node, list):
            raise ValueError(f'"{spell(steps[:i])}" is not a list')
        at = _find(node, step, spell(steps[:i]))
        if at == len(node):
            node.append({step[0]: step[1]} if isinstance(step, tuple) else empty)
        if last:
            node[at] = value
        node = node[at]


def _find(items: list[Any], step: Step, where: str) -> int:
    if isinstance(step, tuple):
        key, value = step
        return next((i for i, v in enumerate(items) if isinstance(v, dict) and str(v.get(key)) == value), len(items))
    if step == -1 or step == len(items):
        return len(items)
    if isinstance(step, int) and step > len(items):
        raise ValueError(f'"{where}" has {len(items)} items; the next one is {where}[{len(items)}]')
    return int(step)


def spell(steps: list[Step]) -> str:
    out = ""
    for step in steps:
        match step:
            case str():
                out += ("." if out else "") + step
            case int():
                out += f"[{step}]"
            case (key, value):
                out += f"[{key}:{value}]"
    return out
