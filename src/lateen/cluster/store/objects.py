"""All objects of the cluster in memory, in revision order, with watches; durable through ``persist``.

Writes are committed in groups: a write changes the objects in memory at once, so the next writer sees it, and joins the
batch that is made durable next, by one fsync. Who answers a writer waits for ``durable``; who answers a reader calls
``settle`` first. A batch that cannot be made durable is undone as a whole.

Invariants: revisions only increase; an event is announced (``history``) only after it is durable.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lateen.cluster.store.history import Entry, Event, EventType, Expired, History, Watcher
from lateen.kit import jsons, tasks
from lateen.kit.jsons import Json

CAPACITY = 128 * 1024 * 1024
"""Size of all objects, as JSON; as Python values they take several times as much memory."""
MAX_OBJECT = 1536 * 1024
"""The same limit as etcd's for one request."""

ENDING = 64 * 1024
"""An object that is being deleted may be this much larger, by the marks of its deletion and of those who let it go."""
ENDING_ALL = 4 * 1024 * 1024
"""... and all such objects together: a full store can still be emptied."""


class Conflict(Exception):
    """The stored object is not the version that the writer has read."""


class Exists(Exception):
    """An object of this name already exists."""


class Missing(Exception):
    """There is no object of this name."""


class Full(Exception):
    """All objects together would exceed the store's maximum size."""


class TooLarge(Exception):
    """The object exceeds the maximum size of one."""


Row = tuple[int, str, bytes | None]
"""Revision, key (``collection/namespace/name``) and JSON; None deletes the row."""
Persist = Callable[[Sequence[Row]], None]
"""Makes rows durable, all or none of them. Raises OSError."""


@dataclass(slots=True)
class Batch:
    """Writes that become durable together. ``before``: the revision before the first one."""

    before: int
    events: list[Event] = field(default_factory=list)
    scheduled: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    failure: OSError | None = None

    async def wait(self) -> None:
        """Raises OSError where the batch could not be made durable."""
        await self.ended.wait()
        if self.failure is not None:
            raise self.failure


