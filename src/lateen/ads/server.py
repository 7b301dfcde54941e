"""The gRPC server of delta ADS: moves bytes between streams and sessions without knowing their contents."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from lateen.ads import sotw
from lateen.ads.debug import Questions, is_question
from lateen.ads.session import Rejection, Request, Response, Session, Sets
from lateen.ads.sotw import SotwSession
from lateen.kit import protowire, tasks
from lateen.wire import names
from lateen.wire.node import NodeId, parse

log = logging.getLogger("lateen.ads")

MAX_MESSAGE = 4 * 1024 * 1024
SLICE_S = 0.005
"""Seconds after which a push yields to other work, so that messages leave while it is going on."""


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
    outbox: asyncio.Queue[Response | None] = field(default_factory=lambda: asyncio.Queue(maxsize=64))
    bytes_sent: int = 0
    sent_at: dict[str, float] = field(default_factory=dict)
    """When the last response of each type left, in seconds since the epoch."""
    view: object = None
    """What the last offer was made from, kept so that the next one shares what has not changed."""

    def send(self, responses: list[Response]) -> None:
        for response in responses:
            self.outbox.put_nowait(response)  # at most one response per type is in flight, so it cannot overflow


@dataclass(eq=False)
class Proxyless:
    """A connected gRPC client without a proxy."""

    node: NodeId
    session: SotwSession = field(default_factory=SotwSession)
    outbox: asyncio.Queue[sotw.Response | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1024))

    def send(self, responses: list[sotw.Response]) -> None:
        for response in responses:
            self.outbox.put_nowait(response)

    def drop(self) -> None:
        """End the stream, even if something is waiting."""
        while not self.outbox.empty():
            self.outbox.get_nowait()
        self.outbox.put_nowait(None)


Allow = Callable[[NodeId, str, dict[str, str]], str | None]
"""(claimed identity, the certificate's identity, metadata) -> why it is not admitted, or None."""
Sets_ = Callable[[Connection], Mapping[str, Sets]]
ProxylessSets = Callable[[NodeId], Mapping[str, Sets]]
OnRejection = Callable[[Connection, Rejection], None]


class AdsServer(grpc.GenericRpcHandler):  # type: ignore[misc]
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
        self.pushes: dict[str, int] = {}
        self.rejects: dict[str, int] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == names.SOTW_METHOD:
            return grpc.stream_stream_rpc_method_handler(
                self._sotw_stream,
                request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
                response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
            )
        if details.method != names.DELTA_METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=lambda raw: raw,
        )

    async def _stream(
        self, requests: AsyncIterator[discovery_pb2.DeltaDiscoveryRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        identity = _identity(context)
        first = await anext(aiter(requests), None)
        if first is None:
            return
        node = await _node(first, context)
        if (why := self._allow(node, identity, _metadata(first))) is not None:
            log.warning("%s refused: %s", node, why)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
        connection = Connection(node, identity, _version(first), _metadata(first))
        self.connections.add(connection)
        self.joined(connection)
        log.info("connected: %s (%s)", node, identity)
        reader = tasks.spawn(self._read(connection, first, requests), f"xds {node.pod}")
        reader.add_done_callback(lambda _: connection.outbox.put_nowait(None))
        try:
            while (response := await connection.outbox.get()) is not None:
                raw = encode(response)
                connection.bytes_sent += len(raw)
                connection.sent_at[response.type_url] = time.time()
                short = names.SHORT.get(response.type_url, "other")
                self.pushes[short] = self.pushes.get(short, 0) + 1
                yield raw
        finally:
            self.connections.discard(connection)
            self.left(connection)
            self.answered()
            reader.cancel()
            log.info("disconnected: %s", node)

    async def _sotw_stream(
        self, requests: AsyncIterator[discovery_pb2.DiscoveryRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[discovery_pb2.DiscoveryResponse]:
        """For gRPC clients without a proxy, and for questions about the control plane."""
        first = await anext(aiter(requests), None)
        if first is None:
            return
        if self.questions is not None and is_question(first.type_url):
            async for answer in self.questions.answers(_identity(context), first, requests, context):
                yield answer
            return
        node = await _node(first, context)
        if (why := self._allow(node, _identity(context), _metadata(first))) is not None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
        stream = Proxyless(node)
        self.proxyless.add(stream)
        log.info("connected without a proxy: %s", node)
        stream.send(stream.session.offer(self._proxyless_sets(node)))
        reader = tasks.spawn(_read_sotw(stream, first, requests), f"xds {node.pod}")
        reader.add_done_callback(lambda _: stream.drop())
        try:
            while (response := await stream.outbox.get()) is not None:
                yield discovery_pb2.DiscoveryResponse(
                    type_url=response.type_url,
                    version_info=response.version,
                    nonce=response.nonce,
                    resources=[discovery_pb2.Resource.FromString(r.wrapped).resource for r in response.resources],
                )
        finally:
            self.proxyless.discard(stream)
            reader.cancel()

    async def _read(
        self,
        connection: Connection,
        first: discovery_pb2.DeltaDiscoveryRequest,
        requests: AsyncIterator[discovery_pb2.DeltaDiscoveryRequest],
    ) -> None:
        connection.session.offer(self._sets(connection))
        self._receive(connection, first)
        try:
            async for message in requests:
                self._receive(connection, message)
        except grpc.RpcError:
            return

    def _receive(self, connection: Connection, m: discovery_pb2.DeltaDiscoveryRequest) -> None:
        error = m.error_detail.message if m.HasField("error_detail") else ""
        if m.HasField("error_detail") and not error:
            error = f"code {m.error_detail.code}"
        request = Request(
            m.type_url,
            m.response_nonce,
            tuple(m.resource_names_subscribe),
            tuple(m.resource_names_unsubscribe),
            dict(m.initial_resource_versions),
            error,
        )
        responses, rejection = connection.session.receive(request)
        if rejection is not None:
            short = names.SHORT.get(rejection.type_url, "other")
            self.rejects[short] = self.rejects.get(short, 0) + 1
            self._on_rejection(connection, rejection)
        connection.send(responses)
        self.answered()

    async def push(self) -> None:
        """Offer every proxy what it should have now; a failure with one does not affect the others. Yields to other
        work in between."""
        last = time.monotonic()
        for connection in tuple(self.connections):
            if connection not in self.connections:
                continue  # disconnected in the meantime
            try:
                connection.send(connection.session.offer(self._sets(connection)))
            except Exception:  # isolation: this proxy keeps its last good configuration
                log.exception("no push to %s", connection.node)
            if time.monotonic() - last > SLICE_S:
                await asyncio.sleep(0)
                last = time.monotonic()
        for stream in tuple(self.proxyless):
            try:
                stream.send(stream.session.offer(self._proxyless_sets(stream.node)))
            except Exception:  # including a client that does not read: it is disconnected and reconnects
                log.exception("no push to %s", stream.node)
                self.proxyless.discard(stream)
                stream.drop()


async def _read_sotw(
    stream: Proxyless,
    first: discovery_pb2.DiscoveryRequest,
    requests: AsyncIterator[discovery_pb2.DiscoveryRequest],
) -> None:
    message: discovery_pb2.DiscoveryRequest | None = first
    try:
        while message is not None:
            if message.HasField("error_detail"):
                log.error("%s refused %s: %s", stream.node.pod, message.type_url, message.error_detail.message)
            stream.send(stream.session.receive(message.type_url, tuple(message.resource_names), message.response_nonce))
            message = await anext(aiter(requests), None)
    except grpc.RpcError:
        return


async def _node(first: Any, context: grpc.aio.ServicerContext) -> NodeId:
    try:
        return parse(first.node.id)
    except ValueError as e:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))
        raise


def encode(response: Response) -> bytes:
    """A DeltaDiscoveryResponse; its resources are joined as the serialized bytes that they already are (field 2)."""
    head = discovery_pb2.DeltaDiscoveryResponse(
        type_url=response.type_url, nonce=response.nonce, removed_resources=response.removed
    )
    parts = [head.SerializeToString()]
    parts += [protowire.message(2, r.wrapped) for r in response.resources]
    return b"".join(parts)


def _identity(context: grpc.aio.ServicerContext) -> str:
    """The SPIFFE ID in the verified client certificate; empty if there is none."""
    for value in context.auth_context().get("x509_subject_alternative_name", ()) or ():
        text = value.decode()
        if text.startswith("spiffe://"):
            return str(text)
    return ""


def _metadata(m: discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest) -> dict[str, str]:
    return {k: v.string_value for k, v in m.node.metadata.fields.items() if v.HasField("string_value")}


def _version(m: discovery_pb2.DeltaDiscoveryRequest) -> str:
    v = m.node.user_agent_build_version.version
    return f"{v.major_number}.{v.minor_number}.{v.patch}"
