"""lateen logs: the logs of a workload's application and its proxy as one log, with explanations."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import click

from lateen.api import kinds
from lateen.api.reading import PROXY, containers, has_proxy
from lateen.cli import pods as asking
from lateen.cli.base import command
from lateen.cli.connect import Target
from lateen.cli.live import selecting, watching
from lateen.cli.output import CliError, colored, colors, say, warn
from lateen.dump import ConfigDump
from lateen.dump.lines import Parser, parser_of
from lateen.dump.origins import origins
from lateen.dump.outcomes import explain, told
from lateen.dump.refusals import asked, refused_by
from lateen.dump.requests import BadFilter, Filter, Request, peer_of
from lateen.kit import jsons, tasks
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient, KubeError, Unreachable

GATHER_S = 0.3
"""Lines that arrive within this time are sorted."""
SKIPPED = ("istio-init", "istio-validation")
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters that are replaced, so that a log line cannot move the cursor."""


@dataclass(frozen=True)
class Line:
    time: str
    pod: Json
    container: str
    text: str


class Shown(NamedTuple):
    line: Line
    seen: Json | None
    """What the line says of a request, if it is the access log's."""


@command("logs")
@selecting.selection
@click.option("-f", "--follow", is_flag=True, help="Follow the logs.")
@click.option(
    "--tail",
    type=click.IntRange(0),
    default=100,
    help="Lines of each container to start with; with a filter and without -f, those that match.",
)
@click.option(
    "--only", type=click.Choice(["app", "proxy"]), default=None, help="Only the application's or only the proxy's log."
)
@click.option("--status", default="", help="Only requests with this status: 503, 5xx, 400-499.")
@click.option("--path", default="", help="Only requests whose path has this prefix.")
@click.option("--peer", default="", help="Only requests from or to this workload, service, pod or ns/NAMESPACE.")
@click.option("--min-duration", default="", help="Only requests that took at least this long: 100ms, 2s.")
@click.option("--explain", "explained", is_flag=True, help="Explain response flags and details, with remedies.")
@click.option("-o", "--output", type=click.Choice(["short", "json"]), default="short")
def logs(
    target: Target,
    resources: tuple[str, ...],
    everywhere: bool,
    follow: bool,
    tail: int,
    only: str | None,
    status: str,
    path: str,
    peer: str,
    min_duration: str,
    explained: bool,
    output: str,
) -> None:
    """Show the logs of a workload, its proxy's merged with its application's: lateen logs deploy/reviews-v1 -f

    With a filter, only matching requests of the proxies' access logs are shown.
    """
    if not resources and not everywhere:
        raise click.UsageError("name a workload: lateen logs deploy/reviews-v1")
    try:
        wanted = Filter(path=path, status=status, min_ms=watching.milliseconds("--min-duration", min_duration))
    except BadFilter as e:
        raise click.UsageError(str(e)) from None
    filtering = bool(path or status or peer or min_duration)
    sought = filtering and not follow  # then the filter decides which lines are the last ones

    async def work(client: HttpClient) -> None:
        chosen = await selecting.select(client, resources, target.namespace, everywhere, meshed=False)
        parser = await _parser(client, target.istio_namespace)
        known = await selecting.known_pods(client, chosen)
        explainer = Explainer(client, target.istio_namespace) if explained else None
        understood = False

        def passing(line: Line) -> Shown | None:
            nonlocal understood
            seen = parser.read(line.text) if line.container == PROXY else None
            request = Request(seen | _side(seen), peer_of(line.pod), known) if seen else None
            understood |= request is not None
            if filtering and not (request and wanted.passes(request) and _concerns(request, peer)):
                return None
            return Shown(line, seen)

        async def show(kept: list[Shown]) -> None:
            for line, seen in kept:
                says = await explainer.of(line.pod, seen) if explainer and seen else []
                for text in _shown(line, seen, says, output, len(chosen) > 1):
                    click.echo(text)
            sys.stdout.flush()

        async for batch in _batches(client, chosen, only, tail, follow, sought, passing):
            await show(batch)
        if filtering and not understood:
            say(
                "no request was found in the proxies' logs; turn access logs on with meshConfig.accessLogFile: "
                "/dev/stdout, or a Telemetry"
            )

    try:
        target.run(work)
    except KeyboardInterrupt:
        return


def _side(seen: Json) -> Json:
    return {"side": "server" if str(seen.get("cluster", "")).startswith("inbound|") else "client"}


def _concerns(r: Request, peer: str) -> bool:
    return not peer or Filter(to=peer).passes(r) or Filter(source=peer).passes(r)


def _shown(line: Line, seen: Json | None, says: list[str], output: str, several: bool) -> Iterator[str]:
    name = line.pod["metadata"]["name"]
    if output == "json":
        found = {"time": line.time, "pod": name, "container": line.container, "line": line.text}
        yield jsons.dumps(
            found | ({"request": seen} if seen else {}) | ({"explanation": says} if says else {})
        ).decode()
        return
    where = f"{name} {line.container}" if several else line.container
    color = colors(sys.stdout)
    yield f"{colored('2', f'{line.time[11:23]} {where} |', color)} {UNPRINTABLE.sub('?', line.text)}"
    for sentence in says:
        yield f"    {colored('33', '↳', color)} {UNPRINTABLE.sub('?', sentence)}"


