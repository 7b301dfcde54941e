"""kubectl's jsonpath templates: ``{.items[*].metadata.name}``, ``{range …}{end}``, filters, ``{"\\n"}``. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

_STEP = re.compile(
    r"""\.\.?(?P<name>(?:\\.|[^.\[\]{}\\])+)|\[\*\]|\['(?P<quoted>[^']*)'\]|\[(?P<index>-?\d+)\]"""
    r"""|\[\?\(@\.?(?P<left>[^=!<>]*?)\s*(?:(?P<op>==|!=)\s*(?P<right>"[^"]*"|'[^']*'|[^)]*))?\)\]"""
)
MAX_TEMPLATE = 64 * 1024


class PathError(ValueError):
    """The template is invalid; one sentence."""


def render(template: str, value: Any) -> str:
    """Raises PathError for an invalid template, and for a path that does not exist."""
    if len(template) > MAX_TEMPLATE:
        raise PathError("the template is too long")
    parts = _parts(template)
    out: list[str] = []
    _run(parts, 0, value, out)
    return "".join(out)


def _parts(template: str) -> list[tuple[bool, str]]:
    """(is an expression, text)"""
    if "{" not in template:
        template = "{" + (template if template.startswith((".", "[")) else f".{template}") + "}"
    out, at = [], 0
    for m in re.finditer(r"\{((?:\"(?:\\.|[^\"\\])*\"|'[^']*'|[^{}])*)\}", template):
        out.append((False, template[at : m.start()]))
        out.append((True, m[1].strip()))
        at = m.end()
    out.append((False, template[at:]))
    if any("{" in text or "}" in text for expression, text in out if not expression):
        raise PathError(f"unbalanced braces in {template}")
    return [p for p in out if p[1]]


def _run(parts: list[tuple[bool, str]], at: int, value: Any, out: list[str]) -> int:
    """Render up to the end, or to just after the ``end`` of the open range."""
    while at < len(parts):
        expression, text = parts[at]
        at += 1
        if not expression:
            out.append(text)
        elif text == "end":
            return at
        elif text.startswith("range "):
            items = find(text[6:].strip(), value)
            after = _skip(parts, at)
            for item in items:
                _run(parts, at, item, out)
            at = after
        elif text[:1] in "\"'":
            out.append(json.loads('"' + text[1:-1].replace("\\'", "'") + '"'))
        else:
            out.append(" ".join(_text(v) for v in find(text, value)))
    return at


def _skip(parts: list[tuple[bool, str]], at: int) -> int:
    depth = 1
    while at < len(parts) and depth:
        expression, text = parts[at]
        depth += (expression and text.startswith("range ")) - (expression and text == "end")
        at += 1
    return at


def find(path: str, value: Any) -> list[Any]:
    """All values at a path."""
    path = path.removeprefix("$").removeprefix("@")
    found, at = [value], 0
    if path and path[0] not in ".[":
        path = f".{path}"
    while at < len(path):
        if path[at:] == ".":
            break
        m = _STEP.match(path, at)
        if m is None:
            raise PathError(f"cannot parse the path {path} at {path[at:]}")
        found = [w for v in found for w in _step(m, v)]
        at = m.end()
    return found


def _step(m: re.Match[str], value: Any) -> list[Any]:
    if m["name"] is not None or m["quoted"] is not None:
        name = m["quoted"] if m["quoted"] is not None else re.sub(r"\\(.)", r"\1", m["name"])
        if name == "*":
            return list(value.values()) if isinstance(value, dict) else list(value or [])
        return [value[name]] if isinstance(value, dict) and name in value else []
    if m["index"] is not None:
        index = int(m["index"])
        return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if m["left"] is not None:
        return [v for v in value if _holds(m, v)] if isinstance(value, list) else []
    return list(value.values()) if isinstance(value, dict) else list(value or [])


def _holds(m: re.Match[str], value: Any) -> bool:
    left = find(m["left"].strip(), value) if m["left"].strip() else [value]
    if m["op"] is None:
        return bool(left)
    right = m["right"].strip().strip("\"'")
    same = bool(left) and _text(left[0]) == right
    return same == (m["op"] == "==")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))
