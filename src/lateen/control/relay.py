"""Passes proxies' reports about quotas on to the istiod that divides them.

gRPC's library is loaded when the first call is passed on: an istiod alone never needs it.
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
"""The identity of the proxy whose call another istiod passes on."""

CALLS = 50
"""Proxies whose calls share a channel. A connection takes 100 calls at a time (``SETTINGS_MAX_CONCURRENT_STREAMS``);
gRPC holds others back without a word."""
Connect = Callable[[], AbstractAsyncContextManager[Any]]
"""Gives a channel (grpc.aio.Channel) with istiod's own certificate."""
Usage = rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage


def channel(address: str, certificate: Certificate, name: str) -> Any:
    """To another istiod, of which ``name`` is one of the names in its certificate."""
    import grpc
    import grpc.aio

    pair = certificate.pair
    credentials = grpc.ssl_channel_credentials(certificate.root.encode(), pair.key.encode(), pair.certificate.encode())
    options = [
        ("grpc.ssl_target_name_override", name),
        ("grpc.use_local_subchannel_pool", 1),
    ]  # a connection of its own
    return grpc.aio.secure_channel(f"{address}:{ports.XDS}", credentials, options)


@dataclass
class _Shared:
    channel: Any
    calls: int = 0


class Channels:
    """Channels to another istiod, each for the calls of CALLS proxies and open as long as there are some. With a
    renewed certificate, calls that begin have another one, so that the former can end with its certificate."""

    def __init__(self, make: Callable[[str], Any], shown: Callable[[], Hashable]) -> None:
        """``make``: a channel to an address, with the certificate that is ``shown`` now."""
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
    """The handler of a proxy's call, at an istiod that does not divide. A report is read once the one before it has
    been passed on."""

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
        """However it ends, the proxy's call ends, too, so that the proxy starts anew."""
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
