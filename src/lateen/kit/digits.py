"""Whether a text is a whole number, in the form that every reader of it takes."""

from __future__ import annotations

MOST = 18
"""Digits that fit into 64 bits; ``int`` itself refuses some thousand."""


def digits(text: str | bytes) -> bool:
    """Whether a text is one to 18 of the digits 0 to 9. ``str.isdigit`` takes ``²`` as well, at which ``int`` fails,
    and ``٣``, at which everybody else does."""
    return text.isascii() and text.isdigit() and len(text) <= MOST
