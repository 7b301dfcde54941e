"""The latest events of all collections, and who watches them: bounded, in the order of revisions.

A watcher sees every event after its revision exactly once and in order, or gets ``Expired``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal
from weakref import WeakSet

from lateen.kit.jsons import Json

HISTORY = 4096
"""Events kept in the history, over all collections."""
HISTORY_BYTES = 16 * 1024 * 1024
"""... and the size of their objects, as JSON."""

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class Expired(Exception):
    """The requested revision is older than the history, or the watcher was too slow."""


class Ended(Exception):
    """Nothing more comes, because objects of this collection are served in another way now."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Entry:
    """One object as stored. ``obj`` must not be changed; ``raw`` is its JSON (a deleted object has none). What is made
    of an entry can be kept for as long as the entry itself."""

    collection: str
    namespace: str
    name: str
    obj: Json
    rv: int
    size: int = 0
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Event:
    """``entry`` is the object after the change, or its last state; ``old`` the one before."""

    type: EventType
    entry: Entry
    old: Entry | None


class Watcher:
    """A position in the history of one collection: an unread watch takes no memory of its own."""

    def __init__(self, collection: str, namespace: str, since: int, events: deque[Event]) -> None:
        self.collection, self.namespace, self.since = collection, namespace, since
        self.lost = self.ended = False
        self.until: int | None = None
        """The last revision that it is told of, where it ends."""
        self._events = events
        self._wake = asyncio.Event()

    def concerns(self, event: Event) -> bool:
        rv = event.entry.rv
        within = rv > self.since and (self.until is None or rv <= self.until)
        return within and (not self.namespace or event.entry.namespace == self.namespace)

    def wake(self) -> None:
        self._wake.set()

    async def next(self) -> list[Event]:
        """All events since the last call, at least one. Raises Ended; Expired if some of them are no longer kept."""
        while True:
            if found := self.take():
                return found
            if self.ended:
                raise Ended
            self._wake.clear()
            await self._wake.wait()

    def take(self) -> list[Event]:
        """As ``next``, but none if there is none yet."""
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
        return found[::-1]


class History:
    def __init__(self, rv: int) -> None:
        """``rv``: the revision from which on events are kept."""
        self._first = rv
        self._all: deque[Event] = deque()
        self._bytes = 0
        self._events: dict[str, deque[Event]] = {}
        self._forgotten: dict[str, int] = {}
        self._watchers: dict[str, WeakSet[Watcher]] = {}

    def add(self, event: Event) -> None:
        """Tell the watchers, and forget what is one too many."""
        collection = event.entry.collection
        self._all.append(event)
        self._events.setdefault(collection, deque()).append(event)
        self._bytes += event.entry.size
        while len(self._all) > HISTORY or (self._bytes > HISTORY_BYTES and len(self._all) > 1):
            self._forget()
        for watcher in self._watchers.get(collection, ()):
            if watcher.concerns(event):
                watcher.wake()

    def _forget(self) -> None:
        """Drop the oldest event; a watcher that has not seen it yet expires."""
        event = self._all.popleft()
        collection = event.entry.collection
        self._events[collection].popleft()
        self._forgotten[collection] = event.entry.rv
        self._bytes -= event.entry.size
        for watcher in self._watchers.get(collection, ()):
            if watcher.concerns(event):
                watcher.lost = True
                watcher.wake()

    def reaches(self, collection: str, since: int) -> bool:
        """Whether all of the collection's events after this revision are still kept."""
        return max(self._first, self._forgotten.get(collection, 0)) <= since

    def watch(self, collection: str, namespace: str, since: int) -> Watcher:
        watcher = Watcher(collection, namespace, since, self._events.setdefault(collection, deque()))
        self._watchers.setdefault(collection, WeakSet()).add(watcher)
        return watcher

    def end_watches(self, collection: str, until: int | None) -> None:
        for watcher in self._watchers.get(collection, ()):
            watcher.ended, watcher.until = True, until if watcher.until is None else watcher.until
            watcher.wake()

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.get(watcher.collection, WeakSet()).discard(watcher)
