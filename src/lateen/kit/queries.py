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

UNUSED = 8
"""A value without dependents is dropped if it was not read while tables got new contents this many times."""
HUB = 32
"""A value with more readers than this is brought up to date at once: often it comes out equal, and then none of them
has to be marked."""


class Node:
    """Something that a query can read."""

    __slots__ = ("changed", "readers")

    def __init__(self) -> None:
        self.changed = 0
        """The step in which it got its current value."""
        self.readers: set[Reader] = set()

    def unread(self) -> None:
        """Called when nothing depends on it any more."""


class Reader(Node):
    """Something that reads."""

    __slots__ = ("checked", "suspects")

    def __init__(self) -> None:
        super().__init__()
        self.checked = -1
        """The last step in which it was up to date."""
        self.suspects: set[Node] | None = None
        """Sources that may have changed since then; None if none can have."""

    def outdated(self) -> bool:
        """Whether one of the suspects has changed."""
        for source in tuple(self.suspects or ()):
            if isinstance(source, Memo) and source.suspects is not None:
                try:
                    source.verify()
                except Exception:  # noqa: BLE001 - a failing query may no longer be needed: its reader finds out
                    return True
            if source.changed > self.checked:
                return True
        return False


class Memo(Reader):
    """The value of one query for one set of arguments."""

    __slots__ = ("args", "function", "home", "owner", "queries", "sources", "used", "value")

    def __init__(
        self, queries: Queries, home: dict[Any, Memo], owner: Any, function: Callable[..., Any], args: Any
    ) -> None:
        super().__init__()
        self.queries, self.home, self.owner, self.function, self.args = queries, home, owner, function, args
        self.sources: dict[Node, None] = {}
        self.used = -1
        self.value: Any = None

    def verify(self) -> None:
        """Bring the value up to date."""
        if self.outdated():
            self.compute()
        else:
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

    def apply(self) -> None:
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
        self._replaced = 0
        """How often tables got new contents."""
        self._hubs: list[tuple[Memo, int]] = []
        """Marked values whose readers are not marked yet, and when they had last changed."""
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
        elif memo.used != self._replaced:
            memo.used = self._replaced
            self.asked.add(memo)
        return memo.value

    def read(self, node: Node) -> None:
        """Record a read; called by tables while a query runs."""
        self.running[-1][node] = None

    @staticmethod
    def release(source: Node, reader: Reader) -> None:
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
        self._replaced += 1
        for memo in [m for m in self.asked if m.used < self._replaced - UNUSED]:
            self.asked.discard(memo)
            if not memo.readers:
                memo.unread()
        for change in changes:
            change.apply()
        while self._hubs:
            self._pass_on(*self._hubs.pop())

    def touch(self, node: Node) -> None:
        """Record that a value differs from this step on, and mark what depends on it."""
        node.changed = self.step
        marks: list[tuple[Reader, Node]] = [(reader, node) for reader in node.readers]
        while marks:
            reader, source = marks.pop()
            if reader.suspects is not None:
                reader.suspects.add(source)
                continue
            reader.suspects = {source}
            if isinstance(reader, Memo) and len(reader.readers) > HUB:
                self._hubs.append((reader, reader.changed))
            else:
                marks += [(further, reader) for further in reader.readers]

    def _pass_on(self, hub: Memo, before: int) -> None:
        """Mark the readers of a hub if its value has changed. That is a step of its own, since what has been computed
        in this one may have read values that are only marked now."""
        if not hub.readers:
            return
        try:
            if hub.suspects is not None:
                hub.verify()
        except Exception:  # noqa: BLE001 - its readers find out
            pass
        else:
            if hub.changed == before:
                return
        self.step += 1
        self.touch(hub)

    def __len__(self) -> int:
        """The number of values kept."""
        return sum(map(len, self._memos.values()))


class Watch(Reader):
    """Tells code outside of all queries whether what it has read has changed since."""

    __slots__ = ("_queries", "_sources")

    def __init__(self, queries: Queries) -> None:
        super().__init__()
        self._queries = queries
        self._sources: dict[Node, None] = {}

    def __enter__(self) -> None:
        """Watch what is read in this block instead of what was read before. Not for use in queries."""
        self._queries.running.append({})

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._follow(self._queries.running.pop())
        self.suspects, self.checked = None, self._queries.step if failed is None else -1

    def fresh(self) -> bool:
        """Whether all that was read is still the same; not before anything was."""
        if self.checked < 0 or self.suspects is None:
            return self.checked >= 0
        if self.outdated():
            return False
        self.suspects, self.checked = None, self._queries.step
        return True

    def close(self) -> None:
        """Watch nothing any more, so that it need not be kept."""
        self._follow({})
        self.checked = -1

    def _follow(self, sources: dict[Node, None]) -> None:
        old, self._sources = self._sources, sources
        if sources.keys() != old.keys():
            for source in sources:
                source.readers.add(self)
            for source in old:
                if source not in sources:
                    self._queries.release(source, self)


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
