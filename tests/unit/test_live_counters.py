"""What lateen x stat and x edges make of the proxies' counters."""

import pytest

from lateen.cli import foreign
from lateen.cli.live.counters import Sums, by
from lateen.cli.live.logs import Line, _latest
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


@pytest.mark.parametrize("text", ["9xx", "600", "42", "599-500", "200-999"])
def test_a_status_that_no_response_has_is_refused(text):
    with pytest.raises(BadFilter, match="no response has"):
        statuses(text)


def test_statuses_are_ranges():
    assert statuses("503, 4xx,200-204,0") == [(503, 503), (400, 499), (200, 204), (0, 0)]


def test_the_last_lines_are_those_of_each_container():
    pod = {"metadata": {"uid": "1"}}
    lines = [(Line(str(i), pod, "ab"[i % 2], str(i)), None) for i in range(6)]
    assert [line.text for line, _ in _latest(lines, 2)] == ["2", "3", "4", "5"]
    assert _latest(lines, 0) == []


def test_only_istioctls_commands_are_said_to_lack_its_options():
    assert "everything except Secrets" in foreign.of("bug-report", "--duration")
    assert foreign.of("top", "--duration") is None
    assert foreign.of("analyze", "--duration") is None
    assert foreign.of("analyze", "--vklog")
