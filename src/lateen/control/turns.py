"""Fair concurrency limits, so that one tenant does not keep all others waiting."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """At most ``most`` at a time, and ``each`` of one group. Among waiting groups, the one with the fewest running
    tasks is next, and among several such groups the one that has waited longest."""

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._working: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, group: str) -> AsyncIterator[None]:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(group, deque()).append(mine)
        self._admit()
        try:
            await mine
            yield
        finally:
            if mine.done() and not mine.cancelled():
                self._working[group] -= 1
                self._working += Counter()  # drops groups without running tasks
            else:
                self._leave(group, mine)
            self._admit()

    def _leave(self, group: str, mine: asyncio.Future[None]) -> None:
        queue = self._waiting.get(group, deque())
        if mine in queue:
            queue.remove(mine)
        if not queue:
            self._waiting.pop(group, None)

    def _admit(self) -> None:
        while self._working.total() < self._most:
            free = [g for g in self._waiting if self._working[g] < self._each]
            if not free:
                return
            group = min(free, key=lambda g: self._working[g])
            queue = self._waiting.pop(group)
            chosen = queue.popleft()
            if queue:
                self._waiting[group] = queue  # after those that have waited as long
            if not chosen.cancelled():
                self._working[group] += 1
                chosen.set_result(None)
