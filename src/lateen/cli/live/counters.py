"""lateen x stat and x edges: the proxies' own counters, read from their agents; nothing is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import click

from lateen.api import kinds
from lateen.api.decoding import owner
from lateen.api.reading import has_proxy, is_finished
from lateen.cli.base import command
from lateen.cli.connect import Target
from lateen.cli.live import selecting, watching
from lateen.cli.live.requests import ms
from lateen.cli.output import CliError, say, table, warn
from lateen.console.metrics import UNKNOWN, Added, Sample, Security, Workload, failed, quantile
from lateen.console.metrics import Target as Counted
from lateen.console.reports import Reports
from lateen.console.series.scrape import left_out, samples
from lateen.dump.requests import Peer
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient, KubeError, Unreachable

PATH = "/stats/prometheus?only=istio"
FIRST = f"{PATH}&idle=all"
"""Also with what is left out otherwise: what appears later beside it is new."""
AT_ONCE = 16
HISTOGRAMS_S = 5
"""Envoy's own default of ``stats_flush_interval``."""


@dataclass
class Sums:
    requests: float = 0.0
    failed: float = 0.0
    opened: float = 0.0
    security: Security = field(default_factory=Security)
    buckets: dict[float, float] = field(default_factory=dict)

    def add(self, sample: Sample, value: float) -> None:
        match sample.metric:
            case "requests":
                self.requests += value
                self.failed += value if failed(sample) else 0.0
            case "opened":
                self.opened += value
            case "bucket":
                bound = float(sample.detail)
                self.buckets[bound] = self.buckets.get(bound, 0.0) + value
        if sample.metric in ("requests", "opened"):
            self.security.add(sample.flow, value)

    def cells(self, seconds: float) -> list[str]:
        """SUCCESS RPS LATENCY_P50 LATENCY_P95 LATENCY_P99 TCP_CONN/S"""
        if not self.requests:
            return ["-", "-", "-", "-", "-", f"{self.opened / seconds:.1f}"]
        times = [quantile(q, self.buckets) for q in (0.5, 0.95, 0.99)]
        rates = [f"{1 - self.failed / self.requests:.2%}", f"{self.requests / seconds:.1f}rps"]
        return [*rates, *("-" if t is None else ms(t) for t in times), f"{self.opened / seconds:.1f}"]

    def json(self, seconds: float) -> Json:
        times = {f"latency_ms_p{n}": quantile(n / 100, self.buckets) for n in (50, 95, 99)}
        success = 1 - self.failed / self.requests if self.requests else None
        return {"success": success, "rps": self.requests / seconds, **times, "tcp_open_rate": self.opened / seconds}


async def read(client: HttpClient, pods: list[Json], seconds: float) -> Added:
    """What the proxies of ``pods`` count during the next ``seconds``; with 0, what their agents tell
    of what they have counted since their start. A pod that does not answer, such as one that has just started or is
    ending, is left out with a warning; so is one that answers at the end only, of which it is not known what it had
    counted before. Raises CliError where none answers."""
    now = time.time()
    counted = {str(p["metadata"]["uid"]): Counted.of(p, now if seconds else -inf, now) for p in pods}
    added: Added = {}
    silent: dict[str, str] = {}
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Json, path: str) -> None:
        async with gate:
            try:
                text = b"\n".join([line async for line in selecting.lines(client, pod, path)]) + b"\n"
            except (CliError, KubeError, Unreachable, TimeoutError) as e:
                silent[str(pod["metadata"]["uid"])] = f"{pod['metadata']['name']}: {str(e) or 'timeout'}"
                return
        proxy = counted[str(pod["metadata"]["uid"])]
        shown, idle = left_out(text)
        if idle is not None:
            proxy.told(idle)
        proxy.read(samples(shown), added)

    for path, pause in ((FIRST, seconds), (PATH, 0)) if seconds else ((PATH, 0),):
        await asyncio.gather(*(one(p, path) for p in pods if p["metadata"]["uid"] not in silent))
        if pods and len(silent) == len(pods):
            raise CliError(next(iter(silent.values())))
        await asyncio.sleep(pause)
    for message in silent.values():
        warn(message)
    return added


def by(added: Added, key: Callable[[Sample], tuple[str, ...] | None]) -> dict[tuple[str, ...], Sums]:
    out: dict[tuple[str, ...], Sums] = {}
    for sample, value in added.items():
        if (found := key(sample)) is not None:
            out.setdefault(found, Sums()).add(sample, value)
    return out


