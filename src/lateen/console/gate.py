"""Limits concurrency and time of expensive queries of the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from lateen.console.promql.values import QueryError

T = TypeVar("T")
AT_ONCE, WAITING = 2, 64
TIMEOUT_S, LONGEST_TIMEOUT_S = 30.0, 120.0


class Deadline:
    """The time by which a query has to be answered."""

    def __init__(self, limit_s: float) -> None:
        self._at = time.monotonic() + limit_s

    def check(self) -> None:
        """Raises QueryError when it is over."""
        if time.monotonic() > self._at:
            raise QueryError("timeout", "query timed out in expression evaluation")


class Gate:
    def __init__(self) -> None:
        self._places, self._waiting = asyncio.Semaphore(AT_ONCE), 0

    async def worked(self, work: Callable[[Deadline], T], limit_s: float = TIMEOUT_S) -> T:
        """In a thread, a few at a time; ``work`` looks at its deadline between its steps. Raises QueryError."""
        limit = min(max(limit_s, 0.001), LONGEST_TIMEOUT_S)
        deadline = Deadline(limit)
        await self._enter(limit)
        running = asyncio.get_running_loop().run_in_executor(None, work, deadline)
        # a client that disconnects ends the wait, not the thread: its slot is free when the work is done
        running.add_done_callback(lambda _: self._places.release())
        return await asyncio.shield(running)

    async def _enter(self, limit: float) -> None:
        if self._places.locked() and self._waiting >= WAITING:
            raise QueryError("unavailable", "too many queries are waiting; try again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(limit):
                await self._places.acquire()
        except TimeoutError:
            raise QueryError("timeout", "query timed out in query queue") from None
        finally:
            self._waiting -= 1
