"""Passes proxies' reports about quotas on to the istiod that divides them.

gRPC's library is loaded when the first call is passed on: an istiod alone never needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from envoy.service.rate_limit_quota.v3 import rlqs_pb2

from lateen.ads.rpc import Call, Status
from lateen.control.serving import Certificate
from lateen.kit import tasks
from lateen.wire import ports
from lateen.wire.quotas import DOMAIN, METHOD

PASSED_ON = "x-lateen-proxy-of"
"""The identity of the proxy whose call another istiod passes on."""
MOST = 1024
"""Reports that wait for the other istiod; beyond them, the call is ended and the proxy starts anew."""

Connect = Callable[[], Any]
"""Makes a channel (grpc.aio.Channel) with istiod's own certificate."""
Usage = rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage


def channel(address: str, certificate: Certificate, name: str) -> Any:
    """To another istiod, of which ``name`` is one of the names in its certificate."""
    import grpc
    import grpc.aio

    pair = certificate.pair
    credentials = grpc.ssl_channel_credentials(certificate.root.encode(), pair.key.encode(), pair.certificate.encode())
    options = [("grpc.ssl_target_name_override", name)]
    return grpc.aio.secure_channel(f"{address}:{ports.XDS}", credentials, options)


class Relay:
    """The handler of a proxy's call, at an istiod that does not divide."""

    def __init__(
        self,
        call: Call,
        connect: Connect,
        identity: str,
        passes: Callable[[Usage], bool],
        left: Callable[[Call], None],
    ) -> None:
        """``passes``: whether a report may be passed on."""
        self._call, self._connect, self._identity, self._passes, self._left = call, connect, identity, passes, left
        self._reports: asyncio.Queue[rlqs_pb2.RateLimitQuotaUsageReports | None] = asyncio.Queue(MOST)
        self._task = tasks.spawn(self._run(), "quotas of another istiod")

    def received(self, message: bytes) -> None:
        given = rlqs_pb2.RateLimitQuotaUsageReports.FromString(message)
        kept = [u for u in given.bucket_quota_usages if self._passes(u)]
        if not kept:
            return
        try:
            self._reports.put_nowait(rlqs_pb2.RateLimitQuotaUsageReports(domain=DOMAIN, bucket_quota_usages=kept))
        except asyncio.QueueFull:
            self._call.finish(Status.UNAVAILABLE, "the istiod that divides limits is too slow")

    def completed(self) -> None:
        self._call.finish()

    def closed(self) -> None:
        self._task.cancel()
        self._left(self._call)

    async def _run(self) -> None:
        import grpc

        async with self._connect() as to:
            asked = to.stream_stream(
                METHOD,
                request_serializer=rlqs_pb2.RateLimitQuotaUsageReports.SerializeToString,
                response_deserializer=None,
            )(self._waiting(), metadata=((PASSED_ON, self._identity),))
            try:
                async for answer in asked:
                    self._call.send([(answer,)])
                self._call.finish(Status.UNAVAILABLE, "the istiod that divides limits has ended the call")
            except grpc.RpcError as e:
                self._call.finish(Status.UNAVAILABLE, f"the istiod that divides limits: {e.code().name}")

    async def _waiting(self) -> AsyncIterator[rlqs_pb2.RateLimitQuotaUsageReports]:
        while (report := await self._reports.get()) is not None:
            yield report
