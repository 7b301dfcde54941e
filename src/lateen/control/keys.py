"""The keys of the issuers that RequestAuthentications name.

As in Istio, istiod fetches them, not the proxies. Unlike there, no push waits for a slow server: until an issuer's keys
have been fetched its tokens are rejected, unless an earlier istiod has stored some (``kept_keys``) and the server is
currently failing.

Source: istio.io/istio ``pilot/pkg/model/jwks_resolver.go``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from lateen.api.security_policy import SecurityPolicy
from lateen.control.facts import AGAIN_S, Facts
from lateen.control.fetching import REFRESH_S
from lateen.control.kept_keys import Fetched
from lateen.control.world import World
from lateen.mesh import secured
from lateen.mesh.authentication import KeySource, Policy, source

log = logging.getLogger("lateen.control.keys")

Fetch = Callable[[KeySource, float], Awaitable[str]]
"""(source, timeout in seconds; 0 for the default) -> a key set. Raises NotFetched."""


class Keys(Facts[KeySource, float, str]):
    def __init__(self, world: World, fetch: Fetch, refresh_s: float = REFRESH_S, again_s: float = AGAIN_S) -> None:
        super().__init__("keys", lambda: world.objects.token_keys, world.know, fetch, "", again_s, refresh_s)

        self.former: Mapping[KeySource, Fetched] = {}
        """The documents that an earlier istiod fetched."""
        self._latest: dict[KeySource, Fetched] = {}

    @property
    def latest(self) -> dict[KeySource, Fetched]:
        """The keys and endpoints fetched last from the sources in use."""
        return {s: found for s, found in self._latest.items() if s in self._following}

    async def first(self, limit_s: float) -> None:
        """See ``Facts.first``; for keys that have not been fetched by then, stored ones are used."""
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
        log.info("keys of %s from before the restart are used", place.url)
        self._latest[place] = found
        return found.keys

    def missing(self, policy: Policy | secured.Policy) -> list[str] | None:
        """The problems of the documents that istiod fetches for a policy; None if it fetches none."""
        known, wanted = self._known(), _wanted_by(policy)
        wrong = [
            f"{what} cannot be fetched: {self.problems.get(s, 'not tried yet')}; {_meanwhile(s, known.get(s, ''))}"
            for what, s in wanted
            if s in self.problems or s not in known
        ]
        return wrong if wanted else None


def _meanwhile(place: KeySource, known: str) -> str:
    if known:
        return "those fetched before stay in use"
    return "no request passes" if place.endpoints else "its tokens are rejected"


def _wanted_by(policy: Policy | secured.Policy) -> list[tuple[str, KeySource]]:
    """(description, source) of the documents of a policy."""
    if isinstance(policy.spec, SecurityPolicy):
        return list(secured.sources(policy.spec))
    rules = ((r, source(r)) for r in policy.spec.jwt_rules)
    return [(f"the keys of {r.issuer or 'the issuer'}", s) for r, s in rules if s is not None]
