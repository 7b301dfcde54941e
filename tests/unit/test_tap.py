"""Tap: what the agent shows of requests, how peers are identified, what the filters let through."""

import asyncio
import json
import signal

import pytest
from click.testing import CliRunner

from lateen.agent.tap import AT_ONCE, Tap
from lateen.cli.connect import Target
from lateen.cli.live import requests, tap
from lateen.dump.requests import BadFilter, Filter, Peer, Pods, Request, object_of, statuses
from lateen.kit import http, tasks
from lateen.wire import tap as keys

POD = {
    "metadata": {
        "name": "web-7f-x1",
        "namespace": "shop",
        "labels": {"pod-template-hash": "7f"},
        "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "web-7f"}],
    },
    "status": {"podIP": "10.0.0.1"},
}
PODS = Pods([POD, {"metadata": {"name": "cart-0", "namespace": "shop"}, "status": {"podIP": "10.0.0.2"}}])
WEB, CART = Peer("web", "shop", "web-7f-x1"), Peer("cart-0", "shop", "cart-0")
OUT = {
    "side": "client",
    "start": "1700000000.25",
    "method": "GET",
    "path": "/items?a=1",
    "authority": "cart:80",
    "status": 503,
    "flags": "UF",
    "details": "upstream_reset_before_response_started{connection_failure}",
    "durationUs": 2500,
    "source": "10.0.0.1:40000",
    "destination": "10.0.0.2:8080",
    "destinationIdentity": "spiffe://cluster.local/ns/shop/sa/cart",
    "cluster": "outbound|80||cart.shop.svc.cluster.local",
    "requestId": "r1",
    "routeConfig": "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/cart",
}


def out(**more):
    return Request(OUT | more, WEB, PODS)


def inside(**more):
    seen = OUT | {"side": "server", "sourceIdentity": "spiffe://cluster.local/ns/shop/sa/web"} | more
    return Request(seen, CART, PODS)


# --- the agent ---------------------------------------------------------------------------------------------------


class Envoy:
    """Has a key like Envoy's runtime, and writes to the file while it is set."""

    def __init__(self, path):
        self.path, self.keys = path, []

    async def switch(self, percent):
        self.keys.append(percent)

    def write(self, *found):
        with self.path.open("ab") as f:
            f.writelines(json.dumps(r).encode() + b"\n" if isinstance(r, dict) else r for r in found)


async def until(test):
    async with asyncio.timeout(10):
        while not test():
            await asyncio.sleep(0.01)


async def next_line(stream):
    async with asyncio.timeout(10):
        while not (line := (await anext(stream)).strip()):
            pass
    return json.loads(line)


def test_envoy_writes_only_while_somebody_looks(tmp_path):
    async def work():
        envoy = Envoy(tmp_path / "tap.log")
        tapped = Tap(envoy.path, envoy.switch)
        assert envoy.keys == []
        stream = tapped.answer("/tap").stream
        first = tasks.spawn(next_line(stream), "look")
        await until(lambda: envoy.keys == [100])
        envoy.write({"path": "/a"})
        assert await first == {"path": "/a"}
        await stream.aclose()
        await until(lambda: envoy.keys[-1] == 0)
        await until(lambda: envoy.path.stat().st_size == 0)
        again = tapped.answer("/tap").stream
        second = tasks.spawn(next_line(again), "look")
        await until(lambda: envoy.keys[-1] == 100)
        envoy.write(b'{"half of a li', b"ne\n", {"path": "/b"})
        assert await second == {"path": "/b"}
        await again.aclose()
        await until(lambda: envoy.keys[-1] == 0)

    asyncio.run(work())


def test_requests_that_envoy_writes_late_are_not_left_on_disk(tmp_path):
    async def work():
        envoy = Envoy(tmp_path / "tap.log")
        stream = Tap(envoy.path, envoy.switch).answer("/tap").stream
        first = tasks.spawn(next_line(stream), "look")
        await until(lambda: envoy.keys == [100])
        envoy.write({"path": "/a"})
        await first
        await stream.aclose()
        await until(lambda: envoy.keys[-1] == 0)
        await until(lambda: envoy.path.stat().st_size == 0)
        envoy.write({"path": "/late", keys.REQUEST_HEADERS: {"authorization": "Bearer x"}})
        await until(lambda: envoy.path.stat().st_size == 0)

    asyncio.run(work())


