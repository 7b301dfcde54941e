"""Resumes waiting tasks in batches: writes of many tasks at the same moment cost little more than one."""

from __future__ import annotations

import asyncio
from collections import deque


class Rounds:
    """``pause``: seconds from the first arrival until a batch is resumed; ``between``: seconds between batches if more
    than ``size`` tasks wait, so that other work gets its turn."""

    def __init__(self, pause: float, size: int = 16, between: float | None = None) -> None:
        self._pause, self._size = pause, size
        self._between = pause if between is None else between
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def turn(self) -> None:
        """Return in the next round, in the order of arrival."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting.append(mine)
        if self._timer is None:
            self._timer = loop.call_later(self._pause, self._release)
        await mine

    def _release(self) -> None:
        left = self._size
        while self._waiting and left:
            one = self._waiting.popleft()
            if not one.done():  # cancelled tasks need no turn
                one.set_result(None)
                left -= 1
        again = asyncio.get_running_loop().call_later
        self._timer = again(self._between, self._release) if self._waiting else None
