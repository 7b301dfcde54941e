"""What proxies and istiod say to each other about global rate limits (Envoy's rate limit quota service).

A proxy asks for a share of a limit by a bucket: ``rule`` is ``namespace/policy/position of the rule``, ``value`` the
caller where each has a limit of its own.
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
    """How many requests may come at once after a pause.

    A bucket that holds a whole second's requests lets 10 % more through in ten seconds than asked for, so that it holds
    less; with a small limit, whoever tries it expects all of them.
    """
    if unit != "Second" or requests < SMALL:
        return max(1, math.ceil(requests))
    return math.ceil(requests * BURST)
