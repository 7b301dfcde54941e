"""lateen x tap: requests as they happen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import aclosing, nullcontext
from datetime import UTC, datetime

import click

from lateen.cli.base import command
from lateen.cli.connect import Target
from lateen.cli.live import bodies as bodies_
from lateen.cli.live import selecting, watching
from lateen.cli.output import colored, colors, say
from lateen.dump.requests import Filter, Peer, Request
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient
from lateen.wire import tap as keys


@command("tap")
@selecting.selection
@watching.filter_options
@click.option("--headers", is_flag=True, help="Also show headers; those that carry credentials are redacted.")
@click.option("--show-secrets", is_flag=True, help="With --headers: do not redact anything.")
@click.option(
    "--bodies",
    is_flag=True,
    help="Also show bodies, up to 4 KB each, as gateways and called workloads' proxies see them; nothing is redacted.",
)
@click.option("--count", type=click.IntRange(1), default=None, help="Stop after this many requests.")
@click.option("--duration", default="", help="Stop after this time, such as 30s.")
@click.option("-o", "--output", type=click.Choice(["short", "wide", "json"]), default="short")
def tap(
    target: Target,
    resources: tuple[str, ...],
    everywhere: bool,
    wanted: Filter,
    headers: bool,
    show_secrets: bool,
    bodies: bool,
    count: int | None,
    duration: str,
    output: str,
) -> None:
    """Show requests as they pass through a workload's proxies: lateen x tap deploy/reviews-v1 --status 5xx

    Each proxy reports once per request: "out" where the caller's proxy (or a gateway) sends it, "in" where the proxy
    of the called workload receives it. Proxies write nothing unless somebody is watching.
    """
    seconds = watching.milliseconds("--duration", duration) / 1000 or None
    asked = [*(["headers"] if headers else []), *(["secrets"] if headers and show_secrets else [])]
    query = "?" + "&".join([*asked, *(["bodies"] if bodies else [])])

    async def work(client: HttpClient) -> None:
        left, passed = count, 0
        pods = await selecting.select(client, resources, target.namespace, everywhere)
        opened = bodies_.shown(client, pods) if bodies else nullcontext()
        if bodies:
            say("requests are shown as soon as the proxies can show their bodies")
        async with opened, aclosing(watching.requests(client, pods, query, seconds)) as found:
            async for request in found:
                if request is None or not wanted.passes(request):
                    continue
                passed += 1
                for line in shown(request, output):
                    click.echo(line)
                sys.stdout.flush()
                if left is not None and (left := left - 1) == 0:
                    return
        if not passed:
            say(f"no request has passed in {duration}; connections that are not HTTP are in lateen x stat and x edges")

    try:
        target.run(work)
    except KeyboardInterrupt:
        return  # the usual way to stop


def shown(r: Request, output: str) -> Iterator[str]:
    if output == "json":
        yield jsons.dumps(as_json(r)).decode()
        return
    status = str(r.status or "-")
    status = colored("31" if r.failed else "33" if r.status >= 400 else "32", status, colors(sys.stdout))
    words = [
        datetime.fromtimestamp(float(r.text("start") or 0), UTC).strftime("%H:%M:%S.%f")[:-3],
        "in " if r.inbound else "out",
        f"{r.source} → {r.destination}",
        r.text("method"),
        f"{r.text('authority')}{r.text('path')}",
        status,
        f"{r.milliseconds:.1f}ms",
        f"tls={r.tls}",
    ]
    if grpc := r.text("grpcStatus"):
        words.append(f"grpc-status={grpc}")
    if flags := r.text("flags"):
        words.append(f"flags={flags}")
        words += [r.text(k) for k in ("details", "failure") if r.text(k)]
    if output == "wide":
        words += [f"proxy={r.proxy.pod}", f"route={r.route}", f"cluster={r.text('cluster') or '-'}"]
        words += [
            f"request-id={r.text('requestId') or '-'}",
            f"received={r.text('received')}",
            f"sent={r.text('sent')}",
        ]
        words += [f"object={o.replace(' ', '/')}" for o in r.objects]
    yield " ".join(words)
    for sign, key in ((">", keys.REQUEST_HEADERS), ("<", keys.RESPONSE_HEADERS)):
        for name, value in sorted((r.seen.get(key) or {}).items()):
            yield f"    {sign} {name}: {value}"
    for sign, key in ((">", keys.REQUEST_BODY), ("<", keys.RESPONSE_BODY)):
        if body := r.seen.get(key):
            text = str(body.get("text") or f"(base64) {body.get('base64')}")
            yield from (f"    {sign} {_printable(line)}" for line in text.removesuffix("\n").split("\n"))
            if body.get("truncated"):
                yield f"    {sign} … (the rest is left out)"


def _printable(line: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)


def as_json(r: Request) -> Json:
    """The format is documented in docs/howto-see.md; unknown values are left out."""
    found = {
        "time": datetime.fromtimestamp(float(r.text("start") or 0), UTC).isoformat().replace("+00:00", "Z"),
        "direction": "inbound" if r.inbound else "outbound",
        "proxy": _peer(r.proxy),
        "source": _peer(r.source, address=r.text("source"), identity=r.text("sourceIdentity")),
        "destination": _peer(
            r.destination,
            address=r.text("destination"),
            identity=r.text("destinationIdentity"),
            service="" if r.inbound else r.service,
        ),
        "tls": r.tls,
        "method": r.text("method"),
        "path": r.text("path"),
        "authority": r.text("authority"),
        "protocol": r.text("protocol"),
        "requestId": r.text("requestId"),
        "status": r.status,
        "grpcStatus": r.seen.get("grpcStatus"),
        "flags": [f for f in r.text("flags").split(",") if f],
        "details": r.text("details"),
        "failure": r.text("failure"),
        "milliseconds": r.milliseconds,
        "receivedBytes": r.seen.get("received"),
        "sentBytes": r.seen.get("sent"),
        "attempts": r.seen.get("attempts"),
        "route": r.route,
        "cluster": r.text("cluster"),
        "objects": r.objects,
        keys.REQUEST_HEADERS: r.seen.get(keys.REQUEST_HEADERS),
        keys.RESPONSE_HEADERS: r.seen.get(keys.RESPONSE_HEADERS),
        keys.REQUEST_BODY: r.seen.get(keys.REQUEST_BODY),
        keys.RESPONSE_BODY: r.seen.get(keys.RESPONSE_BODY),
    }
    return {k: v for k, v in found.items() if v not in ("", None)}


def _peer(p: Peer, **more: str) -> Json:
    return {k: v for k, v in (p._asdict() | more).items() if v}
