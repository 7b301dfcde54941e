"""Claims of end users' tokens, in the syntax of rules.

Source: https://istio.io/latest/docs/reference/config/security/jwt/.
"""

from __future__ import annotations

import re

_ROUTED = re.compile(r"@request\.auth\.claims(?:\.(?P<dotted>.+)|\[(?P<listed>.+)\])", re.IGNORECASE)
DISCOVERY = "/.well-known/openid-configuration"
"""The path of an issuer's metadata (OpenID Connect Discovery 1.0, section 4)."""


def routed(header: str) -> tuple[str, ...] | None:
    """The path of the claim that a route matches instead of a header: ``@request.auth.claims.a.b`` and
    ``@request.auth.claims[a][b]`` are claim b within claim a. None for real headers. Validation rejects empty names."""
    found = _ROUTED.fullmatch(header)
    if found is None:
        return None
    return tuple(found["dotted"].split(".") if found["dotted"] else found["listed"].split("]["))


def conditioned(key: str) -> tuple[str, ...]:
    """The path of the claim in a condition: ``request.auth.claims[a][b]``."""
    return tuple(key.removeprefix("request.auth.claims[").removesuffix("]").split("]["))