async def _parser(client: HttpClient, namespace: str) -> Parser:
    """A parser for the mesh configuration's format; Istio's default if it cannot be read."""
    try:
        return parser_of(await client.get(kinds.CONFIG_MAP, namespace, "istio"))
    except KubeError:
        return Parser()


class Explainer:
    """Explains requests; reads a proxy's configuration once, when one of its requests first needs it."""

    def __init__(self, client: HttpClient, root: str) -> None:
        self._client, self._root = client, root
        self._dumps: dict[str, ConfigDump | None] = {}
        self._policies: dict[kinds.Kind, list[Json]] = {}

    async def of(self, pod: Json, seen: Json) -> list[str]:
        flags, details, failure = told(seen)
        status = int(seen.get("status") or 0)
        if not explain(flags, details, failure, status=status):
            return []
        dump = await self._dump(pod)
        objects = {kind: await self._of_kind(kind) for kind in asked(details)}
        refusing = refused_by(seen, dump, objects, pod, self._root)
        return explain(flags, details, failure, origins(dump, seen) if dump else (), refusing, status)

    async def _of_kind(self, kind: kinds.Kind) -> list[Json]:
        if kind not in self._policies:
            try:
                self._policies[kind], _ = await self._client.list(kind)
            except (KubeError, Unreachable) as e:
                warn(f"objects of kind {kind.kind} are not named, because they cannot be read: {e}")
                self._policies[kind] = []
        return self._policies[kind]

    async def _dump(self, pod: Json) -> ConfigDump | None:
        uid = str(pod["metadata"].get("uid"))
        if uid not in self._dumps:
            try:
                self._dumps[uid] = ConfigDump(await asking.ask_json(self._client, pod, "config_dump"))
            except (CliError, KubeError, Unreachable, ValueError) as e:
                warn(f"objects are not named, because the proxy's configuration cannot be read: {e}")
                self._dumps[uid] = None
        return self._dumps[uid]


async def _batches(
    client: HttpClient,
    chosen: list[Json],
    only: str | None,
    tail: int,
    follow: bool,
    sought: bool,
    passing: Callable[[Line], Shown | None],
) -> AsyncGenerator[list[Shown]]:
    """Batches of the lines that pass, sorted by time; late lines are in a later batch. ``sought``: the last ``tail`` of
    each container that pass, not those of its last ``tail`` that do."""
    queue: asyncio.Queue[Shown | None] = asyncio.Queue(10_000)
    sources = [
        (pod, str(c["name"]))
        for pod in chosen
        for c in containers(pod["spec"])
        if c["name"] not in SKIPPED and (only is None or (c["name"] == PROXY) == (only == "proxy"))
    ]
    if not sources:
        raise CliError("there is no container to read" + (f" (--only {only})" if only else ""))

    async def read(pod: Json, container: str) -> None:
        kept: deque[Shown] = deque(maxlen=tail)
        try:
            async with contextlib.aclosing(_lines(client, pod, container, None if sought else tail, follow)) as lines:
                async for line in lines:
                    if (shown := passing(line)) is None:
                        continue
                    if sought:
                        kept.append(shown)
                    else:
                        await queue.put(shown)
            for shown in kept:
                await queue.put(shown)
        finally:
            await queue.put(None)

    running = [tasks.spawn(read(pod, c), "logs") for pod, c in sources]
    left, batch, until = len(running), list[Shown](), None
    loop = asyncio.get_running_loop()
    try:
        while left:
            found = None
            try:
                async with asyncio.timeout_at(until):
                    found = await queue.get()
            except TimeoutError:
                yield sorted(batch, key=lambda shown: shown.line.time)
                batch, until = [], None
                continue
            if found is None:
                left -= 1
                continue
            batch.append(found)
            if follow and until is None:
                until = loop.time() + GATHER_S
        yield sorted(batch, key=lambda shown: shown.line.time)
    finally:
        await tasks.cancel(*running)


async def _lines(client: HttpClient, pod: Json, container: str, tail: int | None, follow: bool) -> AsyncGenerator[Line]:
    meta = pod["metadata"]
    try:
        found = client.logs(meta["namespace"], meta["name"], container, tail, follow, timestamps=True)
        async with contextlib.aclosing(found) as lines:
            async for raw in lines:
                time, _, text = raw.decode(errors="replace").rstrip("\n").partition(" ")
                yield Line(time, pod, container, text)
    except (KubeError, Unreachable) as e:
        # init containers other than sidecars have ended or not started yet: their logs may not exist
        if has_proxy(pod) or follow:
            warn(f"{meta['name']} {container}: {e}")
