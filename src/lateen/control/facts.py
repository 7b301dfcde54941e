"""Documents that users' objects name by URL: fetched, refreshed, and stored in the world.

istiod fetches them, not the proxies. No push waits for a slow server, and a document that was fetched before is kept
as long as its server fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

from lateen.control.fetching import NotFetched
from lateen.kit import tasks

log = logging.getLogger("lateen.control.facts")

AGAIN_S, LONGEST_S = 1.0, 60.0
"""Seconds after which a failed fetch is retried: initially, and at most."""
RETRIES = 4
"""How many sources that have failed are tried again at a time: fewer than are fetched at once (``fetching.AT_ONCE``),
so that servers that do not answer hold up others only until each has failed once."""
S = TypeVar("S", bound=Hashable)
A = TypeVar("A")
V = TypeVar("V")


class Facts(Generic[S, A, V]):
    """Sources ``S``, with arguments ``A`` from the mesh, and values ``V``."""

    def __init__(
        self,
        what: str,
        known: Callable[[], Mapping[S, V]],
        know: Callable[[S, V | None], None],
        fetch: Callable[[S, A], Awaitable[V]],
        failed: V,
        again_s: float = AGAIN_S,
        refresh_s: float | None = None,
    ) -> None:
        """``known`` and ``know``: read and write the world's values; None for those no longer wanted. ``fetch``
        raises NotFetched. ``failed``: the value stored if fetching fails. ``refresh_s``: seconds after which a value is
        fetched again; None for never."""
        self._what, self._known, self._know, self._fetch, self._none = what, known, know, fetch, failed
        self._again_s, self._refresh_s = again_s, refresh_s
        self._following: dict[S, asyncio.Task[None]] = {}
        self._retrying = asyncio.Semaphore(RETRIES)
        self._wanted: Mapping[S, A] = {}
        self._answered = asyncio.Event()
        self.problems: dict[S, str] = {}
        """Why the last fetch of a source failed, if it did."""
        self.fetched = self.failed = 0
        """The numbers of successful and failed fetches since istiod started."""
        self.reported: Callable[[], None] = lambda: None
        """Called after each fetch whose outcome differs from the previous one's."""

    def follow(self, wanted: Mapping[S, A]) -> None:
        """Fetch and refresh these from now on, and forget all others."""
        if wanted is self._wanted:
            return
        before, self._wanted = self._wanted, wanted
        for new in wanted.keys() - self._following.keys():
            self._begin(new, before)
            self._following[new] = tasks.spawn(self._keep(new), f"{self._what} {new}")
        for gone in self._following.keys() - wanted.keys():
            self._following.pop(gone).cancel()
            self.problems.pop(gone, None)
            self._know(gone, None)

    def _begin(self, new: S, before: Mapping[S, A]) -> None:
        """Called before the first fetch; ``before``: what was wanted until now."""

    def _instead(self, _place: S) -> V:
        """The value stored while a source could not be fetched yet."""
        return self._none

    def pending(self) -> bool:
        """Whether some sources have neither been fetched nor failed yet."""
        return any(s not in self._known() for s in self._wanted)

    async def first(self, limit_s: float) -> None:
        """Wait until nothing is pending, but no longer than this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.pending():
                    self._answered.clear()
                    await self._answered.wait()

    async def _keep(self, place: S) -> None:
        failures = 0
        while True:
            try:
                async with self._retrying if failures else contextlib.nullcontext():
                    value = await self._fetch(place, self._wanted[place])
            except Exception as e:  # noqa: BLE001 - whatever the server does, retry
                failures += 1
                self._failure(place, str(e) if isinstance(e, NotFetched) else f"{type(e).__name__}: {e}")
                await asyncio.sleep(min(self._again_s * 2 ** min(failures - 1, 10), LONGEST_S))
                continue
            failures = 0
            self._success(place, value)
            if self._refresh_s is None:
                return
            await asyncio.sleep(self._refresh_s)

    def _success(self, place: S, value: V) -> None:
        self.fetched += 1
        if self._known().get(place) != value:
            log.info("fetched %s", place)
        self._know(place, value)
        self._answered.set()
        if self.problems.pop(place, None) is not None:
            self.reported()

    def _failure(self, place: S, why: str) -> None:
        self.failed += 1
        if self.problems.get(place) != why:
            log.warning("no %s: %s", self._what, why)
            self.problems[place] = why
            self.reported()
        if place not in self._known():
            self._know(place, self._instead(place))
        self._answered.set()
