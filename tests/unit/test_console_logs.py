"""The log of the page: which lines are explained, and with which objects."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from lateen.api import kinds
from lateen.api.mesh.accesslog import TEXT
from lateen.console.logs import Explainer, Logs
from lateen.dump.lines import Parser, parser_of
from lateen.kit import tasks

LINE = (
    '[2026-11-26T16:57:30.831Z] "GET /ratings/0 HTTP/1.1" 503 FI fault_filter_abort - "-" 0 18 0 - "-" "curl" "id" '
    '"ratings:9080" "-" outbound|9080|v1|ratings.default.svc.cluster.local - 10.96.0.7:9080 10.244.0.8:41234 - -'
)
SERVED = LINE.replace("503 FI fault_filter_abort", "200 - via_upstream")
ROUTE = {
    "name": "",
    "route": {"cluster": "outbound|9080|v1|ratings.default.svc.cluster.local"},
    "metadata": {
        "filter_metadata": {
            "istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/ratings"}
        }
    },
}
DUMP = {
    "configs": [
        {
            "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "dynamic_route_configs": [
                {
                    "route_config": {
                        "name": "9080",
                        "virtual_hosts": [
                            {"name": "r", "domains": ["ratings:9080"], "routes": [ROUTE | {"name": "-"}, ROUTE]}
                        ],
                    }
                }
            ],
        }
    ]
}


class Istiod:
    """Answers with a proxy's configuration, or not."""

    def __init__(self, found):
        self.found, self.asked = found, []

    async def dump(self, proxy):
        self.asked.append(proxy)
        if self.found is None:
            raise web.HTTPBadGateway(text="istiod does not answer")
        return self.found


class Cluster:
    root = "istio-system"

    def __init__(self, *tokens):
        pod = {"metadata": {"namespace": "default", "name": "reviews", "labels": {"app": "reviews"}}}
        self.found = {kinds.POD: [pod], kinds.REQUEST_AUTHENTICATION: list(tokens)}

    def objects(self, kind):
        return self.found.get(kind, [])


def said(istiod, *lines, cluster=None):
    explainer = Explainer(istiod, cluster or Cluster(), ("default", "reviews"), Parser(TEXT))

    async def ask():
        return [await explainer.of({"container": c, "text": t, "says": []}) for c, t in lines]

    return asyncio.run(ask())


def test_a_failed_request_is_explained_with_the_users_object_by_name():
    (found,) = said(Istiod(DUMP), ("istio-proxy", LINE))
    assert "an error was injected" in found[0]
    assert any("VirtualService ratings.default" in sentence for sentence in found)


def test_a_rejected_token_is_explained_with_the_rules_of_tokens():
    line = LINE.replace("503 FI fault_filter_abort", "401 - jwt_authn_access_denied{Jwt_is_expired}")
    about = {"metadata": {"namespace": "default", "name": "tokens"}, "spec": {}}
    (found,) = said(Istiod(DUMP), ("istio-proxy", line), cluster=Cluster(about))
    assert found[0] == "refused by RequestAuthentication tokens.default"


def test_a_denied_connection_is_explained_by_why_it_ended():
    details = '503 FI fault_filter_abort - "-"'
    ended = '0 - - rbac_access_denied_matched_policy[ns[default]-policy[no-tcp]-rule[0]] "-"'
    (found,) = said(
        Istiod(DUMP), ("istio-proxy", LINE.replace("GET /ratings/0 HTTP/1.1", "- - -").replace(details, ended))
    )
    assert found[0] == "denied by AuthorizationPolicy no-tcp.default, rule 0"


def test_without_istiod_it_is_explained_without_names_and_istiod_is_asked_once():
    istiod = Istiod(None)
    first, second = said(istiod, ("istio-proxy", LINE), ("istio-proxy", LINE))
    assert first == second
    assert "an error was injected" in first[0]
    assert istiod.asked == ["reviews.default"]