def peer(w: Workload) -> Peer:
    return Peer(w.name, "" if w.namespace == UNKNOWN else w.namespace)


@command("stat")
@selecting.selection
@click.option("-t", "--time-window", default="10s", help="How long to count.")
@click.option("--to", default="", help="Count requests from the workloads to this workload, service or ns/NAMESPACE.")
@click.option("--from", "source", default="", help="Only count requests from this workload or ns/NAMESPACE.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def stat(
    target: Target,
    resources: tuple[str, ...],
    everywhere: bool,
    time_window: str,
    to: str,
    source: str,
    output: str,
) -> None:
    """Show success rate, requests per second and latency of workloads: lateen x stat deploy/reviews-v1

    Inbound requests are counted; with --to, outbound ones. Quantiles are estimated from histograms.
    """
    seconds = watching.milliseconds("--time-window", time_window) / 1000
    if not seconds:
        raise click.UsageError("--time-window: must be longer than 0")

    def key(s: Sample) -> tuple[str, ...] | None:
        me, other = (s.flow.source, s.flow.destination) if to else (s.flow.destination, s.flow.source)
        if s.flow.reporter != ("source" if to else "destination"):
            return None
        service = s.flow.service in (to.rpartition("/")[2], to.partition(".")[0])
        wanted = to or source
        return (me.namespace, me.name) if not wanted or peer(other).is_called(wanted) or (to and service) else None

    async def work(client: HttpClient) -> tuple[list[Json], dict[tuple[str, ...], Sums], list[Json]]:
        pods = await selecting.select(client, resources, target.namespace, everywhere)
        added = await read(client, pods, seconds)
        spaces = {p["metadata"]["namespace"] for p in pods}
        everyone = [p for ns in sorted(spaces) for p in (await client.list(kinds.POD, ns))[0] if not is_finished(p)]
        return pods, by(added, key), everyone

    pods, sums, everyone = target.run(work)
    rows = []
    for namespace, name in sorted({(p["metadata"]["namespace"], owner(p)) for p in pods}):
        mine = [p for p in everyone if p["metadata"]["namespace"] == namespace and owner(p) == name]
        meshed = f"{sum(map(has_proxy, mine))}/{len(mine)}"
        rows.append((namespace, name, meshed, sums.get((namespace, name), Sums())))
    if output == "json":
        found = [{"namespace": ns, "name": n, "meshed": m, **s.json(seconds)} for ns, n, m, s in rows]
        click.echo(jsons.dumps(found).decode())
        return
    head = ["NAMESPACE", "NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TCP_CONN/S"]
    click.echo(table([head, *([ns, n, m, *s.cells(seconds)] for ns, n, m, s in rows)]))
    if any(s.requests and not sum(s.buckets.values()) for *_, s in rows):
        say(f"Envoy tells latencies every {HISTOGRAMS_S} s, and some not in this time; use -t 10s or longer")


@command("edges")
@selecting.selection
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def edges(target: Target, resources: tuple[str, ...], everywhere: bool, output: str) -> None:
    """Show who calls whom, and whether the calls use mutual TLS: lateen x edges -n default

    Counted since the proxies' start, without calls of a kind that has not occurred for an hour. The called side knows
    for certain; the caller's proxy says it for one that was not asked. "-" if neither knows.
    """

    def key(s: Sample) -> tuple[str, ...] | None:
        return None if s.metric == "bucket" else (*s.flow.source[:2], *s.flow.destination[:2])

    async def work(client: HttpClient) -> dict[tuple[str, ...], Sums]:
        pods = await selecting.select(client, resources, target.namespace, everywhere)
        added = await read(client, pods, 0)
        reports = Reports(added)
        return by({s: v for s, v in added.items() if not s.flow.nameless or reports.share(s.flow)}, key)

    found = target.run(work)
    if not found:
        say("these proxies have reported no request and no connection yet")
        return
    rows = [
        (source, to, source_ns, to_ns, sums.security.share())
        for (source_ns, source, to_ns, to), sums in sorted(found.items())
    ]
    if output == "json":
        names = ("source", "destination", "source_namespace", "destination_namespace", "secured")
        click.echo(jsons.dumps([dict(zip(names, r, strict=True)) for r in rows]).decode())
        return
    shown = [[*r[:4], "-" if r[4] is None else "√" if r[4] == 1 else f"{r[4]:.0%}"] for r in rows]
    click.echo(table([["SRC", "DST", "SRC_NS", "DST_NS", "SECURED"], *shown]))
