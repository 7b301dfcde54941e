"""Debug requests over xDS, as istioctl sends them: type URLs below ``istio.io/debug``.

A request names one page (type ``istio.io/debug`` with the page as the resource name) or has the page's own type
(``istio.io/debug/syncz``). Each is answered once, in the state-of-the-world protocol.
Source: istio.io/istio, ``pilot/pkg/xds/debuggen.go``, ``statusgen.go``, and ``istioctl/pkg/xds/client.go``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from lateen.ads.rpc import BadRequest, Call, Handler, Requests, Status, decoded
from lateen.kit import tasks
from lateen.wire import names

log = logging.getLogger("lateen.ads")


class NotAnswered(Exception):
    """The request is refused with a gRPC status; the message says why."""

    def __init__(self, code: Status, says: str) -> None:
        super().__init__(says)
        self.code, self.says = code, says


Answer = Callable[[str, str, Sequence[str]], Awaitable[list[Any]]]
"""(the client's SPIFFE ID, type URL, names) -> packed messages (google.protobuf.Any). Raises NotAnswered."""
WhoseToken = Callable[[str], Awaitable[str]]
"""A bearer token -> the SPIFFE ID of its service account. Raises NotAnswered."""


def is_question(type_url: str) -> bool:
    return type_url == names.DEBUG or type_url.startswith(f"{names.DEBUG}/")


class Questions:
    """Answers the debug requests of one stream, whichever way its client was authenticated."""

    def __init__(self, answer: Answer, control_plane: str) -> None:
        """``control_plane`` is the JSON by which istioctl identifies a control plane."""
        self._answer, self._control_plane = answer, control_plane

    def asked(self, call: Call, who: str) -> Handler:
        """A handler for the requests of ``who``."""
        requests = Requests(call)
        tasks.spawn(self.answer(call, who, requests), "debug xds")
        return requests

    async def answer(self, call: Call, who: str, requests: Requests) -> None:
        """Answer all requests of a call; returns at its end."""
        sent: dict[str, str] = {}
        """The nonce of the last response by type: an acknowledgement is not a request."""
        try:
            async for raw in requests:
                await asyncio.sleep(0)  # many debug requests do not keep proxies waiting
                message = decoded(discovery_pb2.DiscoveryRequest, raw)
                if not is_question(message.type_url):
                    says = f"{message.type_url} and {names.DEBUG} do not share a stream"
                    raise NotAnswered(Status.INVALID_ARGUMENT, says)
                if message.type_url not in sent or message.response_nonce != sent[message.type_url]:
                    response = await self._response(who, message, len(sent))
                    sent[message.type_url] = response.nonce
                    call.send([(response.SerializeToString(),)])
        except NotAnswered as e:
            call.finish(e.code, e.says)
        except BadRequest as e:
            call.finish(Status.INVALID_ARGUMENT, str(e))
        except Exception:
            log.exception("a question of %s was not answered", who)
            call.finish(Status.INTERNAL, "the control plane failed to answer; its log says why")
        else:
            call.finish()

    async def _response(
        self, who: str, message: discovery_pb2.DiscoveryRequest, number: int
    ) -> discovery_pb2.DiscoveryResponse:
        try:
            found = await self._answer(who, message.type_url, tuple(message.resource_names))
        except NotAnswered as e:
            log.warning("%s about %s refused to %s: %s", message.type_url, list(message.resource_names), who, e)
            raise
        response = discovery_pb2.DiscoveryResponse(
            type_url=message.type_url, nonce=f"debug-{number + 1}", version_info="1", resources=found
        )
        response.control_plane.identifier = self._control_plane
        return response


class TokenServer:
    """Debug requests of clients that have a service account token and no certificate."""

    def __init__(self, whose: WhoseToken, questions: Questions) -> None:
        self._whose, self._questions = whose, questions

    def accept(self, call: Call) -> Handler | None:
        if call.path != names.SOTW_METHOD:
            return None
        requests = Requests(call)
        tasks.spawn(self._answer(call, requests), "debug xds")
        return requests

    async def _answer(self, call: Call, requests: Requests) -> None:
        try:
            who = await self._whose(_bearer(call))
        except NotAnswered as e:
            log.warning("debug stream refused: %s", e)
            call.finish(e.code, e.says)
            return
        await self._questions.answer(call, who, requests)


def _bearer(call: Call) -> str:
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme == "Bearer" else ""
