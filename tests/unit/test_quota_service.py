"""Quotas over real calls: who may report, and how an istiod that does not divide passes reports on."""

import asyncio
import contextlib
import socket
from datetime import timedelta

import grpc.aio
import meshes as mesh
import pytest
from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from test_global_limits import policy

from lateen.ads import listening
from lateen.ads.peers import Connection
from lateen.ca.authority import Authority, Identity
from lateen.control.quotas import QuotaService
from lateen.control.relay import CALLS, PASSED_ON, Channels
from lateen.control.serving import Certificate
from lateen.kit import certs, tasks, times
from lateen.wire import names
from lateen.wire.node import parse
from lateen.wire.quotas import METHOD
from lateen.wire.resource import Resource, ResourceSet

CA = Authority.create(times.now(), "cluster.local")
ISTIOD = Identity("cluster.local", "istio-system", "istiod")
CERTIFICATE = Certificate(CA, ["istiod"], ISTIOD)
WEB = "spiffe://cluster.local/ns/default/sa/web"
FOUND = mesh.objects(policy("{limit: {requests: 60, unit: Minute}}")).backend_traffic_policies
(POLICY,) = (p for _, p in FOUND.items())


class Proxies:
    """The proxies that are connected for their configuration."""

    def __init__(self, *identities):
        self.connections = {self._one(i) for i in identities}

    def _one(self, identity):
        out = Connection(parse("sidecar~10.0.0.1~web-1.default~default.svc.cluster.local"), identity, "1.40.0")
        made = ResourceSet({"a": Resource("a", "1", b"", (str(POLICY.ref),))})
        out.session.offer({names.ECDS: (made,)})
        return out


