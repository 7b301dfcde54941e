"""Sprig's functions for text, numbers, lists and mappings. Those are missing that change what they are given (``set``),
and those that give something else each time (``now``, ``uuidv4``): an injected pod depends on its input alone.

Source: https://masterminds.github.io/sprig/
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

from lateen.inject.gotemplate.values import go_text, truth
from lateen.kit import jsons, regex

MAX_TEXT = 1024 * 1024
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_GROUP = re.compile(r"\$(?:\{(\w+)\}|(\w+)|(\$))")


def _whole(value: Any) -> int:
    """As Sprig's ``int``: what is no number is 0."""
    if isinstance(value, str):
        return int(value) if _NUMBER.fullmatch(value) else 0
    return int(value) if isinstance(value, int | float) else 0


def _decimal(value: Any) -> float:
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0


def _quotient(a: Any, b: Any) -> tuple[int, int]:
    """(quotient, remainder), towards zero as in Go. Raises ValueError."""
    x, y = _whole(a), _whole(b)
    if not y:
        raise ValueError("division by zero")
    whole = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
    return whole, x - whole * y


def _numbers(start: int, stop: int, step: int) -> list[int]:
    found = range(start, stop, step) if step else range(0)
    if len(found) > MAX_TEXT:
        raise ValueError("the list becomes too long")
    return list(found)


def _indent(spaces: int, text: str) -> str:
    return "\n".join(" " * min(int(spaces), 200) + line for line in text.split("\n"))


def _repeat(count: int, text: str) -> str:
    return _bounded(count, text) * count


def _bounded(count: int, text: str) -> str:
    """The text, if it may be there so many times. Raises ValueError."""
    if count * len(text) > MAX_TEXT:
        raise ValueError("the text becomes too long")
    return text


def _replace(old: str, new: str, text: Any) -> str:
    given = go_text(text)
    return given.replace(old, _bounded(given.count(old), new))


def _default(default: Any, *given: Any) -> Any:
    return given[0] if given and truth(given[0]) else default


def mapping(*pairs: Any) -> dict[str, Any]:
    """A last key without a value has an empty one."""
    return dict(zip(pairs[::2], [*pairs[1::2], ""], strict=False))


def _dig(*given: Any) -> Any:
    """``dig "a" "b" default mapping``"""
    *keys, default, value = given
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return value


def _fail(text: Any) -> None:
    raise ValueError(go_text(text))


def _kind(value: Any) -> str:
    """As of values that come from YAML."""
    kinds = {dict: "map", list: "slice", tuple: "slice", str: "string", bool: "bool", int: "int", float: "float64"}
    return kinds.get(type(value), "invalid")


def _is_kind(kind: str, value: Any) -> bool:
    """Go's numbers from YAML are all ``float64``."""
    return kind == _kind(value) or (kind in ("int64", "float64") and _kind(value) == "int")


def _replaced(pattern: str, text: Any, by: str) -> str:
    """``$1`` and ``${1}`` in the replacement are groups; those that there are not are empty, as in Go. Raises
    ValueError."""
    expression, given = regex.compiled(pattern), go_text(text)
    count = sum(1 for _ in expression.finditer(given))
    if count * len(by) + by.count("$") * len(given) > MAX_TEXT:  # groups are parts of their match
        raise ValueError("the text becomes too long")
    return str(expression.sub(lambda m: _GROUP.sub(lambda reference: _group(m, reference), by), given))


def _group(found: Any, reference: re.Match[str]) -> str:
    if reference[3]:
        return "$"
    name = reference[1] or reference[2]
    groups = {str(i): text for i, text in enumerate((found[0], *found.groups()))} | found.groupdict()
    return groups.get(name) or ""


def _found(pattern: str, text: Any) -> str:
    hit = regex.compiled(pattern).search(go_text(text))
    return hit[0] if hit else ""


def _unique(items: Iterable[Any]) -> list[Any]:
    return reduce(lambda out, i: out if i in out else [*out, i], items or (), [])


def _substring(start: int, end: int, text: Any) -> str:
    return go_text(text)[max(start, 0) : end if end >= 0 else None]


