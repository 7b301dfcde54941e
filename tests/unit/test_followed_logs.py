"""`kubectl logs -f` of containers that are quiet, and clients that go away meanwhile."""

import asyncio

import pytest
from apiserver import Cluster

from lateen.cluster.apiserver.access import LogOptions
from lateen.cluster.kubelet.access import _read

PODS = "/api/v1/namespaces/default/pods"


class Quiet:
    """A container that writes nothing until it is told to."""

    def __init__(self):
        self.lines, self.ended = [], asyncio.Event()

    async def logs(self, _namespace, _pod, container, _options):
        if container == "none":
            raise LookupError("there is no such container")
        try:
            yield b""
            while True:
                yield self.lines.pop() if self.lines else b""
                await asyncio.sleep(0.001)
        finally:
            self.ended.set()


@pytest.fixture
def cluster():
    made = Cluster()
    made.must("POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    return made


async def until(test):
    async with asyncio.timeout(10):
        while not test():
            await asyncio.sleep(0.001)


def test_the_answer_begins_before_the_first_line_and_ends_with_the_client(cluster):
    async def run():
        cluster.access = Quiet()
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {PODS}/p/log?follow=true HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: b"\r\n\r\n" in peer.sent)
        assert peer.sent.startswith(b"HTTP/1.1 200")
        cluster.access.lines.append(b"at last\n")
        await until(lambda: b"at last" in peer.sent)
        assert not cluster.access.ended.is_set()
        peer.closed = True
        protocol.connection_lost(None)
        async with asyncio.timeout(10):
            await cluster.access.ended.wait()

    asyncio.run(run())


def test_what_has_no_log_is_refused_before_the_answer_begins(cluster):
    cluster.access = Quiet()
    code, status = cluster.ask("GET", f"{PODS}/p/log?follow=true&container=none")
    assert (code, status["message"]) == (400, "there is no such container")


def test_a_log_that_is_followed_says_so_while_nothing_is_written(tmp_path):
    path, running = tmp_path / "0.log", [True]

    async def run():
        path.write_bytes(b"T first\n")
        found = _read(path, LogOptions(follow=True), lambda: bool(running))
        got = [await anext(found) for _ in range(3)]
        with path.open("ab") as f:
            f.write(b"T second\n")
        got.append(await anext(found))
        running.clear()
        return got + [chunk async for chunk in found]

    assert asyncio.run(run()) == [b"first\n", b"", b"", b"second\n"]
