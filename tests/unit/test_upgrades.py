"""Requests for an upgrade to SPDY that are none, and what is counted of those that are."""

import asyncio

import pytest
from apiserver import Cluster, Peer

from lateen.cluster.node_api import API_SERVER, NodeApi

PODS = "/api/v1/namespaces/default/pods"
MALFORMED = [
    "POST",
    "POST /api",
    f"POST {PODS}/p/exec HTTP/1.1 x",
    "POST http://[ HTTP/1.1",
    "POST //[x]y/api HTTP/1.1",
    "",
]


async def answer(protocol, peer, first):
    """The status code of a request whose first line is ``first``."""
    protocol.connection_made(peer)
    protocol.data_received(f"{first}\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n".encode())
    async with asyncio.timeout(10):
        while not peer.closed:
            await asyncio.sleep(0.001)
    protocol.connection_lost(None)
    return int(peer.sent.split(b" ", 2)[1])


@pytest.mark.parametrize("first", MALFORMED)
def test_the_api_server_answers_what_is_no_request(first):
    cluster = Cluster()

    async def run():
        return await answer(*cluster.connection(), first)

    assert asyncio.run(run()) == 400


@pytest.mark.parametrize("first", MALFORMED)
def test_the_kubelet_answers_what_is_no_request_and_strangers_in_any_case(first):
    async def run(user):
        api = NodeApi(None)
        return await answer(api.protocol(), Peer(user, ()), first)

    assert asyncio.run(run(API_SERVER)) == 400
    assert asyncio.run(run("bob")) == 401


def counted(text):
    """code -> how many connections to pods were answered with it"""
    lines = [line for line in text.splitlines() if line.startswith("apiserver_request_total{") and "CONNECT" in line]
    return {line.partition('code="')[2].partition('"')[0]: int(line.rpartition(" ")[2]) for line in lines}


def test_connections_to_pods_are_counted_while_they_last_and_after():
    cluster = Cluster()
    cluster.must("POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    head = f"POST {PODS}/p/portforward HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    running = 'apiserver_longrunning_requests{group="",version="v1",resource="pods",subresource="portforward"'

    async def metrics():
        return (await cluster.send("GET", "/metrics"))[1]

    async def run():
        refused, there = cluster.connection(), cluster.connection()
        assert await answer(*refused, f"POST {PODS}/none/portforward HTTP/1.1") == 404
        protocol, peer = there
        protocol.connection_made(peer)
        protocol.data_received(f"{head}X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n".encode())
        while b"101" not in peer.sent:
            await asyncio.sleep(0.001)
        during = await metrics()
        protocol.connection_lost(None)
        while "101" not in counted(after := await metrics()):
            await asyncio.sleep(0.001)
        return during, after

    during, after = asyncio.run(run())
    values = [[line.rpartition(" ")[2] for line in t.splitlines() if line.startswith(running)] for t in (during, after)]
    assert values == [["1"], ["0"]]
    assert (counted(during), counted(after)) == ({"404": 1}, {"404": 1, "101": 1})