def test_headers_are_shown_on_request_and_credentials_only_on_a_second_one(tmp_path):
    async def work():
        envoy = Envoy(tmp_path / "tap.log")
        tapped = Tap(envoy.path, envoy.switch)
        streams = [tapped.answer(f"/tap{query}").stream for query in ("", "?headers", "?headers&secrets")]
        looks = [tasks.spawn(next_line(s), "look") for s in streams]
        await until(lambda: envoy.keys == [100])
        envoy.write({keys.REQUEST_HEADERS: {"a": "1", "authorization": "Bearer x", "Cookie": "c"}})
        found = await asyncio.gather(*looks)
        for stream in streams:
            await stream.aclose()
        await until(lambda: envoy.keys[-1] == 0)
        return [f.get(keys.REQUEST_HEADERS) for f in found]

    none, some, everything = asyncio.run(work())
    assert none is None
    assert some == {"a": "1", "authorization": keys.REDACTED, "Cookie": keys.REDACTED}
    assert everything == {"a": "1", "authorization": "Bearer x", "Cookie": "c"}


def test_a_slow_watcher_is_told_how_many_requests_it_missed(tmp_path, monkeypatch):
    monkeypatch.setattr("lateen.agent.tap.WAITING", 3)

    async def work():
        envoy = Envoy(tmp_path / "tap.log")
        stream = Tap(envoy.path, envoy.switch).answer("/tap").stream
        first = tasks.spawn(anext(stream), "look")
        await until(lambda: envoy.keys == [100])
        envoy.write(*({"path": f"/{i}"} for i in range(50)))
        found = await first
        async with asyncio.timeout(10):
            while sum(counts(found)) < 50:
                found += await anext(stream)
        await stream.aclose()
        return counts(found)

    def counts(text):
        found = [json.loads(line) for line in text.split(b"\n") if line]
        return sum("path" in line for line in found), sum(line.get(keys.LOST, 0) for line in found)

    shown, lost = asyncio.run(work())
    assert shown + lost == 50
    assert lost > 0


def test_only_so_many_look_at_one_proxy_at_once(tmp_path):
    async def work():
        envoy = Envoy(tmp_path / "tap.log")
        tapped = Tap(envoy.path, envoy.switch)
        streams = [tapped.answer("/tap").stream for _ in range(AT_ONCE)]
        looks = [tasks.spawn(next_line(s), "look") for s in streams]
        await until(lambda: envoy.keys == [100])
        refused = tapped.answer("/tap")
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        return refused.status

    assert asyncio.run(work()) == 429


def test_a_stream_ends_when_its_reader_goes_away():
    async def work():
        ended = asyncio.Event()

        async def parts():
            try:
                while True:
                    yield b"x\n"
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        async def handle(_request):
            return http.Response(200, stream=parts())

        server = await http.serve(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length" not in head
        assert await reader.readline() == b"x\n"
        writer.close()
        async with asyncio.timeout(10):
            await ended.wait()
        server.close()

    asyncio.run(work())


# --- what a request says -----------------------------------------------------------------------------------------


def test_both_ends_have_their_workloads_names():
    assert (str(out().source), str(out().destination)) == ("web.shop", "cart-0.shop")
    assert (str(inside().source), str(inside().destination)) == ("web.shop", "cart-0.shop")


def test_an_unknown_caller_is_known_by_its_certificate_or_its_address():
    assert str(inside(source="10.9.9.9:1").source) == "sa/web.shop"
    assert str(inside(source="10.9.9.9:1", sourceIdentity=None).source) == "10.9.9.9"
    assert str(inside(source="[fd00::1]:1", sourceIdentity=None).source) == "fd00::1"


def test_a_request_that_reached_no_endpoint_names_its_service():
    assert str(out(destination=None).destination) == "cart.shop.svc.cluster.local"
    assert str(out(destination=None, cluster=None).destination) == "cart:80"


def test_it_is_secure_where_the_peer_has_shown_a_certificate_of_the_mesh():
    assert out().tls == "mutual_tls"
    assert out(destinationIdentity=None, destinationTls="TLSv1.3").tls == "TLSv1.3"
    assert out(destinationIdentity=None).tls == "none"


@pytest.mark.parametrize(
    ("seen", "failed"),
    [
        ({"status": 200}, False),
        ({"status": 404}, False),
        ({"status": 404, "flags": "NR"}, True),
        ({"status": 500}, True),
        ({"status": 0}, True),
        ({"status": 200, "grpcStatus": 14}, True),
        ({"status": 200, "grpcStatus": 5}, False),
    ],
)
def test_what_counts_as_a_failure(seen, failed):
    assert out(**seen).failed is failed


def test_the_users_object_is_named():
    assert out().objects == ["VirtualService cart.shop"]
    assert object_of("") == ""


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({"method": "get"}, True),
        ({"method": "POST"}, False),
        ({"path": "/items"}, True),
        ({"path": "/other"}, False),
        ({"authority": "cart:80"}, True),
        ({"status": "5xx"}, True),
        ({"status": "200,500-504"}, True),
        ({"status": "4xx"}, False),
        ({"to": "cart"}, True),
        ({"to": "svc/cart"}, True),
        ({"to": "deploy/cart-0"}, True),
        ({"to": "ns/shop"}, True),
        ({"to": "ns/other"}, False),
        ({"source": "web"}, True),
        ({"source": "deploy/web.shop"}, True),
        ({"source": "cart"}, False),
        ({"min_ms": 2.0}, True),
        ({"min_ms": 3.0}, False),
    ],
)
def test_filters(wanted, passes):
    assert Filter(**wanted).passes(out()) is passes


