"""Connections of gRPC clients: how many there may be, and when they end."""

import asyncio
import contextlib
import socket
import ssl
from datetime import timedelta

import grpc.aio
import pytest
from h2.connection import H2Connection
from rpc_peers import (
    CA,
    CERTIFICATE,
    HEADERS,
    MINE,
    Client,
    Echo,
    channel,
    dialled,
    leaf,
    listening,
    played,
    serving,
    settled,
)

from lateen.ads import http2, tls
from lateen.ads import listening as clients
from lateen.ca.authority import Authority, Identity
from lateen.control import serving as serving_
from lateen.control.serving import Certificate
from lateen.kit import certs, times
from lateen.wire import ports


def test_clients_that_show_no_sign_of_life_are_dropped(monkeypatch):
    monkeypatch.setattr(http2, "PING_S", 0.05)
    monkeypatch.setattr(http2, "PONG_S", 0.05)

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


def test_a_client_that_says_goodbye_and_takes_nothing_more_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(tls, "CLOSE_S", 0.2)

    def story(port):
        client = Client(port, initial_window_size=2**31 - 1)
        client.h2.increment_flow_control_window(2**30)
        for _ in range(9):
            client.call(b"big", now=False)  # all at once: a server that waits to write does not read
        client.h2.close_connection()
        client.send()
        return client  # which stays open, and reads nothing

    (client, ended) = played(story)
    client.raw.close()
    assert len(ended) == 9


def test_a_connection_that_is_being_closed_is_not_asked_for_signs_of_life(monkeypatch):
    monkeypatch.setattr(http2, "PING_S", 0.01)
    monkeypatch.setattr(tls, "CLOSE_S", 0.3)
    failures = []

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with listening(CERTIFICATE.http2) as (server, port, _):

            def story():
                client = Client(port, initial_window_size=2**31 - 1)
                client.h2.increment_flow_control_window(2**30)
                client.call(b"big", now=False)
                client.h2.close_connection()
                client.send()
                return client

            client = await asyncio.to_thread(story)
            await settled(server)
            client.raw.close()

    asyncio.run(run())
    assert not failures


def test_there_are_not_more_connections_than_allowed(monkeypatch):
    monkeypatch.setattr(clients, "MAX_CONNECTIONS", 1)

    def refused(port):
        with contextlib.suppress(OSError), dialled(port) as raw:
            while raw.recv(4096):
                pass

    async def run():
        async with listening(CERTIFICATE.http2) as (server, port, _):
            first = await asyncio.to_thread(dialled, port)
            await asyncio.to_thread(refused, port)
            assert server.counts() == (1, 0)
            first.close()
            await settled(server)
            (await asyncio.to_thread(dialled, port)).close()

    asyncio.run(run())


def test_who_takes_all_connections_keeps_nobody_else_out(monkeypatch):
    monkeypatch.setattr(clients, "MAX_CONNECTIONS", 5)
    greedy, modest = (f"spiffe://cluster.local/ns/default/sa/{n}" for n in ("greedy", "modest"))
    pairs = {n: certs.issue(CA.state.signer.pair, [n], times.now(), timedelta(hours=1)) for n in (greedy, modest)}

    async def run():
        async with listening() as (server, port, _), contextlib.AsyncExitStack() as stack:
            calls = []

            async def come(who):
                made = await stack.enter_async_context(channel(port, pairs[who]))
                calls.append(call := made.stream_stream("/test/Echo")())
                await call.write(b"who")
                assert await call.read() == who.encode()

            for who in [modest, *[greedy] * 4, modest]:
                await come(who)
            assert server.counts() == (5, 0)
            (ended,) = [c for c in calls if c.done()] or [calls[4]]
            assert await ended.code() is grpc.StatusCode.UNAVAILABLE, "the newest one of who has most"
            assert not calls[0].done()

    asyncio.run(run())


