"""The keys of the issuers that RequestAuthentications name.

As in Istio, istiod fetches them, not the proxies. Unlike there, no push waits for a slow server: an issuer whose keys
have not been fetched yet has none, so that its tokens are rejected.

Source: istio.io/istio ``pilot/pkg/model/jwks_resolver.go``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lateen.control.facts import AGAIN_S, Facts
from lateen.control.fetching import REFRESH_S
from lateen.control.world import World
from lateen.mesh.authentication import KeySource, Policy, source

Fetch = Callable[[KeySource, float], Awaitable[str]]
"""(what, seconds that it may take; 0 where nothing is said) -> a key set. Raises NotFetched."""


class Keys(Facts[KeySource, float, str]):
    def __init__(self, world: World, fetch: Fetch, refresh_s: float = REFRESH_S, again_s: float = AGAIN_S) -> None:
        super().__init__("keys", lambda: world.objects.token_keys, world.know, fetch, "", again_s, refresh_s)

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
