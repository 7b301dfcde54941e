"""Booleans as text, in the spellings of Go's ``strconv.ParseBool``, which Istio and Kubernetes read them with."""

from __future__ import annotations

_SPELLINGS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


def boolean(text: str) -> bool:
    """Raises ValueError."""
    if text not in _SPELLINGS:
        raise ValueError(f'"{text}" is neither true nor false')
    return _SPELLINGS[text]
