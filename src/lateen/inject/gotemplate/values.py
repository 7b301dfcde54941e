"""Values in templates: which count as true, and how they are printed."""

from __future__ import annotations

from typing import Any


def truth(value: Any) -> bool:
    return value is not None and value is not False and value not in (0, "", [], {}, ())


def go_text(value: Any) -> str:
    """A value roughly as Go's ``fmt`` prints it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case list() | tuple():
            return "[" + " ".join(go_text(v) for v in value) + "]"
        case dict():
            return "map[" + " ".join(f"{k}:{go_text(v)}" for k, v in sorted(value.items())) + "]"
    return str(value)
