"""What it costs to collect the metrics of 50 proxies: the graph's every second, all of Istio's every five seconds.

The proxies are a process of their own, which answers with the texts of sidecars that have called four services each; a
third of the counters has grown since the last look. Limits: 10 % of a core and 200 MB for the collector, its store
included. The ratio is to fetching and throwing away the same texts.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from world import report

from lateen.console import scraping
from lateen.console.collector import Collector

PROXIES, PEERS, SECONDS = 50, 4, 60
BUCKETS = (
    0.5,
    1,
    5,
    10,
    25,
    50,
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10000,
    30000,
    60000,
    300000,
    600000,
    1800000,
    3600000,
)
CPU_LIMIT, MEMORY_LIMIT_MB = 0.10, 200


def labels(proxy: int, peer: int) -> str:
    """Istio's, of one call."""
    found = {
        "reporter": "source",
        "source_workload": f"workload-{proxy}",
        "source_workload_namespace": "default",
        "source_principal": f"spiffe://cluster.local/ns/default/sa/workload-{proxy}",
        "source_app": f"app-{proxy}",
        "source_version": "v1",
        "destination_workload": f"workload-{peer}",
        "destination_workload_namespace": "default",
        "destination_principal": f"spiffe://cluster.local/ns/default/sa/workload-{peer}",
        "destination_app": f"app-{peer}",
        "destination_version": "v1",
        "destination_service": f"service-{peer}.default.svc.cluster.local",
        "destination_service_name": f"service-{peer}",
        "destination_service_namespace": "default",
        "request_protocol": "http",
        "response_code": "200",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
    }
    return ",".join(f'{k}="{v}"' for k, v in found.items())


def text(proxy: int, second: int, whole: bool) -> bytes:
    """A proxy's answer; one without ``whole`` has the graph's metrics alone."""
    out: list[str] = []
    for peer in range(PEERS):
        own, count = labels(proxy, peer), 10 * second if peer % 3 == 0 else 10
        out.append(f"istio_requests_total{{{own}}} {count}")
        for metric in ("request_duration_milliseconds", *(("request_bytes", "response_bytes") if whole else ())):
            name = f"istio_{metric}"
            out += [f'{name}_bucket{{{own},le="{bound}"}} {count}' for bound in (*BUCKETS, "+Inf")]
            out += [f"{name}_sum{{{own}}} {count * 5}", f"{name}_count{{{own}}} {count}"]
    return "\n".join(out).encode() + b"\n"


async def proxies() -> None:
    """Answers on a port that it prints, for all of them: by 127.0.1.N. Never returns."""
    began = time.monotonic()
    made: dict[tuple[int, int, bool], bytes] = {}

    async def metrics(request: web.Request) -> web.Response:
        assert request.transport is not None
        proxy = int(request.transport.get_extra_info("sockname")[0].rpartition(".")[2])
        key = proxy, int(time.monotonic() - began), request.query["only"] == "standard"
        made[key] = made.pop(key, b"") or text(*key)
        while len(made) > 4 * PROXIES:
            made.pop(next(iter(made)))
        return web.Response(body=made[key])

    app = web.Application()
    app.add_routes([web.get("/stats/prometheus", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def pods() -> list[dict[str, Any]]:
    return [
        {
            "metadata": {"name": f"workload-{i}", "namespace": "default", "uid": str(i)},
            "status": {"phase": "Running", "podIP": f"127.0.1.{i + 1}", "startTime": "2100-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "istio-proxy"}]},
        }
        for i in range(PROXIES)
    ]


async def spent(work: Callable[[], Awaitable[None]], seconds: float) -> float:
    """The share of a core that this process takes while ``work`` is done once a second."""
    before, began = time.process_time(), time.monotonic()
    while time.monotonic() < began + seconds:
        at = time.monotonic()
        await work()
        await asyncio.sleep(max(0.0, at + 1 - time.monotonic()))
    return (time.process_time() - before) / (time.monotonic() - began)


async def measured(port: int, seconds: float) -> dict[str, float]:
    collector = Collector(None, port=port)  # type: ignore[arg-type]  # its pods are told, not watched
    collector.pods.objects = {("default", p["metadata"]["name"]): p for p in pods()}
    found = scraping.processes(pods(), port)

    async def plain() -> None:
        async def one(process: scraping.Process) -> None:
            async with session.get(process.url(False)) as answer:
                await answer.read()

        await asyncio.gather(*map(one, found.values()))

    async with aiohttp.ClientSession() as session:
        collector._session = session
        await collector.look()
        ours = await spent(collector.look, seconds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        fetching = await spent(plain, seconds / 4)
    if collector.failures:
        sys.exit(f"not all proxies were read: {collector.failures}")
    return {"cores": ours, "cores_of_fetching_alone": fetching, "memory_mb": memory}


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    serving = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        found = asyncio.run(measured(int(serving.stdout.readline()), seconds))
    finally:
        serving.terminate()
        serving.wait(10)
    report(
        proxies=PROXIES,
        series=PROXIES * PEERS * (1 + 3 * (len(BUCKETS) + 3)),
        cores=round(found["cores"], 3),
        cores_limit=CPU_LIMIT,
        ratio_to_fetching_alone=round(found["cores"] / found["cores_of_fetching_alone"], 2),
        memory_mb=round(found["memory_mb"]),
        memory_limit_mb=MEMORY_LIMIT_MB,
    )
    return 0 if found["cores"] <= CPU_LIMIT and found["memory_mb"] <= MEMORY_LIMIT_MB else 1


if __name__ == "__main__":
    if "--serve" in sys.argv:
        asyncio.run(proxies())
    sys.exit(main())
