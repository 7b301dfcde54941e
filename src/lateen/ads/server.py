"""Delta ADS: moves bytes between calls and sessions without knowing their contents."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from envoy.service.discovery.v3 import discovery_pb2

from lateen.ads import sotw
from lateen.ads.debug import Questions, is_question
from lateen.ads.measures import Measures
from lateen.ads.rpc import BadRequest, Call, Handler, Status, decoded
from lateen.ads.session import Rejection, Request, Response, Session, Sets, TooMany
from lateen.ads.sotw import SotwSession
from lateen.kit import protowire, tasks
from lateen.kit.metrics import Registry
from lateen.wire import names
from lateen.wire.node import NodeId, parse

log = logging.getLogger("lateen.ads")

T = TypeVar("T")

MAX_REASON = 8192
"""Characters of what a proxy says of a rejection that are kept."""
_VIOLATED = re.compile(r"Proto constraint validation failed(?: \(.*?\)(?=: |\n|$))?")
_QUOTED = "goo.gle/debug"
_SECRET = (names.ECDS, names.SDS)
SLICE_S = 0.005
"""Seconds after which a push, or answering requests, yields to other work."""


@dataclass(eq=False)
class Connection:
    """One connected proxy."""

    node: NodeId
    identity: str
    version: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the proxy reports about itself, limited to text values."""
    session: Session = field(default_factory=Session)
    connected_at: float = field(default_factory=time.time)
    call: Call | None = None
    bytes_sent: int = 0
    sent_at: dict[str, float] = field(default_factory=dict)
    """When the last response of each type left, in seconds since the epoch."""
    view: object = None
    """What the last offer was made from, kept so that the next one shares what has not changed."""

    def send(self, responses: list[Response]) -> list[int]:
        """Sent by the time that this returns, as far as the proxy takes it. Returns the bytes of each."""
        messages = [encode(r) for r in responses]
        sizes = [sum(map(len, message)) for message in messages]
        if not responses or self.call is None:
            return sizes
        self.bytes_sent += sum(sizes)
        now = time.time()
        for r in responses:
            self.sent_at[r.type_url] = now
        self.call.send(messages)
        return sizes


@dataclass(eq=False)
class Proxyless:
    """A connected gRPC client without a proxy."""

    node: NodeId
    call: Call
    session: SotwSession = field(default_factory=SotwSession)

    def send(self, responses: list[sotw.Response]) -> None:
        self.call.send([(_sotw(r),) for r in responses])


Allow = Callable[[NodeId, str, dict[str, str]], str | None]
"""(claimed identity, the certificate's identity, metadata) -> why it is not admitted, or None."""
Sets_ = Callable[[Connection], Mapping[str, Sets]]
ProxylessSets = Callable[[NodeId], Mapping[str, Sets]]
OnRejection = Callable[[Connection, Rejection], None]


