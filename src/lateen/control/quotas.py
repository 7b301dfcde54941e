"""The rate limit quota service: proxies report their usage, and are assigned their share of each limit.

Only the leader divides limits; the others forward their proxies' calls to it (``control.relay``).
The istiod that a proxy is connected to decides whether it may report about a limit: it must be configured with it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from envoy.service.rate_limit_quota.v3 import rlqs_pb2

from lateen.ads.peers import identity_of
from lateen.ads.quotas import Bucket, Limit, Quotas, Share, filling
from lateen.ads.rpc import Call, Handler, Status, decoded
from lateen.ads.server import AdsServer
from lateen.api import envoy_gateway as eg
from lateen.api.objects import Ref, Resource
from lateen.api.validate.backend_traffic import by_caller
from lateen.control.reach import origins
from lateen.control.relay import PASSED_ON, Relay
from lateen.wire.quotas import METHOD, RULE, VALUE

log = logging.getLogger("lateen.control.quotas")

QUIET_S = 0.02
"""Seconds in which reports are collected before limits are divided again."""
REFUSED_S = 1.0
"""Seconds until it is checked again whether a proxy is configured with a policy that it has reported about."""
LONGEST = 1024
"""The maximum length of a caller's identity."""

Policy = Resource[eg.BackendTrafficPolicy]
Find = Callable[[str, str], Policy | None]
"""(namespace, name) -> the policy"""
Usage = rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage


@dataclass(eq=False)
class Stream:
    """A proxy's call."""

    identity: str
    trusted: bool
    """Whether another istiod has checked the proxy's reports."""
    call: Call | None = None
    allowed: dict[Ref, str] = field(default_factory=dict)
    """Policies, with their versions, that it may report about."""
    refused: dict[Ref, float] = field(default_factory=dict)
    """Policies that it must not report about, and when that was determined."""
    holds: dict[Bucket, Share] = field(default_factory=dict)
    """The assignments sent last."""
    pending: dict[Bucket, Share | None] = field(default_factory=dict)
    """The assignments to send; None: the bucket is to be dropped."""

    def flush(self) -> None:
        told, self.pending = self.pending, {}
        for bucket, share in told.items():
            if share is None:
                self.holds.pop(bucket, None)
            else:
                self.holds[bucket] = share
        if told and self.call is not None:
            self.call.send([(_response(told).SerializeToString(),)])


