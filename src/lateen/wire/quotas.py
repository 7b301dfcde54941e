"""The protocol between proxies and istiod for global rate limits (Envoy's rate limit quota service).

A bucket identifies the limit that a proxy wants a share of: ``rule`` is ``namespace/policy/position of the rule``,
``value`` the caller, if each has its own limit.
"""

from __future__ import annotations

import math

METHOD = "/envoy.service.rate_limit_quota.v3.RateLimitQuotaService/StreamRateLimitQuotas"
DOMAIN = "lateen"
RULE, VALUE = "rule", "value"
NOBODY = "-"
"""The value of callers without an identity: they share a bucket."""
REPORT_S = 5
"""How often proxies report."""
UNITS_S = {"Second": 1, "Minute": 60, "Hour": 3600, "Day": 86400}
SMALL = 10
BURST = 0.4


def name(namespace: str, policy: str, position: int) -> str:
    return f"{namespace}/{policy}/{position}"


def burst(requests: float, unit: str) -> int:
    """The burst size: requests that may come at once after a pause.

    A bucket for a whole second's requests would let 10 % too many through in ten seconds, so it is smaller; small
    limits get a full bucket, because users who try them expect exactly that number.
    """
    if unit != "Second" or requests < SMALL:
        return max(1, math.ceil(requests))
    return math.ceil(requests * BURST)
