"""A gRPC server over TLS as istiod has it, and its clients: gRPC's own, and one that may break the rules."""

import asyncio
import contextlib
import socket
import ssl
from datetime import timedelta

import grpc.aio
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from h2.settings import SettingCodes, Settings

from lateen.ads import listening as clients
from lateen.ads import rpc
from lateen.ads.rpc import Status
from lateen.ca.authority import Authority, Identity
from lateen.control.serving import Certificate
from lateen.kit import certs, times

CA = Authority.create(times.now(), "cluster.local")
CERTIFICATE = Certificate(CA, ["istiod"], Identity("cluster.local", "istio-system", "istiod"))
MINE = "spiffe://cluster.local/ns/default/sa/web"
BIG = 3_000_000
HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "istiod"), (":path", "/test/Echo")]


def leaf(authority=CA):
    return certs.issue(authority.state.signer.pair, [MINE], times.now(), timedelta(hours=1))


class Echo:
    """Sends back what it gets; says who asks; ends, fails or talks without end as it is told."""

    def __init__(self, call, ended):
        self.call, self.ended = call, ended

    def received(self, message):
        match message:
            case b"hold":
                self.call.hold()
                asyncio.get_running_loop().call_later(0.3, self.call.resume)
            case b"flood":
                for i in range(rpc.MAX_UNSENT + 9):
                    self.call.send([(b"%d" % i,)])
            case b"bad end":
                self.completed = self.closed = lambda: 1 / 0
            case b"who":
                self.call.send([(" ".join(self.call.identities).encode(),)])
            case b"refuse":
                self.call.finish(Status.PERMISSION_DENIED, "100% refused: für dich")
            case b"break":
                raise RuntimeError("on purpose")
            case b"big":
                self.call.send([(b"x" * BIG, b"y" * BIG), (b"after",)])
            case _:
                self.call.send([(message,)])

    def completed(self):
        self.call.send([(b"bye",)])
        self.call.finish()

    def closed(self):
        self.ended.append(self.call.path)


@contextlib.asynccontextmanager
async def serving(context=CERTIFICATE.mutual):
    """(port, paths of calls that have ended)"""
    async with listening(context) as (server, port, ended):
        del server
        yield port, ended


@contextlib.asynccontextmanager
async def listening(context=CERTIFICATE.mutual):
    ended = []
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = await clients.serve(
        lambda call: Echo(call, ended) if call.path == "/test/Echo" else None, "127.0.0.1", port, lambda: context
    )
    try:
        yield server, port, ended
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def channel(port, pair=None):
    key, certificate = (pair.key.encode(), pair.certificate.encode()) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(CA.root.encode(), key, certificate)
    options = [
        ("grpc.ssl_target_name_override", "istiod"),
        ("grpc.max_receive_message_length", 64 << 20),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as made:
        yield made


async def answers(made, *messages, path="/test/Echo"):
    return [a async for a in made.stream_stream(path)(iter(messages))]


async def failure(made, *messages, path="/test/Echo"):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await answers(made, *messages, path=path)
    return failed.value.code(), failed.value.details()


def dialled(port):
    """A TLS connection of our own, which speaks HTTP/2 with the server."""
    context = ssl.create_default_context(cadata=CA.root)
    context.set_alpn_protocols(["h2"])
    raw = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="istiod")
    raw.settimeout(10)
    return raw


class Client:
    """A client of our own over TLS, which may break the rules."""

    def __init__(self, port, **settings):
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        initial = {SettingCodes[k.upper()]: v for k, v in settings.items()}
        self.h2.local_settings = Settings(client=True, initial_values=initial)
        self.h2.initiate_connection()
        self.raw = dialled(port)
        self.number = -1
        self.sizes = []
        """Of the frames of data that came."""

    def call(self, *messages, now=True):
        self.number += 2
        self.h2.send_headers(self.number, [*HEADERS, ("content-type", "application/grpc")])
        for m in messages:
            self.h2.send_data(self.number, framed(m))
        if now:
            self.send()
        return self.number

    def send(self):
        self.raw.sendall(self.h2.data_to_send())

    def events(self):
        """Until the connection ends."""
        while data := self.raw.recv(65536):
            for event in self.h2.receive_data(data):
                if isinstance(event, DataReceived):
                    self.sizes.append(len(event.data))
                yield event
            with contextlib.suppress(OSError):  # the server has closed, and what it said is still to be read
                self.send()

    def until(self, kind):
        return next(e for e in self.events() if isinstance(e, kind))


def framed(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


def played(story, context=CERTIFICATE.http2):
    """Run what a client does in a thread, against a server; ``story(port)``."""

    async def run():
        async with listening(context) as (server, port, ended):
            out = await asyncio.to_thread(story, port)
            await settled(server)
            return out, ended

    return asyncio.run(run())


async def settled(server, wanted=0):
    while server.counts()[0] > wanted:
        await asyncio.sleep(0.01)
