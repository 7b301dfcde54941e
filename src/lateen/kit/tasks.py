"""Named asyncio tasks that are kept alive and whose failures are always logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
_alive: set[asyncio.Task[Any]] = set()
log = logging.getLogger("lateen.tasks")


def spawn(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start work in the background; an exception that nobody awaits is logged with the task's name."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _alive.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[Any]) -> None:
    _alive.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task %s failed: %s: %s", task.get_name(), type(error).__name__, error, exc_info=error)


def tell(listeners: Iterable[Callable[..., None]], *what: object) -> None:
    """Call each listener; a failing one is logged and does not affect the others."""
    for told in tuple(listeners):
        try:
            told(*what)
        except Exception:
            log.exception("listener %s failed", getattr(told, "__qualname__", told))


async def forever(step: Callable[[], Awaitable[None]], name: str, pause: float = 1.0) -> None:
    """Repeat ``step``; a failure is logged, then retried after ``pause`` seconds (doubling up to 30)."""
    wait = pause
    while True:
        try:
            await step()
            wait = pause
        except asyncio.CancelledError:
            raise
        except Exception as e:  # noqa: BLE001 - a supervised loop must survive any single failure
            log.warning("%s: %s: %s (again in %.0f s)", name, type(e).__name__, e, wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, 30.0)


async def until_done(step: Callable[[], Awaitable[None]], name: str, pause: float = 1.0) -> None:
    """Like ``forever``, but ends with the first success."""
    wait = pause
    while True:
        try:
            return await step()
        except Exception as e:  # noqa: BLE001 - as above
            log.warning("%s: %s: %s (again in %.0f s)", name, type(e).__name__, e, wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, 30.0)


async def cancel(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they have finished."""
    live = [t for t in tasks if t is not None]
    for task in live:
        task.cancel()
    await asyncio.gather(*live, return_exceptions=True)
