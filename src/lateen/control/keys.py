"""The keys of the issuers that RequestAuthentications name.

As in Istio, istiod fetches them, not the proxies. Unlike there, no push waits for a slow server: an issuer whose keys
have not been fetched yet has none, so that its tokens are rejected; unless an earlier istiod has fetched some
(``kept_keys``), and their server fails just now.

Source: istio.io/istio ``pilot/pkg/model/jwks_resolver.go``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from lateen.control.facts import AGAIN_S, Facts
from lateen.control.fetching import REFRESH_S
from lateen.control.kept_keys import Fetched
from lateen.control.world import World
from lateen.mesh.authentication import KeySource, Policy, source

log = logging.getLogger("lateen.control.keys")

Fetch = Callable[[KeySource, float], Awaitable[str]]
"""(what, seconds that it may take; 0 where nothing is said) -> a key set. Raises NotFetched."""


class Keys(Facts[KeySource, float, str]):
    def __init__(self, world: World, fetch: Fetch, refresh_s: float = REFRESH_S, again_s: float = AGAIN_S) -> None:
        super().__init__("keys", lambda: world.objects.token_keys, world.know, fetch, "", again_s, refresh_s)

        self.former: Mapping[KeySource, Fetched] = {}
        """What an earlier istiod has fetched."""
        self._latest: dict[KeySource, Fetched] = {}

    @property
    def latest(self) -> dict[KeySource, Fetched]:
        """What was fetched last of the sources that are in use."""
        return {s: found for s, found in self._latest.items() if s in self._following}

    async def first(self, limit_s: float) -> None:
        """As of all facts; keys that are not there by then are those of before."""
        await super().first(limit_s)
        for place in self._wanted:
            if place in self.former and place not in self._known():
                self._know(place, self._instead(place))

    def _success(self, place: KeySource, value: str) -> None:
        self._latest[place] = Fetched(value, time.time())
        super()._success(place, value)

    def _instead(self, place: KeySource) -> str:
        found = self.former.get(place)
        if found is None:
            return ""
        log.info("the keys from %s are those from before the restart", place.url)
        self._latest[place] = found
        return found.keys

    def missing(self, policy: Policy) -> list[str] | None:
        """What is wrong with the keys of a policy's rules; None if istiod fetches none for it."""
        fetched = [(r, s) for r in policy.spec.jwt_rules if (s := source(r)) is not None]
        if not fetched:
            return None
        known = self._known()
        return [
            f"the keys of {r.issuer or 'the issuer'} cannot be fetched: {self.problems.get(s, 'not tried yet')}; "
            + ("those fetched before stay" if known.get(s) else "its tokens are rejected")
            for r, s in fetched
            if s in self.problems or s not in known
        ]