def test_all_proxies_of_a_mesh_that_come_at_once_get_in(monkeypatch):
    """As after a restart of istiod: none is refused, however few handshakes there may be at a time."""
    monkeypatch.setattr(clients, "MAX_HANDSHAKES", 2)
    most = 0

    async def run():
        async with listening(CERTIFICATE.http2) as (server, port, _):

            def dial():
                nonlocal most
                link = dialled(port)
                most = max(most, server.counts()[1])
                return link

            links = await asyncio.gather(*(asyncio.to_thread(dial) for _ in range(60)))
            while server.counts() != (60, 0):
                await asyncio.sleep(0.01)
            for link in links:
                link.close()

    asyncio.run(run())
    assert most <= 2


def test_who_is_silent_in_its_handshake_makes_room_for_those_who_wait(monkeypatch):
    monkeypatch.setattr(clients, "MAX_HANDSHAKES", 1)
    monkeypatch.setattr(clients, "PATIENCE_S", 0.01)
    monkeypatch.setattr(clients, "PAUSE_S", 0.02)

    async def run():
        async with listening(CERTIFICATE.http2) as (server, port, _):
            with socket.create_connection(("127.0.0.1", port)) as silent:
                while server.counts()[1] != 1:
                    await asyncio.sleep(0.01)
                (await asyncio.to_thread(dialled, port)).close()
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.to_thread(silent.recv, 1) == b""

    asyncio.run(run())


def test_who_is_known_by_a_certificate_is_disconnected_when_it_ends(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(http2, "PING_S", 0.1)
    monkeypatch.setattr(http2, "PONG_S", 1.0)

    async def run():
        short = certs.issue(CA.state.signer.pair, [MINE], times.now(), timedelta(seconds=2))
        async with listening() as (server, port, _), channel(port, short) as made:
            call = made.stream_stream("/test/Echo")()
            await call.write(b"1")
            assert await call.read() == b"1"
            assert (await call.code()) is grpc.StatusCode.UNAVAILABLE
            await settled(server)

    asyncio.run(run())
    assert "the certificate of a client has expired" in caplog.text


def test_a_client_that_has_been_connected_for_long_is_told_to_connect_anew(monkeypatch):
    monkeypatch.setattr(http2, "PING_S", 0.05)
    monkeypatch.setattr(http2, "MAX_AGE_S", 0.2)

    async def run():
        async with listening(CERTIFICATE.http2) as (server, port, _), channel(port) as made:
            for each in (b"1", b"2"):
                call = made.stream_stream("/test/Echo")(wait_for_ready=True)
                await call.write(each)
                assert await call.read() == each
                assert (await call.code()) is grpc.StatusCode.UNAVAILABLE
            await settled(server)

    asyncio.run(run())


def test_clients_connect_again_when_a_root_is_no_longer_trusted_and_not_for_a_mere_renewal(monkeypatch):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        monkeypatch.setattr(ports, "XDS", s.getsockname()[1])
    other = certs.authority("other", times.now()).certificate

    async def run():
        authority = Authority(CA.state)
        authority.others = other
        certificate = Certificate(authority, ["istiod"], Identity("cluster.local", "istio-system", "istiod"))
        server = await serving_.xds(certificate, lambda call: Echo(call, []))
        async with channel(ports.XDS, leaf()) as made:
            call = made.stream_stream("/test/Echo")()
            await call.write(b"1")
            assert await call.read() == b"1"
            certificate.replace()
            await call.write(b"2")
            assert await call.read() == b"2"
            authority.others = ""
            certificate.replace()
            assert (await call.code()) is not grpc.StatusCode.OK
        await server.stop()

    asyncio.run(run())


def test_clients_with_certificates_speak_a_version_of_tls_that_has_no_sessions_to_resume():
    async def run():
        async with serving(CERTIFICATE.mutual) as (port, _):
            context = ssl.create_default_context(cadata=CA.root)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(
                    lambda: context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="istiod")
                )

    asyncio.run(run())
