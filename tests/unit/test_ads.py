"""Calls of proxies on the server of delta ADS: what waits its turn, and how a call ends."""

import asyncio

from envoy.service.discovery.v3 import discovery_pb2

from lateen.ads import server as ads
from lateen.ads.rpc import Status
from lateen.ads.server import AdsServer
from lateen.wire import names
from lateen.wire.resource import Resource, ResourceSet

BIG = ResourceSet({"c": Resource("c", "1", discovery_pb2.Resource(name="c").SerializeToString())})


class Call:
    """A call without a connection; keeps what is sent."""

    path, headers, identities = names.DELTA_METHOD, {}, ("spiffe://cluster.local/ns/default/sa/default",)

    def __init__(self):
        self.sent, self.status = [], None

    def send(self, messages):
        self.sent += [discovery_pb2.DeltaDiscoveryResponse.FromString(b"".join(parts)) for parts in messages]

    def finish(self, status=Status.OK, says=""):
        self.status = self.status or (status, says)

    def guarded(self, handle, message):
        handle(message)


def server():
    return AdsServer(lambda *_: None, lambda _: {names.CDS: (BIG,)}, lambda _: {}, lambda *_: None)


def request(name="", **fields):
    made = discovery_pb2.DeltaDiscoveryRequest(type_url=names.CDS, **fields)
    if name:
        made.node.id = f"sidecar~10.0.0.1~{name}.default~default.svc.cluster.local"
    return made.SerializeToString()


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_wait_their_turn_and_acknowledgements_do_not():
    async def run():
        ours = server()
        calls = [Call(), Call()]
        handlers = [ours.accept(c) for c in calls]
        for i, handler in enumerate(handlers):
            handler.received(request(f"p-{i}"))
        assert [c.sent for c in calls] == [[], []]
        assert not ours.connections
        await turns()
        assert [[r.resources[0].name for r in c.sent] for c in calls] == [["c"], ["c"]]
        assert {c.node.pod for c in ours.connections} == {"p-0", "p-1"}
        handlers[0].received(request(response_nonce=calls[0].sent[0].nonce))
        first = next(c for c in ours.connections if c.node.pod == "p-0")
        assert first.session.synced(names.CDS) == "SYNCED"

    asyncio.run(run())


def test_an_acknowledgement_does_not_overtake_what_was_asked_before():
    async def run():
        ours, call = server(), Call()
        handler = ours.accept(call)
        handler.received(request("p"))
        await turns()
        handler.received(request(resource_names_subscribe=["c"]))
        handler.received(request(response_nonce=call.sent[0].nonce))
        (connection,) = ours.connections
        assert connection.session.synced(names.CDS) == "STALE"
        await turns()
        assert len(call.sent) == 2

    asyncio.run(run())


def test_a_proxy_that_left_before_its_turn_is_not_connected():
    async def run():
        ours, call = server(), Call()
        handler = ours.accept(call)
        handler.received(request("p"))
        call.status = (Status.CANCELLED, "")
        handler.closed()
        await turns()
        assert not ours.connections
        assert not call.sent

    asyncio.run(run())


def test_who_asks_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(ads, "MAX_WAITING", 3)

    async def run():
        ours, call = server(), Call()
        handler = ours.accept(call)
        for _ in range(4):
            handler.received(request("p"))
        assert call.status[0] == Status.RESOURCE_EXHAUSTED
        await turns()

    asyncio.run(run())


def test_a_proxy_without_a_name_is_refused():
    async def run():
        ours, call = server(), Call()
        ours.accept(call).received(request())
        await turns()
        assert call.status[0] == Status.INVALID_ARGUMENT
        assert not ours.connections

    asyncio.run(run())