class Silent:
    """A client of the API whose containers write nothing."""

    def __init__(self):
        self.reading = 0

    async def logs(self, *_, **__):
        self.reading += 1
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            self.reading -= 1


def test_logs_that_say_nothing_are_read_no_longer_than_somebody_looks(monkeypatch):
    """Otherwise each look at a quiet pod would leave a connection to the API behind."""
    monkeypatch.setattr("lateen.console.logs.BEAT_S", 0.02)

    async def run():
        client, app = Silent(), web.Application()
        app.add_routes(Logs(client, Cluster(), Istiod(None)).routes(""))
        async with TestClient(TestServer(app)) as page:
            log = await page.get("/pods/default/reviews/log?container=reviews")
            assert await log.content.readline() == b":\n", "a comment, which no page sees"
            assert client.reading == 1
            log.close()
            async with asyncio.timeout(10):
                while client.reading:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_more_logs_than_there_are_connections_are_refused_with_the_command_to_use(monkeypatch):
    monkeypatch.setattr("lateen.console.logs.MOST", 2)

    async def run():
        client, app = Silent(), web.Application()
        app.add_routes(Logs(client, Cluster(), Istiod(None)).routes(""))
        path = "/pods/default/reviews/log?container=reviews"
        async with TestClient(TestServer(app)) as page:
            shown = [await page.get(path) for _ in range(2)]
            refused = await (await page.get(path)).text()
            assert "2 logs are shown already" in refused
            assert "lateen logs reviews -n default -f" in refused
            assert "event: end" in refused, "the page does not try again"
            assert client.reading == 2
            for log in shown:
                log.close()

    asyncio.run(run())


@pytest.mark.parametrize("line", [("istio-proxy", SERVED), ("istio-proxy", "nonsense"), ("reviews", LINE)])
def test_requests_that_were_served_and_lines_of_applications_are_left_alone(line):
    istiod = Istiod(DUMP)
    assert said(istiod, line) == [[]]
    assert istiod.asked == []


@pytest.mark.parametrize(
    ("mesh", "line"),
    [
        ('accessLogFormat: "%RESPONSE_CODE% %RESPONSE_FLAGS%"', "503 UH"),
        ("accessLogEncoding: JSON", '{"response_code": 503, "response_flags": "UH"}'),
    ],
)
def test_lines_are_read_in_the_meshs_own_format(mesh, line):
    seen = parser_of({"data": {"mesh": mesh}}).read(line)
    assert (seen["status"], seen["flags"]) == (503, "UH")


class Busy:
    """The log of a pod that writes faster than anybody reads."""

    async def logs(self, *_, **__):
        while True:
            yield b"line\n"


def test_a_page_that_is_closed_while_a_pod_writes_faster_than_it_reads_ends_the_reading():
    async def close():
        queue = asyncio.Queue(2)
        reading = tasks.spawn(Logs(Busy(), None, None)._read("default", "web", "web", queue), "log")
        while not queue.full():
            await asyncio.sleep(0)
        await asyncio.wait_for(tasks.cancel(reading), 10)

    asyncio.run(close())


def test_a_reading_that_fails_in_whatever_way_ends_its_container():
    class Torn:
        async def logs(self, *_, **__):
            yield b"line\n"
            raise ValueError("torn")

    async def read():
        queue = asyncio.Queue()
        with pytest.raises(ValueError, match="torn"):
            await Logs(Torn(), None, None)._read("default", "web", "web", queue)
        return [queue.get_nowait() for _ in range(queue.qsize())]

    line, end = asyncio.run(read())
    assert (line["text"], end) == ("line", None)


@pytest.mark.parametrize("config", [None, {}, {"data": {"mesh": "{"}}, {"data": {"mesh": "text"}}])
def test_without_a_readable_mesh_configuration_the_format_is_istios(config):
    assert parser_of(config).read(LINE)["flags"] == "FI"
