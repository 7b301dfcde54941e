"""A kind of finding."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of finding; ``text`` has a ``{}`` for each argument."""

    code: str
    name: str
    level: str
    text: str
