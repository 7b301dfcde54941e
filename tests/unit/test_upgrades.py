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
