"""Two real sidecars whose listeners report each request in both ways: by Envoy's own statistics, and to the agent."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parents[1] / "unit"), str(Path(__file__).parents[2] / "bench")]

import sidecars
from world import free_port

from lateen.agent.exposition import Exposition
from lateen.agent.requests import Requests
from lateen.cluster.kubelet.images import envoy_binary
from lateen.kit import certs, times
from lateen.wire import requests as wire
from lateen.xds.sds import DIRECTORY as SECRETS


def free(count):
    """The first of so many free ports."""
    while True:
        with contextlib.suppress(OSError, OverflowError), contextlib.ExitStack() as stack:
            first = free_port()
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


BASE = free(6)
"""The ports of the client, the server and the admin interfaces of both, the application and its admin interface"""
sidecars.APP = BASE + 4
SAID = {"client": "web;default;web;v1;web;1.0;east", "server": "ratings-v1;default;ratings;v1;ratings;v1;west"}
HOST = "host: ratings:9080\r\n"
TRAFFIC = (
    *([f"GET / HTTP/1.1\r\n{HOST}\r\n"] * 5),
    f"POST / HTTP/1.1\r\n{HOST}content-length: 3000\r\n\r\n" + "x" * 3000,
    f"GET /missing HTTP/1.1\r\n{HOST}\r\n",
    f"GET /broken HTTP/1.1\r\n{HOST}\r\n",
    *([f"POST /grpc HTTP/1.1\r\n{HOST}content-type: application/grpc\r\nte: trailers\r\n\r\n"] * 2),
    "GET / HTTP/1.1\r\nhost: nobody:9080\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "nonsense\r\n\r\n",
)


def managers(listener):
    for chain in (*listener["filter_chains"], listener.get("default_filter_chain", {"filters": []})):
        for found in chain["filters"]:
            if "route_config" in found["typed_config"]:
                yield found["typed_config"]


def pair():
    """The sidecars of a proxy whose agent counts requests, with the loggers of one whose agent does not, besides."""
    sides = sidecars.ours("full", BASE)
    older = sidecars.ours("full", BASE, agent=sidecars.OLDER)
    for side, other in zip(sides, older, strict=True):
        ours, theirs = (s["static_resources"]["listeners"][0] for s in (side, other))
        for manager, same in zip(managers(ours), managers(theirs), strict=True):
            stats = [log for log in same["access_log"] if log["name"] == "envoy.access_loggers.stats"]
            assert len(stats) == 1
            manager["access_log"] += stats
    return sides


def application():
    out = sidecars.application()
    (manager,) = managers(out["static_resources"]["listeners"][0])
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    for path, status, headers in (("/missing", 404, {}), ("/broken", 500, {}), ("/grpc", 200, {"grpc-status": "5"})):
        added = [{"header": {"key": k, "value": v}} for k, v in headers.items()]
        answer = {"match": {"path": path}, "direct_response": {"status": status}, "response_headers_to_add": added}
        routes.insert(0, answer)
    return out


@contextlib.contextmanager
def envoys(directory, marks):
    """Name -> process."""
    ca = certs.authority("test", times.now())
    running = {}
    try:
        for name, config in zip(("app", "client", "server"), (application(), *pair()), strict=True):
            own = directory / name
            own.mkdir()
            sidecars.with_certificate(own, SAID.get(name, ""), ca)
            text = json.dumps(config)
            for old, new in ((wire.PIPE, own / "lines"), (SECRETS, own), (sidecars.LOG, own / "log")):
                text = text.replace(old, str(new))
            (own / "envoy.json").write_text(text)
            command = [envoy_binary(), "-c", str(own / "envoy.json"), "--use-dynamic-base-id", "--concurrency", "2"]
            command += ["--log-level", "error", "--file-flush-interval-msec", "100"]
            with (own / "errors").open("w") as errors:
                environment = {**os.environ, wire.MARK: marks.get(name, "")}
                running[name] = subprocess.Popen(command, env=environment, stderr=errors)
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait(10)


def answered(text):
    """The status of the answer; empty without one."""
    with socket.create_connection(("127.0.0.1", BASE), timeout=10) as link:
        link.sendall(text.encode())
        with contextlib.suppress(ConnectionResetError):
            return link.recv(1024)[9:12].decode()
    return ""


def until(condition, what):
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def reaches():
    with contextlib.suppress(OSError):
        return answered(TRAFFIC[0]) == "200"


def by_envoy(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats/prometheus?usedonly", timeout=10) as found:
        return found.read()


def parsed(text):
    """(sample, labels, limit of a bucket) -> value, of requests. (Envoy's statistics have no messages of gRPC.)"""
    out = {}
    for line in text.decode().splitlines():
        found = re.fullmatch(r"istio_(request\w*|response\w*)\{(.*?)(?:,le=\"(.*?)\")?\} (\S+)", line)
        if found and found[1] not in wire.MESSAGES:
            out[found[1], found[2], found[3] or ""] = float(found[4])
    return out


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Name of the side -> what its agent reports (of lines, of Envoy's statistics)."""
    directory = tmp_path_factory.mktemp("envoys")
    counting = {name: Requests() for name in SAID}
    with envoys(directory, {name: found.mark for name, found in counting.items()}) as running:
        until(reaches, "no request gets through")
        for text in TRAFFIC:
            answered(text)
        for name in ("app", "server"):
            running[name].terminate()
            running[name].wait(10)
            answered(TRAFFIC[0])
            if name == "app":
                told = {"server": wait_for(directory, counting, "server", BASE + 3)}
        told["client"] = wait_for(directory, counting, "client", BASE + 2)
    return told


def wait_for(directory, counting, name, port):
    """Both, once they agree about how many requests there were."""
    requests, offset = counting[name], 0

    def look():
        nonlocal offset
        whole = (directory / name / "lines").read_bytes()
        requests.take(whole[offset:])
        offset = len(whole)
        lines = parsed(Exposition().text(series=requests.series()))
        stats = parsed(Exposition().text(by_envoy(port)))
        counts = [
            {key: value for key, value in found.items() if key[0].endswith(("_total", "_count"))}
            for found in (lines, stats)
        ]
        return (lines, stats) if counts[0] == counts[1] else None

    found = until(look, f"the ways to count differ at the {name}")
    assert requests.unread == 0
    return found


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_agent_counts_what_envoy_counts_with_the_same_labels(reports, side):
    lines, stats = reports[side]
    assert lines.keys() == stats.keys()
    assert {key[0] for key in lines} >= {"requests_total", *(f"{name}_bucket" for name in wire.HISTOGRAMS)}
    for key, value in lines.items():
        if key[0].endswith("_sum"):  # Envoy's is an estimate from classes of values
            assert value == pytest.approx(stats[key], rel=0.1, abs=1)


def labelled(found, **wanted):
    parts = [f'{name}="{value}"' for name, value in wanted.items()]
    return {key[1]: n for key, n in found.items() if key[0] == "requests_total" and all(p in key[1] for p in parts)}


@pytest.mark.parametrize(
    ("side", "wanted", "least"),
    [
        ("client", {"response_code": "200", "request_protocol": "http", "connection_security_policy": "mutual_tls"}, 6),
        ("client", {"response_code": "400", "destination_service": "unknown"}, 1),
        ("client", {"response_code": "500", "response_flags": "-", "destination_workload": "ratings-v1"}, 1),
        ("client", {"request_protocol": "grpc", "grpc_response_status": "5"}, 2),
        ("client", {"response_code": "503", "response_flags": "URX,UF"}, 1),
        ("server", {"source_workload": "web", "source_cluster": "east", "response_code": "200"}, 6),
        ("server", {"source_workload": "web", "source_principal": "%s", "request_protocol": "grpc"}, 2),
        ("server", {"response_code": "503", "response_flags": "URX,UF"}, 1),
        ("server", {"response_code": "404", "response_flags": "-"}, 1),
    ],
)
def test_it_is_the_traffic_that_was(reports, side, wanted, least):
    wanted = {name: value.replace("%s", sidecars.PRINCIPAL) for name, value in wanted.items()}
    found = labelled(reports[side][0], **wanted)
    assert sum(found.values()) >= least, reports[side][0].keys()
