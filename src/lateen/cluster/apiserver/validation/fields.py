"""Causes of refusal in Kubernetes' wording (apimachinery's field errors), which scripts and people search for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.cluster.apiserver.errors import Cause
from lateen.kit import jsons

Causes = list[Cause]

MAX_CAUSES = 1000
MAX_TEXT = 1024 * 1024
"""Causes in one answer, and characters of them."""
MAX_PATH = 1024
"""Characters of a path, about: a key may have a million of them, and a hundred thousand values below it."""


def below(path: str, key: str) -> str:
    """The path of what is in an object; one that is very long already stays as it is."""
    if len(path) >= MAX_PATH:
        return path
    key = key if len(key) <= MAX_PATH else f"{key[:MAX_PATH]}…"
    return f"{path}.{key}" if path else key


def bounded(causes: Iterable[Cause]) -> Causes:
    """The first ones, at least one if there are any: an object may have a hundred thousand faults."""
    out: Causes = []
    room = MAX_TEXT
    for cause in causes:
        out.append(cause)
        room -= len(cause.path) + len(cause.says)
        if len(out) == MAX_CAUSES or room <= 0:
            break
    return out


def required(path: str, why: str = "") -> Cause:
    return Cause(path, f"Required value: {why}" if why else "Required value", "FieldValueRequired")


def bad(path: str, value: Any, why: str) -> Cause:
    return Cause(path, f"Invalid value: {shown(value)}: {why}", "FieldValueInvalid")


def duplicate(path: str, value: Any) -> Cause:
    return Cause(path, f"Duplicate value: {shown(value)}", "FieldValueDuplicate")


def missing(path: str, value: Any) -> Cause:
    """Something that the object refers to within itself does not exist."""
    return Cause(path, f"Not found: {shown(value)}", "FieldValueNotFound")


def unsupported(path: str, value: Any, allowed: Iterable[str], ordered: bool = False) -> Cause:
    """``ordered``: what is allowed is in the order in which Kubernetes lists it, else by name."""
    listed = ", ".join(f'"{v}"' for v in (allowed if ordered else sorted(allowed)))
    return Cause(path, f"Unsupported value: {shown(value)}: supported values: {listed}", "FieldValueNotSupported")


def denied(path: str, why: str) -> Cause:
    return Cause(path, f"Forbidden: {why}", "FieldValueForbidden")


def too_long(path: str, limit: int) -> Cause:
    return Cause(path, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")


def too_many(path: str, count: int, limit: int) -> Cause:
    return Cause(path, f"Too many: {count}: must have at most {limit} items", "FieldValueTooMany")


def immutable(path: str, value: Any) -> Cause:
    return bad(path, value, "field is immutable")


def shown(value: Any) -> str:
    """A value as Kubernetes prints it: strings quoted, everything else as JSON; long ones are truncated."""
    text = jsons.dumps(value).decode()
    return text if len(text) <= 300 else f'{text[:300]}..."'
