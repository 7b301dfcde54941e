"""End users' tokens: the rules that apply to a workload, and the keys that verify them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.claims import DISCOVERY
from lateen.api.security import JWTRule, RequestAuthentication
from lateen.kit import jwks

Policy = o.Resource[RequestAuthentication]


class KeySource(NamedTuple):
    """The URL from which istiod fetches an issuer's keys."""

    url: str
    discovered: bool
    """Whether the document at the URL refers to the keys (OpenID Connect Discovery)."""
    endpoints: bool = False
    """Whether the endpoints for logins are wanted, which are in the document itself."""


@dataclass(frozen=True)
class Authentication:
    """The tokens that a workload accepts."""

    policies: tuple[Policy, ...] = ()
    keys: tuple[str, ...] = ()
    """The key set for each rule of each policy, as JSON; empty if it is unavailable, so that its tokens are
    rejected."""

    def __iter__(self) -> Iterator[tuple[JWTRule, str]]:
        """Each rule with its keys, ordered by issuer as in Istio."""
        rules = [r for p in self.policies for r in p.spec.jwt_rules]
        return iter(sorted(zip(rules, self.keys, strict=True), key=lambda found: found[0].issuer))

    def __bool__(self) -> bool:
        return bool(self.keys)


UNAUTHENTICATED = Authentication()


def source(rule: JWTRule) -> KeySource | None:
    """The source of a rule's keys; None if they are inline, or if the rule does not say where they are."""
    if rule.jwks:
        return None
    if uri := rule.jwks_uri or rule.jwks_uri_old:
        return KeySource(uri, False)
    if rule.issuer.startswith(("https://", "http://")):
        return KeySource(rule.issuer.rstrip("/") + DISCOVERY, True)
    return None


def sources(policies: Iterable[Policy]) -> dict[KeySource, float]:
    """All sources to fetch -> the timeout in seconds; 0 if no rule has one."""
    out: dict[KeySource, float] = {}
    for p in policies:
        for rule in p.spec.jwt_rules:
            if (found := source(rule)) is not None:
                out[found] = max(out.get(found, 0), rule.timeout.seconds if rule.timeout else 0)
    return out


def accepted(policies: tuple[Policy, ...], fetched: Mapping[KeySource, str]) -> Authentication:
    rules = [r for p in policies for r in p.spec.jwt_rules]
    return Authentication(policies, tuple(keys_of(r, fetched) for r in rules)) if rules else UNAUTHENTICATED


def keys_of(rule: JWTRule, fetched: Mapping[KeySource, str]) -> str:
    """The key set of a rule, as JSON; empty if it is unavailable."""
    if rule.jwks:
        try:
            return jwks.usable(rule.jwks)
        except ValueError:
            return ""
    found = source(rule)
    return fetched.get(found, "") if found is not None else ""
