"""Bodies of requests: Envoy's tap filter is there for a pod with an annotation, and the agent joins what it tells."""

import asyncio
import base64
import json
from dataclasses import replace

import judge
import meshes
import pytest

from lateen.agent.bodies import Bodies, Reports, _body
from lateen.agent.tap import Tap, Watcher
from lateen.api import decoding, kinds
from lateen.api.annotations import TAP_BODIES
from lateen.cli.live import tap, watching
from lateen.dump.requests import Peer, Pods, Request
from lateen.kit import tasks
from lateen.wire import names
from lateen.wire import tap as keys

POST = {"side": "server", "requestId": "r1", "path": "/orders", "method": "POST", "status": 201}


GATEWAY = """
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"""


def encoded(text):
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def trace(path="/orders", request=b"", response=b"", number="r1", **more):
    headers = [{"key": ":path", "value": path}, {"key": "x-request-id", "value": number}]
    request = {"headers": headers, "body": {"as_bytes": encoded(request), "truncated": False} | more}
    response = {"headers": [], "body": {"as_bytes": encoded(response), "truncated": False}}
    return {"http_buffered_trace": {"request": request, "response": response}}


class Admin:
    """Envoy's admin interface: refuses while the filter is not there, then streams objects in pieces."""

    def __init__(self, refusals, *traces):
        self.refusals, self.traces, self.orders = refusals, traces, []

    async def answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /tap ")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        self.orders.append(json.loads(await reader.readexactly(length)))
        if self.refusals:
            self.refusals -= 1
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\nUnknown config id 'lateen'.")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        text = "\n".join(json.dumps(t, indent=1) for t in self.traces).encode() + b"\n"
        for at in range(0, len(text), 100):
            part = text[at : at + 100]
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
        await reader.read()
        writer.close()


async def served(admin, work):
    server = await asyncio.start_server(admin.answer, "127.0.0.1", 0)
    async with server:
        return await work(server.sockets[0].getsockname()[1])


async def until(test):
    async with asyncio.timeout(10):
        while not test():
            await asyncio.sleep(0.01)


def test_what_envoy_tells_of_a_body_stands_beside_its_request(monkeypatch):
    monkeypatch.setattr("lateen.agent.bodies.PAUSE_S", 0.01)
    admin = Admin(2, trace(request='{"book": 1}', response="ok"), trace("/other", b"x", number="r2"))

    async def work(port):
        bodies, heard = Bodies(port), []
        following = tasks.spawn(bodies.follow(heard.append), "bodies")
        await until(lambda: len(bodies._found) == 2)
        assert bodies.state == {keys.BODIES: True}
        found = bodies.take(POST)
        assert bodies.take(POST) == {}, "each once"
        await tasks.cancel(following)
        assert bodies.take({"requestId": "r2", "path": "/other"}) == {}, "nothing is kept for nobody"
        assert bodies.state == {}
        return found, heard

    found, heard = asyncio.run(served(admin, work))
    assert found == {keys.REQUEST_BODY: {"text": '{"book": 1}'}, keys.RESPONSE_BODY: {"text": "ok"}}
    assert heard == [{keys.BODIES: True}], "once, when Envoy has the filter"
    assert admin.orders[0]["config_id"] == keys.CONFIG


def test_whoever_waits_for_bodies_in_vain_hears_why_once(monkeypatch):
    monkeypatch.setattr("lateen.agent.bodies.PAUSE_S", 0.001)
    monkeypatch.setattr("lateen.agent.bodies.TRIES", 3)
    admin = Admin(1000)

    async def work(port):
        heard, bodies = [], Bodies(port)
        following = tasks.spawn(bodies.follow(heard.append), "bodies")
        await until(lambda: len(admin.orders) > 8)
        assert [bodies.state] == heard, "for whoever comes later"
        await tasks.cancel(following)
        return heard

    ((said,),) = (one.values() for one in asyncio.run(served(admin, work)))
    assert said.startswith("bodies cannot be shown: istiod has not given the proxy the filter for them")
    assert "lateen proxy-status" in said
    assert "config id" not in said


def test_a_stream_of_bodies_that_breaks_is_not_said_to_last(monkeypatch):
    monkeypatch.setattr("lateen.agent.bodies.PAUSE_S", 0.001)
    monkeypatch.setattr("lateen.agent.bodies.TRIES", 3)

    states = []

    class Breaking(Admin):
        async def answer(self, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            states.append(self.bodies.state)
            begins = len(states) == 1
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if begins else b"HTTP/1.1 400 Bad Request\r\n\r\nno more")
            writer.close()

    admin = Breaking(0)

    async def work(port):
        heard, admin.bodies = [], Bodies(port)
        following = tasks.spawn(admin.bodies.follow(heard.append), "bodies")
        await until(lambda: len(heard) == 2)
        await tasks.cancel(following)
        return heard

    heard = asyncio.run(served(admin, work))
    assert heard == [{keys.BODIES: True}, {keys.ERROR: "bodies cannot be shown: Envoy refuses: no more"}]
    assert states[1] == {}, "whoever comes in between waits"


