"""Clients that read their answers slowly, or never: what they cost is bounded."""

import asyncio
import socket

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from lateen.console import sending

BIG = b"x" * 30_000_000
"""More than the kernel takes at once."""


async def answered(_):
    return web.Response(body=BIG)


async def small(_):
    return web.Response(text="ok")


class Stalled:
    """A client that asks and does not read."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    def cut(self):
        """Whether the server has closed the connection before everything was sent."""
        self.socket.settimeout(10)
        read = 0
        try:
            while part := self.socket.recv(1 << 20):
                read += len(part)
        except ConnectionResetError:
            return True
        return read < len(BIG)


def served(most, limit_s, work, outside=()):
    """``outside``: middlewares around the one that is tested."""

    async def run():
        app = web.Application(middlewares=[*outside, sending.bounded(most, limit_s)])
        app.add_routes([web.get("/", answered), web.get("/small", small)])
        async with TestServer(app) as server, TestClient(server) as client:
            return await work(server.port, client)

    return asyncio.run(run())


def test_a_client_that_does_not_read_is_cut_off_after_a_while():
    ended = asyncio.Event()

    @web.middleware
    async def noted(request, handler):
        try:
            return await handler(request)
        finally:
            ended.set()

    async def reads(port, _):
        assert await asyncio.to_thread(Stalled(port).cut) is False, "who reads gets all of it"

    async def stalls(port, client):
        slow = Stalled(port)
        await ended.wait()
        assert await asyncio.to_thread(slow.cut)
        assert (await client.get("/small")).status == 200

    served(len(BIG), 30, reads)
    served(len(BIG), 0.3, stalls, [noted])


def test_an_answer_without_room_is_refused_and_small_ones_still_fit():
    async def work(port, client):
        slow = [Stalled(port) for _ in range(2)]
        async with asyncio.timeout(10):
            while (found := await client.get("/")).status != 503:
                await found.read()
        assert "no room for more" in await found.text()
        assert (await client.get("/small")).status == 200
        for one in slow:
            one.socket.close()
        async with asyncio.timeout(10):
            while (found := await client.get("/")).status != 200:
                await asyncio.sleep(0.01)
        assert len(await found.read()) == len(BIG)

    served(2 * len(BIG) + 100, 30, work)


def test_an_answer_larger_than_the_bound_is_sent_alone():
    async def work(_, client):
        assert len(await (await client.get("/")).read()) == len(BIG)

    served(1000, 30, work)