class QuotaService:
    def __init__(
        self,
        find: Find,
        ads: AdsServer,
        me: str,
        leader: Callable[[], str | None],
        connect: Callable[[str], AbstractAsyncContextManager[Any]],
    ) -> None:
        """``me``: istiod's own identity. ``leader``: the address of the leader, if it is another istiod."""
        self._find, self._ads, self._me, self._leader, self._connect = find, ads, me, leader, connect
        self.quotas = Quotas()
        self._calls: set[Call] = set()
        self._reported: dict[Bucket, set[Stream]] = {}
        """Buckets to divide again, and streams that get an assignment even if nothing has changed."""
        self._dirty = asyncio.Event()
        self._led_by: str | None = None

    def begin(self) -> None:
        """Called when proxies can reach this istiod, and when it has become the one that divides limits."""
        self.quotas.began = time.monotonic()

    def accept(self, call: Call) -> Handler | None:
        if call.path != METHOD:
            return None
        identity, passed_on = identity_of(call), call.headers.get(PASSED_ON, "")
        trusted = identity == self._me and bool(passed_on)
        stream = Stream(passed_on if trusted else identity, trusted, call)
        leader = self._leader()
        if trusted and leader is not None:  # it was already forwarded: this istiod is no longer the leader
            call.finish(Status.UNAVAILABLE, "another istiod divides limits")
            return None
        self._calls.add(call)
        if leader is None:
            return _Reports(self, stream)
        return Relay(call, lambda: self._connect(leader), identity, lambda usage: self.passes(stream, usage), self.left)

    def left(self, call: Call) -> None:
        self._calls.discard(call)

    def gone(self, stream: Stream) -> None:
        for bucket in self.quotas.left(stream):
            self._mark(bucket)

    def report(self, stream: Stream, usages: Iterable[Usage]) -> None:
        """Record a proxy's usage since its last report, by bucket."""
        now = time.monotonic()
        for usage in usages:
            parts = dict(usage.bucket_id.bucket)
            bucket = Bucket(parts.get(RULE, "")[:LONGEST], parts.get(VALUE, "")[: LONGEST + 1])
            policy, limit, each = self._rule(bucket.rule)
            if policy is not None and not self._may(stream, policy, now):
                continue  # the proxy may still have to identify itself: it keeps its assignments
            elapsed = usage.time_elapsed.seconds + usage.time_elapsed.nanos / 1e9
            allowed, denied = usage.num_requests_allowed, usage.num_requests_denied
            # a bucket that the rule does not define must not get a share
            fits = bool(bucket.value) == each and len(bucket.value) <= LONGEST
            if not (limit and fits and self.quotas.report(stream, bucket, limit, elapsed, allowed, denied, now)):
                stream.pending[bucket] = None
            self._mark(bucket, stream)

    def _may(self, stream: Stream, policy: Policy, now: float) -> bool:
        """Whether a proxy has been configured with a policy."""
        ref = policy.ref
        if stream.trusted or stream.allowed.get(ref) == policy.version:
            return True
        found = stream.refused.get(ref)
        if found is not None and now - found < REFUSED_S:
            return False
        if self._has(stream.identity, str(ref)):
            stream.allowed[ref] = policy.version
            stream.refused.pop(ref, None)
            return True
        if found is None:
            log.warning("%s reports on %s, which it is not configured with", stream.identity, ref)
        stream.refused[ref] = now
        return False

    def _rule(self, rule: str) -> tuple[Policy | None, Limit | None, bool]:
        """A rule's policy, its limit, and whether each caller has its own."""
        namespace, _, rest = rule.partition("/")
        name, _, position = rest.partition("/")
        policy = self._find(namespace, name)
        found = eg.quotas(policy.spec) if policy else ()
        if position not in map(str, range(len(found))):
            return None, None, False
        given = found[int(position)]
        if policy is None or given.limit is None:
            return None, None, False
        closed = eg.fails_closed(policy.notes) and not given.shadow_mode
        limit = Limit(given.limit.requests, given.limit.unit, given.shadow_mode, closed)
        return policy, limit, by_caller(given)

    def _has(self, identity: str, ref: str) -> bool:
        """Whether a proxy with this identity has resources generated from an object."""
        return any(
            ref in origins(s)
            for c in self._ads.connections
            if c.identity == identity
            for sets in c.session.sets().values()
            for s in sets
        )

    def _mark(self, bucket: Bucket, *streams: Stream) -> None:
        self._reported.setdefault(bucket, set()).update(streams)
        self._dirty.set()

    async def run(self) -> None:
        """Divide reported buckets; never returns."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(QUIET_S)
            self._dirty.clear()
            reported, self._reported = self._reported, {}
            now = time.monotonic()
            self.divide(reported, now)
            for bucket in reported:
                if (wait := self.quotas.settles_in(bucket, now)) > 0:
                    asyncio.get_running_loop().call_later(wait, self._mark, bucket)

    def divide(self, reported: dict[Bucket, set[Stream]], now: float) -> None:
        told = {stream for streams in reported.values() for stream in streams}
        for bucket, streams in reported.items():
            for holder, share in self.quotas.divide(bucket, now).items():
                assert isinstance(holder, Stream)
                if holder in streams or holder.holds.get(bucket) != share:
                    holder.pending[bucket] = share
                    told.add(holder)
        for stream in told:
            stream.flush()

    def changed(self) -> None:
        """Called after the mesh has changed, and when the lease may have."""
        leader = self._leader()
        if leader != self._led_by:
            self._led_by = leader
            if leader is None:
                self.begin()
            for call in list(self._calls):
                call.finish(Status.UNAVAILABLE, "another istiod now divides limits")
        for rule in self.quotas.rules:
            for bucket in self.quotas.limited(rule, self._rule(rule)[1]):
                self._mark(bucket)

    def passes(self, stream: Stream, usage: Usage) -> bool:
        """Whether a report is forwarded to the leader."""
        policy, _, _ = self._rule(dict(usage.bucket_id.bucket).get(RULE, ""))
        return policy is None or self._may(stream, policy, time.monotonic())

    def requests(self) -> dict[tuple[str, ...], float]:
        """(rule, outcome) -> requests"""
        counts = (("allowed", self.quotas.allowed), ("limited", self.quotas.denied))
        return {(rule, outcome): n for outcome, found in counts for rule, n in found.items()}


class _Reports:
    """A proxy's call, at the leader."""

    def __init__(self, service: QuotaService, stream: Stream) -> None:
        self._service, self._stream = service, stream

    def received(self, message: bytes) -> None:
        self._service.report(self._stream, decoded(rlqs_pb2.RateLimitQuotaUsageReports, message).bucket_quota_usages)

    def completed(self) -> None:
        if self._stream.call is not None:
            self._stream.call.finish()

    def closed(self) -> None:
        self._service.gone(self._stream)
        if self._stream.call is not None:
            self._service.left(self._stream.call)


def _response(told: dict[Bucket, Share | None]) -> rlqs_pb2.RateLimitQuotaResponse:
    out = rlqs_pb2.RateLimitQuotaResponse()
    for bucket, share in told.items():
        action = out.bucket_action.add()
        action.bucket_id.bucket[RULE] = bucket.rule
        if bucket.value:
            action.bucket_id.bucket[VALUE] = bucket.value
        if share is None:
            action.abandon_action.SetInParent()
            continue
        assigned = action.quota_assignment_action
        assigned.assignment_time_to_live.seconds = share.life_s
        strategy = assigned.rate_limit_strategy
        if share.rate in (0, math.inf):
            strategy.blanket_rule = "ALLOW_ALL" if share.rate else "DENY_ALL"  # type: ignore[assignment]
            continue
        tokens, seconds = filling(share.rate)
        strategy.token_bucket.max_tokens = share.burst
        strategy.token_bucket.tokens_per_fill.value = tokens
        strategy.token_bucket.fill_interval.seconds = seconds
    return out
