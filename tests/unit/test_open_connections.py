"""Bytes of connections that are open: lines of Envoy in, counters of the agent out."""

import asyncio
import json
import os

import pytest

from lateen.agent import connections
from lateen.agent.connections import Connections
from lateen.agent.exposition import Exposition
from lateen.agent.options import Options
from lateen.wire import connections as wire

LABELS = [["reporter", "source"], ["source_workload", "web"], ["destination_workload", None]]
SAMPLE = 'istio_tcp_sent_bytes_total{reporter="source",source_workload="web",destination_workload="unknown"} %d'


def line(number, total, when=wire.PERIODIC, labels=LABELS, name="tcp_sent_bytes_total"):
    return json.dumps({wire.ID: number, wire.WHEN: when, wire.COUNTS: [[name, total, labels]]}).encode() + b"\n"


def counted(*lines):
    found = Connections()
    for text in lines:
        found.take(text)
    return samples(found)


def samples(found):
    return Exposition().text(found.text()).decode().splitlines()[1:]


def test_bytes_grow_with_each_line_of_a_connection():
    assert counted(line(1, 100)) == [SAMPLE % 100]
    assert counted(line(1, 100), line(1, 250)) == [SAMPLE % 250]
    assert counted(line(1, 100), line(1, 250), line(1, 300, wire.END)) == [SAMPLE % 300]


def test_several_connections_of_the_same_labels_are_one_counter_that_never_falls():
    assert counted(line(1, 100), line(2, 10), line(1, 100, wire.END), line(2, 30)) == [SAMPLE % 130]


def test_a_connection_that_never_reported_before_its_end_counts_whole():
    assert counted(line(7, 40, wire.END)) == [SAMPLE % 40]


def test_lines_come_in_pieces():
    whole = line(1, 100) + line(1, 200)
    assert counted(*(whole[i : i + 7] for i in range(0, len(whole), 7))) == [SAMPLE % 200]


@pytest.mark.parametrize(
    "junk",
    [b"{", b"[]", b"null", b'{"id": 1}', b'{"id": 1, "when": "", "counts": [[1]]}', b"\xff\xfe", b"[" * 100_000,
     b'{"id": 1, "when": "", "counts": [["tcp_sent_bytes_total", "1", []]]}',
     b'{"id": 1, "when": "", "counts": [["tcp_sent_bytes_total", 1e999, []]]}',
     b'{"id": 1, "when": "", "counts": [["tcp_sent_bytes_total", NaN, []]]}'],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out(junk):
    assert counted(junk + b"\n", line(1, 5)) == [SAMPLE % 5]


def test_round_numbers_that_envoy_writes_with_an_exponent_are_whole_on_the_page():
    found, text = Connections(), line(1, 7).replace(b", 7,", b", 1e+05,")
    assert b"1e+05" in text
    found.take(text)
    found.take(line(1, 100_001))
    assert samples(found) == [SAMPLE % 100_001]


def test_labels_are_escaped():
    (text,) = counted(line(1, 5, labels=[["a", 'x"\\\n']]))
    assert text == 'istio_tcp_sent_bytes_total{a="x\\"\\\\\\n"} 5'


def test_when_envoy_restarts_the_counters_begin_anew_as_its_own_do():
    found = Connections()
    found.take(line(1, 100) + b'{"id": ')
    found.restarted()
    assert found.text() == b""
    found.take(line(1, 7))
    assert samples(found) == [SAMPLE % 7]


def test_series_are_bounded():
    found = Connections()
    for i in range(6_000):
        found.take(line(i, 1, labels=[["n", str(i)]]))
    kept = found.text().decode().splitlines()
    assert len(kept) == 5_000
    assert 'n="5999"' in kept[-1]


def test_labels_are_bounded_however_long_they_are():
    found = Connections()
    for i in range(200):
        found.take(line(i, 1, labels=[["n", f"{i}{'x' * 60_000}"]]))
    kept = found.text()
    assert 3_500_000 < len(kept) <= connections.LABELS + 10_000
    assert b'n="199x' in kept
    found.restarted()
    found.take(line(1, 1))
    assert samples(found) == [SAMPLE % 1]


def test_what_envoy_wrote_before_it_died_is_of_its_own_connections(tmp_path):
    async def work():
        found, path = Connections(), tmp_path / "pipe"
        found.open(path)
        with path.open("wb", buffering=0) as file:
            file.write(line(5, 1_000_000))
            found.read_now()
            file.write(line(5, 1_000_100))
            found.restarted()
            file.write(line(5, 500))  # another connection, of the next Envoy
        found.read_now()
        return samples(found)

    assert asyncio.run(work()) == [SAMPLE % 500]


def test_the_pipe_is_read_and_outlives_envoy(tmp_path):
    async def work():
        found, path = Connections(), tmp_path / "pipe"
        path.write_text("left behind")
        found.open(path)
        for total in (10, 20):
            file = os.open(path, os.O_WRONLY)
            os.write(file, line(1, total))
            os.close(file)
            await asyncio.sleep(0)
        found.read_now()
        return samples(found), path.stat().st_mode & 0o777

    assert asyncio.run(work()) == ([SAMPLE % 20], 0o600)


def test_an_agent_says_that_it_reads_the_pipe_whatever_its_environment_says():
    assert Options(env={f"ISTIO_META_{wire.METADATA}": "false"}).metadata[wire.METADATA] == "true"