@pytest.mark.parametrize(
    ("raw", "cut", "expected"),
    [
        (b"", False, {}),
        ("grüße".encode(), False, {"text": "grüße"}),
        ("grüße".encode()[:3], True, {"text": "gr", "truncated": True}),
        ("grüße\ufffd".encode(), False, {"text": "grüße\ufffd"}),
        ("grüße".encode()[:3], False, {"base64": encoded("grüße".encode()[:3])}),
        (b"gr\xff\xff", True, {"base64": encoded(b"gr\xff\xff"), "truncated": True}),
        (b"\x89PNG\x00\xff", False, {"base64": encoded(b"\x89PNG\x00\xff")}),
    ],
)
def test_a_body_is_text_where_it_is_one(raw, cut, expected):
    assert _body({"body": {"as_bytes": encoded(raw), "truncated": cut}}) == expected


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_piece_that_is_no_json_hides_no_later_body_and_chunks_may_cut_characters(size):
    wanted = [trace("/ä", "x"), trace("/b", '{"}')]
    junk = ('oops "', "{what}", "]}", '{"a": tru}')
    parts = [junk[0], json.dumps(wanted[0], ensure_ascii=False, indent=1), *junk[1:], json.dumps(wanted[1])]
    text = "\n".join(parts).encode()
    reports = Reports()
    found = [r for at in range(0, len(text), size) for r in reports.feed(text[at : at + size])]
    assert found == wanted


def test_a_report_without_values_is_read_all_the_same():
    bodies = Bodies(1)
    bodies._keep({})
    assert not bodies._found
    told = trace(request="x")
    told["http_buffered_trace"]["request"]["headers"] += [{"key": "x-empty"}, {}]
    bodies._keep(told)
    assert bodies.take(POST) == {keys.REQUEST_BODY: {"text": "x"}}


def test_requests_from_before_bodies_were_shown_are_left_to_those_who_want_none(tmp_path):
    """Envoy writes their lines up to a second later."""
    bodies = Bodies(1)
    bodies._since = 1000.0
    found = Tap(tmp_path / "tap.log", nothing, bodies)
    with_bodies, without = Watcher(False, False, True), Watcher(False, False, False)
    found._watchers |= {with_bodies, without}
    for start in ("999.9", "1000.1", None):
        found._show(json.dumps({keys.SIDE: keys.SERVER, "start": start}).encode())
    assert without._waiting.qsize() == 3
    assert [json.loads(with_bodies._waiting.get_nowait())["start"] for _ in range(2)] == ["1000.1", None]
    assert with_bodies._waiting.empty()


async def nothing(_):
    pass


def test_the_search_for_bodies_starts_again_when_it_has_failed(tmp_path):
    async def work():
        class Failing(Bodies):
            times = 0

            async def follow(self, tell):
                self.times += 1
                if self.times == 1:
                    raise RuntimeError("a bug")
                self.state = {keys.BODIES: True}
                tell(self.state)
                self.state = {keys.ERROR: "no bodies"}
                tell(self.state)
                await asyncio.sleep(60)

        bodies = Failing(1)
        tapped = Tap(tmp_path / "tap.log", nothing, bodies)
        plain, curious = Watcher(False, False, False), Watcher(False, False, True)
        tapped._watchers = {plain, curious}
        for _ in range(3):
            await tapped._ask_for_bodies()
            await asyncio.sleep(0)
        assert bodies.times == 2
        assert json.loads(await curious.next()) == {keys.BODIES: True}
        assert json.loads(await curious.next()) == {"error": "no bodies"}
        late = aiter(tapped.answer("/tap?bodies").stream)
        assert json.loads(await anext(late)) == {"error": "no bodies"}, "whoever comes later hears it at once"
        await late.aclose()
        assert plain._waiting.empty(), "who has not asked for bodies hears nothing about them"
        tapped._watchers = set()
        await tapped._ask_for_bodies()

    asyncio.run(work())


def test_a_gateway_shows_the_bodies_of_what_it_sends_on(tmp_path):
    bodies = Bodies(1)
    for gateway, side in ((True, keys.CLIENT), (False, keys.SERVER)):
        tapped, watcher = Tap(tmp_path / "tap.log", nothing, bodies, gateway), Watcher(False, False, True)
        tapped._watchers = {watcher}
        bodies._keep(trace(request="x"))
        for reporter in (keys.CLIENT, keys.SERVER):
            tapped._show(json.dumps(POST | {keys.SIDE: reporter}).encode())
            shown = json.loads(watcher._waiting.get_nowait())
            assert (keys.REQUEST_BODY in shown) is (reporter == side)


