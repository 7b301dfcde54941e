"""Tables of objects, which are the inputs of queries (``kit.queries``), and indexes of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, KeysView, Mapping
from typing import Any, Generic, TypeVar, cast

from lateen.kit.queries import Node, Queries

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")


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
    """New contents of one table: everything that may fail has been computed, but they are not in effect yet."""

    def __init__(
        self, table: Table[K, V], content: Mapping[K, V], keys: list[K], moves: list[list[Move[K, Any, V]]]
    ) -> None:
        self.table, self.content, self.keys, self.moves = table, content, keys, moves

    def apply(self) -> None:
        """Put it into effect; cannot fail."""
        self.table.apply(self)


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
        made.update(made.moves({}, self._content, self._content))
        self._indexes.append(made)
        return made

    def prepare(self, content: Mapping[K, V]) -> Change[K, V] | None:
        """The change that these contents would make; None if they are the current ones. Values that are the same
        objects as before count as unchanged. Changes nothing yet, and raises whatever an index raises about one of the
        values."""
        old = self._content
        if content is old:
            return None
        changed = [k for k, v in content.items() if old.get(k) is not v]
        changed += [k for k in old if k not in content]
        return Change(self, content, changed, [i.moves(old, content, changed) for i in self._indexes])

    def apply(self, change: Change[K, V]) -> None:
        """Put a prepared change into effect; cannot fail."""
        old, self._content = self._content, change.content
        if not change.keys:
            return
        for key in change.keys:
            if (node := self._keys.get(key)) is not None:
                self._queries.touch(node)
        self._queries.touch(self._all)
        if bool(old) != bool(change.content):
            self._queries.touch(self._some)
        for index, moves in zip(self._indexes, change.moves, strict=True):
            index.update(moves)

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

    def update(self, moves: Iterable[Move[K, T, V]]) -> None:
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
            self._queries.touch(self._several_node)
        for bucket in touched:
            self._sorted.pop(bucket, None)
            if not self._found[bucket]:
                del self._found[bucket]
            if (node := self._keys.get(bucket)) is not None:
                self._queries.touch(node)
        if added or len(self._found) != known:
            self._queries.touch(self._names)

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
