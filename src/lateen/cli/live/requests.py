"""lateen x top and x routes: the requests of the next seconds, by path and by route."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

import click

from lateen.cli.base import command
from lateen.cli.connect import Target
from lateen.cli.live import selecting, watching
from lateen.cli.output import say, table
from lateen.dump.requests import Filter, Request
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient

MOST = 5000
"""The most rows that are kept; further requests are counted together."""
REMEMBERED = 100_000
"""The most requests whose second report is awaited."""
OTHERS = "(others)"
CLEAR = "\033[H\033[2J"


@dataclass
class Row:
    count: int = 0
    failed: int = 0
    last: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Milliseconds."""

    def add(self, r: Request) -> None:
        self.count += 1
        self.failed += r.failed
        self.last = r.milliseconds
        self.latencies.append(r.milliseconds)

    @property
    def success(self) -> float:
        return 1 - self.failed / self.count

    def quantile(self, q: float) -> float:
        """The latency that a fraction ``q`` of the requests did not exceed, in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[max(0, -(-len(ordered) * round(q * 100) // 100) - 1)]


Key = tuple[str, ...]
Rows = dict[Key, Row]


def add(rows: Rows, key: Key, r: Request) -> None:
    if key not in rows and len(rows) >= MOST:
        key = (OTHERS,) + ("",) * (len(key) - 1)
    rows.setdefault(key, Row()).add(r)


def once(r: Request, seen: set[str]) -> bool:
    """Whether this is the first report of a request: both ends' proxies may be observed. Without a request id, every
    report counts."""
    number = r.text("requestId")
    if not number:
        return True
    call = f"{'out' if r.inbound else 'in'}|{number}|{r.source}|{r.destination}"
    if call in seen:
        seen.remove(call)
        return False
    if len(seen) >= REMEMBERED:
        seen.clear()
    seen.add(f"{'in' if r.inbound else 'out'}|{number}|{r.source}|{r.destination}")
    return True


def _top(rows: Rows) -> list[list[str]]:
    head = [["SOURCE", "DESTINATION", "METHOD", "PATH", "COUNT", "BEST", "WORST", "LAST", "SUCCESS RATE"]]
    for key, row in sorted(rows.items(), key=lambda kv: -kv[1].count):
        times = [ms(min(row.latencies)), ms(max(row.latencies)), ms(row.last)]
        head.append([*key, str(row.count), *times, f"{row.success:.2%}"])
    return head


def _routes(rows: Rows, seconds: float) -> list[list[str]]:
    head = [["ROUTE", "SERVICE", "OBJECT", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99"]]
    for key, row in sorted(rows.items()):
        times = [ms(row.quantile(q)) for q in (0.5, 0.95, 0.99)]
        head.append([*key, f"{row.success:.2%}", f"{row.count / seconds:.1f}rps", *times])
    return head


def ms(value: float) -> str:
    return f"{value:.0f}ms" if value >= 10 else f"{value:.1f}ms"


def _json(rows: Rows, names: tuple[str, ...], seconds: float) -> list[Json]:
    return [
        dict(zip(names, key, strict=True))
        | {"count": row.count, "success": row.success, "rps": row.count / seconds}
        | {f"latency_ms_p{round(q * 100)}": row.quantile(q) for q in (0.5, 0.95, 0.99)}
        for key, row in rows.items()
    ]


async def gather(
    client: HttpClient,
    pods: list[Json],
    wanted: Filter,
    key: Callable[[Request], Key],
    seconds: float | None,
    rows: Rows,
    draw: Callable[[Rows], None] | None = None,
) -> None:
    """Add requests to ``rows``, so that what is known is there also if it is interrupted."""
    seen: set[str] = set()
    async with aclosing(watching.requests(client, pods, "", seconds)) as found:
        async for request in found:
            if request is None:
                if draw:
                    draw(rows)
            elif wanted.passes(request) and once(request, seen):
                add(rows, key(request), request)


UNTIL_TOLD = "10s"
"""How long ``top`` collects where there is no screen to draw on, unless told otherwise"""


@command("top")
@selecting.selection
@watching.filter_options
@click.option(
    "-t",
    "--time-window",
    default="",
    help=f"Collect for this long and print once; {UNTIL_TOLD} if there is no terminal.",
)
@click.option("--hide-paths", is_flag=True, help="Do not distinguish paths.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def top(
    target: Target,
    resources: tuple[str, ...],
    everywhere: bool,
    wanted: Filter,
    time_window: str,
    hide_paths: bool,
    output: str,
) -> None:
    """Show the busiest calls as they happen: lateen x top deploy/productpage-v1

    Where the output is a file or a pipe, they are collected first, and printed once: after the time window, or when the
    command is interrupted (Ctrl-C) or ended (SIGTERM).
    """
    live = sys.stdout.isatty() and not time_window and output == "table"
    window = time_window or UNTIL_TOLD
    seconds = None if live else watching.milliseconds("--time-window", window) / 1000
    rows: Rows = {}

    def key(r: Request) -> Key:
        path = "*" if hide_paths else r.text("path").partition("?")[0]
        return str(r.source), str(r.destination), r.text("method"), path

    def draw(rows: Rows) -> None:
        shown = _top(rows)[: max(2, shutil.get_terminal_size().lines - 3)]
        click.echo(CLEAR + table(shown) + "\n\n(Ctrl-C ends)")

    async def work(client: HttpClient) -> None:
        pods = await selecting.select(client, resources, target.namespace, everywhere)
        if not live:
            say(f"collecting requests for {window}")
        await gather(client, pods, wanted, key, seconds, rows, draw if live else None)

    began, interrupted = time.monotonic(), False
    try:
        with _ended_as_interrupted():
            target.run(work)
    except KeyboardInterrupt:
        if live:
            return
        interrupted = True
    if output == "json":
        names = ("source", "destination", "method", "path")
        passed = time.monotonic() - began if interrupted else seconds
        click.echo(jsons.dumps(_json(rows, names, passed or 1)).decode())
    elif rows:
        click.echo(table(_top(rows)))
    else:
        say("no requests yet" if interrupted else f"no requests in {window}")


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """SIGTERM, which ``timeout`` sends, interrupts like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@command("routes")
@selecting.selection
@watching.filter_options
@click.option("-t", "--time-window", default="10s", help="How long to collect.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def routes(
    target: Target,
    resources: tuple[str, ...],
    everywhere: bool,
    wanted: Filter,
    time_window: str,
    output: str,
) -> None:
    """Show success, rate and latency by route, where requests are routed: lateen x routes deploy/productpage-v1

    A route has its rule's name (http[].name of a VirtualService), otherwise "default".
    """
    seconds = watching.milliseconds("--time-window", time_window) / 1000
    if not seconds:
        raise click.UsageError("--time-window: must be longer than 0")

    def key(r: Request) -> Key:
        return r.route, r.service or "-", ", ".join(r.objects) or "-"

    async def work(client: HttpClient) -> Rows:
        pods = await selecting.select(client, resources, target.namespace, everywhere)
        outbound: Rows = {}
        async with aclosing(watching.requests(client, pods, "", seconds)) as found:
            async for request in found:
                if request is not None and not request.inbound and wanted.passes(request):
                    add(outbound, key(request), request)
        return outbound

    rows = target.run(work)
    if output == "json":
        click.echo(jsons.dumps(_json(rows, ("route", "service", "object"), seconds)).decode())
    elif rows:
        click.echo(table(_routes(rows, seconds)))
    else:
        say(
            f"these proxies routed no requests in {time_window}; routes are counted where requests are sent, "
            "so name a caller, or use -A"
        )
