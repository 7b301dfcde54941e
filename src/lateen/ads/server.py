"""The ADS server: connected proxies, their requests, and pushes to all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from envoy.service.discovery.v3 import discovery_pb2

from lateen.ads import messages
from lateen.ads.conversation import Rejection, Request
from lateen.ads.debug import Questions, is_question
from lateen.ads.measures import Measures
from lateen.ads.peers import Connection, Proxyless, identity_of
from lateen.ads.rpc import BadRequest, Call, Handler, Status, decoded
from lateen.ads.session import Session, TooMany
from lateen.ads.subscription import Response
from lateen.kit import tasks
from lateen.kit.metrics import Registry
from lateen.wire import names
from lateen.wire.node import ROUTER, NodeId, parse
from lateen.wire.resource import Sets

log = logging.getLogger("lateen.ads")

T = TypeVar("T")

LINGER_S = 10.0
"""Seconds that a gateway keeps a cluster that its routes no longer name: requests that wait in a filter (external
authorization, a delay), or are retried, still go where they were routed. On other proxies, clusters are removed
together with their services."""
SLICE_S = 0.005
"""Seconds after which a push, or the handling of requests, yields to other work."""


MAX_STREAMS = 100
"""The limit of streams of one pod: a proxy has one, a proxyless client one for each channel of each process."""
MOST_STREAMS = 20_000
"""The number of all streams above which the identities with most of them get no more: names of pods that istiod does
not know yet are only claimed, so that one could have any number of them."""


Allow = Callable[[NodeId, str, dict[str, str]], str | None]
"""(claimed identity, identity in the certificate, metadata) -> why the proxy is not admitted, or None."""
Sets_ = Callable[[Connection], Mapping[str, Sets]]
ProxylessSets = Callable[[NodeId, Mapping[str, str], str], Mapping[str, Sets]]
"""(claimed identity, metadata, identity in the certificate)"""
OnRejection = Callable[[Connection, Rejection], None]


def _less(counted: Counter[T], key: T) -> None:
    counted[key] -= 1
    if not counted[key]:
        del counted[key]


class AdsServer:
    def __init__(self, allow: Allow, sets: Sets_, proxyless_sets: ProxylessSets, on_rejection: OnRejection) -> None:
        self._allow, self._sets, self._on_rejection = allow, sets, on_rejection
        self._proxyless_sets = proxyless_sets
        self.proxyless: set[Proxyless] = set()
        self.connections: set[Connection] = set()
        self._streams: Counter[tuple[str, str, str]] = Counter()
        """How many there are, by namespace and pod, and by the identity in the certificate: a pod that istiod does not
        know yet may be claimed by others."""
        self._streams_of: Counter[str] = Counter()
        """By the identity in the certificate."""
        self.joined: Callable[[Connection], None] = lambda _: None
        self.left: Callable[[Connection], None] = lambda _: None
        self.answered: Callable[[], None] = lambda: None
        """Called whenever a proxy has sent an ACK or NACK, connected, or disconnected."""
        self.questions: Questions | None = None
        """Answers debug requests of clients with a certificate."""
        self.measures = Measures(Registry())
        self._backlog: deque[Callable[[], None]] = deque()
        self._working = False

    def accept(self, call: Call) -> Handler | None:
        """The handler for a call of a client with a certificate; None if there is no such method."""
        match call.path:
            case names.DELTA_METHOD:
                return _Delta(self, call)
            case names.SOTW_METHOD:
                return _Sotw(self, call)
            case _:
                return None

    def later(self, call: Call, handle: Callable[[T], None], request: T) -> None:
        """Queue a request, which may ask for a proxy's whole configuration, so that other proxies can connect,
        acknowledge and get changes in the meantime, however many come at once. Until then its call is not read."""

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
        """Register the proxy of a call by its first request; None if it is refused and the call has ended."""
        node = self._admitted(call, first)
        if node is None:
            return None
        session = Session(lingering=node.kind == ROUTER)
        version, metadata = messages.version(first), messages.metadata(first)
        connection = Connection(node, identity_of(call), version, metadata, session, call=call)
        self.connections.add(connection)
        self._joined(node, connection.identity)
        self.joined(connection)
        log.info("connected: %s (%s)", node, connection.identity)
        try:
            connection.session.offer(self._sets(connection))
        except Exception:
            self.leave(connection)  # the call ends, and ``leave`` would not be called otherwise
            raise
        return connection

    def join_proxyless(self, call: Call, first: discovery_pb2.DiscoveryRequest) -> Proxyless | None:
        """Like ``join``, for a proxyless gRPC client."""
        node = self._admitted(call, first)
        if node is None:
            return None
        stream = Proxyless(node, call, messages.metadata(first))
        self.proxyless.add(stream)
        self._joined(node, identity_of(call))
        log.info("proxyless gRPC client connected: %s", node)
        try:
            stream.send(stream.session.offer(self._proxyless_sets(node, stream.metadata, identity_of(call))))
        except Exception:
            self.leave_proxyless(stream)
            raise
        return stream

    def _admitted(self, call: Call, first: messages.First) -> NodeId | None:
        try:
            node = parse(first.node.id)
        except ValueError as e:
            call.finish(Status.INVALID_ARGUMENT, str(e))
            return None
        if (why := self._allow(node, identity_of(call), messages.metadata(first))) is not None:
            log.warning("%s refused: %s", node, why)
            call.finish(Status.PERMISSION_DENIED, why)
            return None
        if self._streams[node.namespace, node.pod, identity_of(call)] >= MAX_STREAMS:
            call.finish(Status.RESOURCE_EXHAUSTED, f"{node.pod} has {MAX_STREAMS} streams already")
            return None
        full = len(self.connections) + len(self.proxyless) >= MOST_STREAMS
        if full and self._streams_of[identity_of(call)] >= max(self._streams_of.values(), default=0):
            call.finish(Status.RESOURCE_EXHAUSTED, f"istiod has {MOST_STREAMS} streams, most of them of this identity")
            return None
        return node

    def _joined(self, node: NodeId, identity: str) -> None:
        self._streams[node.namespace, node.pod, identity] += 1
        self._streams_of[identity] += 1

    def _left(self, node: NodeId, identity: str) -> None:
        _less(self._streams, (node.namespace, node.pod, identity))
        _less(self._streams_of, identity)

    def leave(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._left(connection.node, connection.identity)
        self.left(connection)
        self.answered()
        log.info("disconnected: %s", connection.node)

    def leave_proxyless(self, stream: Proxyless) -> None:
        self.proxyless.discard(stream)
        self._left(stream.node, identity_of(stream.call))

    def receive(self, connection: Connection, request: Request) -> None:
        try:
            responses, rejection = connection.session.receive(request)
        except TooMany as e:
            raise BadRequest(str(e)) from None
        if rejection is not None:
            self.measures.rejects.add(_short(rejection.type_url))
            self._on_rejection(connection, rejection)
        self._send(connection, responses)
        self._linger(connection)
        self.answered()

    def _linger(self, connection: Connection) -> None:
        """Track removed clusters that are to be withdrawn later, and forget those that are back; those that could not
        be withdrawn in time wait once more."""
        if connection.node.kind != ROUTER or not ((held := connection.session.holding) or connection.removed_at):
            return
        loop = asyncio.get_running_loop()
        now, before = loop.time(), connection.removed_at
        connection.removed_at = {name: before.get(name, now) for name in held}
        if connection.lingering is None and held:
            rest = LINGER_S - (now - min(connection.removed_at.values()))
            wait = rest if rest > 0 else LINGER_S
            connection.lingering = loop.call_later(wait, self._withdraw, connection)

    def _withdraw(self, connection: Connection) -> None:
        connection.lingering = None
        if connection in self.connections:
            latest = asyncio.get_running_loop().time() - LINGER_S
            due = frozenset(name for name, at in connection.removed_at.items() if at <= latest)
            self._send(connection, connection.session.withdraw(due))
            self._linger(connection)

    def _send(self, connection: Connection, responses: list[Response]) -> None:
        if not responses:
            return
        began = time.monotonic()
        sizes = connection.send(responses)
        self.measures.send_time.observe(time.monotonic() - began)
        for response, size in zip(responses, sizes, strict=True):
            self.measures.sent(_short(response.type_url), size)

    def _offer(self, connection: Connection, began: float, changed_at: float) -> None:
        responses = connection.session.offer(self._sets(connection))
        self._linger(connection)
        if not responses:
            return
        took = time.monotonic() - began
        self._send(connection, responses)
        for response in responses:
            self.measures.push_time.observe(took, _short(response.type_url))
        self.measures.convergence_time.observe(time.monotonic() - changed_at)

    async def push(self, changed_at: float | None = None) -> None:
        """Offer every proxy its current resources; a failure with one does not affect the others. Yields to other work
        in between. ``changed_at``: when the change happened, by ``time.monotonic``."""
        began = last = time.monotonic()
        for connection in tuple(self.connections):
            now = time.monotonic()
            if now - last > SLICE_S:
                await asyncio.sleep(0)
                last = now = time.monotonic()
            if connection not in self.connections:
                continue  # disconnected in the meantime
            try:
                self.measures.queue_time.observe(now - began)
                self._offer(connection, now, began if changed_at is None else changed_at)
            except Exception:  # isolation: this proxy keeps its last good configuration
                self.measures.failures.add()
                log.exception("push to %s failed", connection.node)
        for stream in tuple(self.proxyless):
            try:
                stream.send(
                    stream.session.offer(self._proxyless_sets(stream.node, stream.metadata, identity_of(stream.call)))
                )
            except Exception:
                log.exception("push to %s failed", stream.node)
            await asyncio.sleep(0)


class _Delta:
    """The call of a proxy."""

    def __init__(self, server: AdsServer, call: Call) -> None:
        self._server, self._call = server, call
        self._connection: Connection | None = None

    def received(self, message: bytes) -> None:
        request = decoded(discovery_pb2.DeltaDiscoveryRequest, message)
        if self._connection is None or messages.asks(request):
            self._server.later(self._call, self._asked, request)
        else:
            self._server.receive(self._connection, messages.answer(request))

    def _asked(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        if self._connection is None:
            self._connection = self._server.join(self._call, request)
        if self._connection is not None:
            self._server.receive(self._connection, messages.request(request))

    def completed(self) -> None:
        self._call.finish()

    def closed(self) -> None:
        if self._connection is not None:
            self._server.leave(self._connection)


class _Sotw:
    """The call of a proxyless gRPC client, or one with debug requests."""

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
                reason = request.error_detail.message[: messages.MAX_REASON]
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
            self._server.leave_proxyless(self._stream)


_SHORT = {t: short.lower() for t, short in names.SHORT.items()}


def _short(type_url: str) -> str:
    return _SHORT.get(type_url, "other")
