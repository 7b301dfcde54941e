"""Questions about the control plane over xDS, as istioctl asks them: type URLs below ``istio.io/debug``.

A request names one page (``istio.io/debug`` with the page as the resource's name) or is of the page's own type
(``istio.io/debug/syncz``). Each is answered once, in the state-of-the-world protocol.
Source: istio.io/istio, ``pilot/pkg/xds/debuggen.go``, ``statusgen.go``, and ``istioctl/pkg/xds/client.go``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from lateen.wire import names

log = logging.getLogger("lateen.ads")


class NotAnswered(Exception):
    """The question is refused with a gRPC status; the message says why."""

    def __init__(self, code: grpc.StatusCode, says: str) -> None:
        super().__init__(says)
        self.code, self.says = code, says


Requests = AsyncIterator[discovery_pb2.DiscoveryRequest]
Answer = Callable[[str, str, Sequence[str]], Awaitable[list[Any]]]
"""(SPIFFE id of who asks, type URL, names) -> packed messages (google.protobuf.Any). Raises NotAnswered."""
WhoseToken = Callable[[str], Awaitable[str]]
"""A bearer token -> the SPIFFE id of its service account. Raises NotAnswered."""


def is_question(type_url: str) -> bool:
    return type_url == names.DEBUG or type_url.startswith(f"{names.DEBUG}/")


class Questions:
    """Answers the questions of one stream, whoever has authenticated its client."""

    def __init__(self, answer: Answer, control_plane: str) -> None:
        """``control_plane`` is the JSON by which istioctl tells control planes apart."""
        self._answer, self._control_plane = answer, control_plane

    async def answers(
        self, who: str, first: discovery_pb2.DiscoveryRequest, requests: Requests, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[discovery_pb2.DiscoveryResponse]:
        sent: dict[str, str] = {}
        """The nonce of the last answer by type: an acknowledgement asks nothing."""
        message: discovery_pb2.DiscoveryRequest | None = first
        while message is not None:
            if not is_question(message.type_url):
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, f"{message.type_url} and {names.DEBUG} do not share a stream"
                )
            if message.type_url not in sent or message.response_nonce != sent[message.type_url]:
                response = await self._response(who, message, len(sent), context)
                sent[message.type_url] = response.nonce
                yield response
            message = await _next(requests)

    async def _response(
        self, who: str, message: discovery_pb2.DiscoveryRequest, number: int, context: grpc.aio.ServicerContext
    ) -> discovery_pb2.DiscoveryResponse:
        try:
            found = await self._answer(who, message.type_url, tuple(message.resource_names))
        except NotAnswered as e:
            log.warning("%s about %s refused to %s: %s", message.type_url, list(message.resource_names), who, e)
            await context.abort(e.code, e.says)
            raise
        response = discovery_pb2.DiscoveryResponse(
            type_url=message.type_url, nonce=f"debug-{number + 1}", version_info="1", resources=found
        )
        response.control_plane.identifier = self._control_plane
        return response


class TokenServer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Questions of clients that have a service account's token and no certificate."""

    def __init__(self, whose: WhoseToken, questions: Questions) -> None:
        self._whose, self._questions = whose, questions

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != names.SOTW_METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
        )

    async def _stream(
        self, requests: Requests, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[discovery_pb2.DiscoveryResponse]:
        try:
            who = await self._whose(_bearer(context))
        except NotAnswered as e:
            log.warning("debug stream refused: %s", e)
            await context.abort(e.code, e.says)
            raise
        first = await _next(requests)
        if first is None:
            return
        async for response in self._questions.answers(who, first, requests, context):
            yield response


def _bearer(context: grpc.aio.ServicerContext) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and value.startswith("Bearer "):
            return value.removeprefix("Bearer ").strip()
    return ""


async def _next(requests: Requests) -> discovery_pb2.DiscoveryRequest | None:
    try:
        return await anext(requests, None)
    except grpc.RpcError:
        return None