class AdsServer:
    def __init__(self, allow: Allow, sets: Sets_, proxyless_sets: ProxylessSets, on_rejection: OnRejection) -> None:
        self._allow, self._sets, self._on_rejection = allow, sets, on_rejection
        self._proxyless_sets = proxyless_sets
        self.proxyless: set[Proxyless] = set()
        self.connections: set[Connection] = set()
        self.joined: Callable[[Connection], None] = lambda _: None
        self.left: Callable[[Connection], None] = lambda _: None
        self.answered: Callable[[], None] = lambda: None
        """Called whenever a proxy has acknowledged or rejected something, connected or disconnected."""
        self.questions: Questions | None = None
        """Who answers questions of clients with a certificate about the control plane."""
        self.measures = Measures(Registry())
        self._backlog: deque[Callable[[], None]] = deque()
        self._working = False

    def accept(self, call: Call) -> Handler | None:
        """What handles a call of a client with a certificate."""
        match call.path:
            case names.DELTA_METHOD:
                return _Delta(self, call)
            case names.SOTW_METHOD:
                return _Sotw(self, call)
            case _:
                return None

    def later(self, call: Call, handle: Callable[[T], None], request: T) -> None:
        """What a proxy asks for may be its whole configuration. It waits its turn, so that others connect, acknowledge
        and get changes in the meantime, however many come at once. Until then its call is not read."""

        def turn() -> None:
            if call.status is None:
                call.guarded(handle, request)
                call.resume()

        call.hold()
        self._backlog.append(turn)
        if not self._working:
            self._working = True
            tasks.spawn(self._work(), "xds requests")

    async def _work(self) -> None:
        last = time.monotonic()
        try:
            while self._backlog:
                self._backlog.popleft()()
                if time.monotonic() - last > SLICE_S:
                    await asyncio.sleep(0)
                    last = time.monotonic()
        finally:
            self._working = False

    def join(self, call: Call, first: discovery_pb2.DeltaDiscoveryRequest) -> Connection | None:
        """The proxy of a call by its first request; None if it is refused, and the call is over."""
        node = self._admitted(call, first)
        if node is None:
            return None
        connection = Connection(node, identity_of(call), _version(first), _metadata(first), call=call)
        self.connections.add(connection)
        self.joined(connection)
        log.info("connected: %s (%s)", node, connection.identity)
        try:
            connection.session.offer(self._sets(connection))
        except Exception:
            self.leave(connection)  # the call ends, and nobody else would say that it has left
            raise
        return connection

    def join_proxyless(self, call: Call, first: discovery_pb2.DiscoveryRequest) -> Proxyless | None:
        """Like ``join``, of a gRPC client without a proxy."""
        node = self._admitted(call, first)
        if node is None:
            return None
        stream = Proxyless(node, call)
        self.proxyless.add(stream)
        log.info("connected without a proxy: %s", node)
        try:
            stream.send(stream.session.offer(self._proxyless_sets(node)))
        except Exception:
            self.proxyless.discard(stream)
            raise
        return stream

    def _admitted(
        self, call: Call, first: discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest
    ) -> NodeId | None:
        try:
            node = parse(first.node.id)
        except ValueError as e:
            call.finish(Status.INVALID_ARGUMENT, str(e))
            return None
        if (why := self._allow(node, identity_of(call), _metadata(first))) is not None:
            log.warning("%s refused: %s", node, why)
            call.finish(Status.PERMISSION_DENIED, why)
            return None
        return node

    def leave(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.left(connection)
        self.answered()
        log.info("disconnected: %s", connection.node)

    def receive(self, connection: Connection, m: discovery_pb2.DeltaDiscoveryRequest) -> None:
        error = ""
        if m.HasField("error_detail"):
            error = told(m.type_url, m.error_detail.message) or f"code {m.error_detail.code}"
        if asks(m):
            request = Request(
                m.type_url,
                m.response_nonce,
                tuple(m.resource_names_subscribe),
                tuple(m.resource_names_unsubscribe),
                dict(m.initial_resource_versions),
                error,
            )
        else:
            request = Request(m.type_url, m.response_nonce, error=error)
        try:
            responses, rejection = connection.session.receive(request)
        except TooMany as e:
            raise BadRequest(str(e)) from None
        if rejection is not None:
            self.measures.rejects.add(_short(rejection.type_url))
            self._on_rejection(connection, rejection)
        self._send(connection, responses)
        self.answered()

    def _send(self, connection: Connection, responses: list[Response]) -> None:
        if not responses:
            return
        began = time.monotonic()
        sizes = connection.send(responses)
        for response, size in zip(responses, sizes, strict=True):
            self.measures.pushes.add(_short(response.type_url))
            self.measures.size.observe(size, _short(response.type_url))
        self.measures.send_time.observe(time.monotonic() - began)

    def _offer(self, connection: Connection, changed_at: float) -> None:
        began = time.monotonic()
        responses = connection.session.offer(self._sets(connection))
        took = time.monotonic() - began
        self._send(connection, responses)
        for response in responses:
            self.measures.push_time.observe(took, _short(response.type_url))
        if responses:
            self.measures.convergence_time.observe(time.monotonic() - changed_at)

    async def push(self, changed_at: float | None = None) -> None:
        """Offer every proxy what it should have now; a failure with one does not affect the others. Yields to other
        work in between. ``changed_at``: when the change happened, by ``time.monotonic``."""
        began = last = time.monotonic()
        for connection in tuple(self.connections):
            if connection not in self.connections:
                continue  # disconnected in the meantime
            try:
                self.measures.queue_time.observe(time.monotonic() - began)
                self._offer(connection, began if changed_at is None else changed_at)
            except Exception:  # isolation: this proxy keeps its last good configuration
                self.measures.failures.add()
                log.exception("no push to %s", connection.node)
            if time.monotonic() - last > SLICE_S:
                await asyncio.sleep(0)
                last = time.monotonic()
        for stream in tuple(self.proxyless):
            try:
                stream.send(stream.session.offer(self._proxyless_sets(stream.node)))
            except Exception:
                log.exception("no push to %s", stream.node)
            await asyncio.sleep(0)


def told(type_url: str, reason: str) -> str:
    """What is kept of a rejection's message. Envoy quotes the whole resource before a violated constraint (former
    versions after it), and cuts the message off, so that the constraint may be missing. An extension may have API keys
    and passwords.

    Source: envoyproxy/envoy ``source/common/protobuf/utility.cc`` (ProtoValidationException); a quoted message begins
    with ``goo.gle/debug``, https://protobuf.dev/news/2024-12-04/.
    """
    if type_url in _SECRET:
        if found := _VIOLATED.search(reason):
            reason = found[0]
        elif _QUOTED in reason:
            reason = reason.partition(_QUOTED)[0].strip() or "(left out, since it quotes the resource and its secrets)"
    return reason[:MAX_REASON]


def asks(request: discovery_pb2.DeltaDiscoveryRequest) -> bool:
    """Whether it is more than an acknowledgement or a rejection."""
    return bool(not request.response_nonce or request.resource_names_subscribe or request.resource_names_unsubscribe)


class _Delta:
    """The call of a proxy."""

    def __init__(self, server: AdsServer, call: Call) -> None:
        self._server, self._call = server, call
        self._connection: Connection | None = None

    def received(self, message: bytes) -> None:
        request = decoded(discovery_pb2.DeltaDiscoveryRequest, message)
        if asks(request):
            self._server.later(self._call, self._handle, request)
        else:
            self._handle(request)

    def _handle(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        if self._connection is None:
            self._connection = self._server.join(self._call, request)
        if self._connection is not None:
            self._server.receive(self._connection, request)

    def completed(self) -> None:
        self._call.finish()

    def closed(self) -> None:
        if self._connection is not None:
            self._server.leave(self._connection)


class _Sotw:
    """The call of a gRPC client without a proxy, or of somebody with questions about the control plane."""

    def __init__(self, server: AdsServer, call: Call) -> None:
        self._server, self._call = server, call
        self._stream: Proxyless | None = None
        self._questions: Handler | None = None

    def received(self, message: bytes) -> None:
        if self._questions is not None:
            self._questions.received(message)
            return
        request = decoded(discovery_pb2.DiscoveryRequest, message)
        if self._stream is None and self._server.questions is not None and is_question(request.type_url):
            self._questions = self._server.questions.asked(self._call, identity_of(self._call))
            self._questions.received(message)
        else:
            self._server.later(self._call, self._handle, request)

    def _handle(self, request: discovery_pb2.DiscoveryRequest) -> None:
        if self._stream is None:
            self._stream = self._server.join_proxyless(self._call, request)
        if (stream := self._stream) is not None:
            if request.HasField("error_detail"):
                reason = request.error_detail.message[:MAX_REASON]
                log.error("%s refused %s: %s", stream.node.pod, request.type_url, reason)
            names_ = tuple(request.resource_names)
            try:
                stream.send(stream.session.receive(request.type_url, names_, request.response_nonce))
            except TooMany as e:
                raise BadRequest(str(e)) from None

    def completed(self) -> None:
        if self._questions is not None:
            self._questions.completed()
        else:
            self._call.finish()

    def closed(self) -> None:
        if self._questions is not None:
            self._questions.closed()
        if self._stream is not None:
            self._server.proxyless.discard(self._stream)


def encode(response: Response) -> tuple[bytes, ...]:
    """A DeltaDiscoveryResponse in parts; its resources are the serialized bytes that they already are (field 2)."""
    head = discovery_pb2.DeltaDiscoveryResponse(
        type_url=response.type_url, nonce=response.nonce, removed_resources=response.removed
    )
    parts = [head.SerializeToString()]
    for r in response.resources:
        parts += (protowire.head(2, len(r.wrapped)), r.wrapped)
    return tuple(parts)


def _short(type_url: str) -> str:
    return names.SHORT.get(type_url, "other").lower()


def _sotw(response: sotw.Response) -> bytes:
    return discovery_pb2.DiscoveryResponse(
        type_url=response.type_url,
        version_info=response.version,
        nonce=response.nonce,
        resources=[discovery_pb2.Resource.FromString(r.wrapped).resource for r in response.resources],
    ).SerializeToString()


def identity_of(call: Call) -> str:
    """The SPIFFE ID in the verified client certificate; empty if there is none."""
    return next((i for i in call.identities if i.startswith("spiffe://")), "")


def _metadata(m: discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest) -> dict[str, str]:
    return {k: v.string_value for k, v in m.node.metadata.fields.items() if v.HasField("string_value")}


def _version(m: discovery_pb2.DeltaDiscoveryRequest) -> str:
    v = m.node.user_agent_build_version.version
    return f"{v.major_number}.{v.minor_number}.{v.patch}"
