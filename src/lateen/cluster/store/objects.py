"""All objects of the cluster in memory, in revision order, with watches; every write goes through ``persist`` first.

Invariants: revisions only increase; a watcher sees every event after its revision exactly once and in order, or gets
``Expired``; an event is announced only after it is durable; the history is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal
from weakref import WeakSet

from lateen.kit import jsons
from lateen.kit.jsons import Json

HISTORY = 4096
"""Events kept in the history, over all collections."""
HISTORY_BYTES = 16 * 1024 * 1024
"""... and the size of their objects, as JSON."""
CAPACITY = 128 * 1024 * 1024
"""Size of all objects, as JSON; as Python values they take several times as much memory."""

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class Conflict(Exception):
    """The object's revision is not the one that the writer has read."""


class Exists(Exception):
    """An object of this name already exists."""


class Missing(Exception):
    """There is no object of this name."""


class Expired(Exception):
    """The requested revision is older than the history, or the watcher was too slow."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as stored. ``obj`` must not be changed."""

    collection: str
    namespace: str
    name: str
    obj: Json
    rv: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """``entry`` is the object after the change, or its last state; ``old`` the one before."""

    type: EventType
    entry: Entry
    old: Entry | None


class Full(Exception):
    """All objects together would exceed the store's maximum size."""


class Watcher:
    """A position in the history of one collection: an unread watch takes no memory of its own."""

    def __init__(self, collection: str, namespace: str, since: int, events: deque[Event]) -> None:
        self.collection, self.namespace, self.since = collection, namespace, since
        self.lost = False
        self._events = events
        self._wake = asyncio.Event()

    def concerns(self, event: Event) -> bool:
        return event.entry.rv > self.since and (not self.namespace or event.entry.namespace == self.namespace)

    def wake(self) -> None:
        self._wake.set()

    async def next(self) -> list[Event]:
        """All events since the last call, at least one. Raises Expired if some of them are no longer kept."""
        while True:
            if self.lost:
                raise Expired
            found: list[Event] = []
            for event in reversed(self._events):
                if event.entry.rv <= self.since:
                    break
                if self.concerns(event):
                    found.append(event)
            if self._events:
                self.since = max(self.since, self._events[-1].entry.rv)
            if found:
                return found[::-1]
            self._wake.clear()
            await self._wake.wait()


Persist = Callable[[int, str, bytes | None], None]


class Store:
    """The collections, keyed by resource (``pods``, ``deployments.apps``), namespace and name."""

    def __init__(self, persist: Persist, rv: int = 1, rows: Iterable[tuple[str, int, bytes]] = ()) -> None:
        self._persist = persist
        self.rv = rv
        self._first = rv
        self._data: dict[str, dict[tuple[str, str], Entry]] = {}
        self._history: deque[Event] = deque()
        self._remembered = 0
        self._events: dict[str, deque[Event]] = {}
        self._forgotten: dict[str, int] = {}
        self._watchers: dict[str, WeakSet[Watcher]] = {}
        self.size = 0
        for key, row_rv, body in rows:
            collection, namespace, name = key.split("/", 2)
            entry = Entry(collection, namespace, name, jsons.loads(body), row_rv, len(body))
            self.size += len(body)
            self._data.setdefault(collection, {})[(namespace, name)] = entry

    def get(self, collection: str, namespace: str, name: str) -> Entry | None:
        return self._data.get(collection, {}).get((namespace, name))

    def list(self, collection: str, namespace: str = "") -> list[Entry]:
        """In name order; all namespaces if ``namespace`` is empty."""
        found = self._data.get(collection, {})
        return [found[k] for k in sorted(found) if not namespace or k[0] == namespace]

    def count(self, collection: str) -> int:
        return len(self._data.get(collection, {}))

    def collections(self) -> Iterator[str]:
        return iter(tuple(self._data))

    def create(self, collection: str, namespace: str, name: str, obj: Json) -> Entry:
        if self.get(collection, namespace, name):
            raise Exists
        return self._put("ADDED", collection, namespace, name, obj, None)

    def update(self, collection: str, namespace: str, name: str, obj: Json, expected: int | None) -> Entry:
        """``expected`` is the revision that the writer has read; None overwrites whatever is stored."""
        old = self.get(collection, namespace, name)
        if old is None:
            raise Missing
        if expected is not None and expected != old.rv:
            raise Conflict
        return self._put("MODIFIED", collection, namespace, name, obj, old)

    def delete(self, collection: str, namespace: str, name: str) -> Entry:
        old = self.get(collection, namespace, name)
        if old is None:
            raise Missing
        rv = self.rv + 1
        self._persist(rv, f"{collection}/{namespace}/{name}", None)
        self.rv = rv
        obj = old.obj | {"metadata": old.obj["metadata"] | {"resourceVersion": str(rv)}}
        entry = Entry(collection, namespace, name, obj, rv, old.size)
        del self._data[collection][(namespace, name)]
        self.size -= old.size
        self._announce(Event("DELETED", entry, old))
        return entry

    def _put(self, type_: EventType, collection: str, namespace: str, name: str, obj: Json, old: Entry | None) -> Entry:
        rv = self.rv + 1
        obj = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(rv)}}
        body = jsons.dumps(obj)
        before = old.size if old else 0
        if len(body) > before and self.size - before + len(body) > CAPACITY:
            raise Full
        self._persist(rv, f"{collection}/{namespace}/{name}", body)
        self.rv = rv
        self.size += len(body) - before
        entry = Entry(collection, namespace, name, obj, rv, len(body))
        self._data.setdefault(collection, {})[(namespace, name)] = entry
        self._announce(Event(type_, entry, old))
        return entry

    def _announce(self, event: Event) -> None:
        collection = event.entry.collection
        self._history.append(event)
        self._events.setdefault(collection, deque()).append(event)
        self._remembered += event.entry.size
        while len(self._history) > HISTORY or (self._remembered > HISTORY_BYTES and len(self._history) > 1):
            self._forget()
        for watcher in self._watchers.get(collection, ()):
            if watcher.concerns(event):
                watcher.wake()

    def _forget(self) -> None:
        """Drop the oldest event; a watcher that has not seen it yet expires."""
        event = self._history.popleft()
        collection = event.entry.collection
        self._events[collection].popleft()
        self._forgotten[collection] = event.entry.rv
        self._remembered -= event.entry.size
        for watcher in self._watchers.get(collection, ()):
            if watcher.concerns(event):
                watcher.lost = True
                watcher.wake()

    def knows(self, collection: str, since: int) -> bool:
        """Whether all of the collection's events after this revision are still kept."""
        return max(self._first, self._forgotten.get(collection, 0)) <= since <= self.rv

    def watch(self, collection: str, namespace: str, since: int) -> Watcher:
        """Every event after revision ``since``. Raises Expired if some are no longer kept."""
        if not self.knows(collection, since):
            raise Expired
        watcher = Watcher(collection, namespace, since, self._events.setdefault(collection, deque()))
        self._watchers.setdefault(collection, WeakSet()).add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.get(watcher.collection, WeakSet()).discard(watcher)
