"""Values that are worked out from an immutable object once, and that are gone with it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


def derived(function: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Keeps the result in the first argument itself, by the others: no capacity to guess, nothing outlives its subject.

    The first argument is an instance of a class with a ``__dict__``; the others are hashable.
    """
    name = f"derived:{function.__module__}.{function.__qualname__}"

    def get(subject: S, *args: Any) -> T:
        kept: dict[Any, T] | None = subject.__dict__.get(name)
        if kept is None:
            kept = subject.__dict__[name] = {}
        if args not in kept:
            kept[args] = cast("Callable[..., T]", function)(subject, *args)
        return kept[args]

    return cast("Callable[Concatenate[S, P], T]", update_wrapper(get, function))


class Shared:
    """Equal values become one object, for as long as somebody has it."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value that is known by ``key``, else a new one. The key must say everything that is in the value; ids of
        objects that the value holds are as good as the objects."""
        found: T | None = self._known.get(key)
        if found is None:
            found = make()
            self._known[key] = found
        return found

    def __len__(self) -> int:
        return len(self._known)
