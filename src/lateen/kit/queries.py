"""Incremental computation: queries remember what they read and are recomputed only when that has changed.

Inputs are tables (``kit.tables``); a query is a method decorated with ``query``. While it runs, every table entry
and every other query that it reads is recorded as a source of its value. Replacing a table's contents marks the queries
that depend on a changed entry, directly or indirectly. A marked query is verified the next time it is read: it is
recomputed if one of its sources has a different value by then, and if the result equals the former value, the former
object is kept, so its dependents stay valid. The work is therefore proportional to the change.

The ideas are those of Salsa (https://salsa-rs.github.io/salsa/reference/algorithm.html) and Adapton; marking runs
forward along recorded readers, so that nothing unaffected is visited. Queries must be pure, must not depend on
themselves, and must read inputs through tables only. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

UNUSED_STEPS = 8
"""A value without dependents is dropped if it was not read for this many steps."""


class Node:
    """Something that a query can read."""

    __slots__ = ("changed", "readers")

    def __init__(self) -> None:
        self.changed = 0
        """The step in which it got its current value."""
        self.readers: set[Memo] = set()

    def touch(self, step: int) -> None:
        """Record that its value differs from this step on."""
        self.changed = step
        marks: list[tuple[Memo, Node]] = [(reader, self) for reader in self.readers]
        while marks:
            reader, source = marks.pop()
            if reader.suspects is None:
                reader.suspects = {source}
                marks += [(further, reader) for further in reader.readers]
            else:
                reader.suspects.add(source)

    def unread(self) -> None:
        """Called when nothing depends on it any more."""


class Memo(Node):
    """The value of one query for one set of arguments."""

    __slots__ = ("args", "checked", "function", "home", "owner", "queries", "sources", "suspects", "used", "value")

    def __init__(
        self, queries: Queries, home: dict[Any, Memo], owner: Any, function: Callable[..., Any], args: Any
    ) -> None:
        super().__init__()
        self.queries, self.home, self.owner, self.function, self.args = queries, home, owner, function, args
        self.sources: dict[Node, None] = {}
        self.suspects: set[Node] | None = None
        """Sources that may have changed since this value was computed."""
        self.checked = self.used = -1
        self.value: Any = None

    def verify(self) -> None:
        """Bring the value up to date."""
        for source in tuple(self.suspects or ()):
            if isinstance(source, Memo) and source.suspects is not None:
                try:
                    source.verify()
                except Exception:  # noqa: BLE001 - a failing query may no longer be needed: recompute its reader
                    self.compute()
                    return
            if source.changed > self.checked:
                self.compute()
                return
        self.suspects = None
        self.checked = self.queries.step

    def compute(self) -> None:
        queries = self.queries
        sources: dict[Node, None] = {}
        queries.running.append(sources)
        try:
            value = self.function(self.owner, *self.args)
        finally:
            queries.running.pop()
        for source in sources:
            source.readers.add(self)
        old, self.sources = self.sources, sources
        for source in old:
            if source not in sources:
                queries.release(source, self)
        self.suspects = None
        first = self.checked < 0
        self.checked = queries.step
        if first or not (value is self.value or value == self.value):
            self.value = value
            self.changed = queries.step

    def unread(self) -> None:
        if self not in self.queries.asked:
            self.home.pop(self.args, None)
            for source in self.sources:
                self.queries.release(source, self)
            self.sources = {}


class Prepared(Protocol):
    """New contents of an input that are not in effect yet."""

    def apply(self, step: int) -> None:
        """Put it into effect; cannot fail."""


class Input(Protocol):
    """A source of data for queries (``kit.tables.Table``)."""

    def prepare(self, content: Mapping[Any, Any], /) -> Prepared | None:
        """The change that these contents would make; None if they are the current ones. Changes nothing yet; may raise
        an exception."""


class Queries:
    """All values computed from one set of tables."""

    def __init__(self) -> None:
        self.step = 0
        self.running: list[dict[Node, None]] = []
        self.asked: set[Memo] = set()
        """Values that were read from outside of any query."""
        self._memos: dict[Any, dict[Any, Memo]] = {}

    def ask(self, owner: Any, function: Callable[..., Any], args: Any) -> Any:
        try:
            memo = self._memos[function][args]
        except KeyError:
            home = self._memos.setdefault(function, {})
            memo = Memo(self, home, owner, function, args)
            memo.compute()
            home[args] = memo
        if memo.suspects is not None:
            memo.verify()
        if self.running:
            self.running[-1][memo] = None
        elif memo.used != self.step:
            memo.used = self.step
            self.asked.add(memo)
        return memo.value

    def read(self, node: Node) -> None:
        """Record a read; called by tables while a query runs."""
        self.running[-1][node] = None

    @staticmethod
    def release(source: Node, reader: Memo) -> None:
        source.readers.discard(reader)
        if not source.readers:
            source.unread()

    def replace(self, contents: Iterable[tuple[Input, Mapping[Any, Any]]]) -> None:
        """Begin the next step, with new contents for these tables.

        If an index cannot place one of the objects, its exception is raised, and all tables and indexes keep their
        contents: everything that may fail happens before anything is changed.
        """
        changes = [change for table, content in contents if (change := table.prepare(content)) is not None]
        self.step += 1
        for memo in [m for m in self.asked if m.used < self.step - UNUSED_STEPS]:
            self.asked.discard(memo)
            if not memo.readers:
                memo.unread()
        for change in changes:
            change.apply(self.step)

    def __len__(self) -> int:
        """The number of values kept."""
        return sum(map(len, self._memos.values()))


class HasQueries(Protocol):
    @property
    def queries(self) -> Queries: ...


O = TypeVar("O", bound=HasQueries)  # noqa: E741 - the owner


def query(function: Callable[Concatenate[O, P], T]) -> Callable[Concatenate[O, P], T]:
    """Decorates a method whose result is cached. Arguments must be hashable and should be small: strings, frozen
    values."""

    def ask(self: O, *args: Any) -> T:
        return cast(T, self.queries.ask(self, function, args))

    return cast("Callable[Concatenate[O, P], T]", update_wrapper(ask, function))