SPRIG: dict[str, Callable[..., Any]] = {
    # text
    "b64dec": lambda text: base64.b64decode(text).decode(),
    "b64enc": lambda text: base64.b64encode(go_text(text).encode()).decode(),
    "cat": lambda *v: " ".join(go_text(i) for i in v if i is not None),
    "hasPrefix": lambda prefix, text: go_text(text).startswith(prefix),
    "hasSuffix": lambda suffix, text: go_text(text).endswith(suffix),
    "join": lambda separator, items: separator.join(go_text(i) for i in items or []),
    "lower": lambda text: go_text(text).lower(),
    "nindent": lambda spaces, text: "\n" + _indent(spaces, text),
    "nospace": lambda text: "".join(go_text(text).split()),
    "quote": lambda *v: " ".join(jsons.dumps(go_text(i)).decode() for i in v),
    "regexFind": _found,
    "regexMatch": lambda pattern, text: regex.compiled(pattern).search(go_text(text)) is not None,
    "regexReplaceAll": _replaced,
    "repeat": _repeat,
    "replace": _replace,
    "sha1sum": lambda text: hashlib.sha1(go_text(text).encode(), usedforsecurity=False).hexdigest(),
    "sha256sum": lambda text: hashlib.sha256(go_text(text).encode()).hexdigest(),
    "split": lambda separator, text: {f"_{i}": p for i, p in enumerate(text.split(separator))},
    "splitList": lambda separator, text: text.split(separator),
    "squote": lambda *v: " ".join(f"'{go_text(i)}'" for i in v),
    "substr": _substring,
    "title": lambda text: re.sub(r"\S+", lambda m: m[0][:1].upper() + m[0][1:], go_text(text)),
    "toString": go_text,
    "toStrings": lambda items: [go_text(i) for i in items or []],
    "trim": lambda text: go_text(text).strip(),
    "trimAll": lambda characters, text: go_text(text).strip(characters),
    "trimPrefix": lambda prefix, text: go_text(text).removeprefix(prefix),
    "trimSuffix": lambda suffix, text: go_text(text).removesuffix(suffix),
    "trunc": lambda count, text: go_text(text)[:count] if count >= 0 else go_text(text)[count:],
    "upper": lambda text: go_text(text).upper(),
    # numbers
    "add": lambda *v: sum(map(_whole, v)),
    "add1": lambda v: _whole(v) + 1,
    "atoi": _whole,
    "div": lambda a, b: _quotient(a, b)[0],
    "float64": _decimal,
    "int": _whole,
    "int64": _whole,
    "max": lambda *v: max(map(_whole, v)),
    "min": lambda *v: min(map(_whole, v)),
    "mod": lambda a, b: _quotient(a, b)[1],
    "mul": lambda *v: reduce(lambda a, b: a * b, map(_whole, v)),
    "sub": lambda a, b: _whole(a) - _whole(b),
    "until": lambda count: _numbers(0, count, 1 if count > 0 else -1),
    "untilStep": _numbers,
    # lists
    "append": lambda items, item: [*(items or []), item],
    "compact": lambda items: [i for i in items or [] if truth(i)],
    "concat": lambda *lists: [i for items in lists for i in items or []],
    "first": lambda items: items[0] if items else None,
    "has": lambda item, items: item in (items or []),
    "initial": lambda items: list(items or [])[:-1],
    "last": lambda items: items[-1] if items else None,
    "list": lambda *items: list(items),
    "prepend": lambda items, item: [item, *(items or [])],
    "rest": lambda items: list(items or [])[1:],
    "reverse": lambda items: list(items or [])[::-1],
    "sortAlpha": lambda items: sorted(go_text(i) for i in items or []),
    "uniq": _unique,
    "without": lambda items, *gone: [i for i in items or [] if i not in gone],
    # mappings
    "dict": mapping,
    "dig": _dig,
    "get": lambda mapping, key: (mapping or {}).get(key, ""),
    "hasKey": lambda mapping, key: key in (mapping or {}),
    "keys": lambda mapping: sorted(mapping or {}),
    "merge": lambda *maps: {k: v for m in reversed(maps) for k, v in (m or {}).items()},
    "pick": lambda mapping, *keys: {k: mapping[k] for k in keys if k in (mapping or {})},
    "values": lambda mapping: [v for _, v in sorted((mapping or {}).items())],
    # anything
    "all": lambda *v: all(map(truth, v)),
    "any": lambda *v: any(map(truth, v)),
    "coalesce": lambda *v: next((i for i in v if truth(i)), None),
    "default": _default,
    "empty": lambda v: not truth(v),
    "fail": _fail,
    "fromJson": lambda text: jsons.loads(text),
    "kindIs": _is_kind,
    "kindOf": _kind,
    "ternary": lambda yes, no, test: yes if truth(test) else no,
}
