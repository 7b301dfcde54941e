"""gRPC calls over HTTP/2 and TLS with gRPC's own client."""

import asyncio

import grpc.aio
import pytest
from rpc_peers import BIG, CERTIFICATE, MINE, answers, channel, failure, leaf, serving

from lateen.ads import rpc
from lateen.ca.authority import Authority
from lateen.kit import times


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


def test_a_handler_that_fails_at_the_end_leaves_the_others_alone():
    async def run():
        async with serving(CERTIFICATE.http2) as (port, ended), channel(port) as made:
            good = made.stream_stream("/test/Echo")()
            await good.write(b"1")
            assert await good.read() == b"1"
            assert (await failure(made, b"bad end"))[0] == grpc.StatusCode.INTERNAL
            bad = made.stream_stream("/test/Echo")()
            await bad.write(b"bad end")
        while not ended:  # its connection has gone
            await asyncio.sleep(0.01)
        assert ended == ["/test/Echo"]

    asyncio.run(run())
