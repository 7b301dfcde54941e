"""Incremental computation: queries remember what they read and are recomputed only when that has changed.

Inputs are ``Table`` objects; a query is a method decorated with ``query``. While it runs, every table entry and every
other query that it reads is recorded as a source of its value. Replacing the contents of a table marks the queries that
depend on a changed entry, directly or indirectly. A marked query is verified the next time it is asked for: it is
recomputed if one of its sources has a different value by then, and if the result equals the former value, the former
object is kept, so that whatever depends on it stays as it is. The work is therefore proportional to the change.

The ideas are those of Salsa (https://salsa-rs.github.io/salsa/reference/algorithm.html) and Adapton; marking runs
forward along recorded readers, so that nothing unaffected is visited. Queries must be pure, must not depend on
themselves, and must read inputs through tables only. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, KeysView, Mapping
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
P = ParamSpec("P")
T = TypeVar("T")

UNUSED_STEPS = 8
"""A value that nothing depends on is dropped if nobody has asked for it for this many steps."""


class Node:
    """Something that a query can read."""

    __slots__ = ("changed", "readers")

    def __init__(self) -> None:
        self.changed = 0
        """The step in which it got its present value."""
        self.readers: set[Memo] = set()

    def touch(self, step: int) -> None:
        """From this step on it has a different value."""
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
        self.checked = -1
        self.used = 0
        self.value: Any = None

    def verify(self) -> None:
        """Bring the value up to date."""
        for source in tuple(self.suspects or ()):
            if isinstance(source, Memo) and source.suspects is not None:
                try:
                    source.verify()
                except Exception:  # noqa: BLE001 - a query that now fails may no longer be needed: recompute its reader to find out
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


class Queries:
    """All values computed from one set of tables."""

    def __init__(self) -> None:
        self.step = 0
        self.running: list[dict[Node, None]] = []
        self.asked: set[Memo] = set()
        """Values that were asked for from outside of any query."""
        self._memos: dict[Any, dict[Any, Memo]] = {}

    def ask(self, owner: Any, function: Callable[..., Any], args: Any) -> Any:
        home = self._memos.get(function)
        if home is None:
            home = self._memos[function] = {}
        memo = home.get(args)
        if memo is None:
            memo = Memo(self, home, owner, function, args)
            memo.compute()
            home[args] = memo
        elif memo.suspects is not None:
            memo.verify()
        if self.running:
            self.running[-1][memo] = None
        else:
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

    def replace(self, contents: Iterable[tuple[Table[Any, Any], Mapping[Any, Any]]]) -> None:
        """Begin the next step, in which these tables have these contents.

        If an index cannot place one of the objects, its exception is raised, and all tables and indexes keep what they
        had: everything that may fail happens before anything is changed.
        """
        changes = [change for table, content in contents if (change := table.prepare(content)) is not None]
        self.step += 1
        for memo in [m for m in self.asked if m.used < self.step - UNUSED_STEPS]:
            self.asked.discard(memo)
            if not memo.readers:
                memo.unread()
        for change in changes:
            change.table.apply(change, self.step)

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


class _Key(Node):
    """One key of a table, or one bucket of an index."""

    __slots__ = ("home", "key")

    def __init__(self, home: dict[Any, _Key], key: Any) -> None:
        super().__init__()
        self.home, self.key = home, key
        home[key] = self

    def unread(self) -> None:
        self.home.pop(self.key, None)


Move = tuple[K, dict[T, None], V | None, dict[T, None]]
"""One object in an index: its key, the buckets that it leaves, its value, the buckets that it enters."""


class Change(Generic[K, V]):
    """Another content of one table, worked out with everything that may fail, and not in effect yet."""

    def __init__(
        self, table: Table[K, V], content: Mapping[K, V], keys: list[K], moves: list[list[Move[K, Any, V]]]
    ) -> None:
        self.table, self.content, self.keys, self.moves = table, content, keys, moves


class Table(Mapping[K, V]):
    """Objects by key. Queries read single keys, all objects, or a bucket of an index."""

    def __init__(self, queries: Queries, content: Mapping[K, V]) -> None:
        self._queries, self._content = queries, content
        self._keys: dict[Any, _Key] = {}
        self._all, self._some = Node(), Node()
        self._indexes: list[Index[Any, K, V]] = []

    def index(self, buckets: Callable[[K, V], Iterable[T]]) -> Index[T, K, V]:
        """An index of the objects by the buckets that ``buckets`` assigns to each."""
        made: Index[T, K, V] = Index(self._queries, buckets)
        made.update(made.moves({}, self._content, self._content), 0)
        self._indexes.append(made)
        return made

    def prepare(self, content: Mapping[K, V]) -> Change[K, V] | None:
        """What another content changes; None where it is the present one. Values that are the same objects as before
        count as unchanged. Changes nothing yet, and raises whatever an index raises about one of the values."""
        old = self._content
        if content is old:
            return None
        changed = [k for k, v in content.items() if old.get(k) is not v]
        changed += [k for k in old if k not in content]
        return Change(self, content, changed, [i.moves(old, content, changed) for i in self._indexes])

    def apply(self, change: Change[K, V], step: int) -> None:
        """Put a prepared change into effect; cannot fail."""
        old, self._content = self._content, change.content
        if not change.keys:
            return
        for key in change.keys:
            if (node := self._keys.get(key)) is not None:
                node.touch(step)
        self._all.touch(step)
        if bool(old) != bool(change.content):
            self._some.touch(step)
        for index, moves in zip(self._indexes, change.moves, strict=True):
            index.update(moves, step)

    def __getitem__(self, key: K) -> V:
        found: V | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def get(self, key: K, default: Any = None) -> Any:
        if self._queries.running:
            self._queries.read(self._keys.get(key) or _Key(self._keys, key))
        return self._content.get(key, default)

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None  # type: ignore[arg-type]

    def _read_all(self) -> Mapping[K, V]:
        if self._queries.running:
            self._queries.read(self._all)
        return self._content

    def __iter__(self) -> Iterator[K]:
        return iter(self._read_all())

    def __len__(self) -> int:
        return len(self._read_all())

    def __bool__(self) -> bool:
        if self._queries.running:
            self._queries.read(self._some)
        return bool(self._content)

    def values(self) -> Any:
        return self._read_all().values()

    def items(self) -> Any:
        return self._read_all().items()

    def keys(self) -> KeysView[K]:
        return self._read_all().keys()


class Index(Generic[T, K, V]):
    """A table's objects by bucket; each bucket is in the order of the objects' keys."""

    def __init__(self, queries: Queries, buckets: Callable[[K, V], Iterable[T]]) -> None:
        self._queries, self._of = queries, buckets
        self._found: dict[T, dict[K, V]] = {}
        self._sorted: dict[T, tuple[V, ...]] = {}
        self._keys: dict[Any, _Key] = {}
        self._names, self._several_node = Node(), Node()
        self._several: frozenset[T] = frozenset()

    def moves(self, old: Mapping[K, V], new: Mapping[K, V], changed: Iterable[K]) -> list[Move[K, T, V]]:
        """Where the objects with these keys were and are to be. Changes nothing."""

        def buckets(key: K, value: V | None) -> dict[T, None]:
            return {} if value is None else dict.fromkeys(self._of(key, value))

        return [(k, buckets(k, old.get(k)), new.get(k), buckets(k, new.get(k))) for k in changed]

    def update(self, moves: Iterable[Move[K, T, V]], step: int) -> None:
        touched: dict[T, None] = {}
        known = len(self._found)
        added = False
        for key, left, value, entered in moves:
            for bucket in left:
                self._found[bucket].pop(key, None)
                touched[bucket] = None
            for bucket in entered:
                if bucket not in self._found:
                    added = True
                    self._found[bucket] = {}
                self._found[bucket][key] = cast(V, value)
                touched[bucket] = None
        several = {b for b in touched if len(self._found[b]) > 1}
        if several != self._several.intersection(touched):
            self._several = self._several.difference(touched) | several
            self._several_node.touch(step)
        for bucket in touched:
            self._sorted.pop(bucket, None)
            if not self._found[bucket]:
                del self._found[bucket]
            if (node := self._keys.get(bucket)) is not None:
                node.touch(step)
        if added or len(self._found) != known:
            self._names.touch(step)

    def get(self, bucket: T) -> tuple[V, ...]:
        if self._queries.running:
            self._queries.read(self._keys.get(bucket) or _Key(self._keys, bucket))
        found = self._sorted.get(bucket)
        if found is None:
            here = self._found.get(bucket)
            if here is None:
                return ()
            found = tuple(here[k] for k in sorted(here))  # type: ignore[type-var]
            self._sorted[bucket] = found
        return found

    def has(self, bucket: T) -> bool:
        return bool(self.get(bucket))

    def several(self) -> frozenset[T]:
        """Buckets with more than one object."""
        if self._queries.running:
            self._queries.read(self._several_node)
        return self._several

    def buckets(self) -> KeysView[T]:
        """Buckets that are not empty; the view is valid until the table changes."""
        if self._queries.running:
            self._queries.read(self._names)
        return self._found.keys()
