"""Requests: lines of Envoy in, Istio's metrics out."""

import asyncio
import os
import re

import pytest

from lateen.agent import pipes
from lateen.agent import requests as counting
from lateen.agent.exposition import Exposition
from lateen.agent.metrics import Metrics, asked
from lateen.agent.options import Options
from lateen.agent.requests import LIMITS, Requests, limits
from lateen.wire import requests as wire

ALL, LABELS = "0123", ("reporter=source", "source_workload=web", "destination_workload=-")
NAMED = 'reporter="source",source_workload="web",destination_workload="unknown"'


def line(found, values="3 0 1024", kinds=ALL, labels=LABELS):
    return found.mark + "".join(part + found.mark for part in (values, kinds, *labels)) + "\n"


def samples(found, **more):
    text = Exposition().text(series=found.series(**more)).decode()
    return dict(re.findall(r"^(?!#)(.*) (\S+)$", text, re.MULTILINE))


def counted(*lines, **options):
    found = Requests(**options)
    for given in lines:
        found.take(line(found, **given).encode())
    return samples(found)


def of_duration(found, labels=NAMED):
    name = "istio_request_duration_milliseconds_bucket"
    return [int(found[f'{name}{{{labels},le="{limit:.15g}"}}']) for limit in LIMITS[:6]]


def test_a_line_is_a_request_with_a_duration_and_two_sizes():
    found = counted({})
    assert found[f"istio_requests_total{{{NAMED}}}"] == "1"
    assert of_duration(found) == [0, 0, 1, 1, 1, 1]
    assert found[f'istio_response_bytes_bucket{{{NAMED},le="1000"}}'] == "0"
    assert found[f'istio_response_bytes_bucket{{{NAMED},le="2500"}}'] == "1"
    assert found[f'istio_request_bytes_bucket{{{NAMED},le="0.5"}}'] == "1"
    for name, total in zip(wire.HISTOGRAMS, ("3", "0", "1024"), strict=True):
        assert found[f"istio_{name}_sum{{{NAMED}}}"] == total
        assert found[f"istio_{name}_count{{{NAMED}}}"] == found[f'istio_{name}_bucket{{{NAMED},le="+Inf"}}'] == "1"


def test_requests_of_equal_labels_add_up_and_a_limit_belongs_to_its_bucket():
    found = counted({}, {}, {"values": "5 1 1"}, {"values": "4000000 1 1"})
    assert found[f"istio_requests_total{{{NAMED}}}"] == "4"
    assert of_duration(found) == [0, 0, 3, 3, 3, 3]
    assert found[f"istio_request_duration_milliseconds_sum{{{NAMED}}}"] == "4000011"
    assert found[f'istio_request_duration_milliseconds_bucket{{{NAMED},le="3600000"}}'] == "3"
    assert found[f'istio_request_duration_milliseconds_bucket{{{NAMED},le="+Inf"}}'] == "4"


def test_messages_of_grpc_are_counted_apart():
    of = {"kinds": "45"}
    found = counted(
        {"values": "3,17", **of}, {"values": "3,17", **of}, {"values": "1,0", **of}, {"values": "-", **of}, {}
    )
    assert found[f"istio_request_messages_total{{{NAMED}}}"] == "7"
    assert found[f"istio_response_messages_total{{{NAMED}}}"] == "34"
    assert found[f"istio_requests_total{{{NAMED}}}"] == "1"


def test_a_request_without_an_end_has_no_duration():
    found = counted({"values": "- 0 7"})
    assert found[f"istio_requests_total{{{NAMED}}}"] == "1"
    assert found[f"istio_request_duration_milliseconds_count{{{NAMED}}}"] == "0"
    assert found[f"istio_response_bytes_sum{{{NAMED}}}"] == "7"


def test_metrics_of_other_labels_have_lines_of_their_own():
    found = counted({"kinds": "0", "labels": ("method=GET",)}, {"kinds": "13", "labels": ("reporter=source",)})
    assert found['istio_requests_total{method="GET"}'] == "1"
    assert found['istio_response_bytes_count{reporter="source"}'] == "1"
    assert not any("request_bytes" in name for name in found), "nobody asked for it"
    assert not any("method" in name for name in found if "total" not in name)


