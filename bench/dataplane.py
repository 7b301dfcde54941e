"""Two sidecars with mutual TLS between a client and an application, on one core: dataplane.py [ROUNDS]

* ours: exactly the listeners, filters, loggers, TLS and clusters that the translator makes (only addresses are changed,
  as everything runs on loopback); `lean` is the lean telemetry profile
* silent: ours without access loggers, which make both the metrics and the access log
* statistics: ours for an agent that does not count requests, so that Envoy's own statistics do
* stock: two Envoys set up as Istio's default does it: HTTP/1.1 between them, mutual TLS, access log, metrics with
  single labels, the usual filters, a router with its own statistics. To have the same telemetry, this pair is made from
  ours (for an agent that takes no labels apart) by changing exactly these parts by hand, not written from an Istio
  installation
* again: ours once more; how far its ratio is from 1 is the noise of the run
* direct: the application without proxies

All stacks are listeners of the same two processes, because two processes of equal configuration can differ by 15 % for
as long as they live (where their memory happens to lie).

Saturation is measured with wrk (16 connections) in alternating rounds, CPU and latency at a fixed 1,000 requests/s with
a generator of our own (Poisson arrivals, latency from the scheduled time). Load and application are pinned to one
core, the proxies to the other, together with what counts requests in their agents. CPU is what the kernel accounts for
these (schedstat).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sidecars import APP, LOG, OLDER, Json, application, ours, with_certificate
from world import percentile, report

from lateen.agent.requests import Requests
from lateen.cluster.kubelet.images import envoy_binary
from lateen.wire import connections
from lateen.wire import requests as wire
from lateen.xds.sds import DIRECTORY as SECRETS

RATE, SECONDS, ROUNDS, CONNECTIONS = 1000, 3, 7, 16
BASES = {name: 22000 + 1000 * i for i, name in enumerate(("ours", "again", "lean", "statistics", "stock", "silent"))}


def merged(sides: list[Json]) -> Json:
    """One process with the listeners and clusters of all; listeners and clusters of equal names are the first's."""
    out = json.loads(json.dumps(sides[0]))
    for kind in ("listeners", "clusters"):
        found = [part for side in sides for part in side["static_resources"][kind]]
        if kind == "listeners":
            found = [{**part, "name": f"{part['name']}-{i}"} for i, part in enumerate(found)]
        out["static_resources"][kind] = list({part["name"]: part for part in reversed(found)}.values())
    return dict(out)


def silent(base: int) -> tuple[Json, Json]:
    pair = ours("full", base)
    for side in pair:
        listener = side["static_resources"]["listeners"][0]
        for chain in (*listener["filter_chains"], listener.get("default_filter_chain", {"filters": []})):
            for found in chain["filters"]:
                found["typed_config"].pop("access_log", None)
    return pair


