"""The page's list of callers in plaintext: the collector's and the access logs' word, and what is said without them."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from test_plaintext import PLAIN, series

from lateen.console import plain_callers, plaintext
from lateen.console.plain_callers import PlainCallers
from lateen.kit import tasks, times
from lateen.kube.client import KubeError

NOW = 1_900_000_000


def pod(name, address, namespace="default", **labels):
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}] if labels else [{"name": "app"}]},
        "status": {"podIP": address},
    }


class Cluster:
    """An API with two pods, one of which called the other one without a sidecar a minute ago."""

    def __init__(self):
        self.read = []

    async def list(self, _kind, _namespace):
        return [pod("api-1", "10.244.0.9", app="api"), pod("old", "10.244.0.7", "legacy")], ""

    async def logs(self, _namespace, name, *_):
        self.read.append(name)
        yield PLAIN.replace("2026-11-26T14:08:31.404Z", times.stamp(times.now())).encode() + b"\n"


def asked(answer, *questions):
    cluster = Cluster()

    async def collector(_):
        return web.json_response(answer)

    async def ask():
        behind = web.Application()
        behind.add_routes([web.get("/api/v1/query_range", collector)])
        async with TestServer(behind) as server:
            app = web.Application()
            url = f"http://127.0.0.1:{server.port}"
            app.add_routes(PlainCallers(cluster, url, "istio-system").routes(""))
            async with TestClient(TestServer(app)) as page:
                out = []
                for question in questions:
                    found = await page.get(f"/plaintext{question}")
                    out.append(await found.json() if found.status == 200 else (found.status, await found.text()))
                return out

    return asyncio.run(ask()), cluster


SEEN = {"status": "success", "data": {"result": [series("unknown", [[NOW, "2"]])]}}


def test_a_caller_in_plaintext_is_named_with_the_port_that_it_called():
    (found,), _ = asked(SEEN, "?namespace=default")
    assert [(c["namespace"], c["service"]) for c in found] == [("default", "api")]
    assert [(c["name"], c["port"]) for c in found[0]["callers"]] == [("pod old.legacy", 8080)]


def test_other_namespaces_are_left_out_and_logs_are_read_once_for_the_same_question():
    (one, again, other), cluster = asked(SEEN, "?namespace=default", "?namespace=default", "?namespace=shop")
    assert (len(one), again, other) == (1, one, [])
    assert cluster.read == ["api-1"]


def test_pods_whose_logs_were_not_read_are_counted_until_all_are_asked_for(monkeypatch):
    monkeypatch.setattr(plain_callers.plaintext, "PODS", 0)
    ((few,), (every,)), cluster = asked(SEEN, "", "?logs=all")
    assert (few["unread"], few["callers"]) == (1, [])
    assert (every["unread"], len(every["callers"])) == (0, 1)
    assert cluster.read == ["api-1"]


class Slow(Cluster):
    """An API with 23 pods, some of whose logs cannot be read; that of the pod "last" ends once all others are read."""

    def __init__(self, *names):
        super().__init__()
        self.names = names or ("last", "refused", "endless", *(f"fine-{i}" for i in range(20)))
        self.others = asyncio.Event()
        self.now = self.most = 0

    async def list(self, _kind, _namespace):
        return [pod(name, f"10.244.1.{i}", app="api") for i, name in enumerate(self.names)], ""

    async def logs(self, _namespace, name, *_):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await (self.others.wait() if name in ("last", "stuck") else asyncio.sleep(0))
            if name == "refused":
                raise KubeError(403, "Forbidden", "no")
            if name == "endless":
                raise ValueError("Chunk too big")
            async for line in super().logs(_namespace, name):
                yield line
            if len(self.read) == 20:
                self.others.set()
        finally:
            self.now -= 1


def looked(cluster, logs):
    async def ask(*_):
        return SEEN["data"]["result"]

    return asyncio.run(plaintext.look(cluster, ask, "istio-system", 3600, logs=logs))


def test_logs_are_read_several_at_a_time_and_those_that_cannot_be_read_count_as_unread(monkeypatch):
    monkeypatch.setattr(plaintext, "READING_S", 60)
    cluster = Slow()
    found = looked(cluster, plaintext.ALL_PODS)
    assert cluster.read[-1] == "last"
    assert sorted(cluster.read[:-1]) == sorted(f"fine-{i}" for i in range(20))
    assert 1 < cluster.most <= plaintext.AT_ONCE
    assert found.services["default", "api"].unread == 2
    assert len(found.services["default", "api"].callers) == 1


def test_a_log_that_never_ends_counts_as_unread_after_a_while(monkeypatch):
    monkeypatch.setattr(plaintext, "READING_S", 0.05)
    cluster = Slow("stuck")
    assert looked(cluster, plaintext.PODS).services["default", "api"].unread == 1
    assert cluster.now == 0


@pytest.mark.parametrize(("logs", "more"), [(4, True), (23, False), (plaintext.ALL_PODS, False)])
def test_more_logs_are_offered_only_where_some_were_left_out(logs, more, monkeypatch):
    monkeypatch.setattr(plaintext, "READING_S", 0.05)
    assert looked(Slow(), logs).more is more


def test_who_asks_for_another_namespace_does_not_wait_for_a_slow_answer(monkeypatch):
    looks = []

    async def ask():
        go_on = asyncio.Event()

        async def look(_client, _ask, _root, _seconds, namespace, **_):
            looks.append(namespace)
            if namespace == "slow":
                await go_on.wait()
            return plaintext.Found({}, {}, 60, False)

        monkeypatch.setattr(plaintext, "look", look)
        page = PlainCallers(None, "", "istio-system")

        def get(namespace):
            return page._list(make_mocked_request("GET", f"/plaintext?namespace={namespace}"))

        slow = [tasks.spawn(get("slow"), "a slow question") for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.wait_for(get("quick"), 30)
        assert not any(task.done() for task in slow)
        go_on.set()
        await asyncio.gather(*slow)

    asyncio.run(ask())
    assert looks == ["slow", "quick"]


def test_an_answer_of_the_collector_without_end_is_named_and_not_read_to_it(monkeypatch):
    monkeypatch.setattr(plain_callers, "MAX_ANSWER", 1 << 20)
    found, _ = asked({**SEEN, "more": "x" * (1 << 20)}, "?namespace=default")
    assert found == [(502, "the collector's answer has more than 1 MB: too many services have such callers")]


def test_nobody_in_plaintext_is_an_empty_list():
    (found,), cluster = asked({"status": "success", "data": {"result": []}}, "")
    assert (found, cluster.read) == ([], [])


def test_an_answer_that_takes_long_and_a_failure_are_given_again_as_well(monkeypatch):
    looks = []

    async def slow(*_, **__):
        looks.append(1)
        clock[0] += 60
        raise ValueError("too slow")

    clock = [1000.0]
    monkeypatch.setattr(plain_callers.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(plain_callers.plaintext, "look", slow)

    async def ask():
        page = PlainCallers(None, "", "istio-system")
        for _ in range(3):
            with pytest.raises(web.HTTPBadGateway, match="Bad Gateway") as e:
                await page._list(make_mocked_request("GET", "/plaintext"))
            assert "too slow" in e.value.text

    asyncio.run(ask())
    assert looks == [1]


@pytest.mark.parametrize("answer", [{"status": "error", "error": "too many series"}, []])
def test_a_collector_that_cannot_answer_is_said_to_be_missing(answer):
    ((status, text),), _ = asked(answer, "")
    assert status == 502
    assert "the collector does not answer" in text
