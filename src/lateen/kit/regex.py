"""RE2, the regular expression engine that Envoy uses. The library is loaded at the first use: loading takes as long as
validating a few hundred objects, and most meshes have no regular expressions."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

GO = {
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "trailing \\": "trailing backslash at end of expression",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
}
"""RE2's error message -> that of Go's ``regexp/syntax`` for the same fault, where they differ."""


@cache
def _re2() -> tuple[Any, Any]:
    """The module, and options that keep it from logging errors."""
    import re2

    options = re2.Options()
    options.log_errors = False
    return re2, options


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Any:
    """RE2's compiled form, with ``search`` and ``fullmatch`` like Python's. Raises ValueError with the message of Go's
    ``regexp``, which users of Istio know."""
    re2, options = _re2()
    try:
        return re2.compile(pattern, options)
    except re2.error as e:
        (says,) = e.args
        text = says.decode(errors="replace") if isinstance(says, bytes) else str(says)
        fault, colon, where = text.partition(": ")
        found = f": `{where}`" if colon else ""
        raise ValueError(f"error parsing regexp: {GO.get(fault, fault)}{found}") from None


def escape(text: str) -> str:
    """A pattern that matches exactly this text."""
    return str(_re2()[0].escape(text))