def stock(base: int) -> tuple[Json, Json]:
    """By hand, as Istio's default: HTTP/1.1, every filter on, full telemetry."""
    client, server = ours("full", base, agent={connections.METADATA: "true"})
    extra = [
        {
            "name": "envoy.filters.http.grpc_stats",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
                "emit_filter_state": True,
                "stats_for_all_methods": False,
            },
        }
    ]
    idle = [
        {
            "name": f"envoy.filters.http.{n}",
            "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{n}.v3.{t}"},
        }
        for n, t in (("fault", "HTTPFault"), ("cors", "Cors"))
    ]
    for side in (client, server):
        manager = side["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][-1]["typed_config"]
        manager.pop("generate_request_id", None)
        router = {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }
        manager["http_filters"] = [*extra, *idle, router]
    cluster = next(c for c in client["static_resources"]["clusters"] if "transport_socket" in c)
    cluster["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }
    common = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    common["alpn_protocols"] = ["istio-http/1.1", "istio", "http/1.1"]
    return client, server


def count(requests: Requests, pipe: Path, core: int) -> None:
    """What an agent does with the lines of its Envoy. Never returns."""
    os.sched_setaffinity(0, {core})

    async def run() -> None:
        requests.open(pipe)
        while True:
            await asyncio.sleep(1)
            list(requests.series())

    asyncio.run(run())


class Envoy:
    def __init__(self, directory: Path, name: str, config: Json, core: int) -> None:
        path = directory / f"{name}.json"
        pipe, requests = directory / f"{name}.pipe", Requests()
        text = json.dumps(config)
        for old, new in ((wire.PIPE, pipe), (SECRETS, directory), (LOG, directory / "log")):
            text = text.replace(old, str(new))
        path.write_text(text)
        os.mkfifo(pipe)
        self.agent = multiprocessing.get_context("fork").Process(target=count, args=(requests, pipe, core))
        self.agent.start()
        self.process = subprocess.Popen(
            [envoy_binary(), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"],
            env={**os.environ, wire.MARK: requests.mark},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )

    def cpu_s(self) -> float:
        tasks = [t for pid in (self.process.pid, self.agent.pid) for t in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.agent.terminate()
        self.agent.join(10)


async def paced(port: int) -> list[float]:
    """Latencies in ms at a fixed rate over keep-alive connections."""
    request = b"GET / HTTP/1.1\r\nhost: ratings:9080\r\n\r\n"
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    out: list[float] = []

    async def one(at: float) -> None:
        reader, writer = await free.get()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert head.startswith(b"HTTP/1.1 200"), head[:100]
        await reader.readexactly(int(length[1]) if length else 0)
        out.append((time.perf_counter() - at) * 1000)
        free.put_nowait((reader, writer))

    chance = random.Random(1)
    start = time.perf_counter()
    at = start
    async with asyncio.TaskGroup() as group:
        while at < start + SECONDS:
            at += chance.expovariate(RATE)
            if (wait := at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(at))
    while not free.empty():
        free.get_nowait()[1].close()
    return out


def saturate(port: int, headers: Sequence[str] = ()) -> float:
    done = subprocess.run(
        [
            "taskset",
            "-c",
            "0",
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            "-d2s",
            "-H",
            "Host: ratings:9080",
            *(part for header in headers for part in ("-H", header)),
            f"http://127.0.0.1:{port}/",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    if "Non-2xx" in done.stdout:
        sys.exit(f"not every request was answered with 200: {done.stdout}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    if not shutil.which("wrk"):
        if os.geteuid() == 0 and shutil.which("apt-get"):
            subprocess.run(["apt-get", "install", "-y", "-qq", "wrk"], capture_output=True, check=False)
        if not shutil.which("wrk"):
            sys.exit("wrk is missing; install it with: apt-get install wrk")
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed")
    with tempfile.TemporaryDirectory(prefix="lateen-dataplane-") as directory:
        run(Path(directory), int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)


def pair() -> tuple[Json, Json]:
    """A client and a server with a listener for each stack."""
    stacks = {
        "ours": ours("full", BASES["ours"]),
        "again": ours("full", BASES["again"]),
        "lean": ours("lean", BASES["lean"]),
        "statistics": ours("full", BASES["statistics"], agent=OLDER),
        "stock": stock(BASES["stock"]),
        "silent": silent(BASES["silent"]),
    }
    named = [
        [json.loads(json.dumps(side).replace("|9080||", f"|9080|{name}|")) for side in sides]
        for name, sides in stacks.items()
    ]
    return merged([client for client, _ in named]), merged([server for _, server in named])


def run(directory: Path, rounds: int) -> None:
    with_certificate(directory)
    app = Envoy(directory, "app", application(), 0)
    ports = {**BASES, "direct": APP}
    sides = [Envoy(directory, f"side-{i}", side, 1) for i, side in enumerate(pair())]
    os.sched_setaffinity(0, {0})
    try:
        time.sleep(1.5)
        rps: dict[str, list[float]] = {n: [] for n in ports}
        cpu: dict[str, list[float]] = {n: [] for n in ports}
        p50: dict[str, list[float]] = {n: [] for n in ports}
        p99: dict[str, list[float]] = {n: [] for n in ports}
        for i in range(rounds):
            for name in list(ports)[:: 1 if i % 2 else -1]:
                rps[name].append(saturate(ports[name]))
                before = sum(e.cpu_s() for e in sides)
                found = asyncio.run(paced(ports[name]))
                cpu[name].append((sum(e.cpu_s() for e in sides) - before) / len(found) * 1e6)
                p50[name].append(percentile(found, 0.5))
                p99[name].append(percentile(found, 0.99))
            print(f"round {i + 1} of {rounds}", file=sys.stderr)
    finally:
        for e in (app, *sides):
            e.stop()
    for name in ports:
        report(
            stack=name,
            saturation_rps=round(median(rps[name])),
            p50_ms=round(median(p50[name]), 3),
            p99_ms=round(median(p99[name]), 2),
            added_p50_ms=round(median(p50[name]) - median(p50["direct"]), 3),
            added_p99_ms=round(median(p99[name]) - median(p99["direct"]), 2),
            cpu_ms_per_1000_requests=round(median(cpu[name]), 1),
        )

    def paired(a: list[float], b: list[float]) -> float:
        return median([x / y for x, y in zip(a, b, strict=True)])

    report(
        throughput_ours_to_stock=round(paired(rps["ours"], rps["stock"]), 2),
        limit_at_least=1.25,
        cpu_ours_to_stock=round(paired(cpu["ours"], cpu["stock"]), 2),
        limit_at_most=1.0,
        cpu_lean_to_stock=round(paired(cpu["lean"], cpu["stock"]), 2),
        lean_limit_at_most=0.85,
        throughput_lean_to_stock=round(paired(rps["lean"], rps["stock"]), 2),
        throughput_again_to_ours=round(paired(rps["again"], rps["ours"]), 2),
        throughput_with_metrics_and_log_to_without=round(paired(rps["ours"], rps["silent"]), 3),
        metrics_and_log_limit_at_least=0.9,
        the_same_with_envoys_own_statistics=round(paired(rps["statistics"], rps["silent"]), 3),
    )


if __name__ == "__main__":
    main()
