"""What lateen x stat and x edges make of the proxies' counters."""

import asyncio
import weakref

import pytest
from consoles import line

from lateen.agent.exposition import IDLE
from lateen.cli import foreign
from lateen.cli.live import counters
from lateen.cli.live.counters import Sums, by
from lateen.cli.live.logs import Shown, _batches
from lateen.cli.output import CliError
from lateen.console.metrics import Flow, Sample, Workload
from lateen.dump.requests import BadFilter, statuses

WEB, ECHO = Workload("default", "web", "web", "v1"), Workload("default", "echo", "echo", "v1")


def sample(code="200", flags="-", grpc="", reporter="destination", policy="mutual_tls"):
    flow = Flow(reporter, WEB, "echo", "default", ECHO, "http", policy, reporter == "source")
    return Sample(flow, "requests", code, flags, grpc)


@pytest.mark.parametrize(
    ("failing", "fails"),
    [
        ({"code": "503"}, True),
        ({"code": "0"}, True),
        ({"code": ""}, False),
        ({"code": "404"}, False),
        ({"code": "404", "flags": "NR"}, True),
        ({"grpc": "14"}, True),
        ({"grpc": "12"}, True),
        ({"grpc": "5"}, False),
        ({"grpc": "0"}, False),
    ],
)
def test_stat_counts_the_failures_that_the_console_counts(failing, fails):
    sums = Sums()
    sums.add(sample(), 9.0)
    sums.add(sample(**failing), 1.0)
    assert sums.json(10)["success"] == (0.9 if fails else 1.0)


def test_a_caller_tells_of_mutual_tls_where_the_called_side_was_not_asked():
    def share(*samples):
        sums = by(dict.fromkeys(samples, 4.0), lambda s: (*s.flow.source[:2], *s.flow.destination[:2]))
        return sums[*WEB[:2], *ECHO[:2]].security.share()

    assert share(sample(reporter="source")) == 1
    assert share(sample(reporter="source", policy="none")) == 0
    assert share(sample(reporter="source", policy="unknown")) is None
    refused = sample("503", "UF", reporter="source", policy="unknown")
    assert share(sample(reporter="source"), refused) == 1, "connections that failed were neither"
    assert share(sample(reporter="source"), sample(policy="none")) == 0, "the called side knows better"
    assert share(sample(reporter="source"), sample(policy="unknown")) == 1, "a Telemetry removed it there"


def test_stat_counts_a_burst_of_errors_at_a_pod_of_hours_and_no_calls_of_the_past(monkeypatch):
    """Its agent leaves out what has not changed for an hour, and says so once."""
    asked, known, idle = [], line(value=5), line(target="idle", value=1000)
    answers = [known + IDLE + b"\n" + idle, known + line(code=503, value=20) + line(target="idle", value=1001)]

    async def lines(_client, _pod, path):
        asked.append(path)
        for each in answers[len(asked) - 1].splitlines():
            yield each

    monkeypatch.setattr(counters.selecting, "lines", lines)
    pod = {"metadata": {"name": "web-1", "uid": "1"}, "status": {"startTime": "2020-01-01T00:00:00Z"}}
    found = asyncio.run(counters.read(None, [pod], 0.001))
    assert {(s.flow.destination.name, s.detail): n for s, n in found.items()} == {
        ("cart", "503"): 20,
        ("idle", "200"): 1,
    }
    assert ["idle" in path for path in asked] == [True, False]


def test_a_pod_that_does_not_answer_is_left_out_of_stat_and_named(monkeypatch, capsys):
    async def lines(_client, pod, _path):
        if pod["metadata"]["name"] == "starting":
            raise CliError("the agent of pod starting does not answer on port 15020")
        yield line(value=5)

    monkeypatch.setattr(counters.selecting, "lines", lines)
    web, starting = (
        {"metadata": {"name": name, "uid": name}, "status": {"startTime": "2020-01-01T00:00:00Z"}}
        for name in ("web-1", "starting")
    )
    assert sum(asyncio.run(counters.read(None, [web, starting], 0)).values()) == 5
    assert capsys.readouterr().err.count("the agent of pod starting does not answer on port 15020") == 1
    with pytest.raises(CliError, match="does not answer on port 15020"):
        asyncio.run(counters.read(None, [starting], 0))


@pytest.mark.parametrize("silent", [0, 1])
def test_a_pod_that_answers_only_once_is_named_since_nothing_of_it_can_be_counted(monkeypatch, capsys, silent):
    asked = {"web": 0, "other": 0}

    async def lines(_client, pod, _path):
        name = pod["metadata"]["name"]
        asked[name] += 1
        if name == "other" and asked[name] == silent + 1:
            raise CliError("the agent of pod other does not answer on port 15020")
        yield line(value=5 * asked[name])

    monkeypatch.setattr(counters.selecting, "lines", lines)
    pods = [
        {"metadata": {"name": name, "uid": name}, "status": {"startTime": "2020-01-01T00:00:00Z"}} for name in asked
    ]
    assert sum(asyncio.run(counters.read(None, pods, 0.001)).values()) == 5
    assert capsys.readouterr().err.count("the agent of pod other does not answer") == 1


@pytest.mark.parametrize("text", ["9xx", "600", "42", "599-500", "200-999"])
def test_a_status_that_no_response_has_is_refused(text):
    with pytest.raises(BadFilter, match="no response has"):
        statuses(text)


def test_statuses_are_ranges():
    assert statuses("503, 4xx,200-204,0") == [(503, 503), (400, 499), (200, 204), (0, 0)]


class Logs:
    """A client whose containers have written more than anybody wants."""

    def __init__(self):
        self.asked = []

    async def logs(self, _namespace, _pod, container, tail, *_, **__):
        self.asked.append((container, tail))
        for i in range(2_000):
            yield b"%05d %s%d\n" % (i, container.encode(), i)


@pytest.mark.parametrize(("tail", "expected"), [(2, ["a400", "b400", "a500", "b500"]), (0, [])])
def test_the_last_lines_that_pass_are_sought_in_each_container_and_no_others_are_kept(tail, expected):
    pod = {"metadata": {"namespace": "shop", "name": "web"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    known, most = [], 0

    def passing(line):
        nonlocal known, most
        known = [one for one in known if one()] + [weakref.ref(line)]
        most = max(most, len(known))
        number = int(line.text[1:])
        return Shown(line, None) if 0 < number <= 500 and not number % 100 else None

    async def work(sought):
        client = Logs()
        batches = [batch async for batch in _batches(client, [pod], None, tail, False, sought, passing)]
        return client.asked, [shown.line.text for batch in batches for shown in batch]

    assert asyncio.run(work(True)) == ([("a", None), ("b", None)], expected)
    assert most <= 2 * tail + 4, "those kept of two containers, and the ones at hand"
    asked, _ = asyncio.run(work(False))
    assert asked == [("a", tail), ("b", tail)], "without a filter the server chooses them"


def test_only_istioctls_commands_are_said_to_lack_its_options():
    assert "everything except Secrets" in foreign.of("bug-report", "--duration")
    assert foreign.of("top", "--duration") is None
    assert foreign.of("analyze", "--duration") is None
    assert foreign.of("analyze", "--vklog")
