"""Watches and lists of custom resources in several versions."""

import asyncio
import json

import pytest
from apiserver import Cluster
from hooks import Converter, serving
from test_server_itself import samples
from widgets import CRDS, V1, V2, answered, by, changed, converting, definition, stored, widget


@pytest.fixture
def hook():
    with serving(Converter) as found:
        yield found


@pytest.fixture
def cluster(hook):
    return converting(hook)


async def seen(peer, events):
    async with asyncio.timeout(10):
        while peer.sent.count(b'"type"') < events:
            await asyncio.sleep(0.01)


def test_a_watch_that_cannot_convert_ends_with_the_reason(cluster, hook):
    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {V1}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        hook.change = answered(result={"status": "Failure", "message": "broken"})
        await cluster.send("POST", V2, widget("a", width=1, height=1))
        await seen(peer, 1)
        await cluster.webhooks.close()
        protocol.connection_lost(None)
        return json.loads(next(line for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')))

    event = asyncio.run(run())
    assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
    assert event["object"]["message"] == "conversion webhook for example.com/v2, Kind=Widget failed: broken"


async def watching(cluster, wanted):
    """Return when there are so many watches."""
    while True:
        _, text = await cluster.send("GET", "/metrics")
        if list(samples(text, "apiserver_longrunning_requests").values()) == [wanted]:
            return
        await asyncio.sleep(0.01)


def test_many_watches_convert_a_change_once(cluster, hook):
    async def run():
        peers = [cluster.connection() for _ in range(10)]
        for protocol, peer in peers:
            protocol.connection_made(peer)
            protocol.data_received(f"GET {V1}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.wait_for(watching(cluster, len(peers)), 10)
        await cluster.send("POST", V2, widget("a", width=1, height=1))
        for protocol, peer in peers:
            await seen(peer, 1)
            peer.close()
            protocol.connection_lost(None)
        await cluster.webhooks.close()

    asyncio.run(run())
    assert len(hook.asked) == 1


def test_a_watch_shows_each_change_in_its_version(cluster, hook):
    cluster.must("POST", V2, widget("a", width=1, height=1))

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {V1}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await seen(peer, 1)
        for body in ({"spec": {"width": 2}}, {"spec": {"height": 5}}):
            await cluster.send("PATCH", f"{V2}/a", body)
        await cluster.send("DELETE", f"{V2}/a")
        await seen(peer, 4)
        peer.close()
        protocol.connection_lost(None)
        await cluster.webhooks.close()
        return [json.loads(line) for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')]

    events = asyncio.run(run())
    assert [(e["type"], e["object"]["spec"]["size"]) for e in events] == [
        ("ADDED", "1x1"),
        ("MODIFIED", "2x1"),
        ("MODIFIED", "2x5"),
        ("DELETED", "2x5"),
    ]
    assert {e["object"]["apiVersion"] for e in events} == {"example.com/v1"}


def test_a_watch_ends_when_its_kind_is_converted_in_another_way(hook):
    cluster = Cluster()
    cluster.must("POST", CRDS, definition())
    cluster.must("POST", V2, widget("a", width=1, height=1))

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {V1}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await seen(peer, 1)
        await cluster.send("PATCH", f"{CRDS}/widgets.example.com", {"metadata": {"labels": {"a": "b"}}})
        await cluster.send("POST", V2, widget("b", width=1, height=1))
        await seen(peer, 2)
        await cluster.send("PUT", f"{CRDS}/widgets.example.com", changed(cluster, **by(hook)))
        await cluster.send("POST", V2, widget("c", width=1, height=1))
        async with asyncio.timeout(10):
            while not peer.sent.endswith(b"0\r\n\r\n"):
                await asyncio.sleep(0.01)
        protocol.connection_lost(None)
        await cluster.webhooks.close()
        return [json.loads(line) for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')]

    assert [(e["type"], e["object"]["metadata"]["name"]) for e in asyncio.run(run())] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
    ]


def test_a_watch_of_a_removed_definition_tells_what_is_gone_and_ends(cluster):
    cluster.must("POST", V2, widget("a", width=1, height=1))

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {V1}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await seen(peer, 1)
        await cluster.send("DELETE", f"{CRDS}/widgets.example.com")
        async with asyncio.timeout(10):
            while not peer.sent.endswith(b"0\r\n\r\n"):
                await asyncio.sleep(0.01)
        protocol.connection_lost(None)
        await cluster.webhooks.close()
        return [json.loads(line)["type"] for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')]

    assert asyncio.run(run()) == ["ADDED", "DELETED"]


def test_a_list_is_of_one_moment_however_long_its_conversion_takes(cluster, hook):
    """Somebody writes while the webhook converts, each time."""
    cluster.must("POST", V2, widget("a", width=1, height=1))
    loops, count = [], iter(range(100))

    def write(_):
        done = asyncio.run_coroutine_threadsafe(
            cluster.send("POST", V2, widget(f"b{next(count)}", width=1, height=1)), loops[0]
        )
        assert done.result(10)[0] == 201

    async def ask(method, path):
        loops[:] = [asyncio.get_running_loop()]
        try:
            return await cluster.send(method, path)
        finally:
            await cluster.webhooks.close()

    hook.change = write
    code, found = asyncio.run(ask("GET", V1))
    assert (code, [o["metadata"]["name"] for o in found["items"]]) == (200, ["a"])
    assert int(found["metadata"]["resourceVersion"]) < int(stored(cluster, "b0")["metadata"]["resourceVersion"])
    assert len(hook.asked) == 1
    code, answer = asyncio.run(ask("DELETE", V1))
    assert code == 200, answer
    assert cluster.ask("GET", f"{V2}/a")[0] == cluster.ask("GET", f"{V2}/b0")[0] == 404
    assert cluster.must("GET", f"{V2}/b1"), "which has come after the deletion had begun"


def test_a_page_is_converted_without_those_after_it(cluster, hook):
    for n in range(5):
        cluster.must("POST", V2, widget(f"w{n}", width=n, height=1))
    page = cluster.must("GET", f"{V1}?limit=2")
    assert [o["spec"]["size"] for o in page["items"]] == ["0x1", "1x1"]
    assert page["metadata"]["remainingItemCount"] == 3
    assert [o["metadata"]["name"] for asked in hook.asked for o in asked["objects"]] == ["w0", "w1"]
    hook.asked.clear()
    assert cluster.must("GET", f"{V1}?fieldSelector=metadata.name%3Dw4")["items"][0]["spec"]["size"] == "4x1"
    found = cluster.must("GET", f"{V1}?fieldSelector=metadata.name!=w0,metadata.namespace=default")["items"]
    assert len(found) == 4
    assert [[o["metadata"]["name"] for o in asked["objects"]] for asked in hook.asked] == [["w4"], ["w2", "w3"]]
    rest = cluster.must("GET", f"{V1}?limit=5&continue={page['metadata']['continue']}")
    assert [o["spec"]["size"] for o in rest["items"]] == ["2x1", "3x1", "4x1"]
