"""All objects of the cluster in memory, in revision order, with watches; every write goes through ``persist`` first.

Invariants: revisions only grow; a watcher sees every event after its revision exactly once and in order, or is
told ``Expired``; an event is announced only after it is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from lateen.kit import jsons
from lateen.kit.jsons import Json

HISTORY = 4096
WATCHER_QUEUE = 8192

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class Conflict(Exception):
    """The object's revision is not the one that the writer had read."""


class Exists(Exception):
    """An object of this name is already there."""


class Missing(Exception):
    """There is no object of this name."""


class Expired(Exception):
    """The revision asked for is older than the history that is kept, or the watcher was too slow."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as stored. ``obj`` must not be changed."""

    collection: str
    namespace: str
    name: str
    obj: Json
    rv: int


@dataclass(frozen=True, slots=True)
class Event:
    """``entry`` is the object after the change, or as it last was; ``old`` the one before it."""

    type: EventType
    entry: Entry
    old: Entry | None


class Watcher:
    """A bounded queue of events of one collection. Iterate it; it ends with Expired when it fell behind."""

    def __init__(self, namespace: str, wake: asyncio.Event) -> None:
        self.namespace = namespace
        self.queue: deque[Event] = deque()
        self.lost = False
        self._wake = wake

    def offer(self, event: Event) -> None:
        if self.namespace and event.entry.namespace != self.namespace:
            return
        if len(self.queue) >= WATCHER_QUEUE:
            self.lost = True
        else:
            self.queue.append(event)
        self._wake.set()

    async def next(self) -> list[Event]:
        """All waiting events, at least one. Raises Expired."""
        while not self.queue:
            if self.lost:
                raise Expired
            self._wake.clear()
            await self._wake.wait()
        out = list(self.queue)
        self.queue.clear()
        return out


Persist = Callable[[int, str, bytes | None], None]


class Store:
    """The collections, keyed by resource (``pods``, ``deployments.apps``), namespace and name."""

    def __init__(self, persist: Persist, rv: int = 1, rows: Iterable[tuple[str, int, bytes]] = ()) -> None:
        self._persist = persist
        self.rv = rv
        self._first = rv
        self._data: dict[str, dict[tuple[str, str], Entry]] = {}
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._watchers: dict[str, set[Watcher]] = {}
        for key, row_rv, body in rows:
            collection, namespace, name = key.split("/", 2)
            entry = Entry(collection, namespace, name, jsons.loads(body), row_rv)
            self._data.setdefault(collection, {})[(namespace, name)] = entry

    def get(self, collection: str, namespace: str, name: str) -> Entry | None:
        return self._data.get(collection, {}).get((namespace, name))

    def list(self, collection: str, namespace: str = "") -> list[Entry]:
        """In name order; all namespaces where ``namespace`` is empty."""
        found = self._data.get(collection, {})
        return [found[k] for k in sorted(found) if not namespace or k[0] == namespace]

    def collections(self) -> Iterator[str]:
        return iter(tuple(self._data))

    def create(self, collection: str, namespace: str, name: str, obj: Json) -> Entry:
        if self.get(collection, namespace, name):
            raise Exists
        return self._put("ADDED", collection, namespace, name, obj, None)

    def update(self, collection: str, namespace: str, name: str, obj: Json, expected: int | None) -> Entry:
        """``expected`` is the revision that the writer has read; None overwrites whatever is there."""
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
        entry = Entry(collection, namespace, name, obj, rv)
        del self._data[collection][(namespace, name)]
        self._announce(Event("DELETED", entry, old))
        return entry

    def _put(self, type_: EventType, collection: str, namespace: str, name: str, obj: Json, old: Entry | None) -> Entry:
        rv = self.rv + 1
        obj = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(rv)}}
        self._persist(rv, f"{collection}/{namespace}/{name}", jsons.dumps(obj))
        self.rv = rv
        entry = Entry(collection, namespace, name, obj, rv)
        self._data.setdefault(collection, {})[(namespace, name)] = entry
        self._announce(Event(type_, entry, old))
        return entry

    def _announce(self, event: Event) -> None:
        self._history.append(event)
        for watcher in self._watchers.get(event.entry.collection, ()):
            watcher.offer(event)

    def watch(self, collection: str, namespace: str, since: int) -> Watcher:
        """Every event after revision ``since``. Raises Expired where that is no longer known."""
        oldest = self._history[0].entry.rv - 1 if len(self._history) == HISTORY else self._first
        if since < oldest or since > self.rv:
            raise Expired
        watcher = Watcher(namespace, asyncio.Event())
        for event in self._history:
            if event.entry.rv > since and event.entry.collection == collection:
                watcher.offer(event)
        self._watchers.setdefault(collection, set()).add(watcher)
        return watcher

    def unwatch(self, collection: str, watcher: Watcher) -> None:
        self._watchers.get(collection, set()).discard(watcher)