def test_values_may_contain_anything_but_a_mark():
    found = counted({"labels": ('a=x"y\\z=|;', "b=", "c=\u00e4")})
    assert found['istio_requests_total{a="x\\"y\\\\z=|;",b="unknown",c="\u00e4"}'] == "1"
    found = Requests()
    found.take(line(found, labels=("a=BAD",)).encode().replace(b"BAD", b"\xff\xfe"))
    assert samples(found)['istio_requests_total{a="\ufffd\ufffd"}'] == "1"


def junk(mark):
    whole = f"{mark}3 0 1{mark}0123{mark}a=b{mark}"
    return (
        "",
        "x",
        mark,
        mark * 2,
        mark * 3,
        f"x{whole}",
        f"{whole}x",
        whole.removesuffix(mark),
        whole[: len(whole) // 2] + whole,
        whole + whole,
        f"{mark}3 0 1{mark}6{mark}a=b{mark}",
        f"{mark}3 0 1{mark}34{mark}a=b{mark}",
        f"{mark}3 0 1{mark}00000{mark}a=b{mark}",
        f"{mark}3 0 1{mark}\u00b2{mark}a=b{mark}",
        f"{mark}3 0 1{mark}{mark}a=b{mark}",
        f"{mark}3 0 1{mark}0{mark}a{mark}",
        f"{mark}3 0 1{mark}0{mark}a-b=c{mark}",
        f"{mark}3 0 1{mark}0{mark}=c{mark}",
        whole.replace(mark, "0" * 8),
    )


@pytest.mark.parametrize("i", range(len(junk("m"))))
def test_a_line_that_makes_no_sense_is_counted_as_such_and_nothing_else(i):
    found = Requests()
    found.take(junk(found.mark)[i].encode() + b"\n" + line(found).encode())
    assert found.unread == 1
    assert samples(found)[f"istio_requests_total{{{NAMED}}}"] == "1"
    assert sum("total" in name for name in samples(found)) == 1


def test_a_peer_whose_certificate_has_a_line_break_cannot_report_anything():
    found = Requests()
    forged = Requests()
    found.take(line(found, labels=(f"lateen_labels=x\n{line(forged)}x",)).encode())
    assert found.unread == 3
    assert samples(found) == {}


def test_marks_cannot_be_guessed():
    assert len({Requests().mark for _ in range(100)}) == 100
    assert len(Requests().mark) == 8


def test_lines_come_in_pieces():
    found = Requests()
    whole = (line(found) * 3).encode()
    for i in range(0, len(whole), 7):
        found.take(whole[i : i + 7])
    assert samples(found)[f"istio_requests_total{{{NAMED}}}"] == "3"
    assert found.unread == 0


def test_what_was_counted_outlives_envoy_which_may_have_died_in_a_line():
    found = Requests()
    found.take(line(found).encode() + line(found).encode()[:40])
    found.restarted()
    found.take(line(found).encode())
    assert samples(found)[f"istio_requests_total{{{NAMED}}}"] == "2"
    assert found.unread == 0


def test_what_envoy_wrote_before_it_died_is_counted(tmp_path):
    async def run():
        found, path = Requests(), tmp_path / "requests.pipe"
        found.open(path)
        whole = line(found).encode()
        with path.open("wb", buffering=0) as file:
            file.write(whole[:10])
            found.read_now()
            file.write(whole[10:] + whole + whole[:10])
            found.restarted()
            file.write(whole)
        assert samples(found)[f"istio_requests_total{{{NAMED}}}"] == "2"
        found.read_now()
        assert samples(found)[f"istio_requests_total{{{NAMED}}}"] == "3"
        assert found.unread == 0

    asyncio.run(run())


def test_requests_stay_in_the_metrics_while_envoy_does_not_answer():
    """As a series that is gone and comes back with its total looks like new calls."""
    found = Requests()
    found.take(line(found).encode())
    metrics = Metrics(Options(), requests=found)

    async def run():
        return [await metrics.graph(), await metrics.standard(), await metrics.all(), await metrics.envoy("")]

    graph, standard, merged, envoys = asyncio.run(run())
    for text in (graph, standard, merged):
        assert f"istio_requests_total{{{NAMED}}} 1\n".encode() in text
    assert envoys is None, "that port is Envoy's"


def test_a_line_without_end_is_not_kept():
    found = Requests()
    for _ in range(20):
        found.take(b"x" * 10_000)
    found.take(b"\n" + line(found).encode())
    assert samples(found)[f"istio_requests_total{{{NAMED}}}"] == "1"


def test_sets_of_labels_are_bounded_and_those_with_news_stay(monkeypatch):
    monkeypatch.setattr(counting, "SERIES", 20)
    found = Requests()
    for i in range(100):
        found.take(line(found, labels=(f"a={i}",)).encode() + line(found).encode())
    kept = samples(found)
    assert kept[f"istio_requests_total{{{NAMED}}}"] == "100"
    assert kept['istio_requests_total{a="99"}'] == "1"
    totals = sum("total" in name for name in kept)
    assert 18 <= totals <= 20
    assert found.forgotten == 101 - totals
    found.take("".join(line(found, labels=(f"b={i}",)) for i in range(500)).encode())
    assert sum("total" in name for name in samples(found)) <= 20, "however many come at once"


def test_labels_are_bounded_however_long_they_are(monkeypatch):
    monkeypatch.setattr(counting, "LABELS", 100_000)
    found = Requests()
    for i in range(50):
        found.take(line(found, labels=(f"a={i}{'x' * 9_000}",)).encode() + line(found).encode())
    kept = samples(found)
    assert 5 <= sum("total" in name for name in kept) <= 12
    assert kept[f"istio_requests_total{{{NAMED}}}"] == "50"
    assert found._size == sum(map(len, found._known))


def test_different_values_are_bounded_of_all_labels_together(monkeypatch):
    monkeypatch.setattr(counting, "GATHERED", 10)
    monkeypatch.setattr(counting, "SERIES", 7)
    found = Requests()
    for i in range(100):
        for name in "abcde":
            found.take(line(found, values=f"{i} 0 0", labels=(f"a={name}",)).encode())
        found.take(line(found, labels=(f"other={i}",)).encode())
        gathered = sum(len(c.values) for c in found._known.values())
        assert gathered == found._gathered <= 10
    kept = samples(found)
    assert [kept[f'istio_request_duration_milliseconds_sum{{a="{name}"}}'] for name in "abcde"] == ["4950"] * 5


def test_equal_labels_in_other_lines_are_one_series():
    """As after a Telemetry object has changed what is measured."""
    found = counted({}, {"kinds": "01"})
    assert found[f"istio_requests_total{{{NAMED}}}"] == "2"
    assert found[f"istio_response_bytes_count{{{NAMED}}}"] == "1"


def test_series_go_on_where_envoys_own_have_ended():
    """Of a proxy whose istiod is newer since a moment."""
    found = Requests()
    found.take(line(found).encode())
    envoys = f"# TYPE envoy_istio_requests_total counter\nenvoy_istio_requests_total{{{NAMED}}} 41\n".encode()
    text = Exposition().text(envoys, series=found.series()).decode()
    assert f"istio_requests_total{{{NAMED}}} 42\n" in text
    assert text.count("# TYPE istio_requests_total counter") == 1
    assert "# TYPE istio_request_bytes histogram\n" in text


def test_buckets_are_those_of_the_pods_annotation():
    own = {"istio.request_bytes": [100, 10], "istio": [1.5, 2]}
    assert limits("request_bytes", own) == (1.5, 2), "the first prefix, as in Envoy"
    assert limits("request_bytes", {"istio.request_b": [100, 10], "other": [1]}) == (10, 100)
    assert limits("request_bytes", {"other": [1]}) == LIMITS
    assert limits("request_bytes", {"istiocustom": [1, 5]}) == (1, 5), "as in Istio's documentation"
    found = counted({}, buckets={"istio.response": [1e6, 2000.5]})
    limited = [k for k in found if "response_bytes_bucket" in k]
    assert [re.search(r'le="(.*)"', k)[1] for k in limited] == ["2000.5", "1000000", "+Inf"]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", ALL),
        ("usedonly", ALL),
        ("usedonly&filter=%5Eistio%5C.request_duration", "1"),
        ("filter=requests_total", "0"),
        ("filter=requests_total%7Cresponse", "03"),
        ("filter=cluster", ""),
        ("filter=request.*total", ALL),
        ("filter=(a%2B)%2B$", ALL),
        ("filter=request.bytes", ALL),
        ("type=Counters", "0"),
        ("type=histograms&filter=bytes", "23"),
        ("type=Gauges", ""),
    ],
)
def test_a_query_for_envoy_asks_for_requests_too(query, wanted):
    assert [name for name in wire.METRICS if asked(query)(name)] == [wire.METRICS[int(i)] for i in wanted]


