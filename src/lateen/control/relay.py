"""Forwards proxies' quota reports to the leader.

The gRPC library is loaded when the first call is forwarded: a single istiod never needs it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from envoy.service.rate_limit_quota.v3 import rlqs_pb2

from lateen.ads.rpc import Call, Requests, Status, decoded
from lateen.control.serving import Certificate
from lateen.kit import tasks
from lateen.wire import ports
from lateen.wire.quotas import DOMAIN, METHOD

log = logging.getLogger("lateen.control.quotas")

PASSED_ON = "x-lateen-proxy-of"
"""Metadata key: the identity of the proxy whose call is forwarded."""

CALLS = 50
"""The number of proxies whose calls share a channel. A connection permits 100 concurrent calls
(``SETTINGS_MAX_CONCURRENT_STREAMS``); gRPC silently queues others."""
Connect = Callable[[], AbstractAsyncContextManager[Any]]
"""Creates a channel (grpc.aio.Channel) with istiod's own certificate."""
Usage = rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage


def channel(address: str, certificate: Certificate, name: str) -> Any:
    """A channel to another istiod, whose certificate contains ``name``."""
    import grpc
    import grpc.aio

    pair = certificate.pair
    credentials = grpc.ssl_channel_credentials(certificate.root.encode(), pair.key.encode(), pair.certificate.encode())
    options = [
        ("grpc.ssl_target_name_override", name),
        ("grpc.use_local_subchannel_pool", 1),
    ]  # do not share connections
    return grpc.aio.secure_channel(f"{address}:{ports.XDS}", credentials, options)


@dataclass
class _Shared:
    channel: Any
    calls: int = 0


class Channels:
    """Channels to another istiod, each for the calls of CALLS proxies, and open as long as it has calls. After a
    renewal of the certificate, new calls get a new channel, so that the former one can end."""

    def __init__(self, make: Callable[[str], Any], shown: Callable[[], Hashable]) -> None:
        """``make``: creates a channel to an address, with the current certificate ``shown``."""
        self._make, self._shown = make, shown
        self._open: dict[tuple[str, Hashable], list[_Shared]] = {}

    @asynccontextmanager
    async def to(self, address: str) -> AsyncIterator[Any]:
        key = (address, self._shown())
        mine = self._open.setdefault(key, [])
        held = next((h for h in mine if h.calls < CALLS), None)
        if held is None:
            held = _Shared(self._make(address))
            mine.append(held)
        held.calls += 1
        try:
            yield held.channel
        finally:
            held.calls -= 1
            if not held.calls:
                mine.remove(held)
                if not mine:
                    del self._open[key]
                await held.channel.close()


class Relay:
    """The handler of a proxy's call at an istiod that is not the leader. A report is read only after the previous one
    has been forwarded."""

    def __init__(
        self,
        call: Call,
        connect: Connect,
        identity: str,
        passes: Callable[[Usage], bool],
        left: Callable[[Call], None],
    ) -> None:
        """``passes``: whether a report may be forwarded."""
        self._call, self._connect, self._identity, self._passes, self._left = call, connect, identity, passes, left
        self._requests = Requests(call)
        self._task = tasks.spawn(self._run(), "quotas of another istiod")

    def received(self, message: bytes) -> None:
        given = decoded(rlqs_pb2.RateLimitQuotaUsageReports, message)
        kept = [u for u in given.bucket_quota_usages if self._passes(u)]
        if kept:
            report = rlqs_pb2.RateLimitQuotaUsageReports(domain=DOMAIN, bucket_quota_usages=kept)
            self._requests.received(report.SerializeToString())

    def completed(self) -> None:
        self._call.finish()

    def closed(self) -> None:
        self._task.cancel()
        self._left(self._call)

    async def _run(self) -> None:
        """Forward the call; when it ends, the proxy's call ends, too, so that the proxy starts over."""
        import grpc

        says = "the istiod that divides limits has ended the call"
        try:
            async with self._connect() as to:
                method = to.stream_stream(METHOD, request_serializer=None, response_deserializer=None)
                async for answer in method(self._requests, metadata=((PASSED_ON, self._identity),)):
                    self._call.send([(answer,)])
        except grpc.RpcError as e:
            says = f"the istiod that divides limits: {e.code().name}"
        except Exception:
            log.exception("quota reports are not forwarded")
            says = "the istiod that divides limits cannot be reached"
        finally:
            self._call.finish(Status.UNAVAILABLE, says)
