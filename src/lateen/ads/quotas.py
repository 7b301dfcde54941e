"""Divides global rate limits among proxies according to the demand that they report. No I/O, no clock.

A *bucket* is a limit that proxies share (a rule, or a rule and a caller). Each proxy that has requests for it holds a
token bucket; their rates add up to the limit's. They are divided so that a proxy with little demand gets what it
needs, and the others share the rest evenly (max-min fairness). Proxies report every five seconds, and at once when a
bucket is new to them.

Proxies keep their shares while istiod restarts, or while another one begins to divide. Who divides knows of them
only when all proxies have reported, so that a bucket that others have divided before, or may have, *settles* first.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from lateen.wire.quotas import REPORT_S, UNITS_S, burst

SETTLE_S = REPORT_S + 0.5
"""Until all proxies have reported about a bucket to an istiod that has just begun to divide."""
BEGINS_S = 2 * SETTLE_S
"""Until all proxies have found an istiod that has just begun to divide, and have reported."""
GONE_S = 20.0
"""Seconds without a report after which a proxy loses its share."""
IDLE_S = 600.0
"""Seconds without a request after which a bucket is dropped, by the proxies too."""
OPEN_LIFE_S, CLOSED_LIFE_S = 3600, 15
"""Seconds that a proxy keeps a share without news from istiod; the second value is the time of three reports."""
SPARE = 1.04
"""The surplus a proxy gets over its demand while others want more: little, since it is taken from them."""
MOST_TOKENS = 2**32 - 1
MOST_BUCKETS = 10_000
"""The limit for one proxy; where each caller has its own limit, each takes a bucket."""
MOST_KEPT = 50_000
"""The most buckets without proxies whose tokens are remembered; beyond it, those that were dropped first are not."""
LEAST = 0.02
"""The fraction of a limit that all proxies without requests hold together, so that first requests pass."""


class Limit(NamedTuple):
    requests: int
    unit: str
    shadow: bool = False
    """Nothing is refused; requests over the limit are only counted."""
    closed: bool = False
    """A proxy that cannot reach istiod refuses all requests."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / UNITS_S[self.unit]


class Bucket(NamedTuple):
    rule: str
    """``namespace/policy/position``"""
    value: str = ""


class Share(NamedTuple):
    """A proxy's token bucket: filled at ``rate`` tokens per second, holds ``burst``. A rate of 0 refuses everything, an
    infinite one nothing."""

    rate: float
    burst: int = 0
    life_s: int = OPEN_LIFE_S
    """How long it stays valid without news from istiod."""


@dataclass
class _Holder:
    reported: float
    last_request: float
    demand: float | None = None
    """Requests per second; None before the first full report."""
    share: Share | None = None


@dataclass
class _Divided:
    limit: Limit
    level: float
    """The tokens left of the limit, according to the reports."""
    at: float
    made: float
    settled: float
    """When it is divided; until then, proxies keep the shares that another istiod has assigned."""
    holders: dict[Hashable, _Holder] = field(default_factory=dict)


class _Kept(NamedTuple):
    limit: Limit
    level: float
    at: float

    def now(self, now: float) -> float:
        """The tokens left."""
        return min(self.limit.requests, self.level + self.limit.rate * (now - self.at))