class Store:
    """The collections, keyed by resource (``pods``, ``deployments.apps``), namespace and name."""

    def __init__(self, persist: Persist, rv: int = 1, rows: Iterable[tuple[str, int, bytes]] = ()) -> None:
        self._persist = persist
        self.rv = rv
        self._data: dict[str, dict[tuple[str, str], Entry]] = {}
        self._order: dict[str, list[tuple[str, str]]] = {}
        """The keys of each collection, sorted."""
        self._changed: dict[str, int] = {}
        self._history = History(rv)
        self._followers: dict[str, list[Callable[[Event], None]]] = {}
        self._batch: Batch | None = None
        self.size = 0
        for key, row_rv, body in rows:
            collection, namespace, name = key.split("/", 2)
            entry = Entry(collection, namespace, name, jsons.loads(body), row_rv, len(body), body)
            self.size += len(body)
            self._data.setdefault(collection, {})[(namespace, name)] = entry
        self._order = {collection: sorted(found) for collection, found in self._data.items()}
        self.failure: OSError | None = None
        """Why what was written last could not be made durable."""

    def get(self, collection: str, namespace: str, name: str) -> Entry | None:
        return self._data.get(collection, {}).get((namespace, name))

    def list(self, collection: str, namespace: str = "") -> list[Entry]:
        """In name order; all namespaces if ``namespace`` is empty."""
        found, order = self._data.get(collection), self._order.get(collection, [])
        if not found:
            return []
        if namespace:
            end = bisect.bisect_left(order, (namespace + "\0",))
            order = order[bisect.bisect_left(order, (namespace,)) : end]
        return [found[k] for k in order]

    def changed(self, collection: str) -> int:
        """How often the collection has changed since the start, undone writes included."""
        return self._changed.get(collection, 0)

    def count(self, collection: str) -> int:
        return len(self._data.get(collection, {}))

    def collections(self) -> Iterator[str]:
        return iter(tuple(self._data))

    def create(self, collection: str, namespace: str, name: str, obj: Json) -> Entry:
        if self.get(collection, namespace, name):
            raise Exists
        return self._put("ADDED", collection, namespace, name, obj, None)

    def update(
        self, collection: str, namespace: str, name: str, obj: Json, seen: Entry | None, ending: bool = False
    ) -> Entry:
        """``seen`` is the entry that the writer has read; None overwrites whatever is stored. ``ending``: something is
        about to be deleted, and this write prepares for it."""
        old = self.get(collection, namespace, name)
        if old is None:
            raise Missing
        if seen is not None and seen is not old:
            raise Conflict
        return self._put("MODIFIED", collection, namespace, name, obj, old, ending)

    def current(self, seen: Entry) -> Entry:
        """The entry, if it is still what is stored. Raises Conflict."""
        if self.get(seen.collection, seen.namespace, seen.name) is not seen:
            raise Conflict
        return seen

    def delete(self, collection: str, namespace: str, name: str) -> Entry:
        old = self.get(collection, namespace, name)
        if old is None:
            raise Missing
        rv = self.rv + 1
        obj = old.obj | {"metadata": old.obj["metadata"] | {"resourceVersion": str(rv)}}
        entry = Entry(collection, namespace, name, obj, rv, old.size)
        self._stage(Event("DELETED", entry, old))
        return entry

    def fitting(self, obj: Json, old: Entry | None, ending: bool = False) -> tuple[Json, bytes]:
        """The object as it would be stored now. Raises TooLarge and Full; what does not grow always fits."""
        obj = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self.rv + 1)}}
        body = jsons.dumps(obj)
        before = old.size if old else 0
        ending = ending or bool(obj["metadata"].get("deletionTimestamp"))
        if len(body) > before:
            if len(body) > MAX_OBJECT + ending * ENDING:
                raise TooLarge
            if self.size - before + len(body) > CAPACITY + ending * ENDING_ALL:
                raise Full
        return obj, body

    def _put(
        self,
        type_: EventType,
        collection: str,
        namespace: str,
        name: str,
        obj: Json,
        old: Entry | None,
        ending: bool = False,
    ) -> Entry:
        obj, body = self.fitting(obj, old, ending)
        entry = Entry(collection, namespace, name, obj, self.rv + 1, len(body), body)
        self._stage(Event(type_, entry, old))
        return entry

    # --- groups of writes ----------------------------------------------------------------------------------------

    def _stage(self, event: Event) -> None:
        if self._batch is None:
            self._batch = Batch(self.rv)
        self._batch.events.append(event)
        self.rv = event.entry.rv
        self._place(event.entry, event.old, None if event.type == "DELETED" else event.entry)

    def _place(self, at: Entry, was: Entry | None, now: Entry | None) -> None:
        """Put ``now`` where ``was`` is; either may be missing."""
        collection, key = at.collection, (at.namespace, at.name)
        found, order = self._data.setdefault(collection, {}), self._order.setdefault(collection, [])
        if now is None:
            del found[key]
            del order[bisect.bisect_left(order, key)]
        else:
            found[key] = now
            if was is None:
                bisect.insort(order, key)
        self.size += (now.size if now else 0) - (was.size if was else 0)
        self._changed[collection] = self._changed.get(collection, 0) + 1

    @property
    def announced(self) -> int:
        """The latest revision that is durable: watchers have been told of everything up to it."""
        return self._batch.before if self._batch else self.rv

    def staged(self) -> Batch | None:
        """What is not durable yet; it will be when the event loop has let the other writers of this moment write."""
        batch = self._batch
        if batch is not None and not batch.scheduled:
            batch.scheduled = True
            asyncio.get_running_loop().call_soon(self.settle)
        return batch

    async def durable(self) -> None:
        """Return when everything that has been written is durable. Raises OSError where it has been undone instead."""
        if batch := self.staged():
            await batch.wait()

    def settle(self) -> OSError | None:
        """Make durable, at once, what is not yet, and announce it; where that fails, undo it and return the reason."""
        batch, self._batch = self._batch, None
        if batch is None:
            return None
        try:
            self._persist([_row(e) for e in batch.events])
        except Exception as e:  # noqa: BLE001 - whatever it was, the whole batch must be undone
            batch.failure = e if isinstance(e, OSError) else OSError(f"{type(e).__name__}: {e}")
            for event in reversed(batch.events):
                self._place(event.entry, None if event.type == "DELETED" else event.entry, event.old)
            self.rv = batch.before
        else:
            for event in batch.events:
                self._announce(event)
        finally:
            batch.ended.set()
        self.failure = batch.failure
        return batch.failure

    def recovers(self) -> bool:
        """After a failure: whether a write, of nothing, becomes durable by now."""
        try:
            self._persist([(self.rv, "", None)])
        except OSError as e:
            self.failure = e
            return False
        self.failure = None
        return True

    def follow(self, collection: str, tell: Callable[[Event], None]) -> None:
        """Call ``tell`` with every event of a collection when it is durable, before its writer has an answer."""
        self._followers.setdefault(collection, []).append(tell)

    def _announce(self, event: Event) -> None:
        self._history.add(event)
        tasks.tell(self._followers.get(event.entry.collection, ()), event)

    def knows(self, collection: str, since: int) -> bool:
        """Whether all of the collection's events after this revision are still kept."""
        return since <= self.rv and self._history.reaches(collection, since)

    def watch(self, collection: str, namespace: str, since: int) -> Watcher:
        """Every event after revision ``since``. Raises Expired if some are no longer kept."""
        if not self.knows(collection, since):
            raise Expired
        return self._history.watch(collection, namespace, since)

    def end_watches(self, collection: str, until: int | None = None) -> None:
        """End what watches a collection now, after what has been announced, or what had been at a revision."""
        self._history.end_watches(collection, until)

    def unwatch(self, watcher: Watcher) -> None:
        self._history.unwatch(watcher)


def _row(event: Event) -> Row:
    e = event.entry
    return e.rv, f"{e.collection}/{e.namespace}/{e.name}", None if event.type == "DELETED" else e.raw
