"""Checks values against the constraints of their types (``Limits``), with the messages of Kubernetes' API server.

The CRDs have the same constraints for the API server; this is for files that ``validate`` and ``analyze`` read, and for
objects that are older than the CRD.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from lateen.api.config import Limits, form, limits, table
from lateen.api.validate.findings import Findings, no


def limited(kind: Any, value: Any, path: str = "spec") -> Findings:
    """``value``: a JSON document that has the structure of the type."""
    for limit in limits(kind):
        yield from _limit(limit, value, path)
    how, inner = form(kind)
    if how == "list" and isinstance(value, list):
        for i, v in enumerate(value):
            yield from limited(inner, v, f"{path}[{i}]")
    elif how == "map" and isinstance(value, dict):
        for key, v in value.items():
            yield from limited(inner, v, f"{path}[{key}]")
    elif how == "message" and isinstance(value, dict):
        known = table(inner)
        for name in known.required:
            if name not in value:
                yield no(f"{path}.{name}", "it is required")
        for name, v in value.items():
            if name in known.declared and v is not None:
                yield from limited(known.declared[name], v, f"{path}.{name}")


def _limit(limit: Limits, value: Any, path: str) -> Findings:
    if isinstance(value, str):
        yield from _text(limit, value, path)
    elif isinstance(value, list):
        if len(value) < limit.min_items:
            yield no(path, f"should have at least {limit.min_items} items, has {len(value)}")
        if limit.max_items and len(value) > limit.max_items:
            yield no(path, f"must have at most {limit.max_items} items, has {len(value)}")
    elif isinstance(value, int) and not isinstance(value, bool):
        if limit.minimum is not None and value < limit.minimum:
            yield no(path, f"should be greater than or equal to {limit.minimum}, is {value}")
        if limit.maximum is not None and value > limit.maximum:
            yield no(path, f"should be less than or equal to {limit.maximum}, is {value}")


def _text(limit: Limits, value: str, path: str) -> Findings:
    if len(value) < limit.min_length:
        yield no(path, "it must not be empty")
    elif limit.max_length and len(value) > limit.max_length:
        yield no(path, f"may not be longer than {limit.max_length} characters, has {len(value)}")
    elif limit.pattern and not _compiled(limit.pattern).search(value):
        yield no(path, f'"{value[:80]}" is not {limit.says}')


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # "$" also matches before a final line break in Python.
    return re.compile(re.sub(r"(?<!\\)\$(?=$|\||\))", r"\\Z", pattern), re.ASCII)
