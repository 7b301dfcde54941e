"""Calls of proxies on the server of delta ADS: what waits its turn, and how a call ends."""

import asyncio

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from lateen.ads import rpc, session
from lateen.ads.rpc import Status
from lateen.ads.server import LINGER_S, AdsServer
from lateen.wire import names
from lateen.wire.resource import EMPTY, Resource, ResourceSet

BIG = ResourceSet({"c": Resource("c", "1", discovery_pb2.Resource(name="c").SerializeToString())})


class Carrier:
    """Takes everything at once."""

    def pump(self, _number, call):
        call.parts += call.waiting
        call.waiting.clear()

    def credit(self, _number, _call):
        pass


class Call(rpc.Call):
    """A call whose client keeps what it is sent."""

    def __init__(self):
        self.parts = []
        super().__init__(Carrier(), 1, {":path": names.DELTA_METHOD}, ("spiffe://cluster.local/ns/default/sa/default",))

    @property
    def sent(self):
        found, rest = [], b"".join(self.parts)
        while rest:
            size = 5 + int.from_bytes(rest[1:5], "big")
            found.append(discovery_pb2.DeltaDiscoveryResponse.FromString(rest[5:size]))
            rest = rest[size:]
        return found

    def ask(self, message):
        self.partial += b"\0" + len(message).to_bytes(4, "big") + message
        self.deliver()


def accepted(ours):
    call = Call()
    call.handler = ours.accept(call)
    return call


def server():
    return AdsServer(lambda *_: None, lambda _: {names.CDS: (BIG,)}, lambda *_: {}, lambda *_: None)


def request(name="", type_url=names.CDS, kind="sidecar", **fields):
    made = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **fields)
    if name:
        made.node.id = f"{kind}~10.0.0.1~{name}.default~default.svc.cluster.local"
    return made.SerializeToString()


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_wait_their_turn_and_acknowledgements_do_not():
    async def run():
        ours = server()
        calls = [accepted(ours), accepted(ours)]
        for i, call in enumerate(calls):
            call.ask(request(f"p-{i}"))
        assert [c.sent for c in calls] == [[], []]
        assert not ours.connections
        await turns()
        assert [[r.resources[0].name for r in c.sent] for c in calls] == [["c"], ["c"]]
        assert {c.node.pod for c in ours.connections} == {"p-0", "p-1"}
        calls[0].ask(request(response_nonce=calls[0].sent[0].nonce))
        first = next(c for c in ours.connections if c.node.pod == "p-0")
        assert first.session.synced(names.CDS) == "SYNCED"

    asyncio.run(run())


def test_an_acknowledgement_does_not_overtake_what_was_asked_before():
    async def run():
        ours = server()
        call = accepted(ours)
        call.ask(request("p"))
        await turns()
        call.ask(request(resource_names_subscribe=["c"]))
        call.ask(request(response_nonce=call.sent[0].nonce))
        (connection,) = ours.connections
        assert connection.session.synced(names.CDS) == "STALE"
        await turns()
        assert len(call.sent) == 2

    asyncio.run(run())


def later(monkeypatch, waiting):
    """What the loop is to do later is put into ``waiting``; returns its clock, in seconds, to be set."""
    loop, now = asyncio.get_running_loop(), [1000.0]
    monkeypatch.setattr(loop, "call_later", lambda after, do, *args: waiting.append((after, do, args)) or waiting)
    monkeypatch.setattr(loop, "time", lambda: now[0])
    return now


@pytest.mark.parametrize("kind", ["sidecar", "router"])
def test_gateways_keep_removed_clusters_for_a_while(kind, monkeypatch):
    offered = {names.CDS: (BIG,)}
    waiting = []

    async def run():
        now = later(monkeypatch, waiting)
        ours = AdsServer(lambda *_: None, lambda _: dict(offered), lambda *_: {}, lambda *_: None)
        call = accepted(ours)
        call.ask(request("p", kind=kind))
        await turns()
        call.ask(request(response_nonce=call.sent[0].nonce))
        offered[names.CDS] = (EMPTY,)
        await ours.push()
        if kind == "router":
            assert len(call.sent) == 1
            ((after, withdraw, args),) = waiting
            assert after == LINGER_S
            now[0] += LINGER_S
            withdraw(*args)
        assert [list(r.removed_resources) for r in call.sent] == [[], ["c"]]

    asyncio.run(run())


def test_a_cluster_that_comes_and_goes_is_kept_for_a_while_each_time(monkeypatch):
    offered = {names.CDS: (BIG,)}
    waiting = []

    async def run():
        now = later(monkeypatch, waiting)
        ours = AdsServer(lambda *_: None, lambda _: dict(offered), lambda *_: {}, lambda *_: None)
        call = accepted(ours)
        call.ask(request("p", kind="router"))
        await turns()
        call.ask(request(response_nonce=call.sent[0].nonce))
        for sets, after in (((EMPTY,), 0.0), ((BIG,), 1.0), ((EMPTY,), LINGER_S - 2)):
            now[0] += after
            offered[names.CDS] = sets
            await ours.push()
        now[0] += 1
        _, withdraw, args = waiting.pop()
        assert not waiting
        withdraw(*args)
        assert len(call.sent) == 1, "it has been gone for a second"
        ((after, withdraw, args),) = waiting
        assert after == LINGER_S - 1
        now[0] += after
        withdraw(*args)
        assert [list(r.removed_resources) for r in call.sent] == [[], ["c"]]

    asyncio.run(run())


