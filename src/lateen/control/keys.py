"""The keys of the issuers that RequestAuthentications name: fetched, kept up to date, and told to the world.

As in Istio, istiod fetches them, not the proxies. Unlike there, no push waits for a slow server: an issuer whose keys
have not been fetched yet has none, so that its tokens are rejected, and one whose keys could be fetched before keeps
these for as long as its server fails.

Source: istio.io/istio ``pilot/pkg/model/jwks_resolver.go``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from lateen.control.fetching import REFRESH_S, NotFetched
from lateen.control.world import World
from lateen.kit import tasks
from lateen.mesh.authentication import KeySource, Policy, source

log = logging.getLogger("lateen.control.keys")

AGAIN_S, LONGEST_S = 1.0, 60.0
"""Seconds after which a failed fetch is tried again: the first time, and at most."""
Fetch = Callable[[KeySource, float], Awaitable[str]]
"""(what, seconds that it may take; 0 where nothing is said) -> a key set. Raises NotFetched."""


class Keys:
    def __init__(self, world: World, fetch: Fetch, refresh_s: float = REFRESH_S, again_s: float = AGAIN_S) -> None:
        self._world, self._fetch = world, fetch
        self._refresh_s, self._again_s = refresh_s, again_s
        self._following: dict[KeySource, asyncio.Task[None]] = {}
        self._wanted: Mapping[KeySource, float] = {}
        self._answered = asyncio.Event()
        self.problems: dict[KeySource, str] = {}
        """Why the last fetch has failed, where it has."""
        self.fetched = self.failed = 0
        """How many fetches succeeded and failed since istiod started."""
        self.reported: Callable[[], None] = lambda: None
        """Called after each fetch whose outcome differs from the last one's."""

    def follow(self, wanted: Mapping[KeySource, float]) -> None:
        """Fetch these from now on, and forget all others."""
        if wanted is self._wanted:
            return
        self._wanted = wanted
        for gone in self._following.keys() - wanted.keys():
            self._following.pop(gone).cancel()
            self.problems.pop(gone, None)
            self._world.know(gone, None)
        for new in wanted.keys() - self._following.keys():
            self._following[new] = tasks.spawn(self._keep(new), f"keys {new.url}")

    def pending(self) -> bool:
        """Whether some have been neither fetched nor found to fail."""
        return any(s not in self._world.objects.token_keys for s in self._wanted)

    async def first(self, limit_s: float) -> None:
        """Wait until nothing is pending, but no longer than this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.pending():
                    self._answered.clear()
                    await self._answered.wait()

    async def _keep(self, place: KeySource) -> None:
        failures = 0
        while True:
            try:
                keys = await self._fetch(place, self._wanted.get(place, 0))
            except Exception as e:  # noqa: BLE001 - whatever one server does, it is asked again
                failures += 1
                self._failure(place, str(e) if isinstance(e, NotFetched) else f"{place.url}: {type(e).__name__}: {e}")
                await asyncio.sleep(min(self._again_s * 2 ** min(failures - 1, 10), LONGEST_S))
                continue
            failures = 0
            self._success(place, keys)
            await asyncio.sleep(self._refresh_s)

    def _success(self, place: KeySource, keys: str) -> None:
        self.fetched += 1
        if self._world.objects.token_keys.get(place) != keys:
            log.info("keys from %s", place.url)
        self._world.know(place, keys)
        self._answered.set()
        if self.problems.pop(place, None) is not None:
            self.reported()

    def _failure(self, place: KeySource, why: str) -> None:
        self.failed += 1
        if self.problems.get(place) != why:
            log.warning("no keys: %s", why)
            self.problems[place] = why
            self.reported()
        if place not in self._world.objects.token_keys:
            self._world.know(place, "")
        self._answered.set()

    def missing(self, policy: Policy) -> list[str] | None:
        """What is wrong with the keys of a policy's rules; None if istiod fetches none for it."""
        fetched = [(r, s) for r in policy.spec.jwt_rules if (s := source(r)) is not None]
        if not fetched:
            return None
        known = self._world.objects.token_keys
        return [
            f"the keys of {r.issuer or 'the issuer'} cannot be fetched: {self.problems.get(s, 'not tried yet')}; "
            + ("those fetched before stay" if known.get(s) else "its tokens are rejected")
            for r, s in fetched
            if s in self.problems or s not in known
        ]
