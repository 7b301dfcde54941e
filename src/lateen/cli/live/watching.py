"""Requests of several proxies as one stream, until a time limit, a number, or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import click

from lateen.cli.live import selecting
from lateen.cli.output import USAGE, CliError, warn
from lateen.dump.requests import BadFilter, Filter, Pods, Request, peer_of
from lateen.kit import duration, jsons, tasks
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient, KubeError, Unreachable
from lateen.wire import tap

BODIES_S = 30.0
"""How long to wait for a proxy's word about bodies, which agents of older versions do not give; they would say why
there are none after 20 s."""


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Passed on as the single parameter ``wanted``."""

    @functools.wraps(function)
    def wrapped(**given: Any) -> Any:
        try:
            wanted = Filter(
                given.pop("method"),
                given.pop("path"),
                given.pop("authority"),
                given.pop("status"),
                given.pop("to"),
                given.pop("source"),
                milliseconds("--min-duration", given.pop("min_duration")),
            )
        except BadFilter as e:
            raise CliError(str(e), USAGE) from None
        return function(wanted=wanted, **given)

    out: Callable[..., Any] = wrapped
    for option in (
        click.option("--min-duration", default="", help="Only requests that took at least this long: 100ms, 2s."),
        click.option("--from", "source", default="", help="Only requests of this workload, pod or ns/NAMESPACE."),
        click.option("--to", default="", help="Only requests to this workload, service, pod or ns/NAMESPACE."),
        click.option("--status", default="", help="Only responses with this status: 503, 5xx, 400-499."),
        click.option("--authority", default="", help="Only requests to this authority (Host)."),
        click.option("--path", default="", help="Only requests whose path has this prefix."),
        click.option("--method", default="", help="Only requests with this method."),
    ):
        out = option(out)
    return out


def milliseconds(option: str, text: str) -> float:
    """Raises CliError."""
    if not text:
        return 0.0
    try:
        return duration.seconds(text) * 1000
    except ValueError as e:
        raise CliError(f"{option}: {e}", USAGE) from None


async def requests(
    client: HttpClient, pods: list[Json], query: str, seconds: float | None = None
) -> AsyncGenerator[Request | None]:
    """Requests until ``seconds`` have passed, if given; None from time to time, so that the caller may redraw.
    ``query``: for the agents' streams; with ``bodies``, a proxy's requests begin when it shows their bodies, or says
    why not, or says nothing for BODIES_S. Raises CliError if no proxy could be observed."""
    known = await selecting.known_pods(client, pods)
    queue: asyncio.Queue[Request | Exception | None] = asyncio.Queue(10_000)
    running = [tasks.spawn(_follow(client, p, known, query, queue), "tap") for p in pods]
    until = None if seconds is None else time.monotonic() + seconds
    left = len(running)
    try:
        while until is None or time.monotonic() < until:
            found: Request | Exception | None = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5 if until is None else min(0.5, max(0.0, until - time.monotonic()))):
                    found = await queue.get()
            if isinstance(found, Exception):
                left -= 1
                if not left:
                    raise found
                warn(str(found))
                continue
            yield found
    finally:
        await tasks.cancel(*running)


async def _follow(
    client: HttpClient, pod: Json, known: Pods, query: str, queue: asyncio.Queue[Request | Exception | None]
) -> None:
    me, begun = peer_of(pod), "bodies" not in query
    until = time.monotonic() + BODIES_S
    try:
        async with contextlib.aclosing(selecting.lines(client, pod, f"{tap.PATH}{query}")) as lines:
            async for line in lines:  # there is an empty one each second
                if not begun and time.monotonic() > until:
                    begun = True
                    warn(
                        f"{me.pod}: requests are shown without bodies, because the proxy's agent does not speak of them"
                    )
                if not line.strip():
                    continue
                try:
                    seen = jsons.loads(line)
                except ValueError:
                    continue
                if tap.LOST in seen:
                    warn(f"{me.pod}: {seen[tap.LOST]} requests were not shown, because there were too many")
                elif tap.ERROR in seen:
                    begun = True
                    warn(f"{me.pod}: {seen[tap.ERROR]}")
                elif tap.BODIES in seen:
                    begun = True
                elif begun:
                    await queue.put(Request(seen, me, known))
        await queue.put(CliError(f"the stream of pod {me.pod} ended; is it still running?"))
    except (CliError, KubeError, Unreachable, TimeoutError) as e:
        await queue.put(e if isinstance(e, CliError) else CliError(f"{me.pod}: {str(e) or 'timeout'}"))