QUOTED = 'goo.gle/debugonly    \ncredentials {\n  key: "of-alice"\n  client: "alice"\n}\n'
VIOLATED = "Proto constraint validation failed (A.B[0]: a | caused by C.D: value (x) is longer than 1024 characters)"


@pytest.mark.parametrize(
    ("says", "kept"),
    [
        (f"{QUOTED}: {VIOLATED}", VIOLATED),
        (f"{QUOTED}: {VIOLATED}\n", VIOLATED),
        (f"{VIOLATED}: {QUOTED}): b", VIOLATED),
        (f"{VIOLATED}, and {QUOTED}", "Proto constraint validation failed"),
        (QUOTED, "(left out, since it quotes the resource and its secrets)"),
        (f"c cannot be unpacked: {QUOTED}", "c cannot be unpacked:"),
        ("c: script load error (line 1): end expected", "c: script load error (line 1): end expected"),
    ],
)
def test_a_rejection_does_not_tell_the_keys_that_envoy_quotes(says, kept):
    async def run():
        told = []
        ours = AdsServer(lambda *_: None, lambda _: {names.ECDS: (BIG,)}, lambda *_: {}, lambda _, r: told.append(r))
        call = accepted(ours)
        call.ask(request("p", names.ECDS, resource_names_subscribe=["c"]))
        await turns()
        error = status_pb2.Status(code=3, message=says)
        call.ask(request(type_url=names.ECDS, response_nonce=call.sent[0].nonce, error_detail=error))
        await turns()
        (connection,) = ours.connections
        assert [r.message for r in told] == [kept]
        assert connection.session.rejections[names.ECDS].message == kept
        assert connection.session.refusals(names.ECDS) == {"c": kept}

    asyncio.run(run())


def test_a_proxy_that_left_before_its_turn_is_not_connected():
    async def run():
        ours = server()
        call = accepted(ours)
        call.ask(request("p"))
        call.over()
        await turns()
        assert not ours.connections
        assert not call.sent

    asyncio.run(run())


def test_who_asks_without_end_waits_with_all_but_one_of_its_requests():
    async def run():
        ours = server()
        call = accepted(ours)
        for _ in range(4):
            call.ask(request("p", resource_names_subscribe=["c"]))
        assert len(ours._backlog) == 1
        assert len(call.partial) > 3 * len(request("p"))
        await turns()
        assert len(call.sent) == 1  # the others wait for its acknowledgement
        assert not call.partial

    asyncio.run(run())


def test_a_request_that_fails_does_not_keep_others_waiting():
    async def run():
        ours = server()
        ours._allow = lambda node, *_: 1 / 0 if node.pod == "bad" else None
        bad, good = accepted(ours), accepted(ours)
        bad.ask(request("bad"))
        good.ask(request("good"))
        await turns()
        assert bad.status[0] == Status.INTERNAL
        assert [c.node.pod for c in ours.connections] == ["good"]

    asyncio.run(run())


def test_what_is_no_request_is_refused():
    async def run():
        call = accepted(server())
        call.ask(b"\xff")
        assert call.status == (Status.INVALID_ARGUMENT, "the message is not a valid DeltaDiscoveryRequest")

    asyncio.run(run())


def test_names_that_nobody_knows_are_remembered_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(session, "MAX_NAMES", 10)

    async def run():
        ours = server()
        call = accepted(ours)
        for i in range(3):
            call.ask(request("p", resource_names_subscribe=[f"{i}-{k}" for k in range(4)]))
            await turns()
        assert call.status[0] == Status.INVALID_ARGUMENT
        long = accepted(ours)
        long.ask(request("p", resource_names_subscribe=["x" * 5000]))
        await turns()
        assert long.status[0] == Status.INVALID_ARGUMENT

    asyncio.run(run())


def test_types_that_are_not_served_leave_nothing_behind():
    async def run():
        ours = server()
        call = accepted(ours)
        call.ask(request("p"))
        for i in range(5):
            message = discovery_pb2.DeltaDiscoveryRequest(type_url=f"type.googleapis.com/x{i}")
            call.ask(message.SerializeToString())
            await turns()
        (connection,) = ours.connections
        assert set(connection.session._types) == {names.CDS}
        assert call.status is None

    asyncio.run(run())


def test_a_proxy_without_a_name_is_refused():
    async def run():
        ours = server()
        call = accepted(ours)
        call.ask(request())
        await turns()
        assert call.status[0] == Status.INVALID_ARGUMENT
        assert not ours.connections

    asyncio.run(run())
