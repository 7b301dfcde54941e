"""Values that are compared by key."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False)
class Cached:
    """A frozen value that is compared by its ``key``, whose hash is computed once."""

    key: tuple[object, ...]
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.key))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Cached)
            and type(self) is type(other)
            and self._hash == other._hash
            and self.key == other.key
        )
