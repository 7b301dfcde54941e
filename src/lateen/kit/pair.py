"""A certificate and its key, as text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """A certificate (chain) and its key; the key does not show in ``repr``."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Pair(certificate=…, key=[redacted])"
