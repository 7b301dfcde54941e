"""gRPC calls over HTTP/2 and TLS, with the clients that exist: gRPC's own, and a few that break the rules."""

import asyncio
import contextlib
import socket
import ssl
from datetime import timedelta

import grpc.aio
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamReset
from h2.settings import SettingCodes, Settings

from lateen.ads import rpc, tls
from lateen.ads.rpc import Requests, Status
from lateen.ca.authority import Authority, Identity
from lateen.control.serving import Certificate
from lateen.kit import certs, times

CA = Authority.create(times.now(), "cluster.local")
CERTIFICATE = Certificate(CA, ["istiod"], Identity("cluster.local", "istio-system", "istiod"))
MINE = "spiffe://cluster.local/ns/default/sa/web"
BIG = 3_000_000


def leaf(authority=CA):
    return certs.issue(authority.state.signer.pair, [MINE], times.now(), timedelta(hours=1))


class Echo:
    """Sends back what it gets; says who asks; ends, fails or talks without end as it is told."""

    def __init__(self, call, ended):
        self.call, self.ended = call, ended

    def received(self, message):
        match message:
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
    ended = []
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = await rpc.serve(
        lambda call: Echo(call, ended) if call.path == "/test/Echo" else None, "127.0.0.1", port, lambda: context
    )
    try:
        yield port, ended
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


def test_messages_come_and_go_in_order_and_the_end_comes_last():
    async def run():
        async with serving() as (port, ended), channel(port, leaf()) as made:
            assert await answers(made, b"1", b"", b"x" * 100_000) == [b"1", b"", b"x" * 100_000, b"bye"]
            assert ended == ["/test/Echo"]

    asyncio.run(run())


def test_the_client_is_who_its_certificate_says():
    async def run():
        async with serving() as (port, _), channel(port, leaf()) as made:
            assert (await answers(made, b"who"))[0] == MINE.encode()

    asyncio.run(run())


@pytest.mark.parametrize("pair", [None, leaf(Authority.create(times.now(), "cluster.local"))])
def test_clients_without_a_certificate_of_the_mesh_are_refused(pair):
    async def run():
        async with serving() as (port, ended), channel(port, pair) as made:
            code, _ = await failure(made, b"who")
            assert code == grpc.StatusCode.UNAVAILABLE
            assert not ended

    asyncio.run(run())


def test_where_no_certificate_is_asked_for_the_client_is_nobody():
    async def run():
        async with serving(CERTIFICATE.http2) as (port, _), channel(port) as made:
            assert (await answers(made, b"who"))[0] == b""

    asyncio.run(run())


def test_a_failed_call_says_why_and_others_go_on():
    async def run():
        async with serving() as (port, ended), channel(port, leaf()) as made:
            other = made.stream_stream("/test/Echo")()
            await other.write(b"before")
            assert await other.read() == b"before"
            refused = (grpc.StatusCode.PERMISSION_DENIED, "100% refused: für dich")
            assert await failure(made, b"refuse") == refused
            assert (await failure(made, b"break"))[0] == grpc.StatusCode.INTERNAL
            assert await failure(made, path="/test/Other") == (
                grpc.StatusCode.UNIMPLEMENTED,
                "there is no method /test/Other",
            )
            assert (await failure(made, b"x" * (rpc.MAX_MESSAGE + 1)))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
            await other.write(b"after")
            assert await other.read() == b"after"
            other.cancel()
            while len(ended) < 4:  # three that failed in a handler, and the cancelled one
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_slow_client_gets_everything_and_little_of_it_waits_in_buffers():
    async def run():
        async with serving() as (port, _), channel(port, leaf()) as made:
            call = made.stream_stream("/test/Echo")()
            await call.write(b"big")
            await asyncio.sleep(0.2)
            got = await call.read()
            assert got == b"x" * BIG + b"y" * BIG
            assert await call.read() == b"after"
            call.cancel()

    asyncio.run(run())


def dialled(port):
    """A TLS connection of our own, which speaks HTTP/2 with the server."""
    context = ssl.create_default_context(cadata=CA.root)
    context.set_alpn_protocols(["h2"])
    raw = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="istiod")
    raw.settimeout(10)
    return raw


HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "istiod"), (":path", "/test/Echo")]


def test_a_client_that_breaks_http2_loses_its_connection_and_nobody_else_does():
    async def run():
        async with serving(CERTIFICATE.http2) as (port, ended), channel(port) as made:
            other = made.stream_stream("/test/Echo")()
            await other.write(b"before")
            assert await other.read() == b"before"

            def broken():
                with dialled(port) as raw:
                    raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    while raw.recv(4096):
                        pass

            await asyncio.to_thread(broken)
            await other.write(b"after")
            assert await other.read() == b"after"
            assert not ended
            other.cancel()

    asyncio.run(run())


def test_messages_that_say_they_are_compressed_are_refused():
    def compressed(port):
        client = H2Connection(H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        client.send_headers(1, [*HEADERS, ("content-type", "application/grpc")])
        client.send_data(1, b"\1\0\0\0\1x")
        found = {}
        with dialled(port) as raw:
            raw.sendall(client.data_to_send())
            while True:
                for event in client.receive_data(raw.recv(65536)):
                    found.update(getattr(event, "headers", None) or {})
                    if isinstance(event, StreamReset):
                        return found
                raw.sendall(client.data_to_send())

    async def run():
        async with serving(CERTIFICATE.http2) as (port, _):
            found = await asyncio.to_thread(compressed, port)
            assert found["grpc-status"] == str(int(Status.UNIMPLEMENTED))
            assert "compressed" in found["grpc-message"]

    asyncio.run(run())


@pytest.mark.parametrize("how", ["settings", "window update"])
def test_what_waits_is_sent_when_the_client_opens_its_window(how):
    def opened(port):
        client = H2Connection()
        client.local_settings = Settings(client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: 10})
        client.initiate_connection()
        client.send_headers(1, [*HEADERS, ("content-type", "application/grpc")])
        client.send_data(1, b"\0\0\0\0\x14" + b"x" * 20)
        got = b""
        with dialled(port) as raw:
            raw.sendall(client.data_to_send())
            while len(got) < 25:
                for event in client.receive_data(raw.recv(65536)):
                    if isinstance(event, DataReceived):
                        got += event.data
                        if how == "settings":
                            client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
                        else:
                            client.increment_flow_control_window(10, 1)
                raw.sendall(client.data_to_send())
        return got

    async def run():
        async with serving(CERTIFICATE.http2) as (port, _):
            assert await asyncio.to_thread(opened, port) == b"\0\0\0\0\x14" + b"x" * 20

    asyncio.run(run())


def test_clients_that_show_no_sign_of_life_are_dropped(monkeypatch):
    monkeypatch.setattr(rpc, "PING_S", 0.05)
    monkeypatch.setattr(rpc, "PONG_S", 0.05)

    async def run():
        async with serving(CERTIFICATE.http2) as (port, ended), channel(port) as made:
            living = made.stream_stream("/test/Echo")()
            await living.write(b"1")
            assert await living.read() == b"1"

            def silent():
                client = H2Connection()
                client.initiate_connection()
                client.send_headers(1, [*HEADERS, ("content-type", "application/grpc")])
                with dialled(port) as raw:
                    raw.sendall(client.data_to_send())
                    while raw.recv(4096):
                        pass

            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await asyncio.to_thread(silent)
            while not ended:
                await asyncio.sleep(0.01)
            await living.write(b"2")
            assert await living.read() == b"2"
            assert len(ended) == 1
            living.cancel()

    asyncio.run(run())


def test_who_does_not_finish_its_handshake_is_dropped(monkeypatch):
    monkeypatch.setattr(tls, "HANDSHAKE_S", 0.05)

    async def run():
        async with serving() as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(run())


def test_requests_are_waited_for_one_after_the_other():
    async def run():
        requests = Requests()
        for message in (b"1", b"2"):
            requests.received(message)
        requests.completed()
        assert [r async for r in requests] == [b"1", b"2"]

    asyncio.run(run())