class Quotas:
    """The state of all buckets. ``now`` is in seconds, monotonic."""

    def __init__(self, began: float = -math.inf) -> None:
        self.began = began
        """When this istiod began to divide. Others may have divided what it is told of soon after."""
        self._buckets: dict[Bucket, _Divided] = {}
        self._held: dict[Hashable, set[Bucket]] = {}
        """By proxy."""
        self._kept: dict[Bucket, _Kept] = {}
        """What is left of buckets that no proxy holds, which is not the whole limit yet. Otherwise who waits until a
        bucket is idle, or whose proxy connects anew, would have all of an hour's requests once more."""
        self.allowed: dict[str, int] = {}
        self.denied: dict[str, int] = {}
        """By rule: requests that were refused, or would have been in shadow mode."""

    def __len__(self) -> int:
        return len(self._buckets)

    def report(
        self, proxy: Hashable, bucket: Bucket, limit: Limit, elapsed: float, allowed: int, denied: int, now: float
    ) -> bool:
        """Record what a proxy has allowed and denied in the ``elapsed`` seconds before ``now``; 0 for the first
        request. Returns False if the proxy holds too many buckets to get another one."""
        mine = self._held.setdefault(proxy, set())
        if bucket not in mine and len(mine) >= MOST_BUCKETS:
            return False
        mine.add(bucket)
        held = self._buckets.get(bucket)
        if held is None:
            settled = now + SETTLE_S if now - self.began < BEGINS_S else now
            held = self._buckets[bucket] = _Divided(limit, self._remembered(bucket, limit, now), now, now, settled)
        elif held.limit != limit:
            self._limited(held, limit)
        holder = held.holders.get(proxy)
        if holder is None:
            holder = held.holders[proxy] = _Holder(now, now)
            if elapsed > 0 and held.settled <= now < held.made + SETTLE_S:
                held.settled = now + SETTLE_S  # the proxy has a share, and so may others that have not reported yet
        since, holder.reported = max(elapsed, now - holder.reported), now
        if allowed or denied:
            holder.last_request = now
        if elapsed > 0:
            holder.demand = (allowed + denied) / since  # Envoy truncates the reported time to whole seconds
        self._take(bucket, held, allowed, denied, now)
        if denied and elapsed > 0 and holder.share is None and now < held.settled and not limit.shadow:
            held.level = 0  # it is used up, as far as the proxy's share of another istiod tells
        return True

    def _take(self, bucket: Bucket, held: _Divided, allowed: int, denied: int, now: float) -> None:
        limit = held.limit
        held.level = min(limit.requests, held.level + limit.rate * (now - held.at)) - allowed
        held.at = now
        over = denied
        if limit.shadow:
            over = min(allowed, max(0, math.ceil(-held.level)))
        held.level = max(0.0, held.level)
        self.allowed[bucket.rule] = self.allowed.get(bucket.rule, 0) + allowed - (over if limit.shadow else 0)
        self.denied[bucket.rule] = self.denied.get(bucket.rule, 0) + over

    def _remembered(self, bucket: Bucket, limit: Limit, now: float) -> float:
        """The tokens left of a bucket that no proxy has held until now."""
        kept = self._kept.pop(bucket, None)
        return limit.requests if kept is None or kept.limit != limit else kept.now(now)

    def _remember(self, bucket: Bucket, held: _Divided) -> None:
        """Called with a bucket that no proxy holds any more. One of a second is full again before anybody asks."""
        if held.limit.unit == "Second":
            return
        self._kept[bucket] = _Kept(held.limit, held.level, held.at)
        while self._kept:  # the first are those that have been filling for longest
            first = next(iter(self._kept))
            kept = self._kept[first]
            if len(self._kept) <= MOST_KEPT and kept.now(held.at) < kept.limit.requests:
                break
            del self._kept[first]

    def left(self, proxy: Hashable) -> list[Bucket]:
        """Forget a proxy that has disconnected; returns the buckets that it had a share of."""
        found = list(self._held.pop(proxy, ()))
        for bucket in found:
            self._release(bucket, proxy)
        return found

    def _release(self, bucket: Bucket, proxy: Hashable) -> None:
        held = self._buckets[bucket]
        del held.holders[proxy]
        if not held.holders:
            del self._buckets[bucket]
            self._remember(bucket, held)
        if (mine := self._held.get(proxy)) is not None:
            mine.discard(bucket)
            if not mine:
                del self._held[proxy]

    def settles_in(self, bucket: Bucket, now: float) -> float:
        """Seconds until a bucket is divided; 0 or less if it is."""
        held = self._buckets.get(bucket)
        return held.settled - now if held else 0

    def divide(self, bucket: Bucket, now: float) -> dict[Hashable, Share | None]:
        """The share of every proxy that holds a bucket. None: the proxy is to drop the bucket."""
        held = self._buckets.get(bucket)
        if held is None:
            return {}
        if now < held.settled:
            return self._meanwhile(held)
        out: dict[Hashable, Share | None] = {}
        for proxy, holder in list(held.holders.items()):
            if now - holder.reported > GONE_S or now - holder.last_request > IDLE_S:
                self._release(bucket, proxy)
                out[proxy] = None
        for holder, rate in zip(
            held.holders.values(), fair(held.limit.rate, [h.demand for h in held.holders.values()]), strict=True
        ):
            holder.share = self._share(held, rate, holder.share is None or not holder.share.rate)
        return out | {proxy: h.share for proxy, h in held.holders.items()}

    def _meanwhile(self, held: _Divided) -> dict[Hashable, Share | None]:
        """The shares of proxies that have none yet: little, since the others have the rest."""
        fresh = {proxy: h for proxy, h in held.holders.items() if h.demand is None}
        for holder in fresh.values():
            holder.share = self._share(held, held.limit.rate * LEAST / len(held.holders), True)
        return {proxy: h.share for proxy, h in fresh.items()}

    def _share(self, held: _Divided, rate: float, is_new: bool) -> Share:
        limit = held.limit
        life_s = CLOSED_LIFE_S if limit.closed else OPEN_LIFE_S
        if limit.shadow:
            return Share(math.inf, life_s=life_s)
        if limit.unit == "Second":
            return Share(rate, burst(rate, limit.unit), life_s)
        if is_new and held.level < 1:
            return Share(0, life_s=life_s)  # a new token bucket starts full, and all of it has been used
        return Share(rate, max(1, math.floor(max(held.level, 1) * rate / limit.rate)), life_s)

    def limited(self, rule: str, limit: Limit | None) -> list[Bucket]:
        """Set a rule's limit (None: the rule was removed). Returns the buckets that have to be divided again."""
        mine = [b for b in self._buckets if b.rule == rule]
        if limit is None:
            for bucket in mine:
                for proxy in list(self._buckets[bucket].holders):
                    self._release(bucket, proxy)
            self._kept = {b: kept for b, kept in self._kept.items() if b.rule != rule}
            self.allowed.pop(rule, None)
            self.denied.pop(rule, None)
            return []
        changed = [b for b in mine if self._buckets[b].limit != limit]
        for bucket in changed:
            self._limited(self._buckets[bucket], limit)
        return changed

    def _limited(self, held: _Divided, limit: Limit) -> None:
        held.limit, held.level = limit, limit.requests

    @property
    def rules(self) -> set[str]:
        return {b.rule for b in self._buckets} | self.allowed.keys()


def fair(rate: float, demands: Iterable[float | None]) -> list[float]:
    """Divide a rate by max-min fairness: each proxy gets its demand and a little more, or an even part of what is left.
    The parts add up to the rate."""
    wants = [math.inf if d is None else d * SPARE for d in demands]
    if not wants:
        return []
    least = rate * LEAST / len(wants)
    wants = [max(w, least) for w in wants]
    out = [0.0] * len(wants)
    left = rate
    order = sorted(range(len(wants)), key=lambda i: wants[i])
    for position, i in enumerate(order):
        out[i] = min(wants[i], left / (len(order) - position))
        left -= out[i]
    return [given + left / len(out) for given in out]


def filling(rate: float) -> tuple[int, int]:
    """A rate as (whole tokens, whole seconds), rounded down by as little as possible: Envoy ignores fractions of a
    second, and does not limit at all below one second."""
    first = max(1, math.ceil(1 / rate))
    last = max(first, min(first + 19, int(MOST_TOKENS / rate)))
    seconds = max(range(first, last + 1), key=lambda s: math.floor(rate * s + 1e-9) / s)
    return math.floor(rate * seconds + 1e-9), seconds