def test_a_status_that_is_none_is_refused():
    with pytest.raises(BadFilter, match='"fivehundred" is not a status; write 503, 5xx or 400-499'):
        statuses("503,fivehundred")


# --- how it is shown ---------------------------------------------------------------------------------------------


def test_a_line_has_what_matters(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    (line,) = tap.shown(out(), "short")
    assert line == (
        "22:13:20.250 out web.shop → cart-0.shop GET cart:80/items?a=1 503 2.5ms tls=mutual_tls flags=UF "
        "upstream_reset_before_response_started{connection_failure}"
    )


def test_json_leaves_out_what_is_unknown():
    found = tap.as_json(out(grpcStatus=None))
    assert (
        found["source"]
        == {
            "workload": "web",
            "namespace": "shop",
            "pod": "web-7f-x1",
            "address": "10.0.0.1:40000",
            "identity": "",
        }
        or "identity" not in found["source"]
    )
    assert found["objects"] == ["VirtualService cart.shop"]
    assert found["flags"] == ["UF"]
    assert "grpcStatus" not in found


def test_a_request_that_both_proxies_report_counts_once():
    seen = set()
    assert [requests.once(r, seen) for r in (out(), inside(), out(), inside())] == [True, False, True, False]
    assert requests.once(out(), seen)
    assert requests.once(out(), seen), "a retry or a second call with the same id"


def test_quantiles_and_rows_are_bounded(monkeypatch):
    row = requests.Row()
    for us in range(1000, 101_000, 1000):
        row.add(out(durationUs=us, status=200))
    assert (row.quantile(0.5), row.quantile(0.95), row.quantile(0.99)) == (50.0, 95.0, 99.0)
    monkeypatch.setattr(requests, "MOST", 2)
    rows = {}
    for name in "abcd":
        requests.add(rows, (name, "x"), out())
    assert set(rows) == {("a", "x"), ("b", "x"), (requests.OTHERS, "")}


@pytest.fixture
def interruptible():
    """A shell lets what it starts in the background ignore SIGINT: there, too, the tests pass."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_into_a_pipe_prints_what_it_has_when_it_is_ended(number, monkeypatch):
    """``timeout 5 lateen x top | tail``"""

    async def seen(*_):
        yield out()
        signal.raise_signal(number)
        await asyncio.sleep(60)

    async def chosen(*_):
        return []

    monkeypatch.setattr(requests.watching, "requests", seen)
    monkeypatch.setattr(requests.selecting, "select", chosen)
    monkeypatch.setattr(Target, "run", lambda _, work: asyncio.run(work(None)))
    done = CliRunner().invoke(requests.top, ["deploy/web"])
    assert done.exit_code == 0, done.output
    assert "collecting requests for 10s" in done.stderr
    head, row = done.stdout.splitlines()
    assert head.startswith("SOURCE")
    assert "cart" in row
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