@pytest.mark.parametrize(
    ("lines", "patience", "shown", "warnings"),
    [
        ([b"", POST, {keys.BODIES: True}, POST], 60, 1, []),
        ([POST, {keys.ERROR: "no"}, POST], 60, 1, ["web: no"]),
        ([b"", POST, POST], -1, 2, ["web: requests are shown without bodies"]),
    ],
)
def test_the_command_does_not_wait_for_ever_for_an_agent_that_does_not_speak_of_bodies(
    monkeypatch, capsys, lines, patience, shown, warnings
):
    async def told(*_):
        for line in lines:
            yield line if isinstance(line, bytes) else json.dumps(line).encode()

    monkeypatch.setattr(watching, "BODIES_S", patience)
    monkeypatch.setattr(watching.selecting, "lines", told)
    pod = {"metadata": {"name": "web", "namespace": "shop"}}

    async def work():
        queue = asyncio.Queue()
        await watching._follow(None, pod, Pods([]), "?bodies", queue)
        return [queue.get_nowait() for _ in range(queue.qsize())]

    found = asyncio.run(work())
    assert sum(isinstance(one, Request) for one in found) == shown
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(warnings)
    assert all(warning in line for warning, line in zip(warnings, said, strict=True))


def test_only_who_asks_for_bodies_sees_them(tmp_path, monkeypatch):
    async def work():
        bodies = Bodies(1)
        tapped = Tap(tmp_path / "tap.log", nothing, bodies)
        bodies.take = lambda _: {keys.REQUEST_BODY: {"text": "x"}}
        streams = [tapped.answer(f"/tap?{query}").stream for query in ("headers", "bodies")]

        async def first(stream):
            while not (line := (await anext(stream)).strip()):
                pass
            return json.loads(line)

        looks = [tasks.spawn(first(s), "look") for s in streams]
        await until(lambda: tapped._following is not None)
        await asyncio.sleep(0.2)
        (tmp_path / "tap.log").write_bytes(json.dumps(POST).encode() + b"\n")
        found = await asyncio.gather(*looks)
        for stream in streams:
            await stream.aclose()
        await until(lambda: tapped._reading.done())
        assert tapped._following is None
        return found

    plain, full = asyncio.run(work())
    assert plain == POST
    assert full == POST | {keys.REQUEST_BODY: {"text": "x"}}


def test_bodies_are_printed_without_what_a_terminal_would_obey():
    seen = POST | {
        keys.REQUEST_BODY: {"text": "one\n\x1b[2Jtwo", "truncated": True},
        keys.RESPONSE_BODY: {"base64": "AA=="},
    }
    request = Request(seen, Peer("web", "shop"), Pods([]))
    assert list(tap.shown(request, "short"))[1:] == [
        "    > one",
        "    > �[2Jtwo",
        "    > … (the rest is left out)",
        "    < (base64) AA==",
    ]
    assert tap.as_json(request)[keys.REQUEST_BODY] == {"text": "one\n\x1b[2Jtwo", "truncated": True}


@pytest.mark.parametrize(("value", "there"), [("true", True), ("false", False), (None, False)])
def test_a_pod_with_the_annotation_has_the_filter_in_a_slot_and_its_listeners_stay(value, there):
    plain = meshes.objects("")
    pod = plain.pods[("default", "productpage-v1")]
    notes = decoding.notes({"annotations": {TAP_BODIES: value} if value else {}})
    marked = plain.put(kinds.POD, ("default", pod.name), replace(pod, notes=notes))
    before, after = (judge.messages(meshes.view(found)) for found in (plain, marked))
    deny = after[names.ECDS].pop("istio.authorization.deny").typed_config
    assert ("envoy.filters.http.tap" in str(deny)) is there
    before[names.ECDS].pop("istio.authorization.deny")
    assert after == before, "nothing else of the proxy changes, so that nothing is drained"
    other = judge.messages(meshes.view(marked, "reviews-v1"))[names.ECDS]["istio.authorization.deny"]
    assert "envoy.filters.http.tap" not in str(other)


def test_a_gateway_with_the_annotation_has_the_filter():
    plain = meshes.objects(GATEWAY)
    pod = plain.pods[("istio-system", "ingress")]
    marked = plain.put(kinds.POD, (pod.namespace, pod.name), replace(pod, notes=((TAP_BODIES, "true"),)))
    before, after = (judge.messages(meshes.view(found, "ingress", "istio-system")) for found in (plain, marked))
    deny = after[names.ECDS].pop("istio.authorization.deny").typed_config
    assert "envoy.filters.http.tap" in str(deny)
    assert "envoy.filters.http.tap" not in str(before[names.ECDS].pop("istio.authorization.deny"))
    assert after == before