def test_what_is_not_asked_for_is_left_out():
    found = Requests()
    found.take(line(found).encode())
    assert {name.split("{")[0] for name in samples(found, wanted=lambda n: n == "requests_total")} == {
        "istio_requests_total"
    }


def test_a_pipe_is_read_as_envoy_writes(tmp_path):
    async def run():
        found = Requests()
        path = tmp_path / "requests.pipe"
        path.write_text("a regular file, as Envoy makes where nobody reads")
        found.open(path)
        assert path.is_fifo()
        assert path.stat().st_mode & 0o777 == 0o600
        writer = os.open(path, os.O_WRONLY)
        os.write(writer, line(found).encode())
        while not samples(found):
            await asyncio.sleep(0.01)
        os.write(writer, line(found).encode())
        found.read_now()
        assert samples(found)[f"istio_requests_total{{{NAMED}}}"] == "2"
        asyncio.get_running_loop().remove_reader(found._pipe._file)
        os.close(writer)

    asyncio.run(run())


def test_a_pipe_is_read_on_after_text_that_could_not_be_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(pipes, "PAUSE_S", 0.001)
    taken = []

    def take(text):
        taken.append(text)
        if len(taken) == 1:
            raise ValueError("an unforeseen line")

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        pipe = pipes.Pipe(take)
        pipe.open(tmp_path / "pipe")
        writer = os.open(tmp_path / "pipe", os.O_WRONLY)
        for text in (b"first", b"second"):
            os.write(writer, text)
            while text not in taken:
                await asyncio.sleep(0.001)
        asyncio.get_running_loop().remove_reader(pipe._file)
        os.close(writer)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert taken == [b"first", b"second"]