@contextlib.asynccontextmanager
async def istiod(*configured, leader=None, made_to=None):
    """(port, service); ``leader``: the port of the istiod that divides; ``made_to``: makes channels to it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    service = QuotaService(
        lambda namespace, name: FOUND.get((namespace, name)),
        Proxies(*configured),
        str(ISTIOD),
        lambda: str(leader) if leader else None,
        Channels(made_to or (lambda port: channel(port, CERTIFICATE.pair)), lambda: "certificate").to,
    )
    server = await listening.serve(service.accept, "127.0.0.1", port, lambda: CERTIFICATE.mutual)
    dividing = tasks.spawn(service.run(), "quotas")
    try:
        yield port, service
    finally:
        dividing.cancel()
        await server.stop()


def channel(port, pair):
    credentials = grpc.ssl_channel_credentials(CA.root.encode(), pair.key.encode(), pair.certificate.encode())
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, [("grpc.ssl_target_name_override", "istiod")])


def leaf(identity=WEB):
    return certs.issue(CA.state.signer.pair, [identity], times.now(), timedelta(hours=1))


def report(rule="default/p/0"):
    out = rlqs_pb2.RateLimitQuotaUsageReports(domain="lateen")
    usage = out.bucket_quota_usages.add(num_requests_allowed=1)
    usage.bucket_id.bucket["rule"] = rule
    return out


async def answered(port, given, identity=WEB, metadata=(), within_s=30.0):
    """The first answer to a report; None if there is none within so many seconds."""
    async with channel(port, leaf(identity)) as made:
        call = made.stream_stream(
            METHOD,
            request_serializer=rlqs_pb2.RateLimitQuotaUsageReports.SerializeToString,
            response_deserializer=rlqs_pb2.RateLimitQuotaResponse.FromString,
        )(metadata=metadata)
        await call.write(given)
        try:
            async with asyncio.timeout(within_s):
                return await call.read()
        except TimeoutError:
            return None


def tokens(answer):
    (action,) = answer.bucket_action
    return action.quota_assignment_action.rate_limit_strategy.token_bucket.max_tokens


def test_a_proxy_that_is_configured_with_a_limit_gets_a_share_and_another_one_does_not():
    async def run():
        async with istiod(WEB) as (port, service):
            assert tokens(await answered(port, report())) == 59  # one has been let through
            assert await answered(port, report(), "spiffe://cluster.local/ns/other/sa/web", within_s=0.5) is None
            (action,) = (await answered(port, report("default/none/0"))).bucket_action
            assert action.HasField("abandon_action")
            assert service.quotas.allowed == {"default/p/0": 1}

    asyncio.run(run())


def test_nobody_but_istiod_speaks_for_others():
    async def run():
        async with istiod(WEB) as (port, _):
            stranger = "spiffe://cluster.local/ns/other/sa/web"
            assert await answered(port, report(), stranger, ((PASSED_ON, WEB),), 0.5) is None
            assert (
                tokens(await answered(port, report(), str(ISTIOD), ((PASSED_ON, stranger),))) == 59
            )  # one has been let through

    asyncio.run(run())


def test_an_istiod_that_does_not_divide_passes_on_what_its_proxies_may_report():
    async def run():
        async with istiod() as (dividing, service), istiod(WEB, leader=dividing) as (port, other):
            assert tokens(await answered(port, report())) == 59  # one has been let through
            assert await answered(port, report(), "spiffe://cluster.local/ns/other/sa/web", within_s=0.5) is None
            assert (len(other.quotas), service.quotas.allowed) == (0, {"default/p/0": 1})

    asyncio.run(run())


def test_the_calls_of_all_proxies_share_one_channel_which_ends_with_the_last_of_them():
    made = []

    def another(port):
        made.append(channel(port, CERTIFICATE.pair))
        return made[-1]

    async def run():
        async with istiod() as (dividing, _), istiod(WEB, leader=dividing, made_to=another) as (port, _):
            found = await asyncio.gather(*(answered(port, report()) for _ in range(5)))
            assert all(tokens(f) > 0 for f in found)
            assert len(made) == 1
            async with asyncio.timeout(5):
                while made[0].get_state() is not grpc.ChannelConnectivity.SHUTDOWN:
                    await asyncio.sleep(0.02)
            assert tokens(await answered(port, report())) > 0
            assert len(made) == 2

    asyncio.run(run())


def test_a_connection_has_no_more_calls_than_it_takes_at_a_time():
    class Made:
        closed = False

        async def close(self):
            self.closed = True

    made = []

    def another(_):
        made.append(Made())
        return made[-1]

    async def run():
        channels, ends = Channels(another, lambda: "certificate"), asyncio.Event()

        async def call():
            async with channels.to("127.0.0.1"):
                await ends.wait()

        calls = [tasks.spawn(call(), "a call") for _ in range(2 * CALLS + 1)]
        await asyncio.sleep(0)
        assert len(made) == 3
        ends.set()
        await asyncio.gather(*calls)
        assert all(m.closed for m in made)

    asyncio.run(run())


def test_a_proxy_starts_anew_when_another_istiod_divides():
    async def run():
        async with istiod(WEB) as (port, service), channel(port, leaf()) as made:
            call = made.stream_stream(
                METHOD, request_serializer=rlqs_pb2.RateLimitQuotaUsageReports.SerializeToString
            )()
            await call.write(report())
            await call.read()
            service._leader = lambda: "127.0.0.1"
            service.changed()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await call.read()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
            service._leader = lambda: None
            service.changed()
            assert tokens(await answered(port, report())) == 1  # others may have shares of the former one

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["nobody listens", "it cannot even be tried"])
def test_a_proxys_call_ends_when_reports_cannot_be_passed_on(fault):
    async def run():
        async with istiod(WEB, leader=1) as (port, service), channel(port, leaf()) as made:
            if fault == "it cannot even be tried":
                service._connect = lambda _: 1 / 0
            call = made.stream_stream(
                METHOD, request_serializer=rlqs_pb2.RateLimitQuotaUsageReports.SerializeToString
            )()
            if fault == "nobody listens":
                await call.write(report())
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await call.read()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "that divides limits" in ended.value.details()

    asyncio.run(run())
