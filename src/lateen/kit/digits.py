"""Whether a text is a whole number in a form that every parser accepts."""

from __future__ import annotations

MOST = 18
"""The number of digits that always fit into 64 bits (``int`` itself refuses more than a few thousand)."""


def digits(text: str | bytes) -> bool:
    """Whether a text is one to 18 of the digits 0 to 9. ``str.isdigit`` also accepts ``²``, which ``int`` rejects,
    and ``٣``, which all other parsers reject."""
    return text.isascii() and text.isdigit() and len(text) <= MOST