def test_a_pipe_that_is_always_full_is_read_without_a_pause(tmp_path):
    """Envoy keeps in its memory what the pipe does not take."""

    async def run():
        found = Requests()
        path = tmp_path / "requests.pipe"
        found.open(path)
        pipe, busy, idle = found._pipe, line(found).encode() * 500, line(found).encode()
        assert pipes.CAPACITY > pipe._capacity > len(busy) > pipe._capacity // 2
        written = 0

        def feed(text, times):
            nonlocal written
            for _ in range(times):
                os.write(pipe._file, text)
                written += text.count(b"\n")
                pipe._later()

        feed(busy, 1)
        assert (pipe._capacity, pipe._pause_s) == (pipes.CAPACITY, pipes.PAUSE_S)
        busy = line(found).encode() * (pipes.CAPACITY * 3 // 4 // len(line(found)))
        feed(busy, 7)
        assert pipe._pause_s == pipes.PAUSE_S / 2**7
        feed(busy[: busy.index(b"\n", len(busy) // 2) + 1], 3)
        assert pipe._pause_s == pipes.PAUSE_S / 2**7, "it is right"
        feed(idle, 11)
        assert pipe._pause_s == pipes.PAUSE_S
        feed(busy, 30)
        assert pipe._pause_s == pipes.LEAST_S, "and no less, however long that goes on"
        feed(idle, 8)
        assert pipe._pause_s == pipes.PAUSE_S
        assert samples(found)[f"istio_requests_total{{{NAMED}}}"] == str(written)
        asyncio.get_running_loop().remove_reader(pipe._file)

    asyncio.run(run())


def test_the_agent_reports_what_it_could_not_read():
    requests = Requests()
    requests.take(b"junk\n")
    own = Metrics(Options(), requests=requests).own.text().decode()
    assert "istio_agent_requests_unread_total 1\n" in own
    assert "istio_agent_series_forgotten_total 0\n" in own
