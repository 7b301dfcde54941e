"""Values that are computed once, and freed with the immutable object they derive from, or with their last user."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


def derived(function: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Cache a function's result in its first argument, keyed by the others: there is no capacity to tune, and no result
    outlives its subject.

    The first argument must be an instance of a class with a ``__dict__``; the others must be hashable.
    """
    name = f"derived:{function.__module__}.{function.__qualname__}"

    def get(subject: S, *args: Any) -> T:
        kept: dict[Any, T] | None = subject.__dict__.get(name)
        if kept is None:
            kept = subject.__dict__[name] = {}
        try:
            return kept[args]
        except KeyError:
            found = kept[args] = cast("Callable[..., T]", function)(subject, *args)
            return found

    return cast("Callable[Concatenate[S, P], T]", update_wrapper(get, function))


class Shared:
    """Interns values: equal ones become one object, for as long as something refers to it."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """The existing value for ``key``, or else a new one. The key must determine the value; ids of objects that the
        value refers to serve as well as the objects."""
        found: T | None = self._known.get(key)
        if found is None:
            found = make()
            self._known[key] = found
        return found

    def __len__(self) -> int:
        return len(self._known)


def held(function: Callable[P, T]) -> Callable[P, T]:
    """Equal arguments return the same object, for as long as something refers to it. Arguments must be hashable and
    positional; results must support weak references."""
    known = Shared()

    def get(*args: Any) -> T:
        return known(args, lambda: cast("Callable[..., T]", function)(*args))

    return cast("Callable[P, T]", update_wrapper(get, function))
