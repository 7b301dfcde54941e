"""Label selectors: maps, LabelSelector objects, and the form used in query strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from lateen.kit.jsons import Json

Labels = Mapping[str, str]
_SET = re.compile(r"^\s*([^\s!=,]+)\s+(in|notin)\s*\(([^)]*)\)\s*$")
_NUMBER = re.compile(r"([^\s!=,<>]+)\s*([<>])\s*([+-]?[0-9]{1,18})")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_SPLIT = re.compile(r",(?![^(]*\))")


def subset(wanted: Labels, labels: Labels) -> bool:
    return all(labels.get(k) == v for k, v in wanted.items())


def matches(selector: Json | None, labels: Labels) -> bool:
    """A LabelSelector object; an empty one matches everything, None matches nothing."""
    if selector is None:
        return False
    if not subset(selector.get("matchLabels") or {}, labels):
        return False
    return all(_expression(e, labels) for e in selector.get("matchExpressions") or [])


def _expression(e: Json, labels: Labels) -> bool:
    key, values = str(e.get("key")), e.get("values") or []
    match e.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def text(selector: Json) -> str:
    """A LabelSelector object in the form that ``parse`` reads, with its keys in order, as Kubernetes writes it."""
    parts = [(k, f"{k}={v}") for k, v in (selector.get("matchLabels") or {}).items()]
    for e in selector.get("matchExpressions") or []:
        key, values = str(e.get("key")), ",".join(sorted(e.get("values") or []))
        shown = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
        parts.append((key, shown.get(str(e.get("operator")), f"!{key}")))
    return ",".join(part for _, part in sorted(parts, key=lambda p: p[0]))


def parse(text: str) -> Callable[[Labels], bool]:
    """``a=b,c!=d,e in (f,g),!h,i,j>1``. Raises ValueError."""
    tests: list[Callable[[Labels], bool]] = []
    for part in filter(str.strip, _SPLIT.split(text)):
        tests.append(_requirement(part))
    return lambda labels: all(t(labels) for t in tests)


def _requirement(part: str) -> Callable[[Labels], bool]:
    if m := _SET.match(part):
        key, values = m[1], {v.strip() for v in m[3].split(",")}
        if m[2] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    part = part.strip()
    if m := _NUMBER.fullmatch(part):
        return _than(m[1], int(m[3]), above=m[2] == ">")
    if part.startswith("!"):
        return lambda labels: part[1:].strip() not in labels
    for op in ("!=", "==", "="):
        if op in part:
            k, _, v = (s.strip() for s in part.partition(op))
            if not k:
                raise ValueError(f'"{part}" is not a label selector')
            return _compare(k, v, op != "!=")
    if not re.fullmatch(r"[A-Za-z0-9./_-]+", part):
        raise ValueError(f'"{part}" is not a label selector')
    return lambda labels: part in labels


def _compare(key: str, value: str, equal: bool) -> Callable[[Labels], bool]:
    return lambda labels: (labels.get(key) == value) == equal


def _than(key: str, limit: int, above: bool) -> Callable[[Labels], bool]:
    """Labels that are no whole numbers are neither above nor below one."""

    def test(labels: Labels) -> bool:
        value = labels.get(key, "")
        if not _WHOLE.fullmatch(value):
            return False
        return int(value) > limit if above else int(value) < limit

    return test
