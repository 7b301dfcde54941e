"""Clients of the API that take their time, or more than their share of it: none of them keeps the others waiting."""

import asyncio
import selectors

import pytest
from aiohttp import web
from apiserver import Peer

from lateen.cluster.apiserver import front_door, lane
from lateen.cluster.apiserver.front_door import FrontDoor

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LIMITS = {"HEAD_S": 0.1, "IDLE_S": 0.2, "DRAINING_S": 0.02, "STALLED_S": 0.6}


class Selector(selectors.DefaultSelector):
    """Does not wait: a clock goes on instead, so that no test depends on how busy the machine is."""

    now = 0.0

    def select(self, timeout=None):
        found = super().select(timeout if timeout is None else 0)
        if not found and timeout is not None:
            self.now += max(timeout, 0)
        return found


class Loop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.clock = Selector()
        super().__init__(self.clock)

    def time(self):
        return self.clock.now


async def aiohttps(_):
    return web.Response()


class Slow(Peer):
    """A client that is asked to wait, and that may leave what is written to it unread."""

    def __init__(self):
        super().__init__("admin", ("system:masters",))
        self.reading, self.unread, self.resumed = True, 0, 0

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading, self.resumed = True, self.resumed + 1

    def get_write_buffer_size(self):
        return self.unread


@pytest.fixture
def soon(monkeypatch):
    for name, seconds in LIMITS.items():
        monkeypatch.setattr(front_door, name, seconds)


def play(scene):
    """A server that has one answer, and leaves to aiohttp what is not plain."""

    async def run():
        door, peer = FrontDoor(web.Server(aiohttps), None, lambda *_: OK), Slow()
        door.connection_made(peer)
        await scene(door, peer)
        door.connection_lost(None)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())


def test_a_head_is_read_once_however_slowly_its_body_comes(monkeypatch):
    read, kept = [], lane.head
    monkeypatch.setattr(lane, "head", lambda data: read.append(len(data)) or kept(data))

    async def scene(door, peer):
        door.data_received(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n")
        for _ in range(499):
            door.data_received(b"x")
        assert (len(read), peer.sent) == (1, b"")
        door.data_received(b"x" + GET)
        assert (len(read), peer.sent) == (2, OK * 2)

    play(scene)


def test_a_request_has_no_more_than_128_headers():
    few = "GET /a HTTP/1.1\r\nHost: x\r\n" + "a:b\r\n" * 127
    assert lane.head(f"{few}\r\n".encode()).method == "GET"
    with pytest.raises(lane.Unusual):
        lane.head(f"{few}c:d\r\n\r\n".encode())


@pytest.mark.parametrize("begun", [b"GET /a HTTP/1.1\r\nX: " + b"y" * lane.MAX_HEAD, b"\r\n\r\n", b"\r\n\r\nGET /"])
def test_a_head_that_is_never_complete_ends_its_connection_whoever_reads_it(soon, begun):
    async def scene(door, peer):
        door.data_received(begun)
        for _ in range(30):
            await asyncio.sleep(0.01)
            door.data_received(b"z")
        assert peer.closed

    play(scene)


def test_a_long_head_that_is_complete_in_time_is_answered_and_its_connection_stays(soon):
    async def scene(door, peer):
        door.data_received(b"GET /version HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"y" * 5000 + b"\r\n") * 2 + b"\r")
        door.data_received(b"\n")
        await asyncio.sleep(0.3)
        assert peer.sent.startswith(b"HTTP/1.1 200")
        assert not peer.closed

    play(scene)


def test_an_answer_that_is_read_slowly_is_not_cut_off_and_the_connection_stays_as_long_as_others(soon):
    async def scene(door, peer):
        peer.unread = 5000
        door.data_received(GET)
        await asyncio.sleep(0.4)
        assert not peer.closed
        peer.unread = 0
        await asyncio.sleep(0.1)
        assert not peer.closed, "it may ask again for as long as any other"
        await asyncio.sleep(0.3)
        assert peer.closed

    play(scene)


def test_an_answer_that_nobody_reads_is_given_up(soon):
    async def scene(door, peer):
        peer.unread = 5000
        door.data_received(GET)
        await asyncio.sleep(0.9)
        assert peer.closed

    play(scene)


def test_a_client_that_sends_much_at_once_is_read_again_when_it_has_read():
    async def scene(door, peer):
        door.pause_writing()
        door.data_received(GET * (2 * lane.MAX_BODY // len(GET) + 1))
        assert not peer.reading
        door.resume_writing()
        await asyncio.sleep(0.1)
        assert peer.reading
        assert not peer.sent.replace(OK, b"")
        door.pause_writing()
        door.data_received(b"GET /version HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n" + GET * 2000)
        assert not peer.reading
        door.resume_writing()
        assert peer.resumed == 2, "whether aiohttp reads is its own affair"

    play(scene)


def test_a_client_that_sends_many_requests_at_once_leaves_others_their_turn():
    async def scene(door, peer):
        seen = []
        asyncio.get_running_loop().call_soon(lambda: seen.append(peer.sent.count(OK)))
        door.data_received(GET * 100)
        await asyncio.sleep(0.1)
        assert seen[0] < 20
        assert peer.sent == OK * 100

    play(scene)
