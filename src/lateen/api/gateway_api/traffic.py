"""XBackendTrafficPolicy: retry budgets, and session persistence, of a backend.

Source: https://gateway-api.sigs.k8s.io/geps/gep-3388/ (retry budgets) and gep-1619 (session persistence); the fields
are those of release 1.6, experimental channel.
"""

from __future__ import annotations

from typing import Annotated

from lateen.api.config import Defaulted, Duration, Limits
from lateen.api.gateway_api.common import LocalObjectReference
from lateen.api.gateway_api.requests import Interval, SessionPersistence


class BudgetDetails(Defaulted, kw_only=True):
    percent: Annotated[int, Limits(minimum=0, maximum=100)] = 20
    interval: Interval = Duration("10s")


class RequestRate(Defaulted, kw_only=True):
    count: Annotated[int, Limits(minimum=1, maximum=1_000_000)] | None = None
    interval: Interval | None = None


class RetryConstraint(Defaulted, kw_only=True):
    budget: BudgetDetails = BudgetDetails()
    min_retry_rate: RequestRate = RequestRate(count=10, interval=Duration("1s"))


class XBackendTrafficPolicy(Defaulted, kw_only=True):
    target_refs: Annotated[tuple[LocalObjectReference, ...], Limits(min_items=1, max_items=16)]
    retry_constraint: RetryConstraint | None = None
    session_persistence: SessionPersistence | None = None
